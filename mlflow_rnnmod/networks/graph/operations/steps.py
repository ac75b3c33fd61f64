"""Sequences: masks, and what is chosen, weighted and pooled over steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from mlflow_rnnmod.networks.graph.operations.base import (
    MAX_SIZE,
    Flow,
    Operation,
    Settings,
    Shape,
    Weights,
    is_number,
    units_of,
)
from mlflow_rnnmod.networks.graph.operations.tokens import Whole
from mlflow_rnnmod.networks.graph.units import Layout

INFINITE = "-inf"
"""How files say minus infinity."""


def is_flag(value: Any) -> bool:
    """Whether it is ``True`` or ``False``."""
    return type(value) is bool


def is_index(value: Any) -> bool:
    """Whether it is the number of a step; negative ones count from the end."""
    return type(value) is int and abs(value) < MAX_SIZE


def valid_steps(lengths: Tensor, steps: int) -> Tensor:
    """Bool ``(rows, steps)``: what stands before each row's length."""
    return torch.arange(steps, device=lengths.device) < lengths[:, None]


class _Compare(Whole):
    """1 where a comparison with a number holds, else 0."""

    name = "compare"
    HOW: dict[str, Callable[[Tensor, float], Tensor]] = {
        "eq": torch.eq,
        "ne": torch.ne,
        "lt": torch.lt,
        "le": torch.le,
        "gt": torch.gt,
        "ge": torch.ge,
    }
    settings = {"how": lambda value: value in _Compare.HOW, "value": is_number}
    reads = True

    def run(self, settings: Settings, inputs: Sequence[Tensor], weights: Weights) -> Tensor:
        return self.HOW[settings["how"]](inputs[0], settings["value"]).to(inputs[0].dtype)


class _Two(Whole):
    """Two inputs, one of which may have one unit, or no steps, for all of the other's."""

    reads = True

    def problems(self, settings: Settings, inputs: int) -> list[str]:
        found = [] if inputs == 2 else [f"has {inputs} inputs, expected two"]
        return found + super().problems(settings, 1)

    def shape(self, settings: Settings, shapes: Sequence[Shape]) -> Shape:
        return common_shape(shapes)

    def run(self, settings: Settings, inputs: Sequence[Tensor], weights: Weights) -> Tensor:
        return self.both(settings, *spread(inputs))

    def both(self, settings: Settings, one: Tensor, other: Tensor) -> Tensor:
        """What is made of two of one shape."""
        raise NotImplementedError


def common_shape(shapes: Sequence[Shape]) -> Shape:
    """The shape that all can be spread to."""
    longest = max(len(shape) for shape in shapes)
    places = {shape[1:] for shape in shapes if len(shape) == longest}
    units = {units_of(shape) for shape in shapes} - {1}
    fits = all(len(shape) in (1, longest) for shape in shapes)
    if len(places) > 1 or len(units) > 1 or not fits:
        raise ValueError(f"has inputs of shapes {list(shapes)}, expected the same or one for all")
    return (max(units, default=1), *places.pop())


def spread(inputs: Sequence[Tensor]) -> list[Tensor]:
    """Without places as with one of each."""
    longest = max(x.ndim for x in inputs)
    return [x if x.ndim == longest else x.view(*x.shape, *[1] * (longest - x.ndim)) for x in inputs]


class _Multiply(_Two):
    """A product, number by number."""

    name = "product"

    def both(self, settings: Settings, one: Tensor, other: Tensor) -> Tensor:
        return one * other


class _Divide(_Two):
    """One by the other."""

    name = "divide"

    def both(self, settings: Settings, one: Tensor, other: Tensor) -> Tensor:
        return one / other


class _Plus(_Two):
    """A sum of what is not alike in shape: one number for all units, or for all steps."""

    name = "plus"

    def both(self, settings: Settings, one: Tensor, other: Tensor) -> Tensor:
        return one + other


class _Fill(_Two):
    """The first, and a number where the second is not 0."""

    name = "fill"
    settings = {"value": lambda value: is_number(value) or value == INFINITE}

    def both(self, settings: Settings, one: Tensor, other: Tensor) -> Tensor:
        return one.masked_fill(other != 0, float(settings["value"]))


class _OverSteps(Whole):
    """One number for all steps of a unit.

    Args:
        name: in files.
        function: of a tensor ``(rows, units, steps)``.
    """

    reads = True

    def __init__(self, name: str, function: Callable[[Tensor], Tensor]) -> None:
        self.name, self.function = name, function

    def shape(self, settings: Settings, shapes: Sequence[Shape]) -> Shape:
        return without_steps(shapes[0])

    def run(self, settings: Settings, inputs: Sequence[Tensor], weights: Weights) -> Tensor:
        return self.function(inputs[0])


class _StepsMean(Operation):
    """The mean over steps. That of guesses is the guess of means: units pass on."""

    name = "steps_mean"
    gathers = carries = True

    def shape(self, settings: Settings, shapes: Sequence[Shape]) -> Shape:
        return without_steps(shapes[0])

    def run(self, settings: Settings, inputs: Sequence[Tensor], weights: Weights) -> Tensor:
        return inputs[0].mean(2)


