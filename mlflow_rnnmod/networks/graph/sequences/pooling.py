"""What is weighted, added up and pooled over steps or units: pools, softmax, attention."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from mlflow_rnnmod.networks.graph.calls.base import ROWS, UNITS, Called, NotCovered, Rows
from mlflow_rnnmod.networks.graph.sequences.arithmetic import added, scaled, times
from mlflow_rnnmod.networks.graph.sequences.layers import product
from mlflow_rnnmod.networks.graph.sequences.shaping import part_of, stacked
from mlflow_rnnmod.networks.graph.sequences.values import (
    OTHERS,
    STEPS,
    Dim,
    Factor,
    Stepped,
    stepped,
    units_at,
    value,
)

_WORDS = {"sum": "added up", "mean": "averaged", "max": "pooled", "min": "pooled"}


class Largest(NamedTuple):
    """What ``max`` gives with a dimension."""

    values: Any
    indices: Any


def _reduction(how: str, pair: bool = False) -> Callable[[Called], Any]:
    """Over some dimensions; ``max`` with a dimension gives numbers and where they are."""

    def handle(call: Called) -> Any:
        made = stepped(call)
        call.plain("dim", "axis", "keepdim", "dtype")
        dims = call.constant(1, "dim", call.kwargs.get("axis"))
        keep = bool(call.constant(2, "keepdim", False))
        if dims is None:
            raise NotCovered(f"it goes over all of {made.shape}, rows too")
        found = made
        several = dims if isinstance(dims, tuple | list) else (dims,)
        chosen = sorted(d % len(made.dims) for d in several)
        for at in reversed(chosen):
            found = reduced(call, found, at, how, keep)
        if made.name in call.draft.whole and how != "mean":
            call.draft.whole.add(found.name)
        if not pair:
            return found
        return Largest(found, NotCovered("where the largest are is not covered", call.line))

    return handle


def reduced(call: Called, made: Stepped, at: int, how: str, keep: bool = False) -> Stepped:
    """A value without one dimension, or with size 1 there."""
    dims: list[Dim] = list(made.dims)
    dim = dims[at]
    dims[at : at + 1] = [()] if keep else []
    axes = {factor.axis for factor in dim}
    node = call.draft.nodes[made.name]
    if not axes:
        return value(made.name, dims)
    if axes == {STEPS}:
        name = call.node(f"steps_{how}", made.name, node.shape[:1])
        return value(name, dims)
    if axes == {UNITS} and dim == (Factor(UNITS, node.shape[0]),) and how != "min":
        shape = (1, *node.shape[1:])
        name = call.node(f"units_{how}", made.name, shape)
        return value(name, dims)
    if axes == {UNITS} and how in ("sum", "mean"):
        return _parts_summed(call, made, at, how, keep)
    if axes == {None} and how != "sum":
        return value(made.name, dims)
    what = "rows" if ROWS in axes else "what was merged, or a part of units"
    raise NotCovered(f"{what} of {made.shape} can't be {_WORDS[how]}")


def _parts_summed(call: Called, made: Stepped, at: int, how: str, keep: bool) -> Stepped:
    """Directions or layers added up."""
    count = made.shape[at]
    parts = [part_of(call, made, at, slice(i, i + 1) if keep else i) for i in range(count)]
    found = parts[0]
    for part in parts[1:]:
        found = added(call, found, part, 1.0)
    return scaled(call, found, 1 / count) if how == "mean" else found


def _softmax(call: Called) -> Stepped:
    """Over steps or units."""
    made = stepped(call)
    dim = call.setting(1, "dim")
    if dim is None:
        raise NotCovered("it does not say which dimension it goes over")
    axis = made.axis(dim)
    if axis == OTHERS:
        return made.like(call.node("softmax_places", made.name, settings={"axis": 1}))
    if axis not in (STEPS, UNITS):
        raise NotCovered(f"it goes over dimension {dim} of {made.shape}, neither steps nor units")
    op = "softmax_steps" if axis == STEPS else "softmax_units"
    return made.like(call.node(op, made.name))


def _log_softmax(call: Called) -> Stepped:
    """What an answer ends with."""
    made = stepped(call)
    dim = call.setting(1, "dim")
    if dim is not None and made.axis(dim) != UNITS:
        raise NotCovered(f"it goes over dimension {dim} of {made.shape}, not units")
    return made.like(call.node("log_softmax", made.name))


def contracted(
    call: Called, one: Stepped, first: str, other: Stepped, second: str, out: str
) -> Stepped:
    """A product of two values, added up over the letters that are not in ``out``."""
    letters = list(dict.fromkeys(first + second))
    table: list[list[Dim]] = []
    for made, own in ((one, first), (other, second)):
        if len(own) != len(made.dims) or len(set(own)) < len(own):
            raise NotCovered(f"it names dimensions of {made.shape} by {own!r}")
        table.append([made.dims[own.index(c)] if c in own else () for c in letters])
    axes = [{f.axis for f in dim} for dims in table for dim in dims]
    hops = [
        at
        for made, own in ((one, first), (other, second))
        for at in [made.find(UNITS)]
        if at is not None and own[at] in out and made.shape[at] <= _MOST_HOPS
    ]
    units = {i % len(letters) for i, found in enumerate(axes) if UNITS in found}
    if len(units) == 2 and hops:
        return _by_hops(call, one, first, other, second, out)
    if len({i % len(letters) for i, found in enumerate(axes) if STEPS in found}) > 1:
        return _each_other(call, one, first, other, second, out)
    for kind, words in ((STEPS, "each step with each other"), (UNITS, "units with units")):
        places = {i % len(letters) for i, found in enumerate(axes) if kind in found}
        if len(places) > 1:
            raise NotCovered(f"a product of {words}")
    found = times(call, value(one.name, table[0]), value(other.name, table[1]))
    for at in reversed(range(len(letters))):
        if letters[at] not in out:
            found = reduced(call, found, at, "sum")
            letters.pop(at)
    return value(found.name, [found.dims[letters.index(c)] for c in out])


_MOST_HOPS = 32


def _units(made: Stepped) -> int:
    """The dimension that the units are."""
    at = made.find(UNITS)
    assert at is not None
    return at


def _each_other(
    call: Called, one: Stepped, first: str, other: Stepped, second: str, out: str
) -> Stepped:
    """Steps with steps: how alike they are, or what they read of one another."""
    draft = call.draft
    steps = [own[made.find(STEPS) or 0] for made, own in ((one, first), (other, second))]
    summed = [c for c in dict.fromkeys(first + second) if c not in out]
    rows = draft.nodes[one.name].shape[1]
    kinds = {c: one.dims[first.index(c)] for c in first} | {
        c: other.dims[second.index(c)] for c in second if c not in first
    }
    shared = summed[0] if len(summed) == 1 and summed[0] in first and summed[0] in second else None
    refused = NotCovered("a product of each step with each other, of another order")
    if shared is None:
        raise refused
    pair = one.dims[first.index(shared)], other.dims[second.index(shared)]
    axes = [{factor.axis for factor in dim} for dim in pair]
    if axes == [{UNITS}, {UNITS}]:
        names = [units_at(call, m, o.index(shared)) for m, o in ((one, first), (other, second))]
        shape = (1, rows, draft.nodes[other.name].shape[1])
        name = call.node("pairs", names, shape)
        kinds[steps[1]] = (Factor(OTHERS, shape[2]),)
    elif axes == [{OTHERS}, {STEPS}] and draft.nodes[one.name].shape[0] == 1:
        mixed = (draft.nodes[other.name].shape[0], rows)
        names = [one.name, other.name]
        name = call.node("mixed", names, mixed)
    else:
        raise refused
    return value(name, [kinds[c] for c in out])


def _by_hops(
    call: Called, one: Stepped, first: str, other: Stepped, second: str, out: str
) -> Stepped:
    """Several weights for each step: one after the other, and their sums side by side."""
    sides = ((one, first), (other, second))
    (few, own), (many, others) = sorted(sides, key=lambda side: side[0].shape[_units(side[0])])
    at = _units(few)
    letter, left = own[at], own[:at] + own[at + 1 :]
    rest = out.replace(letter, "")
    parts = [
        contracted(call, part_of(call, few, at, i), left, many, others, rest)
        for i in range(few.shape[at])
    ]
    return stacked(call, parts, out.index(letter))


def _matmul(call: Called) -> Any:
    """With a constant, a dense layer; else weights and states."""
    one, other = call.given(0, "input"), call.given(1, "other", call.kwargs.get("mat2"))
    if isinstance(one, Stepped) and isinstance(other, Stepped):
        a, b = len(one.dims), len(other.dims)
        if min(a, b) < 2:
            raise NotCovered(f"a product of {one.shape} and {other.shape}")
        batch = "abcdefgh"[: max(a, b) - 2]
        first, second = batch[len(batch) - (a - 2) :] + "ik", batch[len(batch) - (b - 2) :] + "kj"
        return contracted(call, one, first, other, second, batch + "ij")
    if isinstance(one, Stepped):
        weight = other
        if weight.ndim not in (1, 2):
            raise NotCovered(f"a product with a constant of shape {tuple(weight.shape)}")
        found = product(call, one, weight.t() if weight.ndim == 2 else weight[None], None)
        return found if weight.ndim == 2 else value(found.name, found.dims[:-1])
    raise NotCovered("a constant times what depends on the input")


def _einsum(call: Called) -> Stepped:
    """Of two values; a dot in Einstein's notation stands for nothing that is covered."""
    text, *operands = call.args
    operands = (
        list(operands[0])
        if len(operands) == 1 and isinstance(operands[0], tuple | list)
        else operands
    )
    text = text.replace(" ", "")
    if len(operands) != 2 or "->" not in text or "." in text:
        raise NotCovered(f"einsum of {text!r}")
    inputs, out = text.split("->")
    first, second = inputs.split(",")
    one, other = operands
    if isinstance(one, Stepped) and isinstance(other, Stepped):
        return contracted(call, one, first, other, second, out)
    if not isinstance(one, Stepped):
        one, other, first, second = other, one, second, first
    shared = [c for c in second if c in first and c not in out]
    new = [c for c in second if c not in first]
    if len(shared) != 1 or len(second) != len(new) + 1 or len(new) > 1:
        raise NotCovered(f"einsum of {text!r} with a constant")
    order = [c for c in first if c != shared[0]] + shared
    moved = value(one.name, [one.dims[first.index(c)] for c in order])
    weight = other if second[0] in new or not new else other.t()
    found = product(call, moved, weight if weight.ndim == 2 else weight[None], None)
    letters = [*order[:-1], *(new or ["1"])]
    return value(found.name, [found.dims[letters.index(c)] for c in out])


