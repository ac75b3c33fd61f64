"""Submodules over steps: embeddings, dense layers, norms and convolutions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlflow_rnnmod.networks.graph.calls.affine import dense_of, norm_of
from mlflow_rnnmod.networks.graph.calls.base import ROWS, UNITS, Called, NotCovered, Rows
from mlflow_rnnmod.networks.graph.calls.convolutions import around_of
from mlflow_rnnmod.networks.graph.calls.norms import normed
from mlflow_rnnmod.networks.graph.sequences.arithmetic import scaled
from mlflow_rnnmod.networks.graph.sequences.values import (
    STEPS,
    Factor,
    Stepped,
    stepped,
    units_at,
    value,
    whole,
)
from mlflow_rnnmod.networks.recurrent.weights import embedding_weight


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
    node = call.node("embedding", made.name, shape, settings, {"weight": weight})
    return value(node, [*made.dims, (Factor(UNITS, units),)])


def _one_hot(call: Called) -> Stepped:
    made, count = stepped(call), call.constant(1, "num_classes", -1)
    _tokens(call, made)
    if count < 1:
        raise NotCovered("how many classes there are depends on the input; expected num_classes=")
    shape = (count, *call.draft.nodes[made.name].shape[1:])
    name = call.node("one_hot", made.name, shape, {"units": count})
    call.draft.whole.add(name)
    return value(name, [*made.dims, (Factor(UNITS, count),)])


def _linear(call: Called) -> Stepped:
    made = stepped(call)
    return product(call, made, *dense_of(call))


def _layer_norm(call: Called) -> Stepped:
    made = stepped(call)
    shape, weight, bias, eps = call.settings(
        normalized_shape=None, weight=None, bias=None, eps=1e-5
    )
    if len(tuple(shape)) != 1:
        raise NotCovered(f"it goes over {tuple(shape)}, more than units")
    name = units_at(call, made, -1)
    units = call.draft.nodes[name].shape[0]
    found = normed(call, "layer_norm", name, {"eps": eps}, weight, bias)
    return value(found, [*made.dims[:-1], (Factor(UNITS, units),)])


def _batch_norm(call: Called) -> Stepped:
    """In evaluation mode: a scale and a shift of each unit, which stand in the second dimension."""
    made = stepped(call)
    scale, shift = norm_of(call)
    name = units_at(call, made, 1)
    if len(scale) != call.draft.nodes[name].shape[0]:
        raise NotCovered(f"it reads {made.shape}")
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
    around = around if isinstance(around, str) else _first(around)
    kernel, groups = weight.shape[2], call.setting(6, "groups", 1)
    if made.axis(-1) != STEPS or len(made.dims) != 3 or made.axis(0) != ROWS:
        raise NotCovered(f"it reads {made.shape}, not (rows, units, steps)")
    name = units_at(call, made, 1)
    units = call.draft.nodes[name].shape[0]
    settings: dict[str, Any] = {
        "units": len(weight),
        "kernel": [kernel],
        "stride": [stride],
        "dilation": [dilation],
        "padding": around_of(around, [kernel], [dilation]),
        "mode": "zeros" if part is None else part.padding_mode,
    }
    op = "conv" if groups == 1 else "depthwise" if groups == units else "grouped_conv"
    if op == "grouped_conv":
        settings["groups"] = groups
    bias = weight.new_zeros(len(weight)) if bias is None else bias
    shape = (len(weight), call.shape[2])
    node = call.node(op, name, shape, settings, {"weight": weight, "bias": bias})
    found = whole(call.draft, node, (ROWS, UNITS, STEPS))
    dims = [made.dims[0], *found.dims[1:], *([()] if flat else [])]
    return value(found.name, dims)


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


_CONVOLUTIONS = (nn.Conv1d, functional.conv1d, torch.conv1d, nn.Conv2d, functional.conv2d)
ROWS_OF_CALLS: Rows = (
    (_embedding, (nn.Embedding, functional.embedding)),
    (_one_hot, (functional.one_hot,)),
    (_linear, (nn.Linear, functional.linear)),
    (_layer_norm, (nn.LayerNorm, functional.layer_norm)),
    (_batch_norm, (nn.BatchNorm1d, nn.SyncBatchNorm, functional.batch_norm)),
    (_convolution, _CONVOLUTIONS),
)


def product(call: Called, made: Stepped, weight: Tensor, bias: Tensor | None) -> Stepped:
    """A dense layer over the last dimension, which must be units."""
    if weight.ndim != 2 or made.shape[-1] != weight.shape[1]:
        raise NotCovered(f"it reads {made.shape} with a weight of {tuple(weight.shape)}")
    name = call.draft.linear(units_at(call, made, -1), weight, bias, call.line)
    return value(name, [*made.dims[:-1], (Factor(UNITS, len(weight)),)])
