"""What the gates of a network's units do, at every step."""

from __future__ import annotations

import torch
from torch import Tensor

from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.networks.recurrent.config import DIRECTIONS, cell_weights
from mlflow_rnnmod.networks.recurrent.layers import RecurrentLayers
from mlflow_rnnmod.networks.recurrent.slots import CELL_GATES

_FUNCTIONS = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": torch.relu}


@torch.no_grad()
def gate_activations(network: RecurrentLayers, rows: Rows) -> dict[str, Tensor]:
    """The activation of every gate of every recurrent unit, after its nonlinearity.

    Returns:
        for each direction of each recurrent layer, float ``(rows, steps, gates, units)``; gates in
        PyTorch's order (LSTM i, f, g, o; GRU r, z, n; a plain cell's output is its one gate). At
        steps that a packed network skips they are 0.

    Example:
        >>> from mlflow_rnnmod.networks.recurrent.config import NetworkConfig
        >>> config = NetworkConfig("features", 3, None, "gru", ((4,),), ("a", "b"))
        >>> found = gate_activations(RecurrentLayers(config), Rows(torch.randn(2, 5, 3)))
        >>> found["recurrent.0.fwd"].shape
        torch.Size([2, 5, 3, 4])
    """
    config = network.config
    states = network.states(rows)
    lengths, _ = network.spans(rows)
    x = network.feed(rows)
    found = {}
    for index, layer in enumerate(config.recurrent):
        names = [f"recurrent.{index}.{direction}" for direction in DIRECTIONS[: len(layer)]]
        for d, name in enumerate(names):
            weights = cell_weights(network.cell(index, DIRECTIONS[d]))
            outputs = states.layers[name]
            inputs, ran = x, outputs
            if d:
                inputs, ran = network.reverse(x, lengths), network.reverse(outputs, lengths)
            # Outputs are known, so all steps' gates come at once.
            before = torch.cat([torch.zeros_like(ran[:, :1]), ran[:, :-1]], dim=1)
            gates = _gates(config.cell, inputs, before, *weights)
            if d:
                gates = network.reverse(gates.flatten(2), lengths).view_as(gates)
            found[name] = gates * states.valid[..., None, None] if config.packed else gates
        x = torch.cat([states.layers[name] for name in names], dim=-1)
    return found


def _gates(
    cell: str,
    inputs: Tensor,
    before: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor,
    bias_hh: Tensor,
) -> Tensor:
    """``(rows, steps, gates, units)`` from what each step reads."""
    units = before.shape[-1]
    given = torch.nn.functional.linear(inputs, weight_ih, bias_ih).unflatten(-1, (-1, units))
    state = torch.nn.functional.linear(before, weight_hh, bias_hh).unflatten(-1, (-1, units))
    values = (given + state).unbind(dim=2)
    pairs = zip(CELL_GATES[cell], values, strict=True)
    found = [_FUNCTIONS[gate.function](value) for gate, value in pairs]
    if cell == "gru":
        found[2] = torch.tanh(given[:, :, 2] + found[0] * state[:, :, 2])
    return torch.stack(found, dim=2)
