"""Other shapes, orders and parts of values with steps."""

from __future__ import annotations

import builtins
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlflow_rnnmod.networks.graph.calls.base import ROWS, UNITS, Called, NotCovered, Rows
from mlflow_rnnmod.networks.graph.sequences.choosing import in_order, rows_own
from mlflow_rnnmod.networks.graph.sequences.values import (
    STEPS,
    Dim,
    Factor,
    Order,
    Stepped,
    regrouped,
    stepped,
    taken,
    unit_numbers,
    units_at,
    value,
)


def _plain(call: Called) -> Any:
    """Zeros and ones of some value's shape: no number of the input is in them."""
    return call.found


def _same(call: Called) -> Stepped:
    """Copies, dropout, other kinds of numbers."""
    made = stepped(call)
    if call.shape != made.shape:
        raise NotCovered(f"it turns {made.shape} into {call.shape}")
    return made


def _whole_numbers(call: Called) -> Stepped:
    """As whole numbers: only of what is whole already."""
    made = _same(call)
    kind = call.found.dtype if isinstance(call.found, Tensor) else None
    fractions = made.name not in call.draft.whole
    if kind is not None and not kind.is_floating_point and fractions:
        raise NotCovered("it cuts numbers to whole ones")
    return made


def _regroup(call: Called) -> Stepped:
    return regrouped(stepped(call), call.shape)


def _squeeze(call: Called) -> Stepped:
    """Dimensions of size 1, all or one; a batch may have one row, or one step."""
    made = stepped(call)
    dim = call.constant(1, "dim")
    if dim is None:
        return regrouped(made, call.shape)
    chosen = {d % len(made.dims) for d in (dim if isinstance(dim, tuple | list) else (dim,))}
    left = [d for at, d in enumerate(made.dims) if at not in chosen or made.shape[at] != 1]
    return value(made.name, left)


def _expand(call: Called) -> Stepped:
    """Copies along dimensions of size 1."""
    made = stepped(call)
    lacking = len(call.shape) - len(made.dims)
    dims: list[Dim] = []
    for at, size in enumerate(call.shape):
        old = made.dims[at - lacking] if at >= lacking else ()
        before = made.shape[at - lacking] if at >= lacking else 1
        dims.append(old if before == size else (Factor(None, size),))
    return value(made.name, dims)


def _permute(call: Called) -> Stepped:
    made = stepped(call)
    order = call.args[1:] if len(call.args) > 1 else call.kwargs["dims"]
    order = order[0] if isinstance(order[0], tuple | list) else order
    return value(made.name, [made.dims[at] for at in order])


def _transpose(call: Called) -> Stepped:
    made = stepped(call)
    one, other = call.constant(1, "dim0"), call.constant(2, "dim1")
    order = list(made.dims)
    order[one], order[other] = order[other], order[one]
    return value(made.name, order)


def _turned(call: Called) -> Stepped:
    """The last two dimensions the other way round."""
    made = stepped(call)
    if len(made.dims) != 2:
        raise NotCovered(f"it turns {made.shape}")
    return value(made.name, made.dims[::-1])


def _attribute(call: Called) -> Any:
    """Attributes of values: of the pairs that ``max`` gives, and ``T``, ``data``."""
    owner, name = call.args[0], call.args[1]
    if not isinstance(owner, Stepped):
        return getattr(owner, name)
    if name in ("T", "mT"):
        *rest, one, other = owner.dims
        if name == "T" and rest:
            raise NotCovered(f"it turns {owner.shape}")
        return value(owner.name, [*rest, other, one])
    if name == "data":
        return owner
    raise NotCovered(f"the attribute {name!r} of a tensor")


def _index(call: Called) -> Any:
    """Items of tuples; steps, units and new dimensions of tensors."""
    made, index = call.args[0], call.args[1]
    if not isinstance(made, Stepped):
        return made[index]
    parts = list(index) if isinstance(index, tuple) else [index]
    orders = [at for at, part in enumerate(parts) if isinstance(part, Order)]
    if orders:
        rest = [part for at, part in enumerate(parts) if at not in orders]
        if orders != [made.find(ROWS)] or any(part != slice(None) for part in rest):
            raise NotCovered("it takes parts by numbers that depend on the input")
        return in_order(made, parts[orders[0]])
    known = [part for part in parts if part is not None and part is not Ellipsis]
    if Ellipsis in [p for p in parts if p is None or isinstance(p, type(Ellipsis))]:
        at = next(i for i, part in enumerate(parts) if part is Ellipsis)
        parts[at : at + 1] = [slice(None)] * (len(made.dims) - len(known))
    else:
        parts += [slice(None)] * (len(made.dims) - len(known))
    if any(isinstance(part, Tensor | Stepped | list) for part in parts):
        return rows_own(call, made, parts)
    name, dims, at = made.name, list(made.dims), 0
    for part in parts:
        if part is None:
            dims.insert(at, ())
            at += 1
            continue
        found = part_of(call, value(name, dims), at, part)
        kept = len(found.dims) == len(dims)
        name, dims = found.name, list(found.dims)
        at += kept
    return value(name, dims)


