"""What calls in a user's code mean: a row for each that is covered, in a file for each family.

A new family is a file with a table ``ROWS_OF_CALLS`` and a line here.
"""

from __future__ import annotations

import operator
from itertools import chain
from typing import Any

from torch import nn

from mlflow_rnnmod.networks.graph.calls import (
    activations,
    affine,
    convolutions,
    norms,
    pools,
    shapes,
)
from mlflow_rnnmod.networks.graph.calls.activations import ENDS
from mlflow_rnnmod.networks.graph.calls.base import (
    Called,
    Handler,
    Made,
    NotCovered,
    Rows,
    Turned,
    among,
    value_of,
)

__all__ = [
    "ENDS",
    "HANDLERS",
    "Called",
    "Handler",
    "Made",
    "NotCovered",
    "Turned",
    "handler_of",
    "in_place",
    "value_of",
]

FAMILIES: tuple[Rows, ...] = (
    affine.ROWS_OF_CALLS,
    activations.ROWS_OF_CALLS,
    shapes.ROWS_OF_CALLS,
    convolutions.ROWS_OF_CALLS,
    pools.ROWS_OF_CALLS,
    norms.ROWS_OF_CALLS,
)

HANDLERS: dict[Any, Handler] = {
    target: handler for handler, targets in chain(*FAMILIES) for target in targets
}
"""By functions, names of methods, and types of submodules."""


def handler_of(target: Any) -> Handler | None:
    """What is covered, of a function, a method's name, or a submodule."""
    return among(HANDLERS, target)


def in_place(target: Any, called: Called) -> bool:
    """Whether a call changes its first argument."""
    if isinstance(target, nn.Module):
        return bool(getattr(target, "inplace", False))
    name = target if isinstance(target, str) else getattr(target, "__name__", "")
    operators = (operator.iadd, operator.isub, operator.imul, operator.itruediv)
    ends = name.endswith("_") and not name.endswith("__") and name != "requires_grad_"
    sets = target is operator.setitem or target == "__setitem__"
    return ends or sets or target in operators or called.kwargs.get("inplace") is True
