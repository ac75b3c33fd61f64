"""Steps and rows that are chosen by numbers which depend on the input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from mlflow_rnnmod.networks.graph.calls.base import ROWS, Called, NotCovered, Rows
from mlflow_rnnmod.networks.graph.sequences.values import (
    STEPS,
    Dim,
    Factor,
    Order,
    Stepped,
    stepped,
    value,
)


def rows_own(call: Called, made: Stepped, parts: Sequence[Any]) -> Stepped:
    """``x[arange(rows), lengths - 1]``: a step of each row's own."""
    plain = [at for at, part in enumerate(parts) if isinstance(part, slice)]
    if any(parts[at] != slice(None) for at in plain) or len(parts) != len(made.dims):
        raise NotCovered("it takes parts by numbers that depend on the input")
    rows, steps = made.find(ROWS), made.find(STEPS)
    numbers = [at for at in range(len(parts)) if at not in plain]
    if sorted(numbers) != sorted(at for at in (rows, steps) if at is not None):
        raise NotCovered("it takes parts by numbers that depend on the input")
    assert rows is not None and steps is not None
    own = torch.as_tensor(parts[rows]) if not isinstance(parts[rows], Stepped) else None
    if own is None or own.flatten().tolist() != list(range(made.shape[rows])):
        raise NotCovered("it takes other rows than all in their order")
    if not isinstance(parts[steps], Stepped):
        raise NotCovered("it takes a step of each row's own by constants")
    if abs(rows - steps) != 1:
        raise NotCovered("it takes parts by numbers of dimensions that lie apart")
    name = gathered(call, made, parts[steps])
    dims = [dim for at, dim in enumerate(made.dims) if at != steps]
    return value(name, dims)


def gathered(call: Called, made: Stepped, number: Stepped) -> str:
    """A node of what stands at one step of each row's own."""
    axes = {f.axis for dim in number.dims for f in dim if f.axis is not None}
    index = call.draft.nodes[number.name]
    if axes != {ROWS} or index.shape != (1,) or number.name not in call.draft.whole:
        raise NotCovered(f"it takes steps by numbers of shape {number.shape}")
    shape = (call.draft.nodes[made.name].shape[0],)
    return call.node("gather", [made.name, number.name], shape)


def _gather(call: Called) -> Stepped:
    """``x.gather(1, index)`` with one number for all units of a row."""
    made, dim = stepped(call), call.constant(1, "dim")
    number = call.given(2, "index")
    at = dim % len(made.dims)
    if not isinstance(number, Stepped) or {f.axis for f in made.dims[at]} != {STEPS}:
        raise NotCovered("it gathers anything but steps by numbers that depend on the input")
    if number.shape[at] != 1 or any(
        one != other
        for i, (one, other) in enumerate(zip(made.shape, number.shape, strict=True))
        if i != at
    ):
        raise NotCovered(f"it gathers {number.shape} of {made.shape}")
    dims: list[Dim] = list(made.dims)
    dims[at] = ()
    return value(gathered(call, made, number), dims)


def _sort(call: Called) -> Any:
    """Rows by their lengths, as packing once wanted them: an order, which is taken back later."""
    made = call.given(0, "input")
    if isinstance(made, Order) and not made.back:
        return made, Order(made.number, back=True)
    if not isinstance(made, Stepped) or made.dims != ((Factor(ROWS, call.draft.rows),),):
        raise NotCovered("it sorts anything but rows by one number each")
    call.draft.orders += 1
    number = 1 + call.draft.orders
    return in_order(made, Order(number)), Order(number)


def _argsort(call: Called) -> Any:
    return _sort(call)[1]


def in_order(made: Stepped, order: Order) -> Stepped:
    """A value with its rows in another order, or in their own again."""
    before, behind = (order.number, 1) if order.back else (1, order.number)
    at = made.find(ROWS)
    if at is None or made.dims[at] != (Factor(ROWS, made.shape[at], before),):
        raise NotCovered("it sorts rows that are in another order already")
    dims = list(made.dims)
    dims[at] = (Factor(ROWS, made.shape[at], behind),)
    return value(made.name, dims)


def _select(call: Called) -> Stepped:
    """``x.index_select(0, order)``."""
    made, dim, order = stepped(call), call.constant(1, "dim"), call.given(2, "index")
    if not isinstance(order, Order) or dim % len(made.dims) != made.find(ROWS):
        raise NotCovered("it selects by numbers that depend on the input")
    return in_order(made, order)


ROWS_OF_CALLS: Rows = (
    (_gather, (torch.gather, "gather")),
    (_sort, (torch.sort, "sort")),
    (_argsort, (torch.argsort, "argsort")),
    (_select, (torch.index_select, "index_select")),
)
