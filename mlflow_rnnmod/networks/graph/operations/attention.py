"""Each step with each other: attention of a sequence to itself, or to another one."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from mlflow_rnnmod.networks.graph.operations.base import (
    PASSED,
    Operation,
    Plain,
    Settings,
    Shape,
    Sizes,
    Weights,
)


class _Attention(Operation):
    """Two inputs, whose units are read with guesses in, into ones that nobody masks."""

    fresh = whole = reads = True
    takes_inputs = 2

    def work(
        self, settings: Settings, read: Sequence[Sizes], put_out: Sizes, weights: int
    ) -> float:
        return float(max(read[0][0], put_out[0]) * prod(read[0][1:]) * read[1][-1])


class _Pairs(_Attention):
    """How alike each step of the first is to each of the second: their units' products, summed."""

    name = "pairs"

    def shape(self, settings: Settings, shapes: Sequence[Shape]) -> Shape:
        one, other = shapes
        if len(one) != 2 or len(other) != 2 or one[0] != other[0]:
            raise ValueError(f"pairs steps of shapes {list(shapes)}, expected as many units")
        return (1, one[1], other[1])

    def run(self, settings: Settings, inputs: Sequence[Tensor], weights: Weights) -> Tensor:
        return torch.matmul(inputs[0].transpose(1, 2), inputs[1]).unsqueeze(1)


class _Mixed(_Attention):
    """For each step the units of all steps of the second, weighted by the first."""

    name = "mixed"

    def shape(self, settings: Settings, shapes: Sequence[Shape]) -> Shape:
        weights, values = shapes
        if len(weights) != 3 or weights[0] != 1 or len(values) != 2 or weights[2] != values[1]:
            raise ValueError(f"mixes steps of shape {values} by weights of shape {weights}")
        return (values[0], weights[1])

    def run(self, settings: Settings, inputs: Sequence[Tensor], weights: Weights) -> Tensor:
        return torch.matmul(inputs[1], inputs[0][:, 0].transpose(1, 2))


def _for_each(_: Settings, shapes: Sequence[Shape]) -> Shape:
    if len(shapes[0]) != 2:
        raise ValueError(f"spreads shape {shapes[0]}, expected units and steps")
    return (*shapes[0], shapes[0][1])


ROWS: tuple[Operation, ...] = (
    _Pairs(),
    _Mixed(),
    # What is said of each step, said of it for each step that reads it.
    Plain(
        "across", lambda _, x: x.unsqueeze(2).expand(-1, -1, x.shape[2], -1), _for_each, **PASSED
    ),
)