def part_of(call: Called, made: Stepped, at: int, part: Any) -> Stepped:
    """A value with an item, or some, along one dimension."""
    dims = list(made.dims)
    size = made.shape[at]
    if isinstance(part, slice):
        start, stop, step = part.indices(size)
        if (start, stop, step) == (0, size, 1):
            return made
        if step != 1 or stop <= start:
            raise NotCovered(f"it takes {part} of {made.shape}")
    elif type(part) is not int or not -size <= part < size:
        raise NotCovered(f"it takes {part!r:.60} of {made.shape}")
    axes = {factor.axis for factor in dims[at]}
    if axes == {STEPS}:
        return _steps_part(call, made, at, part)
    if axes == {UNITS} and len(dims[at]) == 1:
        return _units_part(call, made, at, part, size)
    if axes <= {None}:  # nothing is told apart here
        count = len(range(size)[part]) if isinstance(part, slice) else 0
        dims[at : at + 1] = [(Factor(None, count),)] if isinstance(part, slice) else []
        return value(made.name, dims)
    raise NotCovered("it takes some rows, or parts of what was merged")


def _steps_part(call: Called, made: Stepped, at: int, part: Any) -> Stepped:
    node, dims = call.draft.nodes[made.name], list(made.dims)
    units = node.shape[0]
    if isinstance(part, slice):
        start, stop, _ = part.indices(node.shape[1])
        given = [part.start, part.stop]
        if any(number is not None and number > 0 and number >= made.shape[at] for number in given):
            given[1] = None
        settings = {"start": given[0] or 0, "stop": given[1]}
        shape = (units, stop - start)
        name = call.node("cut", made.name, shape, settings)
        dims[at] = (Factor(STEPS, stop - start),)
    else:
        settings = {"index": part}
        name = call.node("step", made.name, (units,), settings)
        del dims[at]
    _pass_whole(call, made.name, name)
    return value(name, dims)


def _pass_whole(call: Called, of: str, name: str) -> None:
    if of in call.draft.whole:
        call.draft.whole.add(name)


