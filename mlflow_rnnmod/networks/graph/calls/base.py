"""A call in a user's code, and values in it.

Graphs have units behind rows and places behind units. A user's tensor is a node's value either *in
line* - its numbers stand in the same order, in whatever shape - or turned: then its axes are known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from mlflow_rnnmod.networks.graph.draft import Draft, Drafted
from mlflow_rnnmod.networks.graph.operations import Settings, Sizes

ROWS, UNITS = 0, 1
"""Axes of a node's value; places come behind."""


class NotCovered(Exception):
    """A call that has no place in a graph; the message says what it is."""


@dataclass(frozen=True)
class Made:
    """A value that depends on the input.

    Args:
        name: of the node that puts it out; its shape in the user's code may be another.
        shape: in the user's code.
        axes: for each dimension in the user's code the axis of the node's value (``ROWS``,
            ``UNITS``, then places); ``None`` where rows come first and numbers are in line.
    """

    name: str
    shape: tuple[int, ...]
    axes: tuple[int, ...] | None = None

    @property
    def numbers(self) -> int:
        """Of one row."""
        return prod(self.shape) // max(self.shape[self.axes.index(ROWS) if self.axes else 0], 1)

    def like(self, name: str) -> Any:
        """Another node's value with the axes of this one, as handlers give it."""
        return name if self.axes is None else Turned(name, self.axes)

    @property
    def size(self) -> int:
        """Numbers of one row, where they stand in a line."""
        if len(self.shape) != 2:
            raise NotCovered(f"it reads values of shape {self.shape}, not (rows, units)")
        return self.shape[1]


@dataclass(frozen=True)
class Turned:
    """What a handler gives where axes are not in line.

    Args:
        name: of the node.
        axes: see :class:`Made`.
    """

    name: str
    axes: tuple[int, ...]


@dataclass(frozen=True)
class Called:
    """One call, with values in the place of tensors.

    Args:
        draft: what new nodes go into.
        args, kwargs: constants, and :class:`Made` for what depends on the input.
        shape: of what the call gave.
        line: of the user's code, in words.
        module: the submodule that was called.
        shapes: of all tensors that the call gave, where it gave several.
        found: what the call gave, where it was run.
        wanted: whether a part of what it gives is read, by its name.
        learned: whether a constant is made of weights.
    """

    draft: Draft
    args: Sequence[Any]
    kwargs: dict[str, Any]
    shape: tuple[int, ...]
    line: str
    module: Any = None
    shapes: tuple[tuple[int, ...], ...] = ()
    found: Any = None
    wanted: Callable[[str], bool] = lambda name: True
    learned: Callable[[Any], bool] = lambda constant: False

    def given(self, position: int, name: str, default: Any = None) -> Any:
        """One argument of a function, counted from 0."""
        if len(self.args) > position:
            return self.args[position]
        return self.kwargs.get(name, default)

    @property
    def made(self) -> Made:
        """The first argument, which must depend on the input."""
        found = self.given(0, "input")
        if not isinstance(found, Made):
            raise NotCovered("its first argument does not depend on the input")
        return found

    def constant(self, position: int, name: str, default: Any = None) -> Any:
        """An argument that must not depend on the input."""
        found = self.given(position, name, default)
        if isinstance(found, Made):
            raise NotCovered(f"its {name!r} depends on the input")
        return found

    def setting(self, position: int, name: str, default: Any = None) -> Any:
        """An attribute of the submodule, or an argument of the function, of the same name."""
        if self.module is not None:
            return getattr(self.module, name, default)
        return self.constant(position, name, default)

    def plain(self, *names: str) -> None:
        """Raises unless all named arguments are among these."""
        more = sorted(set(self.kwargs) - {"input", *names})
        if more:
            raise NotCovered(f"its argument {more[0]!r} is not covered")

    def node(
        self,
        op: str,
        inputs: str | Sequence[str],
        shape: Sizes | None = None,
        settings: Settings | None = None,
        weights: dict[str, Tensor] | None = None,
    ) -> str:
        """The name of a new node; of the shape of what it reads, where none is said."""
        names = [inputs] if isinstance(inputs, str) else list(inputs)
        shape = self.draft.nodes[names[0]].shape if shape is None else shape
        return self.draft.add(Drafted(op, names, shape, settings or {}, weights or {}, self.line))

    def settings(self, **defaults: Any) -> list[Any]:
        """All settings behind the first argument, in their order; no other is covered."""
        self.plain(*defaults)
        pairs = enumerate(defaults.items(), 1)
        return [self.setting(at, name, default) for at, (name, default) in pairs]

    def result(self, given: str | Turned) -> Made:
        """What a node gives, as a value of the shape of this call's result."""
        return value_of(given, self.shape)

    def placed(self, made: Made) -> tuple[str, tuple[int, ...]]:
        """A node whose value has the user's dimensions, and their axes.

        What is in line gets its own shape, ``(units, *places)`` as the user has it.
        """
        if made.axes is not None:
            return made.name, made.axes
        if len(made.shape) < 2:
            raise NotCovered(f"it reads values of shape {made.shape}, which have no units")
        name = self.draft.reshaped(made.name, made.shape[1:], self.line)
        return name, tuple(range(len(made.shape)))

    def straight(self, made: Made, dimensions: int | None = None) -> str:
        """A node whose value is the user's, rows first, then units, then places.

        Args:
            made: a value.
            dimensions: how many it must have.
        """
        name, axes = self.placed(made)
        if axes != tuple(range(len(axes))) or dimensions not in (None, len(axes)):
            raise NotCovered(f"it reads values of shape {made.shape}, not (rows, units, places)")
        return name

    def axis(self, made: Made, dimension: int) -> tuple[str, int]:
        """A node with the user's dimensions, and the axis that one of these is."""
        name, axes = self.placed(made)
        if not -len(axes) <= dimension < len(axes):
            raise NotCovered(f"it goes over dimension {dimension} of {made.shape}")
        return name, axes[dimension]


# From a call to the name of the node that puts out what it gives, in line, or with its axes; a list
# where the call gives several tensors.
Handler = Callable[[Called], Any]
# From handlers to the functions, names of methods and types of submodules that they are for.
Rows = tuple[tuple[Handler, tuple[Any, ...]], ...]


def among(handlers: Mapping[Any, Handler], target: Any) -> Handler | None:
    """The handler of a function, a method's name, or a submodule; ``None`` where none covers it."""
    if not isinstance(target, nn.Module):
        return handlers.get(target)
    kinds = (kind for kind in type(target).__mro__ if kind in handlers)
    return handlers.get(next(kinds, None))


def value_of(given: str | Turned, shape: tuple[int, ...]) -> Made:
    """What a handler gave, as a value of this shape in the user's code."""
    if not isinstance(given, Turned):
        return Made(given, shape)
    # What is left out has size 1: in this order all numbers are in line.
    line = given.axes[:1] == (ROWS,) and list(given.axes) == sorted(given.axes)
    return Made(given.name, shape, None if line else given.axes)


def double(constant: Any) -> Tensor:
    """A constant in float64."""
    return torch.as_tensor(constant, dtype=torch.float64)
