"""Values with steps in a user's code: what each dimension of a tensor is of a node's value.

Users put rows, steps and units in any order, split units (directions, layers) and merge them. A
node puts out ``(rows, units, steps)``; a user's tensor is that with its dimensions taken apart and
put together, or something has to be made of it by nodes of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mlflow_rnnmod.networks.graph.calls.base import ROWS, UNITS, Called, Made, NotCovered
from mlflow_rnnmod.networks.graph.draft import Draft

STEPS, OTHERS = 2, 3
"""The axes of a node's value that its steps are, and those that each step reads."""


class Factor(NamedTuple):
    """Some numbers along an axis of a node's value.

    Args:
        axis: ``ROWS``, ``UNITS``, ``STEPS``, or ``None`` for copies of one number.
        size: how many.
        stride: how far apart they are, in units; of rows a number of their order, 1 for their own.
    """

    axis: int | None
    size: int
    stride: int = 1


# A dimension of a user's tensor: what is merged in it; nothing where its size is 1.
Dim = tuple[Factor, ...]


@dataclass(frozen=True)
class Stepped(Made):
    """A value that depends on the input, in a network over steps.

    Args:
        dims: what each dimension in the user's code is.
    """

    dims: tuple[Dim, ...] = ()

    def like(self, name: str) -> Stepped:
        """Another node's value with the same dimensions."""
        return replace(self, name=name)

    def single(self, dimension: int) -> Dim:
        """What a dimension is."""
        if not -len(self.dims) <= dimension < len(self.dims):
            raise NotCovered(f"it goes over dimension {dimension} of {self.shape}")
        return self.dims[dimension]

    def axis(self, dimension: int) -> int | None:
        """The whole axis that a dimension is; ``None`` where nothing is told apart along it."""
        found = [factor for factor in self.single(dimension) if factor.axis is not None]
        if not found:
            return None
        if len(found) > 1 or (found[0].axis != ROWS and found[0].stride != 1):
            raise NotCovered(f"dimension {dimension} of {self.shape} is a part of units")
        return found[0].axis

    def find(self, axis: int) -> int | None:
        """The dimension that an axis is; ``None`` where there is none."""
        places = [
            at for at, dim in enumerate(self.dims) if any(factor.axis == axis for factor in dim)
        ]
        if len(places) > 1:
            raise NotCovered(f"units of {self.shape} are taken apart")
        return places[0] if places else None


@dataclass(frozen=True)
class Order:
    """Numbers of rows in an order that depends on the input, by which other values are sorted.

    Args:
        number: of the order.
        back: whether they are those that put rows in their own order again.
    """

    number: int
    back: bool = False


def value(name: str, dims: Sequence[Dim]) -> Stepped:
    """A node's value as dimensions."""
    dims = tuple(merged(dim) for dim in dims)
    return Stepped(name, tuple(prod(f.size for f in dim) for dim in dims), None, dims)


def merged(factors: Sequence[Factor]) -> Dim:
    """Factors without those of size 1; units side by side are one."""
    found: list[Factor] = []
    for factor in factors:
        if factor.size == 1:
            continue
        last = found[-1] if found else None
        units = last is not None and last.axis == factor.axis == UNITS
        if last and units and last.stride == factor.size * factor.stride:
            found[-1] = Factor(UNITS, last.size * factor.size, factor.stride)
            continue
        if last and last.axis is factor.axis is None:
            found[-1] = Factor(None, last.size * factor.size)
            continue
        found.append(factor)
    return tuple(found)


def whole(draft: Draft, name: str, order: Sequence[int | None]) -> Stepped:
    """A node's value with its axes in this order; ``None`` is a dimension of size 1."""
    shape = (draft.rows, *draft.nodes[name].shape)
    return value(name, [() if a is None else (Factor(a, shape[a]),) for a in order])


def regrouped(made: Stepped, shape: Sequence[int]) -> Stepped:
    """The same numbers in the same order in another shape."""
    rest = [factor for dim in made.dims for factor in dim if factor.size > 1]
    dims: list[Dim] = []
    for size in shape:
        dim: list[Factor] = []
        while size > 1:
            if not rest:
                raise NotCovered(f"it turns {made.shape} into {tuple(shape)}")
            first = rest.pop(0)
            if size % first.size == 0:
                dim.append(first)
                size //= first.size
                continue
            inner, left = divmod(first.size, size)
            if left or first.axis not in (UNITS, None):
                raise NotCovered(f"it turns {made.shape} into {tuple(shape)}, across rows or steps")
            dim.append(Factor(first.axis, size, first.stride * inner))
            rest.insert(0, Factor(first.axis, inner, first.stride))
            size = 1
        dims.append(tuple(dim))
    if rest:
        raise NotCovered(f"it turns {made.shape} into {tuple(shape)}")
    return value(made.name, dims)


def units_at(call: Called, made: Stepped, dimension: int) -> str:
    """A node whose units are what stands along a dimension, in its order."""
    dim = tuple(f for f in made.single(dimension) if f.axis is not None)
    node = call.draft.nodes[made.name]
    if not dim and node.shape[0] == 1 and made.shape[dimension] == 1:
        return made.name
    if any(f.axis is None for f in made.single(dimension)):
        raise NotCovered(f"it reads copies of one number, in dimension {dimension} of {made.shape}")
    if dim == (Factor(UNITS, node.shape[0]),):
        return made.name
    rows, units = any(factor.axis == ROWS for factor in dim), made.find(UNITS)
    if rows or units not in (None, dimension % len(made.dims)):
        raise NotCovered(f"it reads dimension {dimension} of {made.shape}, not units")
    if any(factor.axis == STEPS for factor in dim):
        return _flattened(call, made, dim)
    index = unit_numbers(dim)
    if len(index) != node.shape[0]:
        raise NotCovered(f"it reads dimension {dimension} of {made.shape}, not all its units")
    return taken(call, made.name, index)


