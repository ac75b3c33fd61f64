"""Means and largest values over places."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from mlflow_rnnmod.networks.graph.calls.base import (
    UNITS,
    Called,
    Handler,
    NotCovered,
    Rows,
    Turned,
)
from mlflow_rnnmod.networks.graph.calls.convolutions import listed


def _max_pool(dimensions: int) -> Handler:
    def handle(call: Called) -> str:
        kernel, stride, padding, dilation, ceil, indices = call.settings(
            kernel_size=None, stride=None, padding=0, dilation=1, ceil_mode=False,
            return_indices=False,
        )  # fmt: skip
        if indices:
            raise NotCovered("it gives the places of what is largest")
        settings = {**_window(dimensions, kernel, stride, padding, ceil)}
        settings["dilation"] = listed(dilation, dimensions)
        return _added(call, "max_pool", dimensions, settings)

    return handle


def _avg_pool(dimensions: int) -> Handler:
    def handle(call: Called) -> str:
        kernel, stride, padding, ceil, zeros, divisor = call.settings(
            kernel_size=None, stride=None, padding=0, ceil_mode=False, count_include_pad=True,
            divisor_override=None,
        )  # fmt: skip
        if divisor is not None:
            raise NotCovered("it has a divisor of its own")
        settings = {**_window(dimensions, kernel, stride, padding, ceil), "zeros": bool(zeros)}
        return _added(call, "avg_pool", dimensions, settings)

    return handle


def _window(dimensions: int, kernel: Any, stride: Any, padding: Any, ceil: Any) -> dict[str, Any]:
    stride = kernel if stride is None or stride == [] else stride
    return {
        "kernel": listed(kernel, dimensions),
        "stride": listed(stride, dimensions),
        "padding": listed(padding, dimensions),
        "ceil": bool(ceil),
    }


def _added(call: Called, op: str, dimensions: int, settings: dict[str, Any]) -> str:
    name = call.straight(call.made, dimensions + 2)
    return call.node(op, name, call.shape[1:], settings)


def _adaptive(op: str, dimensions: int) -> Handler:
    def handle(call: Called) -> str:
        if call.settings(output_size=None, return_indices=False)[1]:
            raise NotCovered("it gives the places of what is largest")
        places = list(call.shape[2:])  # as the batch has them, where none are asked for
        return _added(call, op, dimensions, {"places": places})

    return handle


def _reduced(op: str, pair: bool = False) -> Handler:
    """Over some dimensions; ``pair`` where a second result tells the places."""

    def handle(call: Called) -> Any:
        call.plain("dim", "keepdim", "axis")
        made = call.made
        dims = call.constant(1, "dim", call.kwargs.get("axis"))
        keep = bool(call.constant(2, "keepdim", False))
        if dims is None or dims == ():
            raise NotCovered("it goes over all rows")
        found = [call.axis(made, dim) for dim in listed_any(dims)]
        name, axes = found[0][0], [axis for _, axis in found]
        if min(axes) <= UNITS:
            raise NotCovered(f"it goes over dimensions {dims} of {made.shape}, rows or units")
        places = sorted(axis - 2 for axis in axes)
        shape = call.draft.nodes[name].shape
        settings = {"axes": places, "keep": keep}
        left = tuple(
            1 if at - 1 in places else size
            for at, size in enumerate(shape)
            if keep or at - 1 not in places
        )
        name = call.node(op, name, left, settings)
        given = name if made.axes is None else Turned(name, _without(made.axes, axes, keep))
        return [given, NotCovered("the places of what is largest are asked for")] if pair else given

    return handle


def listed_any(value: Any) -> list[int]:
    """One whole number, or some."""
    return [int(dim) for dim in value] if isinstance(value, tuple | list) else [int(value)]


def _without(axes: tuple[int, ...], gone: list[int], keep: bool) -> tuple[int, ...]:
    """The axes that are left, numbered anew."""
    if keep:
        return axes
    return tuple(axis - sum(g < axis for g in gone) for axis in axes if axis not in gone)


_DIMENSIONS = (1, 2, 3)
_MAX: dict[int, tuple[Any, ...]] = {
    1: (nn.MaxPool1d, functional.max_pool1d, torch.max_pool1d),
    2: (nn.MaxPool2d, functional.max_pool2d, torch.max_pool2d),
    3: (nn.MaxPool3d, functional.max_pool3d, torch.max_pool3d),
}
_AVERAGE: dict[int, tuple[Any, ...]] = {
    1: (nn.AvgPool1d, functional.avg_pool1d, torch.avg_pool1d),
    2: (nn.AvgPool2d, functional.avg_pool2d),
    3: (nn.AvgPool3d, functional.avg_pool3d),
}
_ADAPTIVE: dict[int, tuple[Any, ...]] = {
    1: (nn.AdaptiveAvgPool1d, functional.adaptive_avg_pool1d, torch.adaptive_avg_pool1d),
    2: (nn.AdaptiveAvgPool2d, functional.adaptive_avg_pool2d),
    3: (nn.AdaptiveAvgPool3d, functional.adaptive_avg_pool3d),
}
_ADAPTIVE_MAX: dict[int, tuple[Any, ...]] = {
    1: (nn.AdaptiveMaxPool1d, functional.adaptive_max_pool1d),
    2: (nn.AdaptiveMaxPool2d, functional.adaptive_max_pool2d),
    3: (nn.AdaptiveMaxPool3d, functional.adaptive_max_pool3d),
}
_Table = tuple[tuple[Callable[[int], Handler], dict[int, tuple[Any, ...]]], ...]
_WINDOWS: _Table = (
    (_max_pool, _MAX),
    (_avg_pool, _AVERAGE),
    (lambda n: _adaptive("adaptive_avg_pool", n), _ADAPTIVE),
    (lambda n: _adaptive("adaptive_max_pool", n), _ADAPTIVE_MAX),
)
ROWS_OF_CALLS: Rows = (
    *((make(n), targets[n]) for make, targets in _WINDOWS for n in _DIMENSIONS),
    (_reduced("mean"), (torch.mean, "mean")),
    (_reduced("largest"), (torch.amax, "amax")),
    (_reduced("largest", pair=True), (torch.max, "max")),
)
