"""Several inputs in one: sums, concatenations."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mlflow_rnnmod.networks.graph.operations.base import (
    Operation,
    Settings,
    Shape,
    Weights,
    units_of,
)
from mlflow_rnnmod.networks.graph.units import Layout, Units


class _Add(Operation):
    """A sum: what meets in it can only be masked together."""

    name = "add"
    several = stacks = True

    def shape(self, settings: Settings, shapes: Sequence[Shape]) -> Shape:
        if len(set(shapes)) > 1:
            raise ValueError(f"adds up shapes {list(shapes)}, expected the same for all")
        return shapes[0]

    def flow(
        self,
        settings: Settings,
        units: Units,
        layouts: Sequence[Layout],
        shapes: Sequence[Shape],
        put_out: Shape,
    ) -> Layout:
        return units.joined(layouts)

    def run(self, settings: Settings, inputs: Sequence[Tensor], weights: Weights) -> Tensor:
        found = inputs[0] + inputs[1]
        for more in inputs[2:]:
            found = found + more
        return found


class _Concat(Operation):
    """All units side by side."""

    name = "concat"
    several = gathers = carries = stacks = True

    def shape(self, settings: Settings, shapes: Sequence[Shape]) -> Shape:
        if len({shape[1:] for shape in shapes}) > 1:
            raise ValueError(
                f"puts shapes {list(shapes)} side by side, expected the same but for units"
            )
        return (sum(map(units_of, shapes)), *shapes[0][1:])

    def flow(
        self,
        settings: Settings,
        units: Units,
        layouts: Sequence[Layout],
        shapes: Sequence[Shape],
        put_out: Shape,
    ) -> Layout:
        return tuple(segment for layout in layouts for segment in units.resolved(layout))

    def run(self, settings: Settings, inputs: Sequence[Tensor], weights: Weights) -> Tensor:
        return torch.cat(list(inputs), dim=1)

    def run_stacked(self, settings: Settings, inputs: Sequence[Tensor], weights: Weights) -> Tensor:
        most = max(inputs, key=lambda x: x.ndim)
        spread = [x.expand(*most.shape[:-1], x.shape[-1]) for x in inputs]
        return torch.cat(spread, dim=-1)


ROWS = (_Add(), _Concat())
