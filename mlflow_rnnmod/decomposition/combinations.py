"""Which repairs go together: all that were asked for, or fewer where those do clearly better.

Each repair is guarded by itself, label by label, by a loss. That does not say that the composite of
all labels answers better: repairs that each lower their own label's loss can turn more right
answers into wrong ones than the other way round. So what was chosen is compared with less, by the
composite's own metric, on rows that nothing was fitted on: heads are fitted on training rows, and
each calibration row is judged by calibrations that were fitted without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mlflow_rnnmod.answers import Answer, Labelled
from mlflow_rnnmod.decomposition.fitting import FittedHeads
from mlflow_rnnmod.decomposition.repairs import fit_calibrations
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


def settled(
    choice: Choice, fewer: Callable[[], Sequence[Choice]], answer: Answer, truth: Labelled
) -> Choice:
    """A choice of trunks and heads, or one with fewer repairs that clearly does better.

    Args:
        choice: with all repairs that were asked for, each guarded by itself.
        fewer: makes the others.
        answer: of the network.
        truth: the calibration rows.
    """
    if not bool(truth.known.any()):
        return choice
    others = fewer()
    better = clearly_better(answer, choice[1], [heads for _, heads in others], truth)
    return choice if better is None else others[better]
