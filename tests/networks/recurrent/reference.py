"""A slow network to check ours against: one row, one step, one PyTorch cell after the other.

At each step, and before the first, removed units are set to their guess: a constant and a weighted
sum of the kept units of their layer, which is what a trunk means.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mlflow_rnnmod.networks import RecurrentNetwork, Rows, Trunk


def make_cell(cell: str, layer: nn.RNNBase) -> nn.RNNCellBase:
    """PyTorch's one-step cell with the weights of a whole-sequence layer."""
    if cell.startswith("rnn_"):
        one = nn.RNNCell(layer.input_size, layer.hidden_size, nonlinearity=cell[4:])
    else:
        kind = nn.LSTMCell if cell == "lstm" else nn.GRUCell
        one = kind(layer.input_size, layer.hidden_size)
    one.to(layer.weight_hh_l0.dtype)
    one.load_state_dict({name.removesuffix("_l0"): w for name, w in layer.state_dict().items()})
    return one


def guessed(outputs: Tensor, trunk: Trunk, name: str) -> Tensor:
    """``outputs`` ``(rows, units)`` with removed units' in place."""
    keep, constants = trunk.keep[name], trunk.fold[name].to(outputs.dtype)
    columns = [outputs[:, u] for u in range(len(keep))]
    for u in range(len(keep)):
        if not keep[u]:
            columns[u] = constants[u].expand(len(outputs))
            for v in range(len(keep)):
                if keep[v] and name in trunk.mix:
                    columns[u] = columns[u] + float(trunk.mix[name][u, v]) * outputs[:, v]
    return torch.stack(columns, dim=1)


def run_direction(
    cell: str,
    layer: nn.RNNBase,
    sequence: Tensor,
    backward: bool,
    trunk: Trunk,
    name: str,
    added: Tensor | None = None,
) -> Tensor:
    """Outputs ``(steps, units)`` of layer ``name`` over a sequence ``(steps, size)``.

    ``added`` ``(steps, units)`` is added to each step's output, for gradients.
    """
    one = make_cell(cell, layer)
    h = guessed(sequence.new_zeros(1, layer.hidden_size), trunk, name)
    c = torch.zeros_like(h)
    order = range(len(sequence))
    outputs: dict[int, Tensor] = {}
    for t in reversed(order) if backward else order:
        if cell == "lstm":
            h, c = one(sequence[t][None], (h, c))
        else:
            h = one(sequence[t][None], h)
        h = guessed(h, trunk, name)
        if added is not None:
            h = h + added[t]
        outputs[t] = h[0]
    return torch.stack([outputs[t] for t in order])


def reference_readout(
    network: RecurrentNetwork,
    rows: Rows,
    trunk: Trunk | None = None,
    added: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """The readout of each row, ``(rows, readout size)``; ``rows`` must hold lengths.

    With a step dimension behind the rows' where the network answers each step.
    """
    trunk = trunk or Trunk.whole(network.units)
    assert rows.lengths is not None
    found = []
    for row, (values, length) in enumerate(zip(rows.values, rows.lengths.tolist(), strict=True)):
        own = {name: tensor[row] for name, tensor in (added or {}).items()}
        found.append(_one_row(network, values, max(length, 1), trunk, own))
    return torch.stack(found)


def _one_row(
    network: RecurrentNetwork,
    values: Tensor,
    length: int,
    trunk: Trunk,
    added: Mapping[str, Tensor],
) -> Tensor:
    config = network.config
    steps = len(values)
    x = values.to(network.dtype) if network.embedding is None else network.embedding(values)
    if config.packed:
        x = x[:length]
    if config.feed != "steps":  # the whole input at once, as often as there are steps
        steps = length = 1 if config.feed == "flat" else config.output_steps
        x = torch.stack([torch.cat(list(x))] * steps)
    for i, layer in enumerate(config.recurrent):
        parts, constants = [], []
        for direction in ("fwd", "bwd")[: len(layer)]:
            name = f"recurrent.{i}.{direction}"
            parts.append(
                run_direction(
                    config.cell,
                    network.cell(i, direction),
                    x,
                    direction == "bwd",
                    trunk,
                    name,
                    added.get(name),
                )
            )
            constants.append(trunk.fold[name].to(x.dtype))
        x = torch.cat(parts, dim=1)
    filler = torch.cat(constants).expand(steps - len(x), -1)  # what padding leaves when packed
    parts = [
        torch.cat([part, rest])
        for part, rest in zip(parts, filler.split([p.shape[1] for p in parts], 1), strict=True)
    ]
    readout = _read(config.readout, config.side, config.packed, parts, length)
    for i, (dense, spec) in enumerate(zip(network.hidden, config.hidden, strict=True)):
        act = {"relu": torch.relu, "tanh": torch.tanh, "identity": nn.Identity()}[spec.activation]
        readout = act(dense(readout))
        readout = guessed(torch.atleast_2d(readout), trunk, f"hidden.{i}").view_as(readout)
        if f"hidden.{i}" in added:
            readout = readout + added[f"hidden.{i}"]
    return readout


def _read(readout: str, side: str, packed: bool, parts: list[Tensor], length: int) -> Tensor:
    x = torch.cat(parts, dim=1)
    steps = len(x)
    valid = slice(0, length) if side == "right" else slice(steps - length, steps)
    last = length - 1 if side == "right" else steps - 1
    if readout == "final_state":
        end = last if packed else steps - 1
        return torch.cat([parts[0][end], *(part[0] for part in parts[1:])])
    return {
        "all_steps": lambda: x,
        "last_step": lambda: x[-1],
        "last_valid": lambda: x[last],
        "mean_steps": lambda: x.mean(0),
        "max_steps": lambda: x.max(0).values,
        "mean_valid": lambda: x[valid].mean(0),
        "max_valid": lambda: x[valid].max(0).values,
    }[readout]()
