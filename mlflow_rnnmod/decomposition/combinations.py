"""Which repairs go together: all that were asked for, or fewer where those do clearly better.

Each repair is guarded by itself, label by label, by a loss. That does not say that the composite of
all labels answers better: repairs that each lower their own label's loss can turn more right
answers into wrong ones than the other way round. So what was chosen is compared with less, by the
composite's own metric, on rows that nothing was fitted on: heads are fitted on training rows, and
each calibration row is judged by calibrations that were fitted without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mlflow_rnnmod.answers import Answer, Labelled
from mlflow_rnnmod.decomposition.fitting import (
    Fit,
    FittedHeads,
    Told,
    fit_all,
    pool_calibrations,
)
from mlflow_rnnmod.decomposition.folding import make_trunk
from mlflow_rnnmod.decomposition.material import Material
from mlflow_rnnmod.decomposition.repairs import fit_calibrations
from mlflow_rnnmod.decomposition.statistics import ActivationStatistics
from mlflow_rnnmod.networks.trunk import Trunk

Heads = Sequence[FittedHeads]
Choice = tuple[list[Trunk], list[FittedHeads]]


def held_out_table(heads: Heads) -> Tensor:
    """Margins of all labels on calibration rows, ``(observations, labels)``.

    Each is calibrated by a scale and an offset that were fitted without it, on the other half;
    those of labels too rare for that by what they share.
    """
    columns = []
    for found in heads:
        column = found.head.calibration(found.margins)
        if "calibrate" in found.kept and found.own:
            column = column.clone()
            column[found.known] = cross_calibrated(found.known_margins, found.positive)
        columns.append(column)
    return torch.stack(columns, dim=1)


def cross_calibrated(margins: Tensor, positive: Tensor) -> Tensor:
    """Margins ``(rows,)``, each half of them calibrated by what suits the other half."""
    place = torch.where(positive, positive.cumsum(0), (~positive).cumsum(0))
    found = torch.empty_like(margins)
    for side in (0, 1):
        held_out = place % 2 == 1 - side
        scale, offset = fit_calibrations(margins[None], positive[None], (~held_out)[None].double())
        through = margins * scale.to(margins) + offset.to(margins)
        found[held_out] = through[held_out]
    return found


def clearly_better(
    answer: Answer, one: Heads, others: Sequence[Heads], truth: Labelled
) -> int | None:
    """Which of ``others`` answers more rows right than ``one``, by more than chance.

    By more than the standard error of the difference, row by row; the best of those that do.
    """
    table = held_out_table(one)
    score, right = answer.measure(table, truth)[answer.metric], _right(answer, table, truth)
    found: list[tuple[float, int]] = []
    for number, other in enumerate(others):
        table = held_out_table(other)
        gained = answer.measure(table, truth)[answer.metric] - score
        change = _right(answer, table, truth) - right
        error = float(change.std(correction=0)) / max(len(change), 1) ** 0.5
        if gained > max(error, 1e-9):
            found.append((gained, -number))
    return -max(found)[1] if found else None


def _right(answer: Answer, table: Tensor, truth: Labelled) -> Tensor:
    """1 for each answer that is right, float64."""
    answers, right = answer.said(table, truth)
    return (answers == right).all(dim=1).double()


def fit_guarded(
    material: Material,
    statistics: ActivationStatistics,
    removed: Sequence[Mapping[str, Tensor]] | None,
    trunks: list[Trunk],
    repairs: tuple[str, ...],
    start: Mapping[int, Fit] | None = None,
    told: Told | None = None,
) -> Choice:
    """Trunks and heads with all repairs that help, or with fewer where that is clearly better.

    Args:
        material: the rows.
        statistics: what guesses are made from.
        removed: for each label what its trunk leaves out, to try trunks without guesses too;
            ``None`` leaves guesses as they are.
        trunks: of each label, as :func:`~mlflow_rnnmod.decomposition.folding.guarded_trunks` gives
            them, with their ``repairs``.
        repairs: which to try.
        start: earlier refits of the labels, from which these begin.
        told: called with labels done and labels in all.

    Returns:
        the trunks and the heads that are taken.
    """
    heads = _fitted(material, trunks, repairs, start, told)
    truth = material.calibrated_on
    if not bool(truth.known.any()):
        return trunks, heads
    fewer = tuple(name for name in repairs if name != "refit")
    others: list[Choice] = []
    if any("refit" in fitted.kept for fitted in heads):
        others.append((trunks, _fitted(material, trunks, fewer)))
    if removed is not None and "fold" in repairs and not all(trunk.full for trunk in trunks):
        plain = [make_trunk(units, statistics, fold=False) for units in removed]
        fewer = tuple(name for name in fewer if name != "fold")
        others.append((plain, _fitted(material, plain, fewer)))
    answer = material.parent.network.config.answer
    better = clearly_better(answer, heads, [found for _, found in others], truth)
    return (trunks, heads) if better is None else others[better]


def _fitted(
    material: Material,
    trunks: Sequence[Trunk],
    repairs: tuple[str, ...],
    start: Mapping[int, Fit] | None = None,
    told: Told | None = None,
) -> list[FittedHeads]:
    found = fit_all(material, dict(enumerate(trunks)), repairs, start, told)
    return pool_calibrations([found[label] for label in range(len(trunks))], repairs)
