"""Convolutions over one, two or three dimensions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from math import prod
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from mlflow_rnnmod.networks.graph.operations.base import (
    Flow,
    Operation,
    Reads,
    Settings,
    Shape,
    Sizes,
    Weights,
    is_count,
    is_list,
    units_of,
)
from mlflow_rnnmod.networks.graph.units import Layout

MODES = {
    "zeros": "constant",
    "reflect": "reflect",
    "replicate": "replicate",
    "circular": "circular",
}
"""What stands around places that are there, with PyTorch's names for it."""
_RUN: dict[int, Callable[..., Tensor]] = {
    1: functional.conv1d,
    2: functional.conv2d,
    3: functional.conv3d,
}


def is_counts(value: Any) -> bool:
    """Whether it is a list of one to three counts."""
    return is_list(value, 3, is_count)


def is_border(value: Any) -> bool:
    """Whether it is a list of pairs: how many places are put before and behind."""
    return is_list(
        value, 3, lambda pair: isinstance(pair, list | tuple) and len(pair) == 2
    ) and all(number == 0 or is_count(number) for pair in value for number in pair)


class _Convolution(Operation):
    """What all convolutions have in common."""

    settings = {
        "units": is_count,
        "kernel": is_counts,
        "stride": is_counts,
        "dilation": is_counts,
        "padding": is_border,
        "mode": lambda value: value in tuple(MODES),
    }
    parameters = {"weight": ("out", "read"), "bias": ("out",)}
    borders = ("border",)
    scales = True
    grouped: ClassVar[bool] = False

    def problems(self, settings: Settings, inputs: int) -> list[str]:
        found = super().problems(settings, inputs)
        keys = ("kernel", "stride", "dilation", "padding")
        if not found and len({len(settings[key]) for key in keys}) > 1:
            found.append("kernel, stride, dilation and padding differ in length")
        return found

    def groups(self, settings: Settings, read: int) -> int:
        """Among how many parts of the units read those put out are shared out."""
        return 1

    def shape(self, settings: Settings, shapes: Sequence[Shape]) -> Shape:
        read, units = shapes[0], settings["units"]
        if len(read) != 1 + len(settings["kernel"]):
            raise ValueError(f"reads shape {read} with a kernel of {list(settings['kernel'])}")
        check_around(read[1:], settings["padding"], settings["mode"])
        groups = self.groups(settings, units_of(read))
        if units_of(read) % groups or units % groups:
            raise ValueError(f"shares {units_of(read)} and {units} units out among {groups} groups")
        return (units, *slid(read[1:], settings))

    def parameter_shapes(
        self, settings: Settings, shapes: Sequence[Shape], put_out: Shape
    ) -> dict[str, Sizes]:
        read = units_of(shapes[0])
        each = read // self.groups(settings, read)
        units = units_of(put_out)
        return {"weight": (units, each, *settings["kernel"]), "bias": (units,)}

    def run(self, settings: Settings, inputs: Sequence[Tensor], weights: Weights) -> Tensor:
        x, weight, border = inputs[0], weights["weight"], weights.get("border")
        groups = x.shape[1] // weight.shape[1]
        found = self._slide(settings, x, weight, weights["bias"], groups)
        if border is not None:  # what a constant of 1 at each place would add
            ones = x.new_ones(1, 1, *x.shape[2:])
            found = found + self._slide(settings, ones, border, None, 1)
        return found

    @staticmethod
    def _slide(
        settings: Settings, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int
    ) -> Tensor:
        padding, stride = settings["padding"], tuple(settings["stride"])
        around: Any = tuple(before for before, _ in padding)
        if settings["mode"] != "zeros" or any(before != behind for before, behind in padding):
            x, around = put_around(x, padding, settings["mode"]), 0
        if x.ndim == 4 and x.device.type == "cpu":  # few channels up to three times as fast
            x = x.contiguous(memory_format=torch.channels_last)
        run = _RUN[len(padding)]
        return run(x, weight, bias, stride, around, tuple(settings["dilation"]), groups)


def check_around(places: Shape, padding: Sequence[Sequence[int]], mode: str) -> None:
    """Raises ``ValueError`` where less is there than is to be mirrored or repeated around it."""
    most = {"reflect": -1, "circular": 0}.get(mode)
    for size, pair in zip(places, padding, strict=True):
        if most is not None and size is not None and max(pair) > size + most:
            raise ValueError(f"puts {list(pair)} around {size} places with mode={mode!r}")