class _OverUnits(Whole):
    """One number for all units, at each step by itself.

    Args:
        name: in files.
        function: of a tensor and a dimension.
    """

    reads = True

    def __init__(self, name: str, function: Callable[[Tensor, int], Tensor]) -> None:
        self.name, self.function = name, function

    def shape(self, settings: Settings, shapes: Sequence[Shape]) -> Shape:
        return (1, *shapes[0][1:])

    def run(self, settings: Settings, inputs: Sequence[Tensor], weights: Weights) -> Tensor:
        return self.function(inputs[0], 1).unsqueeze(1)


def without_steps(shape: Shape) -> Shape:
    """A shape without its last places."""
    if len(shape) != 2:
        raise ValueError(f"goes over the steps of shape {shape}, expected units and steps")
    return shape[:-1]


class _Take(Operation):
    """Some units, in an order."""

    name = "take"
    settings = {
        "units": lambda value: (
            isinstance(value, list | tuple)
            and 1 <= len(value) <= MAX_SIZE
            and all(type(unit) is int and 0 <= unit < MAX_SIZE for unit in value)
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


class _Softmax(Whole):
    """A softmax of each unit over steps."""

    name = "softmax_steps"
    reads = bounded = True

    def shape(self, settings: Settings, shapes: Sequence[Shape]) -> Shape:
        without_steps(shapes[0])
        return shapes[0]

    def run(self, settings: Settings, inputs: Sequence[Tensor], weights: Weights) -> Tensor:
        return inputs[0].softmax(2)


class _Step(Operation):
    """What stands at one step of all rows."""

    name = "step"
    settings = {"index": is_index}
    gathers = carries = True

    def shape(self, settings: Settings, shapes: Sequence[Shape]) -> Shape:
        if len(shapes[0]) < 2:
            raise ValueError(f"takes a step of shape {shapes[0]}, which has none")
        return shapes[0][:-1]

    def run(self, settings: Settings, inputs: Sequence[Tensor], weights: Weights) -> Tensor:
        return inputs[0][..., settings["index"]]


class _Gather(Operation):
    """What stands at a step of each row's own."""

    name = "gather"
    gathers = carries = True

    def problems(self, settings: Settings, inputs: int) -> list[str]:
        found = [] if inputs == 2 else [f"has {inputs} inputs, expected two"]
        return found + super().problems(settings, 1)

    def shape(self, settings: Settings, shapes: Sequence[Shape]) -> Shape:
        if len(shapes[0]) != 2 or shapes[1] != (1,):
            raise ValueError(f"takes steps {shapes[1]} of shape {shapes[0]}, expected one a row")
        return shapes[0][:-1]

    def run(self, settings: Settings, inputs: Sequence[Tensor], weights: Weights) -> Tensor:
        x, number = inputs[0], inputs[1][:, 0].long()
        number = torch.where(number < 0, number + x.shape[2], number).clamp(0, x.shape[2] - 1)
        return x[torch.arange(len(x), device=x.device), :, number]


class _Cut(Operation):
    """Some steps: from one to before another."""

    name = "cut"
    settings = {"start": is_index, "stop": lambda value: value is None or is_index(value)}
    gathers = carries = True

    def shape(self, settings: Settings, shapes: Sequence[Shape]) -> Shape:
        if len(shapes[0]) != 2:
            raise ValueError(f"takes steps of shape {shapes[0]}, expected units and steps")
        steps = shapes[0][1]
        if steps is None:
            return shapes[0]
        return (shapes[0][0], len(range(steps)[settings["start"] : settings["stop"]]))

    def run(self, settings: Settings, inputs: Sequence[Tensor], weights: Weights) -> Tensor:
        return inputs[0][..., settings["start"] : settings["stop"]]


class _Flip(Operation):
    """Steps in reverse order."""

    name = "flip"
    gathers = carries = True

    def run(self, settings: Settings, inputs: Sequence[Tensor], weights: Weights) -> Tensor:
        return inputs[0].flip(-1)


class _Clamp(Whole):
    """No smaller than one number, no larger than another."""

    name = "clamp"
    settings = {
        "min": lambda value: value is None or is_number(value),
        "max": lambda value: value is None or is_number(value),
    }
    reads = True

    def run(self, settings: Settings, inputs: Sequence[Tensor], weights: Weights) -> Tensor:
        return inputs[0].clamp(settings["min"], settings["max"])


class _Power(Whole):
    """To a power."""

    name = "power"
    settings = {"exponent": is_number}
    reads = True

    def run(self, settings: Settings, inputs: Sequence[Tensor], weights: Weights) -> Tensor:
        return inputs[0] ** settings["exponent"]


ROWS: tuple[Operation, ...] = (
    _Compare(),
    _Multiply(),
    _Divide(),
    _Plus(),
    _Fill(),
    _OverSteps("steps_sum", lambda x: x.sum(2)),
    _OverSteps("steps_max", lambda x: x.amax(2)),
    _OverSteps("steps_min", lambda x: x.amin(2)),
    _StepsMean(),
    _OverUnits("units_sum", lambda x, dim: x.sum(dim)),
    _OverUnits("units_mean", lambda x, dim: x.mean(dim)),
    _OverUnits("units_max", lambda x, dim: x.amax(dim)),
    _Softmax(),
    _Step(),
    _Gather(),
    _Cut(),
    _Flip(),
    _Clamp(),
    _Power(),
    _Take(),
)
