"""A list of labels: the best one at each place, up to the one that ends the list."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mlflow_rnnmod.answers.base import one_hot, set_figures, threshold_words
from mlflow_rnnmod.answers.columns import Columns
from mlflow_rnnmod.answers.observations import Labelled
from mlflow_rnnmod.answers.steps import Stepwise
from mlflow_rnnmod.answers.whole import anywhere, best_step


class List(Stepwise):
    """A list of labels, read place by place."""

    name = "list"
    words = "a list of labels"
    ends = True
    metric = "f1"

    def said(self, scores: Tensor, truth: Labelled) -> tuple[Tensor, Tensor]:
        """The labels of each row's list, without its end."""
        return _sets(scores.argmax(dim=1), truth, scores.shape[1]), _sets(
            truth.targets, truth, scores.shape[1]
        )

    def _figures(self, answers: Tensor, right: Tensor) -> dict[str, float]:
        return set_figures(answers, right)

    def _answers(
        self, scores: Tensor, columns: Columns, reject_below: float | None, reject_label: str
    ) -> list[list[str]]:
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

    def question(self, label: str, labels: int, ends: bool = False) -> str:
        """What a module is for, in Markdown."""
        if ends:
            return (
                f"A module that ends lists: at which place of a list of its parent's {labels - 1} "
                f"other labels are there no more of them (**{label}**)?"
            )
        return (
            f"A module for one label: is **{label}** in the list of labels that the input has, out "
            f"of its parent's {labels}?"
        )

    def joined_words(
        self, score: str, mixed: bool = False, end: str | None = None, limits: str = ""
    ) -> str:
        """How a composite comes to its answers, in Markdown."""
        until = "" if end is None else f", up to {end}"
        return f"The label with the best score wins at each place of the list{until} {score}."


class PartOfList(List):
    """Some labels of a list, whose order can't be told: each says whether it is anywhere in it.

    Who comes first is not there, so the list can't be read place by place. (With toxicity lists,
    modules of two labels and of the end, read place by place, find 0.1 % of those that come late.)
    """

    rivals = False

    def _answers(
        self, scores: Tensor, columns: Columns, reject_below: float | None, reject_label: str
    ) -> list[list[str]]:
        places = scores.transpose(1, 2)
        return columns.reached(anywhere(places) if columns.odds else best_step(places)[0])

    def joined_words(
        self, score: str, mixed: bool = False, end: str | None = None, limits: str = ""
    ) -> str:
        """How a composite comes to its answers, in Markdown."""
        return threshold_words(score, limits)


def _sets(indices: Tensor, truth: Labelled, labels: int) -> Tensor:
    """Labels on each row's list before its end, bool ``(rows, labels)``; negative ones are none."""
    steps = truth.by_row(indices, -1)
    read = (steps >= 0) & ~((steps == truth.end).cumsum(dim=1) > 0)
    hits = one_hot(steps.clamp(min=0), labels) & read[..., None]
    return hits.any(dim=1)
