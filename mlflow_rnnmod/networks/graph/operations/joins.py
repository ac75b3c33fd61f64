"""Several inputs in one: sums, concatenations."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from mlflow_rnnmod.networks.graph.operations.base import (
    Flow,
    Operation,
    Settings,
    Shape,
    Weights,
    units_of,
)
from mlflow_rnnmod.networks.graph.units import Layout


def _met(shapes: Sequence[Shape], does: str) -> Shape:
    """The shape of what meets: the same units, and places that are the same, or one for all."""
    dimensions, units = {len(shape) for shape in shapes}, {units_of(shape) for shape in shapes}
    if len(dimensions) > 1 or len(units) > 1:
        raise ValueError(f"{does} shapes {list(shapes)}, expected the same for all")
    found: list[int | None] = []
    for sizes in zip(*shapes, strict=True):
        several = {size for size in sizes if size != 1}
        if len(several) > 1:
            raise ValueError(f"{does} shapes {list(shapes)}, expected the same for all")
        found.append(several.pop() if several else 1)
    return tuple(found)


class _Add(Operation):
    """A sum: what meets in it can only be masked together."""

    name = "add"
    takes_inputs = None
    sums = stacks = True

    def shape(self, settings: Settings, shapes: Sequence[Shape]) -> Shape:
        return _met(shapes, "adds up")

    def flow(self, flow: Flow) -> Layout:
        return flow.units.joined(flow.layouts)

    def run(self, settings: Settings, inputs: Sequence[Tensor], weights: Weights) -> Tensor:
        return reduce(torch.add, inputs)


class _Multiply(Operation):
    """A product: where one factor is off all are, so they can only be masked together.

    A single unit may weigh all of another's units; it can't be masked then.
    """

    name = "multiply"
    takes_inputs = None

    def shape(self, settings: Settings, shapes: Sequence[Shape]) -> Shape:
        most = max(units_of(shape) for shape in shapes)
        return _met(
            [(most, *shape[1:]) if shape[0] == 1 else shape for shape in shapes], "multiplies"
        )

    def flow(self, flow: Flow) -> Layout:
        same = []
        for layout, shape in zip(flow.layouts, flow.shapes, strict=True):
            if shape[0] == flow.put_out[0]:
                same.append(layout)
            else:
                flow.units.keep(layout)
        return flow.units.joined(same)

    def run(self, settings: Settings, inputs: Sequence[Tensor], weights: Weights) -> Tensor:
        return reduce(torch.mul, inputs)


class _Concat(Operation):
    """All units side by side."""

    name = "concat"
    takes_inputs = None
    gathers = carries = stacks = True

    def shape(self, settings: Settings, shapes: Sequence[Shape]) -> Shape:
        if len({shape[1:] for shape in shapes}) > 1:
            raise ValueError(
                f"puts shapes {list(shapes)} side by side, expected the same but for units"
            )
        return (sum(map(units_of, shapes)), *shapes[0][1:])

    def flow(self, flow: Flow) -> Layout:
        return tuple(segment for layout in flow.layouts for segment in flow.units.resolved(layout))

    def run(self, settings: Settings, inputs: Sequence[Tensor], weights: Weights) -> Tensor:
        return torch.cat(list(inputs), dim=1)

    def run_stacked(self, settings: Settings, inputs: Sequence[Tensor], weights: Weights) -> Tensor:
        most = max(inputs, key=lambda x: x.ndim)
        spread = [x.expand(*most.shape[:-1], x.shape[-1]) for x in inputs]
        return torch.cat(spread, dim=-1)


ROWS = (_Add(), _Multiply(), _Concat())
