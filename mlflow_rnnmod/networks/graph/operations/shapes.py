"""The same numbers in other shapes."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from torch import Tensor
from torch.nn import functional

from mlflow_rnnmod.networks.graph.operations.base import (
    MAX_SIZE,
    Flow,
    Operation,
    Settings,
    Shape,
    Weights,
    is_count,
    is_list,
    units_of,
)
from mlflow_rnnmod.networks.graph.operations.convolutions import (
    MODES,
    check_around,
    is_border,
    put_around,
)
from mlflow_rnnmod.networks.graph.units import Layout

MAX_PLACES = 4


def is_shape(value: Any) -> bool:
    """Whether it is a list of sizes, the last of which may be ``None`` for all that is left."""
    fits = is_list(value, MAX_PLACES + 1, lambda size: size is None or is_count(size))
    return fits and value[0] is not None and list(value).count(None) <= 1


class _Reshape(Operation):
    """Numbers of a row in their order, in another shape.

    Channels that are flattened own a block of columns each, one for each place; such columns can
    become places again. Where units are put together to other units they can't be masked.
    """

    name = "reshape"
    settings = {"shape": is_shape}
    gathers = carries = True

    def shape(self, settings: Settings, shapes: Sequence[Shape]) -> Shape:
        old, new = shapes[0], tuple(settings["shape"])
        known_old, known_new = ([s for s in shape if s is not None] for shape in (old, new))
        fits = prod(known_old) == prod(known_new) and old.count(None) == new.count(None)
        # With an unknown number of places, units can only be merged and parted before it.
        if not fits or (None in old and old[-1] is not None) or prod(known_new) > MAX_SIZE:
            raise ValueError(f"makes shape {new} of {old}, expected as many numbers")
        return new

    def flow(self, flow: Flow) -> Layout:
        before, after = flow.shapes[0][0], flow.put_out[0]
        assert before is not None and after is not None
        if after % before == 0:
            return flow.units.spread(flow.layouts[0], after // before)
        if before % after == 0:
            return flow.units.gathered(flow.layouts[0], before // after)
        flow.units.keep(flow.layouts[0])
        return flow.units.new(after, whole=True)

    def resized(self, settings: Settings, read: Sequence[Tensor], put_out: Tensor) -> Settings:
        return {**settings, "shape": [int(put_out.sum()), *settings["shape"][1:]]}

    def run(self, settings: Settings, inputs: Sequence[Tensor], weights: Weights) -> Tensor:
        shape = [-1 if size is None else size for size in settings["shape"]]
        return inputs[0].reshape(len(inputs[0]), *shape)


def is_bounds(value: Any) -> bool:
    """Whether it is a list of slices: first, one past the last (or ``None``) and step each."""
    return (
        is_list(value, MAX_PLACES + 1, lambda b: isinstance(b, list | tuple) and len(b) == 3)
        and all(
            type(start) is int
            and abs(start) < MAX_SIZE
            and (stop is None or (type(stop) is int and abs(stop) < MAX_SIZE))
            and is_count(step)
            for start, stop, step in value
        )
        and value[0][0] >= 0
        and value[0][1] is not None
        and value[0][2] == 1
    )


class _Slice(Operation):
    """Some units side by side, at some places."""

    name = "slice"
    settings = {"bounds": is_bounds}
    gathers = carries = True

    def shape(self, settings: Settings, shapes: Sequence[Shape]) -> Shape:
        read, bounds = shapes[0], settings["bounds"]
        if len(read) != len(bounds):
            raise ValueError(f"takes {len(bounds)} slices of shape {read}")
        found: list[int | None] = []
        for size, (start, stop, step) in zip(read, bounds, strict=True):
            if size is None and start == 0 and stop is None and step == 1:
                found.append(None)
            elif size is None:
                raise ValueError(f"takes {list(bounds)} of shape {read}, whose places differ")
            else:
                found.append(len(range(*slice(start, stop, step).indices(size))))
        return tuple(found)

    def flow(self, flow: Flow) -> Layout:
        start, stop, _ = flow.settings["bounds"][0]
        read = units_of(flow.shapes[0])
        if not start and stop >= read:
            return flow.layouts[0]
        return flow.units.part(flow.layouts[0], start, min(stop, read))

    def resized(self, settings: Settings, read: Sequence[Tensor], put_out: Tensor) -> Settings:
        (start, stop, step), *places = settings["bounds"]
        first, last = int(read[0][:start].sum()), int(read[0][:stop].sum())
        return {"bounds": [[first, last, step], *places]}

    def run(self, settings: Settings, inputs: Sequence[Tensor], weights: Weights) -> Tensor:
        return inputs[0][(slice(None), *(slice(*bounds) for bounds in settings["bounds"]))]


class _Pad(Operation):
    """Zeros, or what lies at the border, around units and places."""

    name = "pad"
    settings = {
        "units": lambda value: is_border([value]),
        "places": lambda value: value == [] or is_border(value),
        "mode": lambda value: value in tuple(MODES),
    }
    carries = True

    def problems(self, settings: Settings, inputs: int) -> list[str]:
        found = super().problems(settings, inputs)
        if not found and any(settings["units"]) and settings["mode"] != "zeros":
            found.append(f"puts units beside with mode={settings['mode']!r}, expected 'zeros'")
        return found

    def shape(self, settings: Settings, shapes: Sequence[Shape]) -> Shape:
        read, places = shapes[0], settings["places"]
        if len(read) != 1 + len(places):
            raise ValueError(f"puts {list(places)} around shape {read}")
        check_around(read[1:], places, settings["mode"])
        return tuple(
            None if size is None else size + before + behind
            for size, (before, behind) in zip(read, (settings["units"], *places), strict=True)
        )

    def flow(self, flow: Flow) -> Layout:
        before, behind = flow.settings["units"]
        # Nobody owns them, until they meet others in a sum.
        first, last = (flow.units.new(size) if size else () for size in (before, behind))
        return (*first, *flow.units.resolved(flow.layouts[0]), *last)

    def resized(self, settings: Settings, read: Sequence[Tensor], put_out: Tensor) -> Settings:
        before, behind = settings["units"]
        kept = int(put_out[:before].sum()), int(put_out[len(put_out) - behind :].sum())
        return {**settings, "units": list(kept)}

    def run(self, settings: Settings, inputs: Sequence[Tensor], weights: Weights) -> Tensor:
        x, (before, behind) = inputs[0], settings["units"]
        if any(any(pair) for pair in settings["places"]):
            x = put_around(x, settings["places"], settings["mode"])
        if not before and not behind:
            return x
        return functional.pad(x, [0, 0] * (x.ndim - 2) + [before, behind])


ROWS = (_Reshape(), _Slice(), _Pad())