def unit_numbers(dim: Dim) -> list[int]:
    """Numbers of the units along a dimension."""
    found = torch.zeros(1, dtype=torch.int64)
    for factor in dim:
        step = torch.arange(factor.size) * factor.stride
        found = (found[:, None] + step).flatten()
    return found.tolist()


def _flattened(call: Called, made: Stepped, dim: Dim) -> str:
    """Units and steps in one line: only where every input has as many steps."""
    units, steps = call.draft.nodes[made.name].shape
    call.draft.fixed = True
    name = call.draft.reshaped(made.name, (units * steps,), call.line)
    index = torch.zeros(1, dtype=torch.int64)
    for factor in dim:
        far = factor.stride * steps if factor.axis == UNITS else 1
        index = (index[:, None] + torch.arange(factor.size) * far).flatten()
    if len(index) != units * steps:
        raise NotCovered(f"it reads a part of units and steps of {made.shape}")
    return taken(call, name, index.tolist())


def taken(call: Called, name: str, index: Sequence[int]) -> str:
    """A node of some of another's units, in this order; what lies side by side as it is."""
    draft = call.draft
    node = draft.nodes[name]
    index = list(index)
    if index == list(range(node.shape[0])):
        return name
    if node.op == "concat":
        offset = 0
        for given in node.inputs:
            size = draft.nodes[given].shape[0]
            if all(offset <= i < offset + size for i in index):
                return taken(call, given, [i - offset for i in index])
            offset += size
    shape = (len(index), *node.shape[1:])
    return call.node("take", name, shape, {"units": index})


def aligned(one: Stepped, other: Stepped) -> tuple[tuple[Dim, Dim], ...]:
    """Dimensions of two values as they meet, the last with the last."""
    size = max(len(one.dims), len(other.dims))
    first, second = ((*[()] * (size - len(v.dims)), *v.dims) for v in (one, other))
    return tuple(zip(first, second, strict=True))


def meeting(one: Dim, other: Dim) -> Dim:
    """What a dimension is in which two meet."""
    plain = [tuple(f for f in dim if f.axis is not None) for dim in (one, other)]
    if plain[0] and plain[1] and _without_size(plain[0]) != _without_size(plain[1]):
        raise NotCovered("dimensions that meet are not of the same kind")
    return plain[0] or plain[1] or one or other


def _without_size(dim: Dim) -> Any:
    """Steps may be cut to the longest row; units must be the same."""
    return [(f.axis, None if f.axis == STEPS else f.size, f.stride) for f in dim]


def meet(one: Stepped, other: Stepped) -> tuple[Dim, ...]:
    """Dimensions of what is made of two values, number by number."""
    return tuple(meeting(first, second) for first, second in aligned(one, other))


def constant_along(call: Called, made: Stepped, constant: Any) -> tuple[Any, Tensor | None]:
    """A constant that meets a value: as a vector over its units, or with steps.

    Gives ``(numbers, None)`` with one number, or one for each unit, float64; or ``(None, table)``
    with ``(units or 1, steps)``, where it differs from step to step.
    """
    tensor = torch.as_tensor(constant, dtype=torch.float64).detach()
    if tensor.numel() == 1:
        return tensor.reshape(1), None
    if tensor.ndim > len(made.dims):
        raise NotCovered(f"a constant of shape {tuple(tensor.shape)} meets {made.shape}")
    tensor = tensor.view(*[1] * (len(made.dims) - tensor.ndim), *tensor.shape)
    units, steps = UNITS, None
    found: dict[int, tuple[int, Dim]] = {}
    for at, (size, dim) in enumerate(zip(tensor.shape, made.dims, strict=True)):
        if size == 1:
            continue
        axes = {factor.axis for factor in dim}
        if axes == {ROWS}:
            if not bool((tensor == tensor.narrow(at, 0, 1)).all()):
                raise NotCovered("it has other constants for each row")
            tensor = tensor.narrow(at, 0, 1)
        elif axes == {UNITS}:
            found[at] = (UNITS, dim)
        elif axes == {STEPS}:
            found[at], steps = (STEPS, dim), size
        else:
            raise NotCovered(f"a constant of shape {tuple(tensor.shape)} meets {made.shape}")
    count = call.draft.nodes[made.name].shape[0]
    by_units = [dim for axis, dim in found.values() if axis == units]
    if not by_units:
        flat = tensor.reshape(-1)
        return (None, flat[None]) if steps else (flat, None)
    places = [at for at, (axis, _) in found.items() if axis == units]
    order = [at for at, (axis, _) in found.items() if axis != units]
    rest = [at for at in range(tensor.ndim) if at not in (*places, *order)]
    flat = tensor.permute(*rest, *order, *places).reshape(steps or 1, -1)
    numbers = unit_numbers(tuple(f for dim in by_units for f in dim))
    if sorted(numbers) != list(range(count)):
        raise NotCovered("it has other constants for parts of units")
    vector = torch.empty_like(flat)
    vector[:, numbers] = flat
    return (None, vector.T) if steps else (vector[0], None)


def stepped(call: Called, position: int = 0, name: str = "input") -> Stepped:
    """An argument that depends on the input."""
    found = call.given(position, name)
    if not isinstance(found, Stepped):
        raise NotCovered("its first argument does not depend on the input")
    return found
