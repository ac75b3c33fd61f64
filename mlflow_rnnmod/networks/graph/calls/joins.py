"""Values put side by side."""

from __future__ import annotations

import torch

from mlflow_rnnmod.networks.graph.calls.base import (
    UNITS,
    Called,
    Made,
    NotCovered,
    Rows,
    Turned,
    like,
)
from mlflow_rnnmod.networks.graph.draft import Drafted


def _concat(call: Called) -> str | Turned:
    call.plain("tensors", "dim", "axis")
    parts = call.given(0, "tensors")
    if not all(isinstance(part, Made) for part in parts):
        raise NotCovered("it puts constants beside what depends on the input")
    dim = call.constant(1, "dim", call.kwargs.get("axis", 0))
    found = [call.axis(part, dim) for part in parts]
    if any(axis != UNITS for _, axis in found) or len({part.axes for part in parts}) > 1:
        raise NotCovered(f"it puts values together to {call.shape}, across rows or places")
    if len(parts) == 1:
        return like(parts[0], found[0][0])
    names = [name for name, _ in found]
    shapes = [call.draft.nodes[name].shape for name in names]
    shape = (sum(shape[0] for shape in shapes), *shapes[0][1:])
    return like(parts[0], call.draft.add(Drafted("concat", names, shape, {}, {}, call.line)))


def _beside(call: Called) -> str | Turned:
    """``torch.hstack``: over the second dimension."""
    call.plain("tensors")
    return _concat(Called(call.draft, (call.given(0, "tensors"), 1), {}, call.shape, call.line))


ROWS_OF_CALLS: Rows = (
    (_concat, (torch.cat, torch.concat, torch.concatenate)),
    (_beside, (torch.hstack,)),
)