def _all_places(how: str) -> Callable[[Called], Stepped]:
    """Adaptive pools of one number for each unit."""

    def handle(call: Called) -> Stepped:
        made = stepped(call)
        size = call.setting(1, "output_size")
        if size not in (1, (1,), [1]) or made.axis(-1) != STEPS:
            raise NotCovered(f"it pools {made.shape} to {size!r} places")
        return reduced(call, made, len(made.dims) - 1, how, True)

    return handle


def _window(op: str) -> Callable[[Called], Stepped]:
    """A window that slides over steps, or that is as long as all of them."""

    def handle(call: Called) -> Stepped:
        made = stepped(call)
        if made.axis(-1) != STEPS:
            raise NotCovered(f"it pools {made.shape}, whose last dimension is not steps")
        kernel = _one(call.setting(1, "kernel_size"))
        given = {
            "stride": _one(call.setting(2, "stride")) or kernel,
            "padding": _one(call.setting(3, "padding", 0)),
        }
        node = call.draft.nodes[made.name]
        if kernel == made.shape[-1] and not given["padding"]:
            return reduced(
                call, made, len(made.dims) - 1, "max" if op == "max_pool" else "mean", True
            )
        settings: dict[str, Any] = {
            "kernel": [kernel],
            "stride": [given["stride"]],
            "padding": [given["padding"]],
            "ceil": bool(call.setting(5 if op == "max_pool" else 4, "ceil_mode", False)),
        }
        if op == "max_pool":
            settings["dilation"] = [_one(call.setting(4, "dilation", 1))]
        else:
            settings["zeros"] = bool(call.setting(5, "count_include_pad", True))
        shape = (node.shape[0], call.shape[-1])
        name = call.node(op, made.name, shape, settings)
        return value(name, [*made.dims[:-1], (Factor(STEPS, call.shape[-1]),)])

    return handle


