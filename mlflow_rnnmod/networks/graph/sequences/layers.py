"""Submodules over steps: embeddings, dense layers, norms, convolutions, cells and packing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import rnn

from mlflow_rnnmod.networks.graph.calls.base import ROWS, UNITS, Called, NotCovered, Rows
from mlflow_rnnmod.networks.graph.draft import Drafted
from mlflow_rnnmod.networks.graph.sequences.arithmetic import scaled
from mlflow_rnnmod.networks.graph.sequences.products import product
from mlflow_rnnmod.networks.graph.sequences.shaping import part_of, stepped
from mlflow_rnnmod.networks.graph.sequences.values import (
    STEPS,
    Dim,
    Factor,
    Stepped,
    renamed,
    units_at,
    value,
    whole,
)
from mlflow_rnnmod.networks.recurrent.weights import cell_tensors, embedding_weight


@dataclass(frozen=True)
class Packed:
    """Steps with their lengths, as ``pack_padded_sequence`` gives them.

    Args:
        made: the steps, ``(rows, steps, units)`` in the user's code or steps first.
        lengths: of each row.
    """

    made: Stepped
    lengths: Stepped


def _tokens(call: Called, made: Stepped) -> None:
    node = call.draft.nodes[made.name]
    if node.shape[0] != 1 or made.name not in call.draft.whole or made.find(UNITS) is not None:
        raise NotCovered(f"it reads {made.shape}, not token ids")


def _embedding(call: Called) -> Stepped:
    made = stepped(call)
    part = call.module
    if part is not None:
        weight = embedding_weight(part)
    else:
        call.plain("weight", "padding_idx", "sparse", "scale_grad_by_freq")
        weight = call.constant(1, "weight")
        if call.constant(3, "max_norm") is not None:
            raise NotCovered("it shortens its rows")
    _tokens(call, made)
    tokens, units = weight.shape
    shape = (units, *call.draft.nodes[made.name].shape[1:])
    settings = {"units": units, "tokens": tokens}
    node = Drafted("embedding", [made.name], shape, settings, {"weight": weight}, call.line)
    return value(call.draft.add(node), [*made.dims, (Factor(UNITS, units),)])


def _one_hot(call: Called) -> Stepped:
    made, count = stepped(call), call.constant(1, "num_classes", -1)
    _tokens(call, made)
    if count < 1:
        raise NotCovered("how many classes there are depends on the input; expected num_classes=")
    shape = (count, *call.draft.nodes[made.name].shape[1:])
    node = Drafted("one_hot", [made.name], shape, {"units": count}, {}, call.line)
    name = call.draft.add(node)
    call.draft.whole.add(name)
    return value(name, [*made.dims, (Factor(UNITS, count),)])


def _linear(call: Called) -> Stepped:
    call.plain("weight", "bias")
    if call.module is not None:
        weight, bias = call.module.weight, call.module.bias
    else:
        weight, bias = call.constant(1, "weight"), call.constant(2, "bias")
    return product(call, stepped(call), weight, bias)


def _layer_norm(call: Called) -> Stepped:
    made, part = stepped(call), call.module
    if part is not None:
        shape, weight, bias, eps = part.normalized_shape, part.weight, part.bias, part.eps
    else:
        call.plain("normalized_shape", "weight", "bias", "eps")
        names = (("normalized_shape", None), ("weight", None), ("bias", None), ("eps", 1e-5))
        shape, weight, bias, eps = (
            call.constant(1 + at, name, default) for at, (name, default) in enumerate(names)
        )
    if len(tuple(shape)) != 1:
        raise NotCovered(f"it goes over {tuple(shape)}, more than units")
    name = units_at(call, made, -1)
    node = call.draft.nodes[name]
    ones = torch.ones(node.shape[0], dtype=torch.float64, device=call.draft.device)
    weights = {
        "scale": ones if weight is None else weight,
        "shift": torch.zeros_like(ones) if bias is None else bias,
    }
    drafted = Drafted("layer_norm", [name], node.shape, {"eps": eps}, weights, call.line)
    return renamed(
        value(name, [*made.dims[:-1], (Factor(UNITS, len(ones)),)]), call.draft.add(drafted)
    )


def _batch_norm(call: Called) -> Stepped:
    """In evaluation mode: a scale and a shift of each unit, which stand in the second dimension."""
    made, part = stepped(call), call.module
    if part is not None:
        mean, var, weight, bias = part.running_mean, part.running_var, part.weight, part.bias
        eps = part.eps
    else:
        names = ("running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
        call.plain(*names)
        mean, var, weight, bias, training, _, eps = (
            call.constant(1 + at, name, default)
            for at, (name, default) in enumerate(
                zip(names, (None, None, None, None, False, 0.1, 1e-5), strict=True)
            )
        )
        mean, var = (None, None) if training else (mean, var)
    if mean is None or var is None:
        raise NotCovered(
            "it has no running statistics, so that a row's answer depends on the rows beside it"
        )
    name = units_at(call, made, 1)
    if len(mean) != call.draft.nodes[name].shape[0]:
        raise NotCovered(f"it reads {made.shape}")
    scale = (var.double() + eps).rsqrt()
    scale = scale if weight is None else scale * weight.double()
    shift = -mean.double() * scale
    shift = shift if bias is None else shift + bias.double()
    dims = list(made.dims)
    dims[1] = (Factor(UNITS, len(scale)),)
    return scaled(call, value(name, dims), scale, shift)


def _convolution(call: Called) -> Stepped:
    """Over steps, which are the last dimension behind units."""
    made, part = stepped(call), call.module
    if part is not None and part.padding_mode not in ("zeros", "reflect", "replicate", "circular"):
        raise NotCovered(f"its padding_mode {part.padding_mode!r}")
    weight, bias = call.setting(1, "weight"), call.setting(2, "bias")
    flat = weight.ndim == 4
    if flat:
        made, weight = _without_width(made, weight, call)
    stride, dilation = (
        _first(call.setting(at, key, 1)) for at, key in ((3, "stride"), (5, "dilation"))
    )
    around = call.setting(4, "padding", 0)
    kernel, groups = weight.shape[2], call.setting(6, "groups", 1)
    if around == "same":
        total = dilation * (kernel - 1)
        border = [total // 2, total - total // 2]
    else:
        border = [0, 0] if around == "valid" else [_first(around)] * 2
    if made.axis(-1) != STEPS or len(made.dims) != 3 or made.axis(0) != ROWS:
        raise NotCovered(f"it reads {made.shape}, not (rows, units, steps)")
    name = units_at(call, made, 1)
    units = call.draft.nodes[name].shape[0]
    settings: dict[str, Any] = {
        "units": len(weight),
        "kernel": [kernel],
        "stride": [stride],
        "dilation": [dilation],
        "padding": [border],
        "mode": "zeros" if part is None else part.padding_mode,
    }
    op = "conv" if groups == 1 else "depthwise" if groups == units else "grouped_conv"
    if op == "grouped_conv":
        settings["groups"] = groups
    bias = weight.new_zeros(len(weight)) if bias is None else bias
    shape = (len(weight), call.shape[2])
    node = Drafted(op, [name], shape, settings, {"weight": weight, "bias": bias}, call.line)
    found = whole(call.draft, call.draft.add(node), (ROWS, UNITS, STEPS))
    return value(found.name, [*found.dims, ()]) if flat else found


def _without_width(made: Stepped, weight: Tensor, call: Called) -> tuple[Stepped, Tensor]:
    """A two-dimensional convolution over ``(rows, 1, steps, units)`` as wide as all units."""
    plain = {
        _first(call.setting(at, key, d), 1) for at, key, d in ((3, "stride", 1), (5, "dilation", 1))
    }
    around = _first(call.setting(4, "padding", 0), 1)
    fits = (
        len(made.dims) == 4
        and made.shape[1] == 1
        and made.axis(2) == STEPS
        and weight.shape[3] == made.shape[3]
        and plain == {1}
        and around in (0, "valid")
    )
    if not fits:
        raise NotCovered(f"it reads {made.shape}; expected a kernel as wide as all units")
    turned = value(made.name, [made.dims[0], made.dims[3], made.dims[2]])
    return turned, weight[:, 0].transpose(1, 2)


def _first(given: Any, at: int = 0) -> Any:
    return given[at] if isinstance(given, tuple | list) else given


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
                cells.append(_end(call, one, size))
                settings = {"start": 0, "stop": -1}
                one = call.draft.add(Drafted("cut", [one], (size, steps), settings, {}, call.line))
            outputs.append(one)
            states.append(_last(call, one, size, direction, lengths))
        name = outputs[0] if len(outputs) == 1 else _joined(call, outputs, (size * 2, steps))
    units = size * (2 if part.bidirectional else 1)
    dims = [made.dims[0], made.dims[1], (Factor(UNITS, units),)]
    out: Any = value(name, dims)
    if packed:
        out = Packed(out, given.lengths)
    elif not part.batch_first:
        out = _swapped(out)
    state = _layers(call, states, size)
    if not lstm:
        return out, state
    unread = NotCovered("cell states of projected LSTMs are not covered", call.line)
    return out, (state, _layers(call, cells, size) if ends else unread)


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
    return call.draft.add(Drafted(part.mode.lower(), inputs, shape, settings, own, call.line))


def _last(call: Called, name: str, size: int, direction: str, lengths: str | None) -> str:
    """The state that a direction ends with."""
    draft = call.draft
    if direction == "bwd":
        return draft.add(Drafted("step", [name], (size,), {"index": 0}, {}, call.line))
    if lengths is None:
        return draft.add(Drafted("step", [name], (size,), {"index": -1}, {}, call.line))
    ones = torch.ones(1, dtype=torch.float64, device=draft.device)
    number = draft.affine(lengths, ones, -ones, call.line)
    draft.whole.add(number)
    return draft.add(Drafted("gather", [name, number], (size,), {}, {}, call.line))


def _end(call: Called, name: str, size: int) -> str:
    return call.draft.add(Drafted("step", [name], (size,), {"index": -1}, {}, call.line))


def _joined(call: Called, names: Sequence[str], shape: tuple[int, ...]) -> str:
    return call.draft.add(Drafted("concat", list(names), shape, {}, {}, call.line))


def _layers(call: Called, names: Sequence[str], size: int) -> Stepped:
    """States of all layers and directions, ``(layers, rows, units)`` in the user's code."""
    count = len(names)
    name = names[0] if count == 1 else _joined(call, names, (count * size,))
    rows = (Factor(ROWS, call.draft.rows),)
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
        node = Drafted("constant", [], (size,), {"shape": [size]}, {"value": own[0]}, call.line)
        return call.draft.add(node)
    raise NotCovered("its first states are not covered")


_CONVOLUTIONS = (nn.Conv1d, functional.conv1d, torch.conv1d, nn.Conv2d, functional.conv2d)
ROWS_OF_CALLS: Rows = (
    (_embedding, (nn.Embedding, functional.embedding)),
    (_one_hot, (functional.one_hot, torch.nn.functional.one_hot)),
    (_linear, (nn.Linear, functional.linear)),
    (_layer_norm, (nn.LayerNorm, functional.layer_norm)),
    (_batch_norm, (nn.BatchNorm1d, nn.SyncBatchNorm, functional.batch_norm)),
    (_convolution, _CONVOLUTIONS),
    (_pack, (rnn.pack_padded_sequence,)),
    (_pad, (rnn.pad_packed_sequence,)),
    (_cell, (nn.RNN, nn.LSTM, nn.GRU)),
)
