"""Dense layers over values with steps."""

from __future__ import annotations

from torch import Tensor

from mlflow_rnnmod.networks.graph.calls.base import UNITS, Called, NotCovered
from mlflow_rnnmod.networks.graph.sequences.values import Factor, Stepped, units_at, value


def product(call: Called, made: Stepped, weight: Tensor, bias: Tensor | None) -> Stepped:
    """A dense layer over the last dimension, which must be units."""
    if weight.ndim != 2 or made.shape[-1] != weight.shape[1]:
        raise NotCovered(f"it reads {made.shape} with a weight of {tuple(weight.shape)}")
    name = call.draft.linear(units_at(call, made, -1), weight, bias, call.line)
    return value(name, [*made.dims[:-1], (Factor(UNITS, len(weight)),)])
