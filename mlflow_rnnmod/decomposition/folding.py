"""Folding: what stands in for a removed unit, from the units that stay."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mlflow_rnnmod.decomposition.statistics import ActivationStatistics, LayerStatistics
from mlflow_rnnmod.network.trunk import Trunk

# Of the mean variance: what keeps the guess steady where kept units say the same.
RIDGE = 1e-3


def make_trunk(
    removed: Mapping[str, Tensor], statistics: ActivationStatistics, fold: bool
) -> Trunk:
    """The trunk that leaves out ``removed`` (bool ``(units,)`` by layer), guessed for if ``fold``.

    Guesses come from the valid steps of the whole sample, never from one label's rows, so that a
    trunk depends on its mask alone.
    """
    keep = {name: ~mask for name, mask in removed.items()}
    if not fold:
        return Trunk(keep)
    constants, weights = {}, {}
    for name, mask in keep.items():
        constants[name], weights[name] = best_guess(statistics.layers[name], mask)
    return Trunk(keep, constants, weights)


def best_guess(statistics: LayerStatistics, keep: Tensor) -> tuple[Tensor, Tensor]:
    """The linear guess of removed units' outputs with the least squared error (ridge regression).

    DESIGN.md folds each removed unit's mean. Its best linear guess from the kept units costs
    nothing more to run, since it folds into weights that are there already, and takes away most of
    the damage (``python -m benchmarks.paper``, rows with and without ``fold``).

    Returns:
        constants ``(units,)`` and weights ``(units, units)``, as :class:`Trunk` takes them.
    """
    units = len(keep)
    mean, covariance = statistics.mean, statistics.covariance
    if keep.all():
        return torch.zeros(units), torch.zeros(units, units)
    inner = covariance[keep][:, keep]
    ridge = RIDGE * inner.diagonal().mean().clamp(min=1e-12)
    inner = inner + ridge * torch.eye(len(inner), dtype=inner.dtype)
    found = torch.linalg.solve(inner, covariance[keep][:, ~keep]).T
    # The constants must fit the weights as they will be kept.
    found = found.to(torch.float16).double()
    rows = torch.zeros(units, units, dtype=torch.float64)
    rows[~keep[:, None] & keep[None, :]] = found.flatten()
    constants = torch.where(keep, 0.0, mean - rows @ mean)
    return constants.float(), rows.float()