def slid(places: Shape, settings: Settings) -> Shape:
    """Places that a kernel gives; ``None`` stays unknown."""
    found: list[int | None] = []
    for size, kernel, stride, dilation, (before, behind) in zip(
        places,
        settings["kernel"],
        settings["stride"],
        settings["dilation"],
        settings["padding"],
        strict=True,
    ):
        room = None if size is None else size + before + behind - dilation * (kernel - 1) - 1
        if room is not None and room < 0:
            raise ValueError(f"reads {size} places with a kernel of {kernel}")
        found.append(None if room is None else room // stride + 1)
    return tuple(found)


def put_around(x: Tensor, padding: Sequence[Sequence[int]], mode: str) -> Tensor:
    """Places put before and behind those of ``x``."""
    flat = [number for pair in reversed(padding) for number in pair]
    return functional.pad(x, flat, mode=MODES[mode])


class _Full(_Convolution):
    """All units read go into each one put out."""

    name = "conv"
    fresh = reads = True

    def readers(self, settings: Settings) -> Sequence[Reads]:
        return (Reads(border="border" if _zeros_around(settings) else None),)

    def takes(self, settings: Settings, shifted: bool) -> bool:
        return not (shifted and _zeros_around(settings))

    def window(self, settings: Settings) -> int:
        return prod(settings["kernel"])

    def windows(self, settings: Settings, x: Tensor, at: Tensor) -> Tensor:
        padding = settings["padding"]
        if settings["mode"] != "zeros":
            x, padding = put_around(x, padding, settings["mode"]), [(0, 0) for _ in padding]
        x, sizes = x.movedim(1, -1).contiguous(), tuple(x.shape[2:])
        slides = slid(sizes, {**settings, "padding": padding})
        first = [
            index * step - before
            for index, step, (before, _) in zip(
                torch.unravel_index(at.flatten(), [n or 1 for n in slides]),
                settings["stride"],
                padding,
                strict=True,
            )
        ]
        row = torch.arange(len(x), device=x.device).repeat_interleave(at.shape[1])
        # Units lie side by side: they are taken together, for one place of the kernel at a time.
        flat, found = x.flatten(0, -2), []
        for place in product(*map(range, settings["kernel"])):
            index, outside = row, torch.zeros_like(row, dtype=torch.bool)
            for i, k, d, size in zip(first, place, settings["dilation"], sizes, strict=True):
                here = i + d * k
                outside |= (here < 0) | (here >= size)
                index = index * size + here.clamp(0, size - 1)
            taken = flat.index_select(0, index)
            found.append(taken.masked_fill_(outside[:, None], 0.0))
        return torch.stack(found, dim=2).flatten(1)


def _zeros_around(settings: Settings) -> bool:
    return settings["mode"] == "zeros" and any(any(pair) for pair in settings["padding"])


class _Grouped(_Convolution):
    """Units are shared out among groups, each of which reads its own."""

    name = "grouped_conv"
    settings = {**_Convolution.settings, "groups": is_count}
    fresh = reads = True

    def groups(self, settings: Settings, read: int) -> int:
        return int(settings["groups"])

    def resized(self, settings: Settings, read: Sequence[Tensor], put_out: Tensor) -> Settings:
        counts = put_out.unflatten(0, (settings["groups"], -1)).sum(1).tolist()
        return settings if len(set(counts)) == 1 else {**settings, "counts": counts}

    def run(self, settings: Settings, inputs: Sequence[Tensor], weights: Weights) -> Tensor:
        counts = settings.get("counts")
        if counts is None:
            return super().run(settings, inputs, weights)
        found, start, (x, weight, bias) = [], 0, (inputs[0], weights["weight"], weights["bias"])
        for count, own in zip(counts, x.split(weight.shape[1], dim=1), strict=True):
            rows = slice(start, start + count)
            start += count
            if count:
                found.append(self._slide(settings, own, weight[rows], bias[rows], 1))
        return torch.cat(found, dim=1)


class _Depthwise(_Convolution):
    """Each unit by itself, which may become several side by side."""

    name = "depthwise"

    def groups(self, settings: Settings, read: int) -> int:
        return read

    def flow(self, flow: Flow) -> Layout:
        return flow.units.spread(
            flow.layouts[0], flow.settings["units"] // units_of(flow.shapes[0])
        )


ROWS: tuple[Operation, ...] = (_Full(), _Grouped(), _Depthwise())
