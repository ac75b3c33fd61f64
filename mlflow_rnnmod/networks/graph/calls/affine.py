"""Dense layers, norms that are scales and shifts, arithmetic, values put side by side."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlflow_rnnmod.networks.graph.calls.base import (
    ROWS,
    UNITS,
    Called,
    Handler,
    Made,
    NotCovered,
    Rows,
    Turned,
    double,
)
from mlflow_rnnmod.networks.graph.operations import OPERATIONS


def dense_of(call: Called) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a dense layer, called as a submodule or as a function."""
    weight, bias = call.settings(weight=None, bias=None)
    return weight, bias


def _linear(call: Called) -> str | Turned:
    return _product(call, call.made, *dense_of(call))


def _matmul(call: Called) -> str | Turned:
    call.plain("other", "mat2")
    weight = call.constant(1, "other", call.kwargs.get("mat2"))
    return _product(call, call.made, weight.t() if weight.ndim == 2 else weight[None], None)


def _addmm(call: Called) -> str | Turned:
    call.plain("mat1", "mat2")
    made, bias = call.given(1, "mat1"), call.constant(0, "input")
    if not isinstance(made, Made) or bias.ndim != 1:
        raise NotCovered("expected a bias, what depends on the input, and a weight")
    return _product(call, made, call.constant(2, "mat2").t(), bias)


def _product(call: Called, made: Made, weight: Tensor, bias: Tensor | None) -> str | Turned:
    """Over the last dimension, which must be the units."""
    name, axis = call.axis(made, -1)
    if weight.ndim != 2 or axis != UNITS or made.shape[-1] != weight.shape[1]:
        raise NotCovered(f"it reads {made.shape} with a weight of {tuple(weight.shape)}")
    return made.like(call.draft.linear(name, weight, bias, call.line))


def norm_of(call: Called) -> tuple[Tensor, Tensor]:
    """The scale and shift of each unit that a batch norm is in evaluation mode, float64."""
    part = call.module
    if part is not None:
        mean, var, weight, bias = part.running_mean, part.running_var, part.weight, part.bias
        eps = part.eps
    else:
        mean, var, weight, bias, training, _, eps = call.settings(
            running_mean=None, running_var=None, weight=None, bias=None, training=False,
            momentum=0.1, eps=1e-5,
        )  # fmt: skip
        mean, var = (None, None) if training else (mean, var)
    if mean is None or var is None:
        raise NotCovered(
            "it has no running statistics, so that a row's answer depends on the rows beside it"
        )
    scale = (var.double() + eps).rsqrt()
    scale = scale if weight is None else scale * weight.double()
    shift = -mean.double() * scale
    return scale, shift if bias is None else shift + bias.double()


def norm(call: Called) -> str | Turned:
    """Batch norm in evaluation mode: a scale and a shift of each unit."""
    made = call.made
    scale, shift = norm_of(call)
    name, axis = call.axis(made, 1)
    if axis != UNITS or len(scale) != made.shape[1]:
        raise NotCovered(f"it reads {made.shape}")
    return made.like(call.draft.affine(name, scale, shift, call.line))


def scaled(call: Called, made: Made, scale: Any = None, shift: Any = None) -> str | Turned:
    """A value times and plus constants, which must be the same for all rows."""
    if call.shape != made.shape:
        raise NotCovered(f"it turns {made.shape} into {call.shape}")
    scale = double(1.0 if scale is None else scale)
    both = [scale] if shift is None else [scale, double(shift)]
    rows = 0 if made.axes is None else made.axes.index(ROWS)
    for tensor in both:
        behind = len(made.shape) - tensor.ndim  # dimensions that a constant lacks
        if behind <= rows and tensor.shape[rows - behind] != 1:
            raise NotCovered("it has other constants for each row")
    if all(tensor.numel() == 1 for tensor in both):
        name, units = made.name, call.draft.nodes[made.name].shape[0]
        vectors = [tensor.reshape(1).expand(units) for tensor in both]
        return made.like(call.draft.affine(name, vectors[0], _second(vectors), call.line))
    name, axes = call.placed(made)
    dimension = axes.index(UNITS)
    spread = [_along(tensor, made.shape, dimension) for tensor in both]
    if all(vector is not None for vector in spread):
        vectors = [vector for vector in spread if vector is not None]
        return made.like(call.draft.affine(name, vectors[0], _second(vectors), call.line))
    if made.axes is not None:
        raise NotCovered("it has other constants at each place")
    # Other constants at each place: numbers in a line have one each.
    name = call.draft.reshaped(made.name, (made.numbers,), call.line)
    vectors = [tensor.expand(1, *made.shape[1:]).reshape(-1) for tensor in both]
    return call.draft.affine(name, vectors[0], _second(vectors), call.line)


def _second(vectors: list[Tensor]) -> Tensor | None:
    return vectors[1] if len(vectors) > 1 else None


