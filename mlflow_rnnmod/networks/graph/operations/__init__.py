"""What the nodes of a graph do: one object for each operation, in a file for each family.

A new operation is a row of its family's ``ROWS``, a new family a file with such a table and a line
here; and a row of what is read from a user's code (:mod:`~mlflow_rnnmod.networks.graph.calls`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain

from mlflow_rnnmod.networks.graph.operations import (
    activations,
    affine,
    convolutions,
    joins,
    norms,
    pools,
    recurrent,
    shapes,
    steps,
)
from mlflow_rnnmod.networks.graph.operations.activations import Activation
from mlflow_rnnmod.networks.graph.operations.base import (
    MAX_SIZE,
    Operation,
    Settings,
    Shape,
    Sizes,
    Weights,
    is_count,
)

FAMILIES: tuple[Sequence[Operation], ...] = (
    affine.ROWS,
    joins.ROWS,
    activations.ROWS,
    shapes.ROWS,
    convolutions.ROWS,
    pools.ROWS,
    norms.ROWS,
    steps.ROWS,
    recurrent.ROWS,
)

OPERATIONS: dict[str, Operation] = {row.name: row for row in chain(*FAMILIES)}
"""Operations by name."""

__all__ = [
    "MAX_SIZE",
    "OPERATIONS",
    "Activation",
    "Node",
    "Operation",
    "Settings",
    "Shape",
    "Sizes",
    "Weights",
    "is_count",
]


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
