"""A list of labels: the best one at each place, up to the one that ends the list."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mlflow_rnnmod.answers.base import one_hot
from mlflow_rnnmod.answers.columns import Columns
from mlflow_rnnmod.answers.multilabel import Multilabel
from mlflow_rnnmod.answers.tags import Stepwise
from mlflow_rnnmod.answers.targets import Labelled
from mlflow_rnnmod.answers.whole import anywhere, best_step


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