def _along(tensor: Tensor, shape: tuple[int, ...], dimension: int) -> Tensor | None:
    """A constant as one number for each unit; ``None`` where it differs at places."""
    tensor = tensor.view(*[1] * (len(shape) - tensor.ndim), *tensor.shape)
    if any(size != 1 for at, size in enumerate(tensor.shape) if at != dimension):
        return None
    return tensor.reshape(-1).expand(shape[dimension])


def _sum(sign: float) -> Handler:
    """``a + alpha * b`` or ``a - alpha * b``."""

    def handle(call: Called) -> str | Turned:
        call.plain("other", "alpha")
        one, other = call.given(0, "input"), call.given(1, "other")
        factor = sign * call.constant(2, "alpha", 1)
        if not isinstance(other, Made):
            return scaled(call, one, None, double(other) * factor)
        if not isinstance(one, Made):
            return scaled(call, other, factor, one)
        names, axes = met(call, one, other)
        if factor != 1:
            size = call.draft.nodes[names[1]].shape[0]
            units = torch.full((size,), float(factor), dtype=torch.float64)
            names[1] = call.draft.affine(names[1], units, None, call.line)
        return joined(call, "add", names, axes)

    return handle


def met(call: Called, one: Made, other: Made) -> tuple[list[str], tuple[int, ...] | None]:
    """Nodes of two values whose axes are the same, and these; ``None`` for numbers in line."""
    if len(one.shape) != len(other.shape):
        raise NotCovered(f"it joins {one.shape} and {other.shape}")
    if one.axes is None and other.axes is None:
        shape = call.draft.nodes[one.name].shape
        if one.shape == other.shape and shape == call.draft.nodes[other.name].shape:
            return [one.name, other.name], None
        return [call.straight(one), call.straight(other)], None
    (first, axes), (second, axes_too) = call.placed(one), call.placed(other)
    if axes != axes_too:
        raise NotCovered(f"it joins {one.shape} and {other.shape} of other axes")
    return [first, second], axes


def joined(call: Called, op: str, names: list[str], axes: tuple[int, ...] | None) -> str | Turned:
    """A node of two that met."""
    shapes = [call.draft.nodes[name].shape for name in names]
    try:
        shape = OPERATIONS[op].shape({}, shapes)
    except ValueError as error:
        raise NotCovered(f"it {error}") from None
    known = tuple(size for size in shape if size is not None)
    name = call.node(op, names, known)
    return name if axes is None else Turned(name, axes)


def _times(call: Called) -> str | Turned:
    call.plain("other")
    one, other = call.given(0, "input"), call.given(1, "other")
    if isinstance(one, Made) and isinstance(other, Made):
        return joined(call, "multiply", *met(call, one, other))
    made, constant = (one, other) if isinstance(one, Made) else (other, one)
    return scaled(call, made, constant)


def _divided(call: Called) -> str | Turned:
    call.plain("other")
    divisor = double(call.constant(1, "other"))
    return scaled(call, call.made, 1 / divisor)


def _negative(call: Called) -> str | Turned:
    return scaled(call, call.made, -1.0)


def _concat(call: Called) -> str | Turned:
    call.plain("tensors", "dim", "axis")
    parts = call.given(0, "tensors")
    if not all(isinstance(part, Made) for part in parts):
        raise NotCovered("it puts constants beside what depends on the input")
    dim = call.constant(1, "dim", call.kwargs.get("axis", 0))
    found = [call.axis(part, dim) for part in parts]
    if any(axis != UNITS for _, axis in found) or len({part.axes for part in parts}) > 1:
        raise NotCovered(f"it puts values together to {call.shape}, across rows or places")
    if len(parts) == 1:
        return parts[0].like(found[0][0])
    names = [name for name, _ in found]
    shapes = [call.draft.nodes[name].shape for name in names]
    shape = (sum(shape[0] for shape in shapes), *shapes[0][1:])
    return parts[0].like(call.node("concat", names, shape))


def _beside(call: Called) -> str | Turned:
    """``torch.hstack``: over the second dimension."""
    call.plain("tensors")
    return _concat(Called(call.draft, (call.given(0, "tensors"), 1), {}, call.shape, call.line))


_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_NORM_FUNCTIONS = (functional.batch_norm,)
ROWS_OF_CALLS: Rows = (
    (_linear, (nn.Linear, functional.linear)),
    (_matmul, (operator.matmul, torch.matmul, torch.mm, "matmul", "mm")),
    (_addmm, (torch.addmm,)),
    (norm, (*_NORMS, *_NORM_FUNCTIONS)),
    (_sum(1), (operator.add, operator.iadd, torch.add, "add", "add_")),
    (_sum(-1), (operator.sub, operator.isub, torch.sub, torch.subtract, "sub", "sub_")),
    (_times, (operator.mul, operator.imul, torch.mul, torch.multiply, "mul", "mul_")),
    (_divided, (operator.truediv, operator.itruediv, torch.div, torch.divide, "div", "div_")),
    (_negative, (operator.neg, torch.neg, "neg", "neg_")),
    (_concat, (torch.cat, torch.concat, torch.concatenate)),
    (_beside, (torch.hstack,)),
)
