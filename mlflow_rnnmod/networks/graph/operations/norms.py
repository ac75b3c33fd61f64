"""Norms that are made of a row's own values.

Batch norm, whose statistics are the network's, is a scale and a shift, which neighbours take in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional

from mlflow_rnnmod.networks.graph.operations.base import (
    Operation,
    Settings,
    Shape,
    Weights,
    is_count,
    is_number,
    units_of,
)


def is_small(value: Any) -> bool:
    """Whether it can be added to a variance."""
    return is_number(value) and value >= 0


class _Norm(Operation):
    """Mean 0 and deviation 1, then a scale and a shift of each unit."""

    settings = {"eps": is_small}
    parameters = {"scale": ("out",), "shift": ("out",)}
    scales = True


class _Across(_Norm):
    """A norm over units: each one put out depends on several that are read."""

    fresh = reads = True

    def resized(self, settings: Settings, read: Sequence[Tensor], put_out: Tensor) -> Settings:
        kept = None if bool(put_out.all()) else put_out.nonzero()[:, 0].tolist()
        return settings if kept is None else {**settings, "kept": kept}


class _Group(_Across):
    """Over all places of so many groups of units."""

    name = "group_norm"
    settings = {**_Norm.settings, "groups": is_count}

    def shape(self, settings: Settings, shapes: Sequence[Shape]) -> Shape:
        if units_of(shapes[0]) % settings["groups"]:
            raise ValueError(f"shares {shapes[0][0]} units out among {settings['groups']} groups")
        return shapes[0]

    def run(self, settings: Settings, inputs: Sequence[Tensor], weights: Weights) -> Tensor:
        found = functional.group_norm(inputs[0], settings["groups"], eps=settings["eps"])
        return _finished(found, settings, weights)


class _Layer(_Across):
    """Over the units at each place by itself."""

    name = "layer_norm"

    def run(self, settings: Settings, inputs: Sequence[Tensor], weights: Weights) -> Tensor:
        x = inputs[0].movedim(1, -1)
        found = functional.layer_norm(x, x.shape[-1:], eps=settings["eps"]).movedim(-1, 1)
        return _finished(found, settings, weights)


class _Instance(_Norm):
    """Over the places of each unit by itself."""

    name = "instance_norm"

    def shape(self, settings: Settings, shapes: Sequence[Shape]) -> Shape:
        if len(shapes[0]) < 2:
            raise ValueError(f"goes over the places of shape {shapes[0]}, which has none")
        return shapes[0]

    def run(self, settings: Settings, inputs: Sequence[Tensor], weights: Weights) -> Tensor:
        x = inputs[0]
        flat = x.flatten(2)
        mean = flat.mean(2, keepdim=True)
        variance = flat.var(2, correction=0, keepdim=True)
        found = ((flat - mean) * (variance + settings["eps"]).rsqrt()).view_as(x)
        return _finished(found, settings, weights)


def _finished(found: Tensor, settings: Settings, weights: Weights) -> Tensor:
    """Scaled and shifted; units that are cut out of what is put out are left out."""
    kept = settings.get("kept")
    found = found if kept is None else found[:, kept]
    shape = (-1, *[1] * (found.ndim - 2))
    return found * weights["scale"].view(shape) + weights["shift"].view(shape)


ROWS: tuple[Operation, ...] = (_Group(), _Layer(), _Instance())
