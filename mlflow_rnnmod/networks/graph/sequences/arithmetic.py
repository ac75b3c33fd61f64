"""Sums, products and functions of values with steps, number by number."""

from __future__ import annotations

import operator
from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mlflow_rnnmod.networks.graph.calls.activations import UNIT_BY_UNIT
from mlflow_rnnmod.networks.graph.calls.base import UNITS, Called, NotCovered, Rows, double
from mlflow_rnnmod.networks.graph.draft import Draft
from mlflow_rnnmod.networks.graph.operations import OPERATIONS, Activation
from mlflow_rnnmod.networks.graph.sequences.shaping import part_of
from mlflow_rnnmod.networks.graph.sequences.values import (
    OTHERS,
    STEPS,
    Factor,
    Stepped,
    constant_along,
    meet,
    stepped,
    value,
)


def two(call: Called, op: str, one: Stepped, other: Stepped) -> Stepped:
    """A node that makes something of two values, number by number."""
    one, other = _across(call, one, other), _across(call, other, one)
    dims = meet(one, other)
    shapes = [call.draft.nodes[v.name].shape for v in (one, other)]
    units = max(shape[0] for shape in shapes)
    places = max((shape[1:] for shape in shapes), key=len)
    if any(shape[0] not in (1, units) or shape[1:] not in ((), places) for shape in shapes):
        raise NotCovered(f"values of {one.shape} and {other.shape} do not meet")
    for made in (one, other):
        _check_meets(call, made)
    return value(call.node(op, [one.name, other.name], (units, *places)), dims)


def _across(call: Called, made: Stepped, other: Stepped) -> Stepped:
    """What is said of steps, as a mask says of padding, where it meets those that others read."""
    if other.find(OTHERS) is None or made.find(OTHERS) is not None or made.find(STEPS) is None:
        return made
    back = made.find(STEPS) - len(made.dims)  # type: ignore[operator]
    if back != other.find(OTHERS) - len(other.dims):  # type: ignore[operator]
        raise NotCovered(f"values of {made.shape} and {other.shape} do not meet")
    units, steps = call.draft.nodes[made.name].shape
    shape = (units, steps, steps)
    name = call.node("across", made.name, shape)
    if made.name in call.draft.flags:
        call.draft.flags.add(name)
    dims = list(made.dims)
    dims[back] = (Factor(OTHERS, made.shape[back]),)
    return value(name, dims)


def _check_meets(call: Called, made: Stepped) -> None:
    """Units of a value stand in all of it, or it has one for all."""
    node = call.draft.nodes[made.name]
    along = [f for dim in made.dims for f in dim if f.axis == UNITS]
    if prod(factor.size for factor in along) != node.shape[0]:
        raise NotCovered(f"a part of {node.shape[0]} units meets others")


def plus_constant(call: Called, made: Stepped, constant: Any, factor: float = 1.0) -> Stepped:
    """A value and a constant."""
    numbers, table = constant_along(call, made, constant)
    if table is not None:
        return two(call, "plus", made, _constant(call, table * factor, made))
    return scaled(call, made, None, numbers * factor)


def scaled(call: Called, made: Stepped, scale: Any, shift: Any = None) -> Stepped:
    """A value times and plus numbers, one, or one for each unit."""
    units = call.draft.nodes[made.name].shape[0]
    device = call.draft.device
    ones = torch.ones(units, dtype=torch.float64, device=device)
    scale = ones if scale is None else double(scale).to(device).reshape(-1).expand(units)
    if shift is not None:
        shift = double(shift).to(device).reshape(-1).expand(units)
    name = call.draft.affine(made.name, scale, shift, call.line)
    if made.name in call.draft.whole:
        both = scale if shift is None else torch.cat([scale, shift])
        if bool((both == both.round()).all()):
            call.draft.whole.add(name)
    return made.like(name)


