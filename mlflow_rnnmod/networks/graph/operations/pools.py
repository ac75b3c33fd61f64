"""Means and largest values over places."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mlflow_rnnmod.networks.graph.operations.base import (
    Operation,
    Settings,
    Shape,
    Weights,
    is_count,
)
from mlflow_rnnmod.networks.graph.operations.convolutions import is_counts


def is_flag(value: Any) -> bool:
    """Whether it is true or false."""
    return isinstance(value, bool)


def is_sizes(value: Any) -> bool:
    """Whether it is a list of one to three numbers from 0 up."""
    return (
        isinstance(value, list | tuple)
        and 1 <= len(value) <= 3
        and all(number == 0 or is_count(number) for number in value)
    )


class _Pool(Operation):
    """A window that slides over places."""

    settings = {"kernel": is_counts, "stride": is_counts, "padding": is_sizes, "ceil": is_flag}
    carries = True

    def problems(self, settings: Settings, inputs: int) -> list[str]:
        found = super().problems(settings, inputs)
        if not found:
            if len({len(settings[key]) for key in ("kernel", "stride", "padding")}) > 1:
                found.append("kernel, stride and padding differ in length")
            elif any(
                2 * p > k for p, k in zip(settings["padding"], settings["kernel"], strict=True)
            ):
                found.append("padding is more than half of the kernel")
        return found

    def shape(self, settings: Settings, shapes: Sequence[Shape]) -> Shape:
        read = shapes[0]
        if len(read) != 1 + len(settings["kernel"]):
            raise ValueError(f"reads shape {read} with a window of {list(settings['kernel'])}")
        found: list[int | None] = []
        dilation = settings.get("dilation", [1] * len(read))
        for size, kernel, stride, around, apart in zip(
            read[1:],
            settings["kernel"],
            settings["stride"],
            settings["padding"],
            dilation,
            strict=False,
        ):
            if size is None:
                found.append(None)
                continue
            room = size + 2 * around - apart * (kernel - 1) - 1
            steps = -(-room // stride) if settings["ceil"] else room // stride
            if settings["ceil"] and steps * stride >= size + around:
                steps -= 1  # no window starts behind what is there
            if room < 0 and not settings["ceil"] or steps < 0:
                raise ValueError(f"reads {size} places with a window of {kernel}")
            found.append(steps + 1)
        return (read[0], *found)


class _Max(_Pool):
    """The largest in a window."""

    name = "max_pool"
    settings = {**_Pool.settings, "dilation": is_counts}

    def problems(self, settings: Settings, inputs: int) -> list[str]:
        found = super().problems(settings, inputs)
        if not found and len(settings["dilation"]) != len(settings["kernel"]):
            found.append("dilation and kernel differ in length")
        return found

    def run(self, settings: Settings, inputs: Sequence[Tensor], weights: Weights) -> Tensor:
        run: Any = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)
        given = (tuple(settings[key]) for key in ("kernel", "stride", "padding", "dilation"))
        found: Tensor = run[len(settings["kernel"]) - 1](inputs[0], *given, settings["ceil"])
        return found


class _Average(_Pool):
    """The mean of a window."""

    name = "avg_pool"
    settings = {**_Pool.settings, "zeros": is_flag}

    def run(self, settings: Settings, inputs: Sequence[Tensor], weights: Weights) -> Tensor:
        run: Any = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)
        given = (tuple(settings[key]) for key in ("kernel", "stride", "padding"))
        found: Tensor = run[len(settings["kernel"]) - 1](
            inputs[0], *given, settings["ceil"], settings["zeros"]
        )
        return found


class _Adaptive(Operation):
    """Windows that give so many places.

    Args:
        name: in files.
        functions: for one, two and three dimensions.
    """

    settings = {"places": is_counts}
    carries = True

    def __init__(self, name: str, functions: Sequence[Callable[..., Any]]) -> None:
        self.name, self.functions = name, functions

    def shape(self, settings: Settings, shapes: Sequence[Shape]) -> Shape:
        if len(shapes[0]) != 1 + len(settings["places"]):
            raise ValueError(
                f"reads shape {shapes[0]}, and gives {list(settings['places'])} places"
            )
        return (shapes[0][0], *settings["places"])

    def run(self, settings: Settings, inputs: Sequence[Tensor], weights: Weights) -> Tensor:
        found: Tensor = self.functions[len(settings["places"]) - 1](
            inputs[0], tuple(settings["places"])
        )
        return found


def is_axes(value: Any) -> bool:
    """Whether it is a list of different axes of places, counted from 0."""
    return (
        isinstance(value, list | tuple)
        and 1 <= len(value) <= 4
        and all(type(axis) is int and 0 <= axis < 4 for axis in value)
        and len(set(value)) == len(value)
    )


class _Reduced(Operation):
    """One number in the place of all along some axes of places.

    Args:
        name: in files.
        function: from a tensor and its dimensions.
    """

    settings = {"axes": is_axes, "keep": is_flag}
    carries = True

    def __init__(self, name: str, function: Callable[[Tensor, list[int], bool], Tensor]) -> None:
        self.name, self.function = name, function

    def shape(self, settings: Settings, shapes: Sequence[Shape]) -> Shape:
        read, axes = shapes[0], settings["axes"]
        if max(axes) >= len(read) - 1:
            raise ValueError(f"goes over axes {list(axes)} of the places of shape {read}")
        if settings["keep"]:
            return (read[0], *(1 if i in axes else size for i, size in enumerate(read[1:])))
        return (read[0], *(size for i, size in enumerate(read[1:]) if i not in axes))

    def run(self, settings: Settings, inputs: Sequence[Tensor], weights: Weights) -> Tensor:
        return self.function(inputs[0], [2 + axis for axis in settings["axes"]], settings["keep"])


_MEANS = (
    functional.adaptive_avg_pool1d,
    functional.adaptive_avg_pool2d,
    functional.adaptive_avg_pool3d,
)
_LARGEST = (
    functional.adaptive_max_pool1d,
    functional.adaptive_max_pool2d,
    functional.adaptive_max_pool3d,
)
ROWS: tuple[Operation, ...] = (
    _Max(),
    _Average(),
    _Adaptive("adaptive_avg_pool", _MEANS),
    _Adaptive("adaptive_max_pool", _LARGEST),
    _Reduced("mean", lambda x, dims, keep: x.mean(dims, keep)),
    _Reduced("largest", lambda x, dims, keep: torch.amax(x, dims, keep)),
)
