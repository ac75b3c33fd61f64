"""Norms that are made of a row's own values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlflow_rnnmod.networks.graph.calls.affine import norm, scaled
from mlflow_rnnmod.networks.graph.calls.base import (
    ROWS,
    UNITS,
    Called,
    NotCovered,
    Rows,
    Turned,
)


def _group_norm(call: Called) -> str:
    groups, weight, bias, eps = call.settings(num_groups=None, weight=None, bias=None, eps=1e-5)
    settings = {"groups": groups, "eps": eps}
    return normed(call, "group_norm", call.straight(call.made), settings, weight, bias)


def normed(
    call: Called,
    op: str,
    name: str,
    settings: dict[str, Any],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
) -> str:
    """A node of a norm; without a scale or shift of its own that is one, or none."""
    ones = torch.ones(call.draft.nodes[name].shape[0], dtype=torch.float64)
    weights = {
        "scale": ones if weight is None else weight,
        "shift": torch.zeros_like(ones) if bias is None else bias,
    }
    return call.node(op, name, None, settings, weights)


def _instance_norm(call: Called) -> str | Turned:
    call.plain(
        "running_mean", "running_var", "weight", "bias", "use_input_stats", "momentum", "eps"
    )
    own = call.setting(5, "use_input_stats", True)
    if call.module is not None:
        own = not call.module.track_running_stats
    if not own:
        return norm(call)
    settings = {"eps": call.setting(7, "eps", 1e-5)}
    weight, bias = call.setting(3, "weight"), call.setting(4, "bias")
    return normed(call, "instance_norm", call.straight(call.made), settings, weight, bias)


def _layer_norm(call: Called) -> str | Turned:
    made = call.made
    over, weight, bias, eps = call.settings(normalized_shape=None, weight=None, bias=None, eps=1e-5)
    dimensions = len(over) if isinstance(over, tuple | list) else 1
    settings: dict[str, Any] = {"eps": eps}
    name, axes = call.placed(made)
    if axes[-dimensions:] == (UNITS,):
        return made.like(normed(call, "layer_norm", name, settings, weight, bias))
    if axes[ROWS] != ROWS or set(axes[-dimensions:]) != set(range(1, len(axes))):
        raise NotCovered(f"it goes over the last {dimensions} dimensions of {made.shape}")
    plain = made.like(normed(call, "group_norm", name, {**settings, "groups": 1}))
    if weight is None:
        return plain
    return scaled(call, call.result(plain), weight, bias)


ROWS_OF_CALLS: Rows = (
    (_group_norm, (nn.GroupNorm, functional.group_norm)),
    (_instance_norm, (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)),
    (_instance_norm, (functional.instance_norm,)),
    (_layer_norm, (nn.LayerNorm, functional.layer_norm)),
)