def _one(given: Any) -> Any:
    return given[0] if isinstance(given, tuple | list) else given


_SUMS: Mapping[Any, tuple[Any, ...]] = {
    "sum": (torch.sum, "sum"),
    "mean": (torch.mean, "mean"),
    "max": (torch.amax, "amax"),
    "min": (torch.amin, "amin"),
}
ROWS_OF_CALLS: Rows = (
    *((_reduction(how), targets) for how, targets in _SUMS.items()),
    (_reduction("max", True), (torch.max, "max")),
    (_reduction("min", True), (torch.min, "min")),
    (_softmax, (nn.Softmax, functional.softmax, torch.softmax, "softmax")),
    (_log_softmax, (nn.LogSoftmax, functional.log_softmax, torch.log_softmax, "log_softmax")),
    (_matmul, (operator.matmul, torch.matmul, torch.bmm, torch.mm, torch.mv, "matmul", "bmm")),
    (_matmul, ("mm", "mv", "__matmul__")),
    (_einsum, (torch.einsum, torch.functional.einsum)),
    (_all_places("mean"), (nn.AdaptiveAvgPool1d, functional.adaptive_avg_pool1d)),
    (_all_places("max"), (nn.AdaptiveMaxPool1d, functional.adaptive_max_pool1d)),
    (_window("max_pool"), (nn.MaxPool1d, functional.max_pool1d, torch.max_pool1d)),
    (_window("avg_pool"), (nn.AvgPool1d, functional.avg_pool1d)),
)
