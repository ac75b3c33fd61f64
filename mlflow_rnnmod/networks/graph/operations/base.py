"""What a kind of node says of itself: settings, shapes, weights, units, and how it runs.

What a node puts out for one row has the shape ``(units, *places)``: a dense layer has no places,
an image height and width, a sequence steps. Tensors have rows before that: units are dimension 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, prod
from typing import Any, ClassVar

from torch import Tensor

from mlflow_rnnmod.networks.graph.units import Layout, Units

Shape = tuple[int | None, ...]
"""Units, then places; ``None`` is a number of steps that each batch has its own of."""
Settings = Mapping[str, Any]
Weights = Mapping[str, Tensor]
Sizes = tuple[int, ...]

MAX_SIZE = 2**24
"""The largest number of units, or of features, of a node."""


@dataclass(frozen=True)
class Flow:
    """A node, as it is asked which units stand where.

    Args:
        settings: of the node.
        units: that are known so far; new ones are noted here.
        layouts: of the inputs.
        shapes: of the inputs.
        put_out: the shape of what is put out.
    """

    settings: Settings
    units: Units
    layouts: Sequence[Layout]
    shapes: Sequence[Shape]
    put_out: Shape


class Operation:
    """One kind of node. Shapes are those of one row."""

    name: str
    """In files."""
    settings: ClassVar[Mapping[str, Callable[[Any], bool]]] = {}
    """What a node says, each with what it must fulfil."""
    parameters: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Weights by name, with what their dimensions go along (see :meth:`parameter_shapes`)."""
    borders: ClassVar[tuple[str, ...]] = ()
    """Weights that only views have: constants that guesses put behind a border of zeros."""
    takes_inputs: int | None = 1
    """How many inputs; ``None`` for two or more."""
    gathers: bool = False
    """Whether it puts its inputs side by side as they are."""
    reads: bool = False
    """Whether it reads units, where a removed one's guess can be put in, into new ones."""
    fresh: bool = False
    """Whether units put out were not there before; else they are those of the first input."""
    whole: bool = False
    """Whether such units can't be masked."""
    bounded: bool = False
    """Whether what is put out lies between -1 and 1."""
    idles: bool = False
    """Whether units put out exactly 0 where they are off."""
    scales: bool = False
    """Whether rows of its first and last weights take in a scale and shift of what is put out."""
    carries: bool = False
    """Whether what is put out is bounded, or idles, where what is read is or does."""
    recurs: bool = False
    """Whether a step reads what was put out at the one before."""
    sums: bool = False
    """Whether what is put out is the sum of what is read."""
    stacks: bool = False
    """Whether :meth:`run_stacked` runs many trunks at once, where there are no places."""

    def problems(self, settings: Settings, inputs: int) -> list[str]:
        """What does not fit in a node."""
        found = []
        wanted = self.takes_inputs
        if inputs < 2 if wanted is None else inputs != wanted:
            expected = "two or more" if wanted is None else ("none", "one", "two")[wanted]
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

    def parameter_shapes(
        self, settings: Settings, shapes: Sequence[Shape], put_out: Shape
    ) -> dict[str, Sizes]:
        """Shapes of the weights: ``"read"`` and ``"out"`` are units read and put out."""
        sizes = {"read": units_of(shapes[0]), "out": units_of(put_out)}
        return {key: tuple(sizes[axis] for axis in axes) for key, axes in self.parameters.items()}

    def weights_of(self, settings: Settings) -> Sequence[str]:
        """Names of the weights that a node has."""
        return tuple(self.parameters)

    def owned(self, settings: Settings) -> Mapping[str, int]:
        """Weights whose rows are those of units put out, with how often the units come in them.

        As many times as there are gates, one after the other; a unit that owns several columns
        side by side owns as many rows.
        """
        return dict.fromkeys(self.parameters, 1)

    def readers(self, settings: Settings) -> Sequence[Reads]:
        """Weights whose columns read units, where all that is read goes through such columns.

        Guesses are folded into them, and removed columns cut out. With none, although units are
        read, the guesses are put in when it runs.
        """
        return ()

    def window(self, settings: Settings) -> int:
        """At how many places at once its weight reads."""
        return 1

    def bounds(self, settings: Settings) -> bool:
        """Whether all that is put out lies between -1 and 1."""
        return self.bounded

    def windows(self, settings: Settings, x: Tensor, at: Tensor) -> Tensor:
        """What its weight read, float ``(windows, units x places)``.

        Args:
            settings: of the node, with a :meth:`window` of more than one place.
            x: what it reads.
            at: where, for each row: int64 ``(rows, windows of a row)``, numbers of the places that
                are put out, in their order.
        """
        raise NotImplementedError

    def takes(self, settings: Settings, shifted: bool) -> bool:
        """Whether columns of its weight take in a scale, and its bias a shift, of what it reads."""
        return False

    def folded_inputs(self, settings: Settings) -> Sequence[int]:
        """Inputs whose guesses :meth:`readers` take in, or that are of the node's own units."""
        return (0,)

    def flow(self, flow: Flow) -> Layout:
        """Which units stand where in what is put out."""
        if not self.fresh:
            return flow.layouts[0]
        return flow.units.new(units_of(flow.put_out), whole=self.whole)

    def resized(self, settings: Settings, read: Sequence[Tensor], put_out: Tensor) -> Settings:
        """The settings where units are cut out.

        What is run must go by the sizes of its inputs and weights, and not by numbers of units in
        its settings, unless they are changed here.

        Args:
            settings: of the whole node.
            read: which columns of each input are there, bool ``(columns,)``.
            put_out: which columns of what is put out shall be there.
        """
        return settings

    def work(
        self, settings: Settings, read: Sequence[Sizes], put_out: Sizes, weights: int
    ) -> float:
        """Multiply-adds for one row: each weight at each place, unless it says otherwise.

        Args:
            settings: of the node.
            read: sizes of the inputs, cut down.
            put_out: of what is put out, cut down.
            weights: numbers in its weights but for biases, cut down.
        """
        return float(weights * prod(put_out[1:]))

    def run(self, settings: Settings, inputs: Sequence[Tensor], weights: Weights) -> Tensor:
        """Float ``(rows, units, *places)`` from inputs of such shapes."""
        raise NotImplementedError

    def added_shape(self, settings: Settings, inputs: Sequence[Tensor]) -> Sizes:
        """Shape of what can be added to what is put out, rows first, where it :attr:`recurs`."""
        raise NotImplementedError

    def run_added(
        self, settings: Settings, inputs: Sequence[Tensor], weights: Weights, added: Tensor
    ) -> Tensor:
        """As :meth:`run`, with something added to what is put out before anything reads it."""
        return self.run(settings, inputs, weights) + added

    def run_stacked(self, settings: Settings, inputs: Sequence[Tensor], weights: Weights) -> Tensor:
        """Float ``(..., rows, units)`` where trunks stand before rows, and before weights."""
        return self.run(settings, inputs, weights)