def _units_part(call: Called, made: Stepped, at: int, part: Any, size: int) -> Stepped:
    """Some units: a direction, a layer, a half."""
    factor = made.dims[at][0]
    chosen = list(range(size))[part] if isinstance(part, slice) else [range(size)[part]]
    others = [
        f for place, dim in enumerate(made.dims) for f in dim if f.axis == UNITS and place != at
    ]
    numbers = sorted(i * factor.stride + j for i in chosen for j in unit_numbers(tuple(others)))
    name = taken(call, made.name, numbers)
    # What is left stands closer together: strides above the part that was taken shrink.
    dims: list[Dim] = []
    for place, dim in enumerate(made.dims):
        found: list[Factor] = []
        for f in dim:
            if f.axis == UNITS and place != at and f.stride > factor.stride:
                f = Factor(UNITS, f.size, f.stride * len(chosen) // factor.size)
            if f.axis == UNITS and place == at:
                f = Factor(UNITS, len(chosen), f.stride)
            found.append(f)
        dims.append(tuple(found))
    if not isinstance(part, slice):
        del dims[at]
    return value(name, dims)


def _flip(call: Called) -> Stepped:
    made = stepped(call)
    dims = call.args[1:] if len(call.args) > 1 else call.kwargs["dims"]
    dims = dims[0] if isinstance(dims[0], tuple | list) else dims
    if len(dims) != 1 or made.axis(dims[0]) != STEPS:
        raise NotCovered(f"it turns dimensions {tuple(dims)} of {made.shape} round")
    name = call.node("flip", made.name)
    _pass_whole(call, made.name, name)
    return made.like(name)


def _chunk(call: Called) -> Any:
    """Parts of one size along a dimension."""
    made = stepped(call)
    dim = call.constant(2, "dim", 0) % len(made.dims)
    sizes = [part.shape[dim] for part in call.found]
    found, start = [], 0
    for size in sizes:
        found.append(part_of(call, made, dim, slice(start, start + size)))
        start += size
    return tuple(found)


def _unbind(call: Called) -> Any:
    made = stepped(call)
    dim = call.constant(1, "dim", 0) % len(made.dims)
    return tuple(part_of(call, made, dim, at) for at in range(made.shape[dim]))


def _beside(call: Called, parts: Sequence[Any], dim: int) -> Stepped:
    """Values along a dimension that is units of each, or nothing yet."""
    if not all(isinstance(part, Stepped) for part in parts):
        raise NotCovered("it puts constants beside what depends on the input")
    at = dim % len(parts[0].dims)
    names = [units_at(call, part, at) for part in parts]
    widest = max(parts, key=lambda part: sum(len(d) for i, d in enumerate(part.dims) if i != at))
    for part in parts:
        if any(
            {f.axis for f in one} - {f.axis for f in other}
            for i, (one, other) in enumerate(zip(part.dims, widest.dims, strict=True))
            if i != at
        ):
            raise NotCovered(f"it puts {part.shape} beside {widest.shape}, of another order")
    shapes = [call.draft.nodes[name].shape for name in names]
    if len({shape[1:] for shape in shapes}) > 1:
        raise NotCovered(f"it puts values of shapes {[p.shape for p in parts]} side by side")
    size = sum(shape[0] for shape in shapes)
    dims = list(widest.dims)
    dims[at] = (Factor(UNITS, size),)
    if len(names) == 1:
        return value(names[0], dims)
    shape = (size, *shapes[0][1:])
    return value(call.node("concat", names, shape), dims)


def _concat(call: Called) -> Stepped:
    call.plain("tensors", "dim", "axis")
    dim = call.constant(1, "dim", call.kwargs.get("axis", 0))
    return _beside(call, call.given(0, "tensors"), dim)


def _hstack(call: Called) -> Stepped:
    return _beside(call, call.given(0, "tensors"), 1)


def _stack(call: Called) -> Stepped:
    """A new dimension of units, outside of those that are there."""
    call.plain("tensors", "dim")
    parts = call.given(0, "tensors")
    if not all(isinstance(part, Stepped) for part in parts):
        raise NotCovered("it puts constants beside what depends on the input")
    return stacked(call, parts, call.constant(1, "dim", 0))


def stacked(call: Called, parts: Sequence[Stepped], dim: int) -> Stepped:
    """Values of one shape along a new dimension."""
    shapes = {call.draft.nodes[part.name].shape for part in parts}
    if len(shapes) > 1 or len({part.dims for part in parts}) > 1:
        raise NotCovered("it stacks values of other shapes or orders")
    units, *places = shapes.pop()
    names = [part.name for part in parts]
    whole = (units * len(names), *places)
    name = call.node("concat", names, whole)
    dims = list(parts[0].dims)
    dims.insert(dim % (len(dims) + 1), (Factor(UNITS, len(names), units),))
    return value(name, dims)


_DROPOUT = nn.modules.dropout._DropoutNd
_DROPOUTS = (functional.dropout, functional.dropout1d, functional.alpha_dropout, torch.dropout)
_COPIES = "contiguous clone detach cpu cuda requires_grad_"
_KINDS = "float double half to type type_as long int bool"
_RESHAPES = "view reshape flatten unsqueeze unflatten view_as reshape_as"
ROWS_OF_CALLS: Rows = (
    (_same, (nn.Identity, _DROPOUT, *_DROPOUTS, torch.clone, torch.detach, *_COPIES.split())),
    (_plain, ("new_zeros", "new_ones", "new_full", torch.zeros_like, torch.ones_like)),
    (_whole_numbers, tuple(_KINDS.split())),
    (_regroup, (nn.Flatten, nn.Unflatten, torch.flatten, torch.reshape, torch.unsqueeze)),
    (_regroup, tuple(_RESHAPES.split())),
    (_squeeze, (torch.squeeze, "squeeze")),
    (_expand, ("expand", "expand_as", torch.broadcast_to, "broadcast_to")),
    (_permute, (torch.permute, "permute")),
    (_transpose, (torch.transpose, torch.swapaxes, "transpose", "swapaxes")),
    (_transpose, (torch.swapdims, "swapdims")),
    (_turned, (torch.t, "t")),
    (_attribute, (builtins.getattr,)),
    (_index, (operator.getitem, "__getitem__")),
    (_flip, (torch.flip, "flip")),
    (_chunk, (torch.chunk, "chunk")),
    (_unbind, (torch.unbind, "unbind")),
    (_concat, (torch.cat, torch.concat, torch.concatenate)),
    (_hstack, (torch.hstack,)),
    (_stack, (torch.stack,)),
)
