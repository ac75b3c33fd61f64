"""Recurrent layers, a node for each direction of each layer; and packing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import rnn

from mlflow_rnnmod.networks.graph.calls.base import ROWS, UNITS, Called, NotCovered, Rows
from mlflow_rnnmod.networks.graph.sequences.shaping import part_of
from mlflow_rnnmod.networks.graph.sequences.values import (
    STEPS,
    Dim,
    Factor,
    Stepped,
    stepped,
    units_at,
    value,
)
from mlflow_rnnmod.networks.recurrent.weights import cell_tensors


@dataclass(frozen=True)
class Packed:
    """Steps with their lengths, as ``pack_padded_sequence`` gives them.

    Args:
        made: the steps, ``(rows, steps, units)`` in the user's code or steps first.
        lengths: of each row.
    """

    made: Stepped
    lengths: Stepped


def _pack(call: Called) -> Packed:
    """Rows with lengths; where they are sorted it does not matter here."""
    call.plain("lengths", "batch_first", "enforce_sorted")
    made, lengths = stepped(call), call.given(1, "lengths")
    first = bool(call.constant(2, "batch_first", False))
    if not isinstance(lengths, Stepped):
        raise NotCovered("its lengths do not depend on the input")
    if {f.axis for dim in lengths.dims for f in dim} != {ROWS}:
        raise NotCovered(f"its lengths are of shape {lengths.shape}")
    rows, steps = (0, 1) if first else (1, 0)
    if lengths.dims[0] != made.dims[rows]:
        raise NotCovered("its lengths are of rows in another order")
    if made.axis(rows) != ROWS or made.axis(steps) != STEPS:
        raise NotCovered(f"it packs {made.shape} with batch_first={first}")
    return Packed(made if first else _swapped(made), lengths)


def _swapped(made: Stepped) -> Stepped:
    return value(made.name, [made.dims[1], made.dims[0], *made.dims[2:]])


def _pad(call: Called) -> tuple[Stepped, Stepped]:
    """Steps as they were before they were packed; behind its length a row is zeros."""
    call.plain("sequence", "batch_first", "padding_value", "total_length")
    packed = call.args[0] if call.args else call.kwargs["sequence"]
    if not isinstance(packed, Packed):
        raise NotCovered("what it pads was not packed here")
    first = bool(call.constant(1, "batch_first", False))
    if float(call.constant(2, "padding_value", 0.0)) != 0.0:
        raise NotCovered("it pads with other numbers than 0")
    steps = call.found[0].shape[1 if first else 0]
    dims: list[Dim] = list(packed.made.dims)
    dims[1] = (Factor(STEPS, steps),)
    made = value(packed.made.name, dims)
    return made if first else _swapped(made), packed.lengths


def _cell(call: Called) -> Any:
    """Recurrent layers: a node for each direction of each layer."""
    part = call.module
    given, start = call.given(0, "input"), call.given(1, "hx")
    packed = isinstance(given, Packed)
    made = given.made if packed else given
    if not isinstance(made, Stepped):
        raise NotCovered("its first argument does not depend on the input")
    if not packed and len(made.dims) == 3 and not part.batch_first:
        made = _swapped(made)
    if len(made.dims) != 3 or made.axis(0) != ROWS or made.axis(1) != STEPS:
        order = "rows, steps" if part.batch_first else "steps, rows"
        raise NotCovered(
            f"it reads {given.shape if not packed else made.shape}, not ({order}, units)"
        )
    name, steps = units_at(call, made, 2), made.shape[1]
    lengths = given.lengths.name if packed else None
    starts = _starts(call, part, start)
    lstm = part.mode == "LSTM"
    ends = lstm and _wants_cells(call)
    size = part.proj_size if lstm and part.proj_size else part.hidden_size
    states: list[str] = []
    cells: list[str] = []
    index = 0
    for layer in range(part.num_layers):
        outputs = []
        for direction in ("fwd", "bwd")[: 2 if part.bidirectional else 1]:
            one = _one_cell(call, part, layer, direction, name, lengths, starts[index], ends, steps)
            index += 1
            if ends:
                cells.append(call.node("step", one, (size,), {"index": -1}))
                settings = {"start": 0, "stop": -1}
                one = call.node("cut", one, (size, steps), settings)
            outputs.append(one)
            states.append(_last(call, one, size, direction, lengths))
        name = outputs[0] if len(outputs) == 1 else call.node("concat", outputs, (size * 2, steps))
    units = size * (2 if part.bidirectional else 1)
    dims = [made.dims[0], made.dims[1], (Factor(UNITS, units),)]
    out: Any = value(name, dims)
    if packed:
        out = Packed(out, given.lengths)
    elif not part.batch_first:
        out = _swapped(out)
    state = _layers(call, states, size, made.dims[0])
    if not lstm:
        return out, state
    unread = NotCovered("cell states of projected LSTMs are not covered", call.line)
    return out, (state, _layers(call, cells, size, made.dims[0]) if ends else unread)


def _wants_cells(call: Called) -> bool:
    """Whether anybody asks for the last cells."""
    return call.wanted("cells") and not call.module.proj_size


def _one_cell(
    call: Called,
    part: Any,
    layer: int,
    direction: str,
    name: str,
    lengths: str | None,
    starts: Sequence[str],
    ends: bool,
    steps: int,
) -> str:
    """A node for one direction of one layer."""
    size = getattr(part, "proj_size", 0) or part.hidden_size
    settings = {
        "units": size,
        "cells": part.hidden_size if getattr(part, "proj_size", 0) else 0,
        "backward": direction == "bwd",
        "packed": lengths is not None,
        "starts": bool(starts),
        "ends": ends,
    }
    weights = cell_tensors(part, layer, direction)
    if settings["cells"]:
        suffix = f"_l{layer}" + ("_reverse" if direction == "bwd" else "")
        weights["weight_hr"] = getattr(part, "weight_hr" + suffix)
    order = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
    inputs = [name, *([lengths] if lengths else []), *starts]
    shape = (size, steps + ends)
    own = {key: weights[key] for key in order if key in weights}
    return call.node(part.mode.lower(), inputs, shape, settings, own)


def _last(call: Called, name: str, size: int, direction: str, lengths: str | None) -> str:
    """The state that a direction ends with."""
    draft = call.draft
    if direction == "bwd" or lengths is None:
        return call.node("step", name, (size,), {"index": 0 if direction == "bwd" else -1})
    ones = torch.ones(1, dtype=torch.float64, device=draft.device)
    number = draft.affine(lengths, ones, -ones, call.line)
    draft.whole.add(number)
    return call.node("gather", [name, number], (size,))


def _layers(call: Called, names: Sequence[str], size: int, rows: Dim) -> Stepped:
    """States of all layers and directions, ``(layers, rows, units)`` in the user's code."""
    count = len(names)
    name = names[0] if count == 1 else call.node("concat", names, (count * size,))
    return value(name, [(Factor(UNITS, count, size),), rows, (Factor(UNITS, size),)])


