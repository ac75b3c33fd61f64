"""What the nodes of a graph do: one object for each operation.

A new operation is a row of :data:`OPERATIONS`, and a row of what is read from a user's code
(:mod:`~mlflow_rnnmod.networks.graph.calls`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from mlflow_rnnmod.networks.graph.units import Layout, Units

Shape = tuple[int, ...]
Settings = Mapping[str, Any]
Weights = Mapping[str, Tensor]

MAX_SIZE = 2**24
"""The largest number of units, or of features, of a node."""


class Operation:
    """One kind of node. Shapes are those of one row."""

    name: str
    """In files."""
    settings: ClassVar[Mapping[str, Callable[[Any], bool]]] = {}
    """What a node says, each with what it must fulfil."""
    parameters: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Weights by name, with what their dimensions go along: units put out, or units read."""
    several: bool = False
    """Whether two inputs or more are taken, in the place of one."""
    gathers: bool = False
    """Whether it puts its inputs side by side as they are."""
    reads: bool = False
    """Whether it reads units, where a removed one's guess can be put in, into new ones."""
    bounded: bool = False
    """Whether what is put out lies between -1 and 1."""
    idles: bool = False
    """Whether units put out exactly 0 where they are off."""

    def problems(self, settings: Settings, inputs: int) -> list[str]:
        """What does not fit in a node."""
        found = []
        if (inputs < 2) if self.several else (inputs != 1):
            expected = "two or more" if self.several else "one"
            found.append(f"has {inputs} inputs, expected {expected}")
        for key in sorted(set(settings) ^ set(self.rules)):
            found.append(f"has no {key}" if key in self.rules else f"has an unknown {key!r}")
        for key, fits in self.rules.items():
            if key in settings and not fits(settings[key]):
                found.append(f"{key}={settings[key]!r:.100}")
        return found

    @property
    def rules(self) -> Mapping[str, Callable[[Any], bool]]:
        """:attr:`settings` of this one."""
        return self.settings

    def shape(self, settings: Settings, shapes: Sequence[Shape]) -> Shape:
        """What is put out.

        Raises:
            ValueError: if the inputs don't fit.
        """
        return shapes[0]

    def parameter_shapes(self, read: Shape, put_out: Shape) -> dict[str, Shape]:
        """Shapes of the weights."""
        sizes = {"read": read[0], "out": put_out[0]}
        return {key: tuple(sizes[axis] for axis in axes) for key, axes in self.parameters.items()}

    def flow(self, units: Units, layouts: Sequence[Layout], put_out: Shape) -> Layout:
        """Which units stand where in what is put out."""
        return layouts[0]

    def run(self, settings: Settings, inputs: Sequence[Tensor], weights: Weights) -> Tensor:
        """Float ``(..., rows, units)``; weights may have trunks before their own dimensions."""
        raise NotImplementedError


def is_count(value: Any) -> bool:
    """Whether it is a number of units."""
    return type(value) is int and 1 <= value <= MAX_SIZE


def is_number(value: Any) -> bool:
    """Whether it is a finite float, or an int."""
    return type(value) in (int, float) and isfinite(value)


class _Linear(Operation):
    """A dense layer."""

    name = "linear"
    settings = {"units": is_count}
    parameters = {"weight": ("out", "read"), "bias": ("out",)}
    reads = True

    def shape(self, settings: Settings, shapes: Sequence[Shape]) -> Shape:
        return (settings["units"],)

    def flow(self, units: Units, layouts: Sequence[Layout], put_out: Shape) -> Layout:
        return units.new(put_out[0])

    def run(self, settings: Settings, inputs: Sequence[Tensor], weights: Weights) -> Tensor:
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

    def flow(self, units: Units, layouts: Sequence[Layout], put_out: Shape) -> Layout:
        return units.owned(layouts[0])

    def run(self, settings: Settings, inputs: Sequence[Tensor], weights: Weights) -> Tensor:
        scale, shift = weights["scale"], weights["shift"]
        if scale.ndim == 2:
            scale, shift = scale[:, None], shift[:, None]
        return torch.addcmul(shift, inputs[0], scale)


class _Add(Operation):
    """A sum: what meets in it can only be masked together."""

    name = "add"
    several = True

    def shape(self, settings: Settings, shapes: Sequence[Shape]) -> Shape:
        if len(set(shapes)) > 1:
            raise ValueError(f"adds up shapes {list(shapes)}, expected the same for all")
        return shapes[0]

    def flow(self, units: Units, layouts: Sequence[Layout], put_out: Shape) -> Layout:
        return units.joined(layouts)

    def run(self, settings: Settings, inputs: Sequence[Tensor], weights: Weights) -> Tensor:
        found = inputs[0] + inputs[1]
        for more in inputs[2:]:
            found = found + more
        return found


class _Concat(Operation):
    """All units side by side."""

    name = "concat"
    several = gathers = True

    def shape(self, settings: Settings, shapes: Sequence[Shape]) -> Shape:
        return (sum(shape[0] for shape in shapes),)

    def flow(self, units: Units, layouts: Sequence[Layout], put_out: Shape) -> Layout:
        return tuple(segment for layout in layouts for segment in layout)

    def run(self, settings: Settings, inputs: Sequence[Tensor], weights: Weights) -> Tensor:
        most = max(inputs, key=lambda x: x.ndim)
        spread = [x.expand(*most.shape[:-1], x.shape[-1]) for x in inputs]
        return torch.cat(spread, dim=-1)


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


OPERATIONS: dict[str, Operation] = {
    row.name: row
    for row in (
        _Linear(),
        _Affine(),
        _Add(),
        _Concat(),
        Activation("relu", torch.relu, idles=True),
        Activation("tanh", torch.tanh, bounded=True),
        Activation("sigmoid", torch.sigmoid, bounded=True),
        Activation("gelu", functional.gelu, {"approximate": "none"}),
        Activation("leaky_relu", functional.leaky_relu, {"negative_slope": 0.01}),
        Activation("elu", functional.elu, {"alpha": 1.0}),
        Activation("silu", functional.silu),
        Activation("softplus", functional.softplus, {"beta": 1.0, "threshold": 20.0}),
    )
}
"""Operations by name."""


@dataclass(frozen=True)
class Node:
    """One operation of a graph.

    Args:
        name: letters and a number, ``"linear_0"``; its weights are called ``linear_0.weight``.
        op: a key of :data:`OPERATIONS`.
        inputs: names of nodes before this one, or ``"input"``.
        settings: what the operation asks for, as JSON types.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    settings: Settings = field(default_factory=dict, hash=False)

    @property
    def operation(self) -> Operation:
        """What it does."""
        return OPERATIONS[self.op]
