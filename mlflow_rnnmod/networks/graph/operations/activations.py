"""Functions of each unit by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mlflow_rnnmod.networks.graph.operations.base import (
    READ,
    Operation,
    Plain,
    Settings,
    Shape,
    Weights,
    is_number,
)


@dataclass(frozen=True)
class Activation(Operation):
    """A function of each unit by itself.

    Args:
        name: in files.
        function: of a tensor, and settings by name.
        defaults: of PyTorch, for each setting: numbers, or the first of some words.
        bounded: whether values lie between -1 and 1.
        idles: whether units put out exactly 0 where they are off.
    """

    name: str
    function: Callable[..., Tensor]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    bounded: bool = False
    idles: bool = False
    stacks = True

    @property
    def rules(self) -> Mapping[str, Callable[[Any], bool]]:
        """Numbers where the default is one, or else words."""
        return {
            key: is_number if is_number(value) else lambda given: given in ("none", "tanh")
            for key, value in self.defaults.items()
        }

    def run(self, settings: Settings, inputs: Sequence[Tensor], weights: Weights) -> Tensor:
        """The function of the input."""
        return self.function(inputs[0], **settings)


def _has_axis(settings: Settings, shapes: Sequence[Shape]) -> Shape:
    if settings["axis"] >= len(shapes[0]) - 1:
        raise ValueError(f"goes over axis {settings['axis']} of the places of {shapes[0]}")
    return shapes[0]


ROWS: tuple[Operation, ...] = (
    Plain("softmax_units", lambda _, x: x.softmax(1), **READ),
    # Of each unit over one axis of places.
    Plain(
        "softmax_places",
        lambda settings, x: x.softmax(2 + settings["axis"]),
        _has_axis,
        {"axis": lambda value: type(value) is int and 0 <= value < 4},
        bounded=True,
    ),
    Activation("relu", torch.relu, idles=True),
    Activation("tanh", torch.tanh, bounded=True),
    Activation("sigmoid", torch.sigmoid, bounded=True),
    Activation("gelu", functional.gelu, {"approximate": "none"}),
    Activation("leaky_relu", functional.leaky_relu, {"negative_slope": 0.01}),
    Activation("elu", functional.elu, {"alpha": 1.0}),
    Activation("silu", functional.silu),
    Activation("softplus", functional.softplus, {"beta": 1.0, "threshold": 20.0}),
    Activation("relu_six", functional.relu6, idles=True),
    Activation("selu", functional.selu),
    Activation("mish", functional.mish),
    Activation("hardswish", functional.hardswish),
    Activation("hardsigmoid", functional.hardsigmoid, bounded=True, idles=True),
    Activation("softsign", functional.softsign, bounded=True),
    Activation("absolute", torch.abs),
)