def _starts(call: Called, part: Any, start: Any) -> list[tuple[str, ...]]:
    """First states of each layer and direction: nodes, or none where they are zeros."""
    count = part.num_layers * (2 if part.bidirectional else 1)
    if start is None:
        return [()] * count
    states = start if isinstance(start, tuple | list) else (start,)
    zeros = [isinstance(s, Tensor) and not bool(s.any()) for s in states]
    if all(zeros) and not any(call.learned(s) for s in states):
        return [()] * count
    if getattr(part, "proj_size", 0):
        raise NotCovered("first states of a projected LSTM")
    found: list[list[str]] = []
    for state in states:
        found.append([_start(call, state, i, part.hidden_size) for i in range(count)])
    return list(zip(*found, strict=True))


def _start(call: Called, state: Any, index: int, size: int) -> str:
    """The node of one layer's first state."""
    if isinstance(state, Stepped):
        one = part_of(call, state, 0, index)
        if len(one.dims) != 2 or one.axis(0) != ROWS:
            raise NotCovered(f"its first states have shape {state.shape}")
        return units_at(call, one, 1)
    if isinstance(state, Tensor):
        own = state[index]
        if own.ndim != 2 or not bool((own == own[:1]).all()):
            raise NotCovered("its first states differ from row to row")
        return call.node("constant", [], (size,), {"shape": [size]}, {"value": own[0]})
    raise NotCovered("its first states are not covered")


ROWS_OF_CALLS: Rows = (
    (_pack, (rnn.pack_padded_sequence,)),
    (_pad, (rnn.pad_packed_sequence,)),
    (_cell, (nn.RNN, nn.LSTM, nn.GRU)),
)
