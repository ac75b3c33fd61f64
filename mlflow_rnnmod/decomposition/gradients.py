"""What a label's log-odds owe to every unit: backward through time, written out.

A whole-sequence kernel shows what the layers above make of a unit's output, not what its own layer
makes of it at later steps. Autograd over single steps shows both, and takes many small operations
for each. Here every layer runs forward once, keeps what it needs for going back, and goes back once
for the own label and the rival together.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mlflow_rnnmod.decomposition.module import all_log_odds
from mlflow_rnnmod.decomposition.tapes import Tape, make_tape
from mlflow_rnnmod.network.config import DIRECTIONS
from mlflow_rnnmod.network.network import ACTIVATION_FUNCTIONS, RecurrentNetwork, States
from mlflow_rnnmod.network.rows import Rows


def watch(network: RecurrentNetwork, rows: Rows, sides: Tensor) -> tuple[States, dict[str, Tensor]]:
    """Run a network, and square the derivatives of log-odds by its units' outputs.

    Derivatives are total: through later steps, through the layers above, and through the output.

    Args:
        network: unmasked.
        rows: the batch.
        sides: int64 ``(sides, rows)``, of which labels.

    Returns:
        the states, as :meth:`RecurrentNetwork.states` gives them, and for each maskable layer the
        squares, summed over the valid steps of each row, ``(sides, rows, units)``.
    """
    config = network.config
    lengths, steps = network.spans(rows)
    valid = network.valid(lengths, steps)
    layers, tapes = _forward(network, rows, lengths, valid)
    slopes, readout, dense = _from_above(network, layers, lengths, valid, sides)
    found = {name: slopes[name] ** 2 for name in slopes if name.startswith("hidden")}
    for index in reversed(range(len(config.recurrent))):
        below = config.inputs_of(index)
        reaching: Tensor | None = None
        for d in range(len(config.recurrent[index])):
            name = f"recurrent.{index}.{DIRECTIONS[d]}"
            above = slopes[name]
            if config.packed:  # outputs at padding are dropped
                above = above * valid[..., None]
            ordered = _in_order(network, above.flatten(0, 1), lengths, d)
            total, inputs = tapes[name].back(ordered, bool(below))
            seen = _in_order(network, valid[..., None], lengths, d)[:, None]
            total = total.unflatten(1, sides.shape)
            found[name] = total.square_().mul_(seen).sum(0)
            if inputs is not None:
                moved = inputs.transpose(0, 1)
                if d:
                    moved = network.reverse(moved, lengths.repeat(len(sides)))
                reaching = moved if reaching is None else reaching + moved
        if reaching is not None:
            sizes = [config.units[name] for name in below]
            parts = reaching.unflatten(0, sides.shape).split(sizes, dim=-1)
            slopes.update(zip(below, parts, strict=True))
    return States({**layers, **dense}, valid, readout, {}), found


def _in_order(network: RecurrentNetwork, values: Tensor, lengths: Tensor, direction: int) -> Tensor:
    """``(steps, rows, ...)``, in the order in which a direction takes the steps."""
    if direction:
        values = network.reverse(values, lengths.repeat(len(values) // len(lengths)))
    return values.transpose(0, 1)


def _forward(
    network: RecurrentNetwork, rows: Rows, lengths: Tensor, valid: Tensor
) -> tuple[dict[str, Tensor], dict[str, Tape]]:
    """Outputs of the recurrent layers, ``(rows, steps, units)``, and their tapes."""
    config = network.config
    layers: dict[str, Tensor] = {}
    tapes: dict[str, Tape] = {}
    x = network.feed(rows)
    for index in range(len(config.recurrent)):
        parts = []
        for d in range(len(config.recurrent[index])):
            name = f"recurrent.{index}.{DIRECTIONS[d]}"
            tapes[name] = make_tape(config.cell, network.cell(index, DIRECTIONS[d]))
            out = tapes[name].run(_in_order(network, x, lengths, d)).transpose(0, 1)
            if d:
                out = network.reverse(out, lengths)
            if config.packed:
                out = out * valid[..., None]
            layers[name] = out
            parts.append(out)
        x = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
    return layers, tapes


def _from_above(
    network: RecurrentNetwork,
    layers: dict[str, Tensor],
    lengths: Tensor,
    valid: Tensor,
    sides: Tensor,
) -> tuple[dict[str, Tensor], Tensor, dict[str, Tensor]]:
    """Derivatives by the outputs of the last recurrent layer, and total ones by dense layers'.

    Returns:
        ``(sides, rows, steps, units)`` by direction and ``(sides, rows, units)`` by dense layer;
        the readout; and the dense layers' outputs.
    """
    config = network.config
    names = list(config.inputs_of(len(config.recurrent)))
    dense: dict[str, Tensor] = {}
    with torch.enable_grad():
        leaves = [layers[name].detach().requires_grad_() for name in names]
        x = leaves[0] if len(leaves) == 1 else torch.cat(leaves, dim=-1)
        readout = network.read(leaves, x, lengths, valid)
        for i, spec in enumerate(config.hidden):
            readout = ACTIVATION_FUNCTIONS[spec.activation](network.dense(i)(readout))
            dense[f"hidden.{i}"] = readout.detach()
            leaves.append(torch.zeros_like(readout).requires_grad_())
            names.append(f"hidden.{i}")
            readout = readout + leaves[-1]
        odds = all_log_odds(network.logits(readout))
        found = [
            torch.autograd.grad(odds.gather(1, side[:, None]).sum(), leaves, retain_graph=True)
            for side in sides
        ]
    slopes = {name: torch.stack([side[i] for side in found]) for i, name in enumerate(names)}
    return slopes, readout.detach(), dense
