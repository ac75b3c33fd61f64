"""How much of a parent a trunk keeps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mlflow_rnnmod.network.config import DIRECTIONS, GATES, NetworkConfig
from mlflow_rnnmod.network.trunk import Trunk


def weight_counts(config: NetworkConfig, units: dict[str, int]) -> tuple[int, int]:
    """Weights and biases of the trunk with these numbers of units, and the recurrent ones alone.

    Embedding and output layer are left out: every module of a parent shares them.
    """
    gates, total, recurrent = GATES[config.cell], 0, 0
    for index, layer in enumerate(config.recurrent):
        names = config.inputs_of(index)
        size = sum(units[name] for name in names) if names else config.step_size
        for direction in DIRECTIONS[: len(layer)]:
            kept = units[f"recurrent.{index}.{direction}"]
            recurrent += gates * kept * kept
            total += gates * kept * (size + kept + 2)
    size = sum(units[name] for name in config.inputs_of(len(config.recurrent)))
    for index in range(len(config.hidden)):
        kept = units[f"hidden.{index}"]
        total += kept * (size + 1)
        size = kept
    return total, recurrent


def shares_kept(config: NetworkConfig, trunk: Trunk) -> dict[str, float]:
    """True shares of units, weights and recurrent weights kept, from 0 to 1."""
    kept = {name: int(mask.sum()) for name, mask in trunk.keep.items()}
    of, of_recurrent = weight_counts(config, config.units)
    weights, recurrent = weight_counts(config, kept)
    return {
        "units_kept": trunk.kept / trunk.total,
        "weights_kept": weights / of,
        "recurrent_weights_kept": recurrent / of_recurrent,
    }


def overlap_matrix(trunks: Sequence[Trunk]) -> Tensor:
    """Jaccard index of the units kept by every two trunks, float ``(trunks, trunks)``."""
    masks = torch.stack([torch.cat(list(trunk.keep.values())) for trunk in trunks]).double()
    both = masks @ masks.T
    sizes = masks.sum(1)
    return (both / (sizes[:, None] + sizes[None, :] - both)).float()
