"""Likelihoods p(x | label) of raw inputs: what all kinds of densities have in common.

A parent's readouts mean something to that parent alone. A density of the raw input has one unit for
all parents: p(label | x) is proportional to p(label | x, parent) p(x | parent). So each module has
a small one, estimated in one pass from its label's own training rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from torch import Tensor

LENGTH_POWER = 0.75
"""To tell how usual an input is, its log-likelihood is divided by this power of its length: a sum
of independent steps spreads by the root of their number, a sum of like ones by the number."""


@dataclass(frozen=True, eq=False)
class Likelihood:
    """A density of one label's inputs, as files hold it.

    Args:
        space: what it is a density of, with the version of its normaliser: ``"words-1"``. Only
            likelihoods of one space can be compared.
        facts: numbers and words, as JSON types.
        tensors: its tables.
        step: of single steps, where answers have one for each; ``None`` where there is none.
    """

    space: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    step: Likelihood | None = None

    @property
    def bytes(self) -> int:
        """Size of its tables."""
        own = sum(t.numel() * t.element_size() for t in self.tensors.values())
        return own + (0 if self.step is None else self.step.bytes)

    def __repr__(self) -> str:
        return f"Likelihood({self.space!r}, {self.bytes} bytes)"


class Counts(ABC):
    """What was seen of each label's inputs: sums, so that parts can be counted apart and merged."""

    @abstractmethod
    def add(self, seen: Any, carried: Tensor) -> None:
        """Count some inputs.

        ``carried``: bool ``(rows, labels)``: which labels each carries.
        """

    @abstractmethod
    def merge(self, other: Self) -> Self:
        """What both have seen together; the same as if one had seen all of it."""

    @abstractmethod
    def likelihoods(self) -> list[Likelihood | None]:
        """One for each label; ``None`` where nothing was seen of it."""


class Stack(ABC):
    """Likelihoods of many modules side by side."""

    @abstractmethod
    def __call__(self, seen: Any) -> Tensor:
        """Log-likelihoods in nats, float32 ``(rows, modules)``."""


class Density(ABC):
    """A family of densities of one space of inputs."""

    kind: ClassVar[str]
    """What the name of its space starts with."""
    version: ClassVar[int] = 1
    """Of what makes numbers of an input; another one is another space."""

    @property
    @abstractmethod
    def space(self) -> str:
        """See :class:`Likelihood`."""

    beside_ties: ClassVar[float] = 0.1
    """What ``"hybrid"`` counts beside labels that are tied to one another: little where a network
    sees more in an input than any likelihood does."""
    raw: ClassVar[bool] = False
    """Whether inputs are read before any parent has made rows of them (:meth:`of_inputs`)."""

    def of_inputs(self, inputs: Any) -> Any:
        """Checked raw inputs as :class:`Counts` and :class:`Stack` read them."""
        raise NotImplementedError

    @abstractmethod
    def of_rows(self, rows: Any, tokenizer: Any = None, side: str = "right") -> Any:
        """A parent's rows, with lengths where they have steps, as the same.

        Args:
            rows: :class:`~mlflow_rnnmod.networks.Rows`.
            tokenizer: the parent's, where it has one: text is read back from token ids.
            side: where padding stands.
        """

    @abstractmethod
    def counts(self, labels: int, room: float = 1.0) -> Counts:
        """Nothing seen yet, of so many labels; tables have a share of the usual ``room``."""

    stepwise: ClassVar[bool] = False
    """Whether steps have likelihoods of their own."""

    def steps_of_rows(self, rows: Any, tokenizer: Any = None, side: str = "right") -> Any:
        """The steps of a parent's rows, as :class:`~mlflow_rnnmod.inputs.neighbours.Steps`.

        Arguments as for :meth:`of_rows`.
        """
        raise NotImplementedError

    def steps_of_inputs(self, inputs: Any, parent: Any) -> Any:
        """The steps that a parent reads in checked inputs, likewise."""
        raise NotImplementedError

    @abstractmethod
    def stack(self, likelihoods: Sequence[Likelihood]) -> Stack:
        """Some likelihoods of this space side by side."""

    @abstractmethod
    def sizes(self, seen: Any) -> Tensor:
        """By how much evidence each input is one, float ``(rows,)``: words, characters, numbers."""

    @abstractmethod
    def vote(self, log_likelihoods: Tensor, sizes: Tensor) -> Tensor:
        """What is added to a vote of log-odds, of the same shape ``(rows, modules)``.

        Parts of an input are not independent, so that a long one must not drown the margin.
        """

    @abstractmethod
    def check(self, likelihood: Likelihood) -> None:
        """Whether its tables are what this density reads.

        Raises:
            ValueError: if they are not.
        """

    @abstractmethod
    def words(self, likelihood: Likelihood) -> str:
        """What is stored, in words for a card."""

    @classmethod
    @abstractmethod
    def parsed(cls, rest: str) -> Density:
        """The density of a space, from what its name holds behind kind and version.

        Raises:
            ValueError: if that is no such space.
        """


def space_of(density: Density, *rest: Any) -> str:
    """Name of a density's space.

    Example:
        >>> from mlflow_rnnmod.inputs.gaussian import VectorDensity
        >>> VectorDensity(784).space
        'vectors-1:784'
    """
    name = f"{density.kind}-{density.version}"
    return ":".join([name, "x".join(str(item) for item in rest)]) if rest else name
