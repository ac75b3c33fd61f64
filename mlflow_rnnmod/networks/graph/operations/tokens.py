"""What sequences are made of: token ids, constants and the numbers of steps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from mlflow_rnnmod.networks.graph.operations.base import (
    WHOLE,
    Flow,
    Operation,
    Plain,
    Settings,
    Shape,
    Sizes,
    Weights,
    is_count,
    units_of,
)
from mlflow_rnnmod.networks.graph.units import Layout


def _of_token(settings: Settings, shapes: Sequence[Shape]) -> Shape:
    """So many units for each token id."""
    if shapes[0][0] != 1:
        raise ValueError(f"reads {shapes[0][0]} units, expected one token id")
    return (settings["units"], *shapes[0][1:])


def _one_hot(settings: Settings, x: Tensor) -> Tensor:
    return functional.one_hot(x[:, 0].long(), settings["units"]).movedim(-1, 1).to(x.dtype)


def _positions(_: Settings, x: Tensor) -> Tensor:
    """The number of each step, from 0."""
    steps = torch.arange(x.shape[-1], device=x.device, dtype=x.dtype)
    return steps.expand(len(x), 1, -1)


class _Embedding(Operation):
    """A vector for each token id."""

    name = "embedding"
    fresh = whole = True
    settings = {"units": is_count, "tokens": is_count}
    parameters = {"weight": ("tokens", "out")}

    def shape(self, settings: Settings, shapes: Sequence[Shape]) -> Shape:
        return _of_token(settings, shapes)

    def parameter_shapes(
        self, settings: Settings, shapes: Sequence[Shape], put_out: Shape
    ) -> dict[str, Sizes]:
        return {"weight": (settings["tokens"], settings["units"])}

    def owned(self, settings: Settings) -> dict[str, int]:
        return {}

    def work(
        self, settings: Settings, read: Sequence[Sizes], put_out: Sizes, weights: int
    ) -> float:
        return 0.0

    def run(self, settings: Settings, inputs: Sequence[Tensor], weights: Weights) -> Tensor:
        return functional.embedding(inputs[0][:, 0].long(), weights["weight"]).movedim(-1, 1)


class _Constant(Operation):
    """What is the same for all rows: learned first states, places."""

    name = "constant"
    settings = {"shape": lambda value: 1 <= len(value) <= 2 and all(map(is_count, value))}
    parameters = {"value": ("out",)}
    takes_inputs = 0

    def shape(self, settings: Settings, shapes: Sequence[Shape]) -> Shape:
        return tuple(settings["shape"])

    def parameter_shapes(
        self, settings: Settings, shapes: Sequence[Shape], put_out: Shape
    ) -> dict[str, Sizes]:
        return {"value": tuple(settings["shape"])}

    def flow(self, flow: Flow) -> Layout:
        return flow.units.new(units_of(flow.put_out), whole=len(flow.put_out) > 1)

    def resized(self, settings: Settings, read: Sequence[Tensor], put_out: Tensor) -> Settings:
        return {"shape": [int(put_out.sum()), *settings["shape"][1:]]}

    def work(
        self, settings: Settings, read: Sequence[Sizes], put_out: Sizes, weights: int
    ) -> float:
        return 0.0

    def run(self, settings: Settings, inputs: Sequence[Tensor], weights: Weights) -> Tensor:
        return weights["value"][None]


ROWS: tuple[Operation, ...] = (
    _Embedding(),
    Plain("one_hot", _one_hot, _of_token, {"units": is_count}, **WHOLE),
    _Constant(),
    Plain("positions", _positions, lambda _, shapes: (1, *shapes[0][1:]), **WHOLE),
)
