"""Comparisons of values with steps, masks made of them, and what masks choose."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch

from mlflow_rnnmod.networks.graph.calls.base import Called, NotCovered, Rows
from mlflow_rnnmod.networks.graph.operations.steps import INFINITE
from mlflow_rnnmod.networks.graph.sequences.arithmetic import added, two
from mlflow_rnnmod.networks.graph.sequences.values import Stepped, stepped

_MASKS = "one made of it in forward, as x != 0, or steps < lengths"


def _compare(how: str) -> Callable[[Called], Stepped]:
    def handle(call: Called) -> Stepped:
        one, other = call.given(0, "input"), call.given(1, "other")
        if isinstance(one, Stepped) and isinstance(other, int | float):
            return compared(call, one, how, other)
        return compared(call, added(call, one, other, -1.0), how, 0)

    return handle


def compared(call: Called, made: Stepped, how: str, number: float) -> Stepped:
    """1 where a comparison holds, else 0."""
    name = call.node("compare", made.name, settings={"how": how, "value": number})
    call.draft.whole.add(name)
    call.draft.flags.add(name)
    return made.like(name)


def flag(call: Called, made: Any) -> Stepped:
    """A value of yes and no."""
    if not isinstance(made, Stepped):
        raise NotCovered(f"a mask that does not depend on the input; expected {_MASKS}")
    if made.name in call.draft.flags:
        return made
    return compared(call, made, "ne", 0)


def _not(call: Called) -> Stepped:
    return compared(call, flag(call, stepped(call)), "eq", 0)


def _and(call: Called) -> Stepped:
    one, other = (flag(call, call.given(i, name)) for i, name in enumerate(("input", "other")))
    found = two(call, "product", one, other)
    call.draft.flags.add(found.name)
    return found


def _or(call: Called) -> Stepped:
    one, other = (flag(call, call.given(i, name)) for i, name in enumerate(("input", "other")))
    return compared(call, added(call, one, other, 1.0), "ne", 0)


def _fill(call: Called) -> Stepped:
    """``x.masked_fill(mask, number)``."""
    made, number = stepped(call), call.constant(2, "value")
    return filled(call, made, flag(call, call.given(1, "mask")), number)


def filled(call: Called, made: Stepped, mask: Stepped, number: Any) -> Stepped:
    """A value, and a number where a mask says so."""
    number = float(number)
    found = two(call, "fill", made, mask)
    settings = call.draft.nodes[found.name]
    settings.settings = {"value": INFINITE if number == -torch.inf else number}
    return found


def _where(call: Called) -> Stepped:
    """``torch.where(mask, one, other)``, one of which is a number."""
    if isinstance(call.args[0], Stepped) and len(call.args) == 3:
        mask, one, other = call.args
    else:
        raise NotCovered(f"its mask does not depend on the input; expected {_MASKS}")
    mask = flag(call, mask)
    if isinstance(one, Stepped) and not isinstance(other, Stepped):
        return filled(call, one, compared(call, mask, "eq", 0), other)
    if isinstance(other, Stepped) and not isinstance(one, Stepped):
        return filled(call, other, mask, one)
    if not isinstance(one, Stepped):
        raise NotCovered("both of its choices are constants")
    rest = compared(call, mask, "eq", 0)
    parts = filled(call, one, rest, 0.0), filled(call, other, mask, 0.0)
    return added(call, *parts, 1.0)


_COMPARISONS = {
    how: (getattr(operator, how), getattr(torch, how), how, f"__{how}__")
    for how in ("eq", "ne", "lt", "le", "gt", "ge")
}
ROWS_OF_CALLS: Rows = (
    *((_compare(how), targets) for how, targets in _COMPARISONS.items()),
    (_not, (operator.invert, torch.logical_not, torch.bitwise_not, "logical_not", "bitwise_not")),
    (_not, ("__invert__",)),
    (_and, (operator.and_, torch.logical_and, "logical_and", "__and__", "__rand__")),
    (_or, (operator.or_, torch.logical_or, "logical_or", "__or__", "__ror__")),
    (_fill, (torch.masked_fill, "masked_fill", "masked_fill_")),
    (_where, (torch.where,)),
)
