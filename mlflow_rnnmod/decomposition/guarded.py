"""Trunks that guess for what they leave out, where that helps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from mlflow_rnnmod.decomposition.fitting import calibrated_loss
from mlflow_rnnmod.decomposition.folding import make_trunk
from mlflow_rnnmod.decomposition.material import Material
from mlflow_rnnmod.decomposition.statistics import ActivationStatistics
from mlflow_rnnmod.networks.trunk import Trunk

# About so many labels are looked at: whether guesses help is a matter of the network more than of a
# label.
LABELS = 10
# Share of the loss by which guesses must do worse: less than that is chance.
CLEARLY = 0.01


def guarded_trunks(
    material: Material,
    statistics: ActivationStatistics,
    removed: Sequence[Mapping[str, Tensor]],
    repairs: Sequence[str],
) -> tuple[list[Trunk], tuple[str, ...]]:
    """A trunk for each label, folded unless that raises the log-loss on calibration rows clearly.

    A guess that is right on average can still lead a network astray step after step, as it did a
    tanh RNN that answers with lists of toxicity labels, where others gain by guesses.

    Args:
        material: the rows.
        statistics: what guesses are made from.
        removed: for each label what its trunk leaves out, as :func:`make_trunk` takes it.
        repairs: those that were asked for.

    Returns:
        the trunks, and the repairs without ``"fold"`` where it does not help.
    """
    plain = [make_trunk(units, statistics, fold=False) for units in removed]
    if "fold" not in repairs:
        return plain, tuple(repairs)
    folded = [material.refitted(make_trunk(units, statistics, fold=True)) for units in removed]
    if all(trunk.full for trunk in folded):
        return folded, tuple(repairs)
    if _loss(material, folded) <= (1 + CLEARLY) * _loss(material, plain):
        return folded, tuple(repairs)
    return plain, tuple(name for name in repairs if name != "fold")


def _loss(material: Material, trunks: Sequence[Trunk]) -> float:
    """Calibrated log-loss of some labels' margins on some calibration rows, added up."""
    kind, truth = material.some
    known, shared = truth.known, len(set(trunks)) < len(trunks)
    total = 0.0
    for label in range(0, len(trunks), max(1, len(trunks) // LABELS)):
        own = material.margins(trunks[label], kind, label, shared)[known]
        total += calibrated_loss(own, truth.positive(label)[known])
    return total
