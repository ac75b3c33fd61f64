"""Means and largest values over places."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mlflow_rnnmod.networks.graph.operations.base import (
    Operation,
    Plain,
    Settings,
    Shape,
    Weights,
    is_count,
    is_flag,
    is_list,
)
from mlflow_rnnmod.networks.graph.operations.convolutions import is_counts


def is_sizes(value: Any) -> bool:
    """Whether it is a list of one to three numbers from 0 up."""
    return is_list(value, 3, lambda number: number == 0 or is_count(number))


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


def _adaptive(name: str, functions: Sequence[Callable[..., Any]]) -> Plain:
    """Windows that give so many places, by functions for one, two and three dimensions."""

    def shape(settings: Settings, shapes: Sequence[Shape]) -> Shape:
        places = settings["places"]
        if len(shapes[0]) != 1 + len(places):
            raise ValueError(f"reads shape {shapes[0]}, and gives {list(places)} places")
        return (shapes[0][0], *places)

    def run(settings: Settings, x: Tensor) -> Tensor:
        found: Tensor = functions[len(settings["places"]) - 1](x, tuple(settings["places"]))
        return found

    return Plain(name, run, shape, {"places": is_counts}, carries=True)


def is_axes(value: Any) -> bool:
    """Whether it is a list of different axes of places, counted from 0."""
    fits = is_list(value, 4, lambda axis: type(axis) is int and 0 <= axis < 4)
    return fits and len(set(value)) == len(value)


def _reduced(name: str, function: Callable[[Tensor, list[int], bool], Tensor]) -> Plain:
    """One number in the place of all along some axes of places."""

    def shape(settings: Settings, shapes: Sequence[Shape]) -> Shape:
        read, axes = shapes[0], settings["axes"]
        if max(axes) >= len(read) - 1:
            raise ValueError(f"goes over axes {list(axes)} of the places of shape {read}")
        if settings["keep"]:
            return (read[0], *(1 if i in axes else size for i, size in enumerate(read[1:])))
        return (read[0], *(size for i, size in enumerate(read[1:]) if i not in axes))

    def run(settings: Settings, x: Tensor) -> Tensor:
        return function(x, [2 + axis for axis in settings["axes"]], settings["keep"])

    return Plain(name, run, shape, {"axes": is_axes, "keep": is_flag}, carries=True)


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
    _adaptive("adaptive_avg_pool", _MEANS),
    _adaptive("adaptive_max_pool", _LARGEST),
    _reduced("mean", lambda x, dims, keep: x.mean(dims, keep)),
    _reduced("largest", lambda x, dims, keep: torch.amax(x, dims, keep)),
)