class Plain(Operation):
    """An operation without weights, which a function says.

    Args:
        name: in files.
        function: of the settings and the inputs, to what is put out.
        shape: of the settings and the inputs' shapes, to that of what is put out; by default the
            first input's.
        settings: see :class:`Operation`.
        traits: what else is special in it, of the attributes of :class:`Operation`.
    """

    def __init__(
        self,
        name: str,
        function: Callable[..., Tensor],
        shape: Callable[[Settings, Sequence[Shape]], Shape] = lambda settings, shapes: shapes[0],
        settings: Mapping[str, Callable[[Any], bool]] | None = None,
        **traits: Any,
    ) -> None:
        vars(self).update(traits, name=name, settings=settings or {})
        self._function, self._shape = function, shape

    def shape(self, settings: Settings, shapes: Sequence[Shape]) -> Shape:
        """What is put out."""
        return self._shape(settings, shapes)

    def run(self, settings: Settings, inputs: Sequence[Tensor], weights: Weights) -> Tensor:
        """The function of the inputs."""
        return self._function(settings, *inputs)


WHOLE: dict[str, Any] = {"fresh": True, "whole": True}
"""Traits of what puts out units that nobody masks."""
READ: dict[str, Any] = {**WHOLE, "reads": True}
"""The same, of units that are read with guesses in."""
PASSED: dict[str, Any] = {"gathers": True, "carries": True}
"""Traits of what puts out the units that it reads."""


class Reads:
    """Columns of a weight that read a node's first input.

    Args:
        weight: its name in the node.
        bias: name of the bias that constants go into.
        border: name of what constants go into, by position in the kernel, where zeros are read
            around what is there: no constant is there.
        own: whether they read what the node itself put out, at the step before.
    """

    def __init__(
        self,
        weight: str = "weight",
        bias: str = "bias",
        border: str | None = None,
        own: bool = False,
    ) -> None:
        self.weight, self.bias, self.border, self.own = weight, bias, border, own


def units_of(shape: Shape) -> int:
    """How many units; their number is always known."""
    assert shape[0] is not None
    return shape[0]


def is_count(value: Any) -> bool:
    """Whether it is a number of units."""
    return type(value) is int and 1 <= value <= MAX_SIZE


def is_flag(value: Any) -> bool:
    """Whether it is ``True`` or ``False``."""
    return type(value) is bool


def is_list(value: Any, most: int, fits: Callable[[Any], bool]) -> bool:
    """Whether it is a list of one to ``most`` items that all fit."""
    return isinstance(value, list | tuple) and 1 <= len(value) <= most and all(map(fits, value))


def is_number(value: Any) -> bool:
    """Whether it is a finite float, or an int."""
    return type(value) in (int, float) and isfinite(value)