def _constant(call: Called, table: Tensor, made: Stepped) -> Stepped:
    """A constant with steps, ``(units or 1, steps)``; then every input has as many."""
    call.draft.fixed = True
    shape = tuple(table.shape)
    name = call.node("constant", [], shape, {"shape": list(shape)}, {"value": table})
    dims = [
        tuple(f for f in dim if f.axis == STEPS or (f.axis == UNITS and shape[0] > 1))
        for dim in made.dims
    ]
    return value(name, dims)


def positions(call: Called, constant: Any, like: Stepped) -> Stepped | None:
    """The numbers of steps, where a constant counts them; ``None`` where it does not."""
    if not isinstance(constant, Tensor) or constant.numel() < 2:
        return None
    counted = constant.flatten().tolist()
    first = counted[0]
    if counted != [first + i for i in range(len(counted))] or constant.is_floating_point():
        return None
    draft = call.draft
    source = next(
        (
            name
            for name, node in reversed(draft.nodes.items())
            if len(node.shape) == 2 and node.shape[1] == len(counted)
        ),
        None,
    )
    if source is None:
        return None
    at = next(i for i, size in enumerate(constant.shape) if size > 1)
    meets = like.dims[at - constant.ndim] if constant.ndim - at <= len(like.dims) else ()
    if {f.axis for f in meets} - {STEPS, None}:
        return None
    name = call.node("positions", source, (1, len(counted)))
    draft.whole.add(name)
    dims = [() if size == 1 else (Factor(STEPS, size),) for size in constant.shape]
    found = value(name, dims)
    return scaled(call, found, None, first) if first else found


def _sum(sign: float, turned: bool = False) -> Callable[[Called], Stepped]:
    """``a + alpha * b`` or ``a - alpha * b``."""

    def handle(call: Called) -> Stepped:
        call.plain("other", "alpha")
        one, other = call.given(0, "input"), call.given(1, "other")
        if turned:
            one, other = other, one
        factor = sign * call.constant(2, "alpha", 1)
        return added(call, one, other, factor)

    return handle


def added(call: Called, one: Any, other: Any, factor: float) -> Stepped:
    """``one + factor * other``, of which one may be a constant."""
    if not isinstance(other, Stepped):
        steps = positions(call, other, one)
        if steps is None:
            return plus_constant(call, one, other, factor)
        other = steps
    if not isinstance(one, Stepped):
        steps = positions(call, one, other)
        if steps is None:
            return plus_constant(call, scaled(call, other, factor), one)
        one = steps
    if factor != 1:
        other = scaled(call, other, factor)
    shapes = [call.draft.nodes[v.name].shape for v in (one, other)]
    whole = {one.name, other.name} <= call.draft.whole
    # What can't be masked would keep others from it in a sum: it is read, and theirs guessed.
    meets = len({can_be_masked(call.draft, v.name) for v in (one, other)}) > 1
    found = two(call, "plus" if meets or shapes[0] != shapes[1] else "add", one, other)
    if whole:
        call.draft.whole.add(found.name)
    return found


_MADE = ("linear", "conv", "grouped_conv", "lstm", "gru", "rnn_tanh", "rnn_relu", "layer_norm")
_PASSED = ("affine", "add", "concat", "take", "step", "gather", "cut", "flip", "steps_mean")


def can_be_masked(draft: Draft, name: str) -> bool:
    """Whether units of a node are some layer's."""
    node = draft.nodes[name]
    if node.op in _MADE:
        return True
    passes = node.op in _PASSED or isinstance(OPERATIONS.get(node.op), Activation)
    return passes and any(can_be_masked(draft, given) for given in node.inputs)


def _times(call: Called) -> Stepped:
    call.plain("other")
    return times(call, call.given(0, "input"), call.given(1, "other"))


