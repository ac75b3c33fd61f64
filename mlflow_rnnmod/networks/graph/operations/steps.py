"""Sequences: masks, and what is chosen, weighted and pooled over steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from mlflow_rnnmod.networks.graph.operations.base import (
    MAX_SIZE,
    PASSED,
    READ,
    Flow,
    Operation,
    Plain,
    Settings,
    Shape,
    Weights,
    is_list,
    is_number,
    units_of,
)
from mlflow_rnnmod.networks.graph.units import Layout

INFINITE = "-inf"
"""How files say minus infinity."""


def is_index(value: Any) -> bool:
    """Whether it is the number of a step; negative ones count from the end."""
    return type(value) is int and abs(value) < MAX_SIZE


def valid_steps(lengths: Tensor, steps: int) -> Tensor:
    """Bool ``(rows, steps)``: what stands before each row's length."""
    return torch.arange(steps, device=lengths.device) < lengths[:, None]


_HOW: dict[str, Callable[[Tensor, float], Tensor]] = {
    how: getattr(torch, how) for how in ("eq", "ne", "lt", "le", "gt", "ge")
}


def common_shape(_: Settings, shapes: Sequence[Shape]) -> Shape:
    """The shape that all can be spread to: one may have one unit, or no steps, for all."""
    longest = max(len(shape) for shape in shapes)
    places = {shape[1:] for shape in shapes if len(shape) == longest}
    units = {units_of(shape) for shape in shapes} - {1}
    fits = all(len(shape) in (1, longest) for shape in shapes)
    if len(places) > 1 or len(units) > 1 or not fits:
        raise ValueError(f"has inputs of shapes {list(shapes)}, expected the same or one for all")
    return (max(units, default=1), *places.pop())


def _two(name: str, function: Callable[[Settings, Tensor, Tensor], Tensor], **more: Any) -> Plain:
    """Two inputs, one of which may have one unit, or no steps, for all of the other's."""

    def both(settings: Settings, *inputs: Tensor) -> Tensor:
        longest = max(x.ndim for x in inputs)
        one, other = (x.view(*x.shape, *[1] * (longest - x.ndim)) for x in inputs)
        return function(settings, one, other)

    return Plain(name, both, common_shape, takes_inputs=2, **READ, **more)


def without_steps(_: Settings, shapes: Sequence[Shape]) -> Shape:
    """One number for all steps of a unit."""
    if len(shapes[0]) != 2:
        raise ValueError(f"goes over the steps of shape {shapes[0]}, expected units and steps")
    return shapes[0][:-1]


def _with_steps(_: Settings, shapes: Sequence[Shape]) -> Shape:
    without_steps(_, shapes)
    return shapes[0]


def one_unit(_: Settings, shapes: Sequence[Shape]) -> Shape:
    """One number for all units, at each step by itself."""
    return (1, *shapes[0][1:])


def _step(_: Settings, shapes: Sequence[Shape]) -> Shape:
    if len(shapes[0]) < 2:
        raise ValueError(f"takes a step of shape {shapes[0]}, which has none")
    return shapes[0][:-1]


def _row_own(_: Settings, shapes: Sequence[Shape]) -> Shape:
    if len(shapes[0]) != 2 or shapes[1] != (1,):
        raise ValueError(f"takes steps {shapes[1]} of shape {shapes[0]}, expected one a row")
    return shapes[0][:-1]


def _gathered(_: Settings, x: Tensor, numbers: Tensor) -> Tensor:
    number = numbers[:, 0].long()
    number = torch.where(number < 0, number + x.shape[2], number).clamp(0, x.shape[2] - 1)
    return x[torch.arange(len(x), device=x.device), :, number]


def _some_steps(settings: Settings, shapes: Sequence[Shape]) -> Shape:
    if len(shapes[0]) != 2:
        raise ValueError(f"takes steps of shape {shapes[0]}, expected units and steps")
    steps = shapes[0][1]
    if steps is None:
        return shapes[0]
    return (shapes[0][0], len(range(steps)[settings["start"] : settings["stop"]]))


