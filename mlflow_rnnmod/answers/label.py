"""One label for the whole input: the best one wins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mlflow_rnnmod.answers.base import Answer, Columns, Form, one_hot
from mlflow_rnnmod.answers.targets import (
    Draw,
    Sample,
    Shown,
    Targeted,
    check_range,
    drawn_rivals,
    whole_numbers,
)


class SeveralLabels(ValueError):
    """Rows have none or several of the labels, where each was taken to have one."""


class Label(Answer):
    """One label for the whole input."""

    name = "label"
    rejects = True
    beside = ("tags", "list")
    question = (
        "A module for one label: does the input mean **{label}**, or another of its parent's "
        "{others} labels?"
    )
    joins = "The label with the best score wins {score}{mixed}."

    def conform(self, targets: Tensor, config: Any, source: str, shown: Shown) -> Tensor:
        """One label index a row; of zeros and a one, where the one is."""
        if targets.dtype == torch.bool and targets.shape[1:] == (len(config.labels),):
            several = int((targets.sum(dim=1) != 1).sum())
            if several:
                raise SeveralLabels(
                    f"The {source} has {several} of {len(targets)} rows with none or several of "
                    "the labels, and the network answers with one label a row. For any number of "
                    "labels a row give network_spec={'kind': 'multilabel'}."
                )
            targets = targets.long().argmax(dim=1)
        if targets.ndim != 1:
            raise ValueError(
                f"The {source} has targets of shape {tuple(targets.shape)}, and the network "
                "answers with one label a row; expected one label index for each row, (rows,). "
                "For any number of labels a row give network_spec={'kind': 'multilabel'}."
            )
        return check_range(targets, len(config.labels), source, steps=False)

    def _checked(self, targets: Tensor, labels: int) -> Tensor:
        return whole_numbers(targets, labels, steps=False)

    def _draw(self, rows: Targeted, targets: Tensor, how: Draw) -> Sample:
        if how.in_order:
            return _draw_in_order(rows, targets, how.labels, how.per_label)
        picked, rivals = [], []
        counts = torch.bincount(targets, minlength=how.labels)
        for label in range(how.labels):
            found = (targets == label).nonzero()[:, 0]
            chosen = found[torch.randperm(len(found), generator=how.generator)[: how.per_label]]
            picked.append(chosen)
            rivals.append(drawn_rivals(label, how.labels, len(chosen), how.generator))
        index = torch.cat(picked)
        taken = torch.bincount(targets[index], minlength=how.labels).clamp(min=1)
        weights = (counts / taken)[targets[index]]
        # In the order of the data, so that rows of one length stay together where it keeps them.
        order = index.argsort()
        weights = weights[order].to(torch.float32)
        return Sample(rows[index[order]], torch.cat(rivals)[order], weights / weights.mean())

    def _answers(self, scores: Tensor, columns: Columns) -> list[str]:
        return columns.best(scores)

    def nothing(self, answer: Any, reject_label: str) -> str:
        """None of the labels."""
        return reject_label

    def labels_of(self, right: Any) -> Sequence[str]:
        """The one label."""
        return (right,)

    def form(self, labels: Sequence[str] = (), kind_of_input: str = "text") -> Form:
        """An array of labels."""
        return Form("text", None)


def _draw_in_order(rows: Targeted, targets: Tensor, labels: int, per_label: int) -> Sample:
    """The first rows of each label; the very first of them are negatives of what they are not.

    Of negatives there are ``per_label`` over the number of other labels, rounded up, as the papers'
    code has it: 56 of 500 for ten labels.
    """
    own = one_hot(targets, labels)
    chosen = own & (own.long().cumsum(dim=0) <= per_label)
    negatives = -(-per_label // (labels - 1))
    rivals = ~own & ((~own).long().cumsum(dim=0) <= negatives)
    index = (chosen | rivals).any(dim=1).nonzero()[:, 0]
    taken = torch.bincount(targets[index], minlength=labels)
    weights = (own.sum(dim=0) / taken.clamp(min=1))[targets[index]].to(torch.float32)
    return Sample(rows[index], rivals[index], weights / weights.mean(), chosen[index])
