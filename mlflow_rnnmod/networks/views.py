"""Networks seen through trunks, one or many: what floors above ask of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.networks.groups import Completion


class View(Protocol):
    """A network seen through one trunk."""

    def readout(self, rows: Rows) -> Tensor:
        """Float ``(rows, parent's readout size)``, or with steps before the last dimension."""
        ...  # pragma: no cover


class TrunkNetwork(nn.Module):
    """A network seen through a trunk: the readout of its kept units, at the parent's width.

    Columns of removed units hold the trunk's guesses, so the parent's output layer, or any head
    over the parent's readout, can be applied as it stands.

    Args:
        inner: the parent masked, or cut down to the trunk's units.
        completion: puts the guesses in; ``None`` where ``inner`` has done so.
    """

    def __init__(self, inner: nn.Module, completion: Completion | None) -> None:
        super().__init__()
        self.inner = inner
        self.completion = completion

    def readout(self, rows: Rows) -> Tensor:
        """Float ``(rows, parent's readout size)``, or with steps before the last dimension."""
        found: Tensor = self.inner.readout(rows)  # type: ignore[operator]
        return found if self.completion is None else self.completion(found)


@dataclass(frozen=True)
class Load:
    """A batch for some trunks of one parent, told without their masks.

    Args:
        kept: for each trunk, the units that are run of each group.
        mixed: groups in which some trunk guesses removed units from others.
        rows: rows of the batch.
        steps: of each; ``None`` for what the network is fixed to, or 16.
    """

    kept: Sequence[Mapping[str, int]]
    mixed: frozenset[str]
    rows: int
    steps: int | None


# Called with a slice of the trunks and their readouts (trunks, rows, readout size).
Finish = Callable[[slice, Tensor], None]


class Trunks(Protocol):
    """Many trunks of one network at once, none of them full and all different."""

    def way(self, way: str, rows: Rows) -> str:
        """The way that is taken for a batch, where ``"auto"`` is asked for."""

    def planned(self, rows: int, steps: int) -> str:
        """The way that is taken for a batch of so many rows and steps."""

    def run(self, rows: Rows, way: str, finish: Finish) -> None:
        """Hand the readouts of all trunks to ``finish``, some at a time, in any order."""

    def alone(self, rows: Rows) -> Tensor:
        """The readout of a single trunk, cut down to its units."""
        ...  # pragma: no cover
