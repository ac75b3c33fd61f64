"""How much of a parent a trunk keeps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mlflow_rnnmod.networks.recurrent.config import DIRECTIONS, GATES, NetworkConfig
from mlflow_rnnmod.networks.trunk import Trunk


def weight_counts(config: NetworkConfig, trunk: Trunk) -> tuple[float, float]:
    """Weights and biases that a trunk keeps, and the recurrent ones alone.

    Embedding and output layer are left out: every module of a parent shares them. Where steps are
    told apart weights count once for each of them, with the units kept at that step, and the mean
    over steps is given. With separate gates rows are counted gate by gate; all columns stay.
    """
    total = recurrent = torch.zeros(1, dtype=torch.float64)
    for index, layer in enumerate(config.recurrent):
        size = _read(config, trunk, index)
        for direction in DIRECTIONS[: len(layer)]:
            name = f"recurrent.{index}.{direction}"
            rows, units = _rows(config, trunk, name), _units(trunk, name)
            recurrent = recurrent + rows * units
            total = total + rows * (size + units + 2)
    size = _read(config, trunk, len(config.recurrent))
    for index in range(len(config.hidden)):
        units = _units(trunk, f"hidden.{index}")
        total = total + units * (size + 1)
        size = units
    return float(total.mean()), float(recurrent.mean())


def _rows(config: NetworkConfig, trunk: Trunk, name: str) -> Tensor:
    """Rows of a recurrent layer's weights that are kept at each step, float64 ``(steps,)``."""
    if trunk.gates == "separate":
        mask = trunk.keep[name]
        return torch.atleast_1d(mask.double().sum((-2, -1)))
    return GATES[config.cell] * _units(trunk, name)


def _units(trunk: Trunk, name: str) -> Tensor:
    """Units of a layer that others read at each step, float64 ``(steps,)``."""
    mask = trunk.keep[name]
    if trunk.gates == "separate" and mask.ndim > 1:
        steps = len(mask) if trunk.variant == "unrolled" else 1
        return torch.full((steps,), mask.shape[-1], dtype=torch.float64)
    return torch.atleast_1d(mask.double().sum(-1))


def _read(config: NetworkConfig, trunk: Trunk, layer: int) -> Tensor:
    """What recurrent layer number ``layer`` reads at each step, float64 ``(steps,)``."""
    names = config.inputs_of(layer)
    if not names:
        return torch.tensor([config.step_size], dtype=torch.float64)
    return torch.stack([_units(trunk, name) for name in names]).sum(0)


def shares_kept(config: NetworkConfig, trunk: Trunk) -> dict[str, float]:
    """True shares of units, weights and recurrent weights kept, from 0 to 1.

    Of units the mean over steps and gates, where these are told apart.
    """
    of, of_recurrent = weight_counts(config, Trunk.whole(config.units))
    weights, recurrent = weight_counts(config, trunk)
    kept = sum(float(mask.double().mean()) * mask.shape[-1] for mask in trunk.keep.values())
    return {
        "units_kept": kept / sum(config.units.values()),
        "weights_kept": weights / of,
        "recurrent_weights_kept": recurrent / of_recurrent,
    }


def overlap_matrix(trunks: Sequence[Trunk]) -> Tensor:
    """Jaccard index of the units kept by every two trunks, float ``(trunks, trunks)``.

    Units count at each step and in each gate that are told apart.
    """
    flat = [torch.cat([mask.flatten() for mask in trunk.keep.values()]) for trunk in trunks]
    masks = torch.stack(flat).double()
    both = masks @ masks.T
    sizes = masks.sum(1)
    return (both / (sizes[:, None] + sizes[None, :] - both)).float()
