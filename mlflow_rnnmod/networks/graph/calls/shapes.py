"""Other shapes of the same numbers, copies, dropout."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from mlflow_rnnmod.networks.graph.calls.base import Called, NotCovered, Rows, Turned, like


def keep(call: Called) -> str | Turned:
    """A row keeps its numbers in their order: other shapes, dropout, copies."""
    made = call.made
    if made.axes is not None:
        if call.shape != made.shape:
            raise NotCovered(f"it turns {made.shape} into {call.shape}, with units not in line")
        return like(made, made.name)
    if call.shape[:1] != made.shape[:1]:
        raise NotCovered(f"it turns {made.shape} into {call.shape}, across rows")
    if torch.Size(call.shape[1:]).numel() != made.numbers:
        raise NotCovered(f"it turns {made.shape} into {call.shape}")
    return made.name


def _index(call: Called) -> str | Turned:
    """New axes alone: ``x[:, None]``."""
    index: Any = call.constant(1, "index")
    for part in index if isinstance(index, tuple) else (index,):
        if part is not None and part is not Ellipsis and part != slice(None):
            raise NotCovered("it takes a part of its input")
    return keep(call)


_DROPOUT = nn.modules.dropout._DropoutNd
_SHAPES = "view reshape flatten squeeze unsqueeze view_as reshape_as"
_COPIES = "contiguous clone detach float double to type type_as cpu cuda requires_grad_"
ROWS_OF_CALLS: Rows = (
    (keep, (nn.Flatten, nn.Unflatten, nn.Identity, _DROPOUT)),
    (keep, (torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze, torch.clone)),
    (keep, (functional.dropout, functional.alpha_dropout, functional.feature_alpha_dropout)),
    (keep, (functional.dropout1d, functional.dropout2d, functional.dropout3d)),
    (keep, (torch.dropout, torch.detach, *_SHAPES.split(), *_COPIES.split())),
    (_index, (operator.getitem,)),
)
