"""Other shapes of the same numbers, parts of them, copies, dropout."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from mlflow_rnnmod.networks.graph.calls.base import (
    ROWS,
    Called,
    Handler,
    Made,
    NotCovered,
    Rows,
    Turned,
)


def keep(call: Called) -> str | Turned:
    """A row keeps its numbers in their order: other shapes, dropout, copies."""
    made = call.made
    if made.axes is not None:
        return Turned(made.name, _axes_of(call, made, made.axes))
    if call.shape[:1] != made.shape[:1]:
        raise NotCovered(f"it turns {made.shape} into {call.shape}, across rows")
    if torch.Size(call.shape[1:]).numel() != made.numbers:
        raise NotCovered(f"it turns {made.shape} into {call.shape}")
    return made.name


def _axes_of(call: Called, made: Made, axes: tuple[int, ...]) -> tuple[int, ...]:
    """Axes of the result, where axes of size 1 come or go."""
    if call.shape == made.shape:
        return axes
    sizes = (made.shape[axes.index(ROWS)], *call.draft.nodes[made.name].shape)
    left = [axis for axis in axes if axis == ROWS or sizes[axis] != 1]
    single = [axis for axis, size in enumerate(sizes) if axis not in left]
    found: list[int] = []
    for size in call.shape:
        if left and size == sizes[left[0]]:
            found.append(left.pop(0))
        elif size == 1 and single:
            found.append(single.pop(0))
        else:
            break
    if left or len(found) < len(call.shape):
        raise NotCovered(f"it turns {made.shape} into {call.shape}, with units not in line")
    return tuple(found)


def _index(call: Called) -> str | Turned:
    """New axes, and parts that are slices or single places: ``x[:, None]``, ``x[:, :, ::2]``."""
    given: Any = call.constant(1, "index")
    index = list(given) if isinstance(given, tuple) else [given]
    made = call.made
    if all(part is None or part is Ellipsis or part == slice(None) for part in index):
        return keep(call)
    if not all(part is None or part is Ellipsis or type(part) in (int, slice) for part in index):
        raise NotCovered(f"it takes a part of its input by {index!r:.60}")
    known = sum(type(part) in (int, slice) for part in index)
    at = next((i for i, part in enumerate(index) if part is Ellipsis), len(index))
    fill = [slice(None)] * (len(made.shape) - known)
    index = [*index[:at], *fill, *index[at + 1 :]]
    name, axes = call.placed(made)
    bounds = [[0, None, 1] for _ in range(len(call.draft.nodes[name].shape))]
    bounds[0][1] = call.draft.nodes[name].shape[0]
    left: list[int] = []
    dimension = 0
    for part in index:
        if part is None:
            if made.axes is not None:
                raise NotCovered("it takes a part and adds an axis at once")
            continue
        axis, size = axes[dimension], made.shape[dimension]
        dimension += 1
        if type(part) is int:
            start = part % size if part >= 0 else part
            part = slice(start, start + 1 if start != -1 else None)
        else:
            left.append(axis)
        if part == slice(None):
            continue
        if axis == ROWS:
            raise NotCovered("it takes a part of its rows")
        start, stop, step = part.indices(size)
        if axis == 1:
            if step != 1:
                raise NotCovered("it takes every so many units")
            bounds[0] = [start, stop, 1]
        else:
            bounds[axis - 1] = [part.start or 0, part.stop, step]
    return _sliced(call, name, bounds, tuple(left))


def _sliced(call: Called, name: str, bounds: list[Any], axes: tuple[int, ...]) -> Turned:
    sizes = call.draft.nodes[name].shape
    shape = tuple(
        len(range(*slice(*part).indices(size))) for part, size in zip(bounds, sizes, strict=True)
    )
    if 0 in shape:
        raise NotCovered("it takes nothing of its input")
    return Turned(call.node("slice", name, shape, {"bounds": bounds}), axes)


def _narrow(call: Called) -> Turned:
    made = call.made
    dim, start, length = (call.constant(i, n) for i, n in ((1, "dim"), (2, "start"), (3, "length")))
    return _along(call, made, dim, int(start), int(start) + int(length))


def _along(call: Called, made: Made, dim: int, start: int, stop: int) -> Turned:
    """From ``start`` to before ``stop`` along one dimension of the user's."""
    name, axis = call.axis(made, dim)
    _, axes = call.placed(made)
    if axis == ROWS:
        raise NotCovered("it takes a part of its rows")
    sizes = call.draft.nodes[name].shape
    bounds: list[Any] = [[0, size if i == 0 else None, 1] for i, size in enumerate(sizes)]
    bounds[axis - 1] = [start, stop, 1]
    return _sliced(call, name, bounds, axes)


