"""A list of labels: the best at each place; scores for whole inputs from those of their steps."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mlflow_rnnmod.answers.base import Columns, one_hot
from mlflow_rnnmod.answers.multilabel import Multilabel
from mlflow_rnnmod.answers.tags import Stepwise
from mlflow_rnnmod.answers.targets import Labelled


def best_step(scores: Tensor) -> tuple[Tensor, Tensor]:
    """The highest score over steps, ``(..., rows)``, and the step that has it.

    ``scores``: ``(..., rows, steps)``, NaN where a step has none. Rows without any score -inf.
    """
    if scores.shape[-1] == 0:
        lowest = scores.new_full(scores.shape[:-1], -math.inf)
        return lowest, torch.zeros_like(lowest, dtype=torch.int64)
    return scores.masked_fill(scores.isnan(), -math.inf).max(dim=-1)


def anywhere(scores: Tensor) -> Tensor:
    """Log-odds that a label is at any place of a list, ``(..., rows)``.

    ``log(expm1(sum(softplus(s))))``: no place has it with the product of what is left of one at
    each, for a single place it is the score itself. A label's chance is spread over places, as it
    depends on how many come before; `docs/decisions.md` has what the best place alone would lose.

    ``scores``: log-odds for each place, ``(..., rows, steps)``, NaN where there is none.
    """
    total = torch.nn.functional.softplus(scores.double()).nansum(dim=-1)
    # Beyond 20, exp() no longer notices the 1, and further on overflows.
    small = total.clamp(1e-300, 20.0).expm1().log()
    return torch.where(total > 20.0, total, small).to(scores.dtype)


def step_correction(answered: Tensor) -> Tensor:
    """What a best score over steps is above the score of a single one, by having tries.

    A module that is asked at each of ``n`` steps has ``n`` tries to shout; one that is asked once
    for the whole input has one. The best of ``n`` log-odds is that of "at this very step", chosen
    among ``n`` beforehand: ``log(n)`` less.

    Measured with and without in `docs/decisions.md`, beside the logarithm of the summed odds.

    ``answered``: number of steps that count, ``(rows,)``; gives float64, of the same shape; what to
    take off.
    """
    return answered.clamp(min=1).double().log()


def whole_input(
    scores: Tensor, competing: bool, ending: Tensor | None = None, odds: bool = True
) -> Tensor:
    """Scores for whole inputs from scores for their steps, ``(modules, rows)``.

    Where a label competes with labels of modules that are asked once, it is as likely for the input
    as at the step where it is likeliest, and the number of steps is corrected for (see
    :func:`step_correction`). Where each label is for itself, a list has it as soon as one of its
    places has (see :func:`anywhere`).

    Args:
        scores: ``(modules, rows, steps)``, NaN behind a row's steps.
        competing: whether the labels are rivals.
        ending: bool ``(modules,)``, which modules answer for the label that ends a list. It ends
            every list: what counts is whether it ends it at once, because there is nothing to say.
        odds: whether scores are log-odds.

    Example:
        >>> steps = torch.tensor([[[1.0, 3.0], [2.0, torch.nan]]])
        >>> [[round(x, 4) for x in row] for row in whole_input(steps, competing=False).tolist()]
        [[4.349, 2.0]]
        >>> round(float(whole_input(steps, competing=True)[0, 0]), 4)  # 3 - log(2)
        2.3069
    """
    best = anywhere(scores) if odds and not competing else best_step(scores)[0]
    if competing:
        best = best - step_correction((~scores.isnan()).sum(dim=-1)).to(best)
    if ending is not None and bool(ending.any()):
        best[ending] = scores[ending, :, 0]
    return best


class List(Stepwise):
    """A list of labels, read place by place."""

    name = "list"
    words = "a list of labels"
    ends = True
    metric = "f1"
    question = (
        "A module for one label: is **{label}** in the list of labels that the input has, out of "
        "its parent's {labels}?"
    )
    end_question = (
        "A module that ends lists: at which place of a list of its parent's {others} other labels "
        "are there no more of them (**{label}**)?"
    )
    joins = "The label with the best score wins at each place of the list{until} {score}."

    def said(self, scores: Tensor, truth: Labelled) -> tuple[Tensor, Tensor]:
        """The labels of each row's list, without its end."""
        best, labels = scores.argmax(dim=1), scores.shape[1]
        return _sets(best, truth, labels), _sets(truth.targets, truth, labels)

    def _answers(self, scores: Tensor, columns: Columns) -> list[list[str]]:
        """The best label of each step, up to the first that ends the list."""
        known = scores.masked_fill(scores.isnan(), -torch.inf)
        rows = known.argmax(dim=2).tolist()
        counts = (~scores.isnan()).any(dim=2).sum(dim=1).tolist()
        found = []
        end: Any = columns.end_label
        for row, count in zip(rows, counts, strict=True):
            answer = [columns.labels[i] for i in row[:count]]
            found.append(answer[: answer.index(end)] if end in answer else answer)
        return found

    def step_labels(self, right: Any, steps: int, end_label: str | None, row: int) -> list[Any]:
        """The labels in their order, and the one that ends them."""
        return [*right, end_label][:steps]


class PartOfList(List):
    """Some labels of a list, whose order can't be told: each says whether it is anywhere in it.

    Who comes first is not there, so the list can't be read place by place. (With toxicity lists,
    modules of two labels and of the end, read place by place, find 0.1 % of those that come late.)
    """

    rivals = False
    joins = Multilabel.joins

    def _answers(self, scores: Tensor, columns: Columns) -> list[list[str]]:
        places = scores.transpose(1, 2)
        return columns.reached(anywhere(places) if columns.odds else best_step(places)[0])


def _sets(indices: Tensor, truth: Labelled, labels: int) -> Tensor:
    """Labels on each row's list before its end, bool ``(rows, labels)``; negative ones are none."""
    config, steps = truth.network.config, truth.by_row(indices, -1)
    end = -1 if config.end_label is None else config.labels.index(config.end_label)
    read = (steps >= 0) & ~((steps == end).cumsum(dim=1) > 0)
    hits = one_hot(steps.clamp(min=0), labels) & read[..., None]
    return hits.any(dim=1)
