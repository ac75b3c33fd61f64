"""Calls in a user's code over steps: a row for each that is covered, in a file for each family.

Values in line (:mod:`~mlflow_rnnmod.networks.graph.calls`) are rows, then numbers in their order;
where there are steps, users turn, split and merge dimensions, and each has to be known.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

from mlflow_rnnmod.networks.graph.calls.base import Handler, Rows, among
from mlflow_rnnmod.networks.graph.sequences import (
    arithmetic,
    cells,
    choosing,
    layers,
    masks,
    pooling,
    shaping,
)
from mlflow_rnnmod.networks.graph.sequences.cells import Packed
from mlflow_rnnmod.networks.graph.sequences.values import STEPS, Order, Stepped, whole

FAMILIES: tuple[Rows, ...] = (
    shaping.ROWS_OF_CALLS,
    arithmetic.ROWS_OF_CALLS,
    masks.ROWS_OF_CALLS,
    pooling.ROWS_OF_CALLS,
    layers.ROWS_OF_CALLS,
    cells.ROWS_OF_CALLS,
    choosing.ROWS_OF_CALLS,
)

HANDLERS: dict[Any, Handler] = {
    target: handler for handler, targets in chain(*FAMILIES) for target in targets
}
"""By functions, names of methods, and types of submodules."""

__all__ = ["HANDLERS", "STEPS", "Order", "Packed", "Stepped", "handler_over_steps", "whole"]


def handler_over_steps(target: Any) -> Handler | None:
    """What is covered, of a function, a method's name, or a submodule."""
    return among(HANDLERS, target)
