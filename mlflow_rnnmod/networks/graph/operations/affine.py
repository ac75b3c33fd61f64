"""Dense layers, and scales and shifts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from mlflow_rnnmod.networks.graph.operations.base import (
    Operation,
    Reads,
    Settings,
    Shape,
    Weights,
    is_count,
)


class _Linear(Operation):
    """A dense layer, at each place by itself."""

    name = "linear"
    settings = {"units": is_count}
    parameters = {"weight": ("out", "read"), "bias": ("out",)}
    fresh = reads = scales = stacks = True

    def shape(self, settings: Settings, shapes: Sequence[Shape]) -> Shape:
        return (settings["units"], *shapes[0][1:])

    def readers(self, settings: Settings) -> Sequence[Reads]:
        return (Reads(),)

    def takes(self, settings: Settings, shifted: bool) -> bool:
        return True

    def run(self, settings: Settings, inputs: Sequence[Tensor], weights: Weights) -> Tensor:
        x, weight, bias = inputs[0], weights["weight"], weights["bias"]
        if x.ndim == 2:
            return functional.linear(x, weight, bias)
        return functional.linear(x.movedim(1, -1), weight, bias).movedim(-1, 1)

    def run_stacked(self, settings: Settings, inputs: Sequence[Tensor], weights: Weights) -> Tensor:
        x, weight, bias = inputs[0], weights["weight"], weights["bias"]
        if weight.ndim == 2:
            return functional.linear(x, weight, bias)
        if x.ndim == 3:  # each trunk reads its own
            return torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))
        found = functional.linear(x, weight.flatten(0, 1), bias.flatten())
        return found.unflatten(1, weight.shape[:2]).transpose(0, 1)


class _Affine(Operation):
    """A scale and a shift for each unit: what is left of a norm that no neighbour takes in."""

    name = "affine"
    parameters = {"scale": ("out",), "shift": ("out",)}
    scales = stacks = True

    def run(self, settings: Settings, inputs: Sequence[Tensor], weights: Weights) -> Tensor:
        x, scale, shift = inputs[0], weights["scale"], weights["shift"]
        if x.ndim > 2:
            scale, shift = (v.view(-1, *[1] * (x.ndim - 2)) for v in (scale, shift))
        return torch.addcmul(shift, x, scale)

    def run_stacked(self, settings: Settings, inputs: Sequence[Tensor], weights: Weights) -> Tensor:
        scale, shift = weights["scale"], weights["shift"]
        if scale.ndim == 2:
            scale, shift = scale[:, None], shift[:, None]
        return torch.addcmul(shift, inputs[0], scale)


ROWS = (_Linear(), _Affine())