def times(call: Called, one: Any, other: Any) -> Stepped:
    """A product, of which one may be a constant."""
    if isinstance(one, Stepped) and isinstance(other, Stepped):
        return two(call, "product", one, other)
    made, constant = (one, other) if isinstance(one, Stepped) else (other, one)
    numbers, table = constant_along(call, made, constant)
    if table is not None:
        return two(call, "product", made, _constant(call, table, made))
    return scaled(call, made, numbers)


def _divided(call: Called) -> Stepped:
    call.plain("other")
    one, other = call.given(0, "input"), call.given(1, "other")
    if isinstance(one, Stepped) and isinstance(other, Stepped):
        return two(call, "divide", one, other)
    if not isinstance(one, Stepped):
        raise NotCovered("a constant divided by what depends on the input")
    return times(call, one, 1 / double(other))


def _negative(call: Called) -> Stepped:
    return scaled(call, stepped(call), -1.0)


def _clamp(call: Called) -> Stepped:
    made = stepped(call)
    given = {key: call.constant(i, key) for i, key in ((1, "min"), (2, "max"))}
    return clamped(call, made, given["min"], given["max"])


def _clamp_min(call: Called) -> Stepped:
    return clamped(call, stepped(call), call.constant(1, "min"), None)


def clamped(call: Called, made: Stepped, least: Any, most: Any) -> Stepped:
    """A value between two numbers."""
    settings = {
        key: None if given is None else float(given)
        for key, given in (("min", least), ("max", most))
    }
    name = call.node("clamp", made.name, settings=settings)
    if made.name in call.draft.whole and all(v is None or v == round(v) for v in settings.values()):
        call.draft.whole.add(name)
    return made.like(name)


def _power(exponent: float | None) -> Callable[[Called], Stepped]:
    def handle(call: Called) -> Stepped:
        made = stepped(call)
        number = call.constant(1, "exponent") if exponent is None else exponent
        settings = {"exponent": float(number)}
        return made.like(call.node("power", made.name, settings=settings))

    return handle


def _glu(call: Called) -> Stepped:
    """One half of the units times the sigmoid of the other."""
    made = stepped(call)
    dim = call.setting(1, "dim", -1)
    if made.axis(dim) != UNITS:
        raise NotCovered(f"it goes over dimension {dim} of {made.shape}, not units")
    at, half = dim % len(made.dims), made.shape[dim] // 2
    one, other = (part_of(call, made, at, slice(i * half, (i + 1) * half)) for i in (0, 1))
    return two(call, "product", one, other.like(call.node("sigmoid", other.name)))


ROWS_OF_CALLS: Rows = (
    (_sum(1), (operator.add, operator.iadd, torch.add, "add", "add_", "__add__", "__radd__")),
    (_sum(-1), (operator.sub, operator.isub, torch.sub, torch.subtract, "sub", "sub_", "__sub__")),
    (_sum(-1, True), (torch.rsub, "__rsub__", "rsub")),
    (_times, (operator.mul, operator.imul, torch.mul, torch.multiply, "mul", "mul_")),
    (_times, ("__mul__", "__rmul__", "multiply")),
    (_divided, (operator.truediv, operator.itruediv, torch.div, torch.divide, "div", "div_")),
    (_divided, ("__truediv__", "divide", torch.true_divide, "true_divide")),
    (_negative, (operator.neg, torch.neg, "neg", "neg_")),
    (_clamp, (torch.clamp, torch.clip, "clamp", "clamp_", "clip")),
    (_clamp_min, (torch.clamp_min, "clamp_min")),
    (_power(None), (operator.pow, torch.pow, "pow", "__pow__")),
    (_power(0.5), (torch.sqrt, "sqrt")),
    (_power(-0.5), (torch.rsqrt, "rsqrt")),
    (_power(2.0), (torch.square, "square")),
    (_power(-1.0), (torch.reciprocal, "reciprocal")),
    (_glu, (functional.glu, torch.nn.GLU)),
    *UNIT_BY_UNIT,
)
