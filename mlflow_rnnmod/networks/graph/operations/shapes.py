"""The same numbers in other shapes."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from torch import Tensor

from mlflow_rnnmod.networks.graph.operations.base import (
    MAX_SIZE,
    Operation,
    Settings,
    Shape,
    Weights,
    is_count,
)
from mlflow_rnnmod.networks.graph.units import Layout, Units

MAX_PLACES = 4


def is_shape(value: Any) -> bool:
    """Whether it is a list of sizes, the last of which may be ``None`` for all that is left."""
    return (
        isinstance(value, list | tuple)
        and 1 <= len(value) <= MAX_PLACES + 1
        and all(is_count(size) or (at and size is None) for at, size in enumerate(value))
        and sum(size is None for size in value) <= 1
    )


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

    def flow(
        self,
        settings: Settings,
        units: Units,
        layouts: Sequence[Layout],
        shapes: Sequence[Shape],
        put_out: Shape,
    ) -> Layout:
        before, after = shapes[0][0], put_out[0]
        assert before is not None and after is not None
        if after % before == 0:
            return units.spread(layouts[0], after // before)
        if before % after == 0:
            return units.gathered(layouts[0], before // after)
        units.keep(layouts[0])
        return units.new(after, whole=True)

    def resized(self, settings: Settings, read: Sequence[Tensor], put_out: Tensor) -> Settings:
        return {**settings, "shape": [int(put_out.sum()), *settings["shape"][1:]]}

    def run(self, settings: Settings, inputs: Sequence[Tensor], weights: Weights) -> Tensor:
        shape = [-1 if size is None else size for size in settings["shape"]]
        return inputs[0].reshape(len(inputs[0]), *shape)


ROWS = (_Reshape(),)