class _Take(Operation):
    """Some units, in an order."""

    name = "take"
    settings = {
        "units": lambda value: is_list(
            value, MAX_SIZE, lambda unit: type(unit) is int and 0 <= unit < MAX_SIZE
        )
    }
    gathers = carries = True

    def shape(self, settings: Settings, shapes: Sequence[Shape]) -> Shape:
        if max(settings["units"]) >= units_of(shapes[0]):
            raise ValueError(f"takes unit {max(settings['units'])} of {shapes[0][0]}")
        return (len(settings["units"]), *shapes[0][1:])

    def flow(self, flow: Flow) -> Layout:
        found: list[Any] = []
        for start, stop in _runs(flow.settings["units"]):
            found += flow.units.part(flow.layouts[0], start, stop)
        return tuple(found)

    def resized(self, settings: Settings, read: Sequence[Tensor], put_out: Tensor) -> Settings:
        places = read[0].long().cumsum(0) - 1
        return {"units": [int(places[unit]) for unit in settings["units"] if read[0][unit]]}

    def run(self, settings: Settings, inputs: Sequence[Tensor], weights: Weights) -> Tensor:
        return inputs[0][:, list(settings["units"])]


def _runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Numbers that follow one another, as the first and what comes behind the last."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and found[-1][1] == number:
            found[-1] = (found[-1][0], number + 1)
        else:
            found.append((number, number + 1))
    return found


def _or_none(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or fits(value)


_OVER_STEPS: dict[str, Any] = {"shape": without_steps, **READ}
_OVER_UNITS: dict[str, Any] = {"shape": one_unit, **READ}
ROWS: tuple[Operation, ...] = (
    # 1 where a comparison with a number holds, else 0.
    Plain(
        "compare",
        lambda settings, x: _HOW[settings["how"]](x, settings["value"]).to(x.dtype),
        settings={"how": lambda value: value in _HOW, "value": is_number},
        **READ,
    ),
    _two("product", lambda _, one, other: one * other),
    _two("divide", lambda _, one, other: one / other),
    # A sum of what is not alike in shape: one number for all units, or for all steps.
    _two("plus", lambda _, one, other: one + other),
    # The first, and a number where the second is not 0.
    _two(
        "fill",
        lambda settings, x, mask: x.masked_fill(mask != 0, float(settings["value"])),
        settings={"value": lambda value: is_number(value) or value == INFINITE},
    ),
    Plain("steps_sum", lambda _, x: x.sum(2), **_OVER_STEPS),
    Plain("steps_max", lambda _, x: x.amax(2), **_OVER_STEPS),
    Plain("steps_min", lambda _, x: x.amin(2), **_OVER_STEPS),
    # That of guesses is the guess of means: units pass on.
    Plain("steps_mean", lambda _, x: x.mean(2), without_steps, **PASSED),
    Plain("units_sum", lambda _, x: x.sum(1, keepdim=True), **_OVER_UNITS),
    Plain("units_mean", lambda _, x: x.mean(1, keepdim=True), **_OVER_UNITS),
    Plain("units_max", lambda _, x: x.amax(1, keepdim=True), **_OVER_UNITS),
    Plain("softmax_steps", lambda _, x: x.softmax(2), _with_steps, bounded=True, **READ),
    # What stands at one step of all rows, or of each row's own.
    Plain("step", lambda s, x: x[..., s["index"]], _step, {"index": is_index}, **PASSED),
    Plain("gather", _gathered, _row_own, takes_inputs=2, **PASSED),
    Plain(
        "cut",
        lambda settings, x: x[..., settings["start"] : settings["stop"]],
        _some_steps,
        {"start": is_index, "stop": _or_none(is_index)},
        **PASSED,
    ),
    Plain("flip", lambda _, x: x.flip(-1), **PASSED),
    Plain(
        "clamp",
        lambda settings, x: x.clamp(settings["min"], settings["max"]),
        settings={"min": _or_none(is_number), "max": _or_none(is_number)},
        **READ,
    ),
    Plain("power", lambda s, x: x ** s["exponent"], settings={"exponent": is_number}, **READ),
    _Take(),
)