def _pieces(call: Called) -> list[Turned]:
    """``chunk`` and ``split``: several parts side by side."""
    made, dim = call.made, call.constant(2, "dim", 0)
    _, axis = call.axis(made, dim)
    found, start = [], 0
    for shape in call.shapes:
        stop = start + shape[dim]
        found.append(_along(call, made, dim, start, stop))
        start = stop
    return found


def _transposed(call: Called) -> Turned:
    """``transpose(a, b)``."""
    made = call.made
    name, axes = call.placed(made)
    a, b = (
        call.constant(i, n, call.kwargs.get(m))
        for i, n, m in ((1, "dim0", "axis0"), (2, "dim1", "axis1"))
    )
    order = list(axes)
    order[a], order[b] = order[b], order[a]
    return Turned(name, tuple(order))


def _permuted(call: Called) -> Turned:
    """``permute(dims)``, or ``permute(*dims)`` of a tensor."""
    made = call.made
    name, axes = call.placed(made)
    dims: Any = call.args[1:] if len(call.args) > 2 else call.constant(1, "dims")
    if not isinstance(dims, Sequence):
        raise NotCovered("expected dimensions")
    return Turned(name, tuple(axes[dim] for dim in dims))


def _moved(call: Called) -> Turned:
    """``movedim(source, destination)`` of one dimension."""
    made = call.made
    name, axes = call.placed(made)
    source, destination = call.constant(1, "source"), call.constant(2, "destination")
    if not isinstance(source, int) or not isinstance(destination, int):
        raise NotCovered("it moves several dimensions")
    order = list(axes)
    order.insert(destination % len(axes), order.pop(source % len(axes)))
    return Turned(name, tuple(order))


def _pad(call: Called) -> str | Turned:
    call.plain("pad", "mode", "value")
    value, mode = call.constant(3, "value"), call.constant(2, "mode", "constant")
    return _padded(call, call.constant(1, "pad"), mode, value)


def _pad_module(mode: str) -> Handler:
    def handle(call: Called) -> str | Turned:
        return _padded(call, call.module.padding, mode, getattr(call.module, "value", 0.0))

    return handle


def _padded(call: Called, pad: Sequence[int], mode: str, value: Any) -> str | Turned:
    made = call.made
    if mode == "constant" and value not in (None, 0, 0.0):
        raise NotCovered(f"it puts {value} around its input, expected zeros")
    if any(size < 0 for size in pad):
        raise NotCovered("it cuts off what is at the border")
    name, axes = call.placed(made)
    shape = list(call.draft.nodes[name].shape)
    pairs = [[0, 0] for _ in shape]
    for at in range(len(pad) // 2):
        axis = axes[len(axes) - 1 - at]
        if axis == ROWS and any(pad[2 * at : 2 * at + 2]):
            raise NotCovered("it puts rows beside those of the batch")
        if axis != ROWS:
            pairs[axis - 1] = [int(pad[2 * at]), int(pad[2 * at + 1])]
    units, *places = pairs
    words = {"constant": "zeros", "reflect": "reflect", "replicate": "replicate"}
    settings = {"units": units, "places": places, "mode": words.get(mode, mode)}
    new = tuple(size + sum(pair) for size, pair in zip(shape, pairs, strict=True))
    return Turned(call.node("pad", name, new, settings), axes)


_DROPOUT = nn.modules.dropout._DropoutNd
_SHAPES = "view reshape flatten unflatten squeeze unsqueeze view_as reshape_as"
_COPIES = "contiguous clone detach float double to type type_as cpu cuda requires_grad_"
_ZEROS = (nn.ZeroPad1d, nn.ZeroPad2d, nn.ConstantPad1d, nn.ConstantPad2d)
ROWS_OF_CALLS: Rows = (
    (keep, (nn.Flatten, nn.Unflatten, nn.Identity, _DROPOUT)),
    (keep, (torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze, torch.clone)),
    (keep, (functional.dropout, functional.alpha_dropout, functional.feature_alpha_dropout)),
    (keep, (functional.dropout1d, functional.dropout2d, functional.dropout3d)),
    (keep, (torch.dropout, torch.detach, *_SHAPES.split(), *_COPIES.split())),
    (_index, (operator.getitem,)),
    (_narrow, (torch.narrow, "narrow")),
    (_pieces, (torch.chunk, torch.split, "chunk", "split")),
    (_transposed, (torch.transpose, torch.swapaxes, torch.swapdims)),
    (_transposed, ("transpose", "swapaxes", "swapdims")),
    (_permuted, (torch.permute, "permute")),
    (_moved, (torch.movedim, torch.moveaxis, "movedim", "moveaxis")),
    (_pad, (functional.pad,)),
    (_pad_module("constant"), _ZEROS),
    (_pad_module("reflect"), (nn.ReflectionPad1d, nn.ReflectionPad2d)),
    (_pad_module("replicate"), (nn.ReplicationPad1d, nn.ReplicationPad2d)),
    (_pad_module("circular"), (nn.CircularPad1d, nn.CircularPad2d)),
)
