"""Networks, rows and trunks for property tests."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from mlflow_rnnmod.answers import answer_of
from mlflow_rnnmod.networks import HiddenLayer, NetworkConfig, RecurrentNetwork, Rows, Trunk
from mlflow_rnnmod.networks.recurrent.config import CELLS, READOUTS

STEPS = 6
ONE_A_ROW = tuple(name for name in READOUTS if name != "all_steps")


@st.composite
def networks(
    draw: st.DrawFn,
    paddings: tuple[str, ...] = ("right", "left", "packed"),
    outputs: tuple[str, ...] = ("label",),
    readouts: tuple[str, ...] = ONE_A_ROW,
) -> RecurrentNetwork:
    """Small float64 networks of any structure, with weights large enough to matter."""
    layers = draw(st.integers(1, 3))
    output = draw(st.sampled_from(outputs))
    readout = "all_steps" if answer_of(output).stepwise else draw(st.sampled_from(readouts))
    feed = draw(st.sampled_from(["steps", "steps", "steps", "flat", "repeat"]))
    tokens, padding = draw(st.booleans()), draw(st.sampled_from(paddings))
    if paddings == ("packed",):
        feed = "steps"
    config = NetworkConfig(
        input="tokens" if tokens else "features",
        input_size=11 if tokens else 4,
        embedding_size=5 if tokens else None,
        cell=draw(st.sampled_from(CELLS)),
        recurrent=tuple(
            tuple(draw(st.integers(2, 5)) for _ in range(draw(st.integers(1, 2))))
            for _ in range(layers)
        ),
        labels=("a", "b", "c"),
        hidden=tuple(
            HiddenLayer(
                draw(st.integers(2, 5)), draw(st.sampled_from(["relu", "tanh", "identity"]))
            )
            for _ in range(draw(st.integers(0, 2)))
        ),
        readout=readout,
        output=output,
        pad_index=0 if tokens else None,
        side="left" if padding == "left" else "right",
        packed=padding == "packed" and feed == "steps",
        feed=feed,
        steps=None if feed == "steps" else STEPS,
        output_steps=3 if feed == "repeat" else None,
    )
    torch.manual_seed(draw(st.integers(0, 1000)))
    network = RecurrentNetwork(config).double()
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(1.5)
    return network


def random_rows(network: RecurrentNetwork, count: int = 5, steps: int = STEPS) -> Rows:
    """Random rows with lengths from 1 to ``steps``, drawn from PyTorch's random state."""
    lengths = torch.randint(1, steps + 1, (count,))
    lengths[0] = steps
    config = network.config
    if config.input == "features":
        values = torch.randn(count, steps, config.input_size, dtype=network.dtype)
        return network.prepare(Rows(values, lengths))
    values = torch.randint(1, config.input_size, (count, steps))
    return network.prepare(Rows(values * network.valid(lengths, steps), lengths))


def random_trunk(
    network: RecurrentNetwork, folded: bool, mixed: bool = False, removal: float = 0.4
) -> Trunk:
    """A trunk that keeps at least one unit of each layer, with random guesses where asked for."""
    keep, fold, mix = {}, {}, {}
    for name, units in network.units.items():
        keep[name] = torch.rand(units) > removal
        keep[name][torch.randint(units, ())] = True
        fold[name] = torch.randn(units) if folded else torch.zeros(units)
        mix[name] = 0.4 * torch.randn(units, units)
    return Trunk(keep, fold, mix if mixed else {})
