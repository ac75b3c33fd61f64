"""What masks for single steps and gates mean, as slowly and plainly as possible.

One row, one step, one unit, one gate after the other. At each step the weights are copied, rows of
what is removed at that step are zeroed in the copies, and the step is computed with them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mlflow_rnnmod.networks import RecurrentNetwork, Rows, Trunk
from tests.networks.recurrent.reference import _read

GATES = {"rnn_tanh": "h", "rnn_relu": "h", "lstm": "ifgo", "gru": "rzn"}


def mask_number(position: int, steps: int, length: int, side: str, masks: int) -> int:
    """Which mask the input at a position has: counted from the first valid step."""
    first_valid = steps - length if side == "left" else 0
    return min(max(position - first_valid, 0), masks - 1)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


def removed(trunk: Trunk, name: str, number: int, gate: int, unit: int) -> bool:
    mask = trunk.keep[name]
    if trunk.variant == "unrolled":
        mask = mask[number]
    if trunk.gates == "separate":
        mask = mask[gate]
    return not bool(mask[unit])


def constant(trunk: Trunk, name: str, number: int, gate: int, unit: int) -> float:
    fold = trunk.fold[name]
    if trunk.variant == "unrolled":
        fold = fold[number]
    if trunk.gates == "separate":
        fold = fold[gate]
    return float(fold[unit])


def one_step(
    cell: str,
    layer: nn.RNNBase,
    trunk: Trunk,
    name: str,
    number: int,
    x: Tensor,
    read: Tensor,
    carried: Tensor,
) -> tuple[Tensor, Tensor]:
    """Outputs and what is carried on, both ``(units,)``, of a step with mask ``number``."""
    units, letters = layer.hidden_size, GATES[cell]
    weight_ih, weight_hh = layer.weight_ih_l0.clone(), layer.weight_hh_l0.clone()
    bias_ih, bias_hh = layer.bias_ih_l0.clone(), layer.bias_hh_l0.clone()
    for gate in range(len(letters)):
        for unit in range(units):
            if removed(trunk, name, number, gate, unit):
                row = gate * units + unit
                for tensor in (weight_ih, weight_hh, bias_ih, bias_hh):
                    tensor[row] = 0.0
                if trunk.gates == "separate":
                    bias_ih[row] = constant(trunk, name, number, gate, unit)
    by_input, by_state = weight_ih @ x + bias_ih, weight_hh @ read + bias_hh
    outputs, next_carried = [], []
    for unit in range(units):
        a = {g: float(by_input[k * units + unit]) for k, g in enumerate(letters)}
        s = {g: float(by_state[k * units + unit]) for k, g in enumerate(letters)}
        before = float(carried[unit])
        if cell == "lstm":
            c = sigmoid(a["f"] + s["f"]) * before
            c += sigmoid(a["i"] + s["i"]) * math.tanh(a["g"] + s["g"])
            outputs.append(sigmoid(a["o"] + s["o"]) * math.tanh(c))
            next_carried.append(c)
        elif cell == "gru":
            r, z = sigmoid(a["r"] + s["r"]), sigmoid(a["z"] + s["z"])
            n = math.tanh(a["n"] + r * s["n"])
            outputs.append((1 - z) * n + z * before)
            next_carried.append(outputs[-1])
        else:
            total = a["h"] + s["h"]
            outputs.append(math.tanh(total) if cell == "rnn_tanh" else max(total, 0.0))
            next_carried.append(0.0)
    return torch.tensor(outputs, dtype=x.dtype), torch.tensor(next_carried, dtype=x.dtype)


def guessed(outputs: Tensor, trunk: Trunk, name: str, number: int) -> Tensor:
    """What others read: of units removed at that step, the constant (joint gates only)."""
    if trunk.gates == "separate" and not name.startswith("hidden"):
        return outputs
    mask, fold = trunk.keep[name], trunk.fold[name]
    if mask.ndim > 1:
        mask, fold = mask[number], fold[number]
    found = outputs.clone()
    for unit in range(len(mask)):
        if not mask[unit]:
            found[unit] = fold[unit]
    return found


def masked_readout(network: RecurrentNetwork, rows: Rows, trunk: Trunk) -> Tensor:
    """The readout of each row through a trunk; ``rows`` must hold lengths."""
    assert rows.lengths is not None
    pairs = zip(rows.values, rows.lengths.tolist(), strict=True)
    with torch.no_grad():
        return torch.stack([_one_row(network, v, max(n, 1), trunk) for v, n in pairs])


def _one_row(network: RecurrentNetwork, values: Tensor, length: int, trunk: Trunk) -> Tensor:
    config = network.config
    steps = len(values)
    x = values.to(network.dtype) if network.embedding is None else network.embedding(values)
    if config.feed != "steps":
        steps = length = 1 if config.feed == "flat" else config.output_steps
        x = torch.stack([torch.cat(list(x))] * steps)
    masks = trunk.steps or 1
    numbers = [mask_number(p, steps, length, config.side, masks) for p in range(steps)]
    run = range(length) if config.packed else range(steps)
    for i, layer in enumerate(config.recurrent):
        parts = []
        for direction in ("fwd", "bwd")[: len(layer)]:
            name, cell = f"recurrent.{i}.{direction}", network.cell(i, direction)
            read = carried = torch.zeros(cell.hidden_size, dtype=x.dtype)
            found: dict[int, Tensor] = {}
            for p in run if direction == "fwd" else reversed(run):
                out, carried = one_step(
                    config.cell, cell, trunk, name, numbers[p], x[p], read, carried
                )
                read = found[p] = guessed(out, trunk, name, numbers[p])
            for p in range(steps):
                if p not in found:  # skipped
                    nothing = torch.zeros(cell.hidden_size, dtype=x.dtype)
                    found[p] = guessed(nothing, trunk, name, numbers[p])
            parts.append(torch.stack([found[p] for p in range(steps)]))
        x = torch.cat(parts, dim=1)
    readout = _read(config.readout, config.side, config.packed, parts, length)
    for i, (dense, spec) in enumerate(zip(network.hidden, config.hidden, strict=True)):
        act = {"relu": torch.relu, "tanh": torch.tanh, "identity": nn.Identity()}[spec.activation]
        flat = act(dense(torch.atleast_2d(readout)))
        found = torch.stack([guessed(row, trunk, f"hidden.{i}", 0) for row in flat])
        readout = found.view(*readout.shape[:-1], -1)
    return readout
