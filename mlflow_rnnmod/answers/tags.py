"""A label for each step: at each, the best one wins. And what tags have in common with lists."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mlflow_rnnmod.answers.base import Answer, Columns
from mlflow_rnnmod.answers.targets import (
    IGNORE,
    Draw,
    Sample,
    Shown,
    Targeted,
    check_range,
    drawn_rivals,
    whole_numbers,
)


class Stepwise(Answer):
    """A label for each step."""

    stepwise = True

    def conform(self, targets: Tensor, config: Any, source: str, shown: Shown) -> Tensor:
        """A label index for each step.

        ``IGNORE`` at steps whose target is negative (as -100, PyTorch's ``ignore_index``), that are
        padding, or that stand behind the label that ends a list.
        """
        targets = targets.long()
        targets = targets[:, None] if targets.ndim == 1 else targets
        answered, side = shown()
        assert answered is not None
        more = answered.shape[1] - targets.shape[1]
        if more < 0:
            raise ValueError(
                f"The {source} has targets of shape {tuple(targets.shape)}, and the network "
                f"answers at {answered.shape[1]} steps; expected a label index for each of them."
            )
        pad = (0, more) if side == "right" else (more, 0)
        targets = torch.nn.functional.pad(targets, pad, value=IGNORE)
        targets = torch.where(answered.to(targets.device) & (targets >= 0), targets, IGNORE)
        if config.end_label is not None:
            ends = targets == config.labels.index(config.end_label)
            targets = targets.masked_fill(ends.cumsum(dim=1) - ends.long() > 0, IGNORE)
        return check_range(targets, len(config.labels), source, steps=True)

    def _checked(self, targets: Tensor, labels: int) -> Tensor:
        return whole_numbers(targets, labels, steps=True)

    def _draw(self, rows: Targeted, targets: Tensor, how: Draw) -> Sample:
        """Whole rows, until each label has its steps; of these, ``per_label`` stand for a label."""
        labels, generator = how.labels, how.generator
        hits = torch.stack([(targets == label).sum(dim=1) for label in range(labels)], dim=1)
        order = torch.randperm(len(rows), generator=generator)
        taken = torch.zeros(len(rows), dtype=torch.bool)
        for label in hits.sum(dim=0).argsort().tolist():  # rare labels first
            have = int(hits[taken, label].sum())
            free = order[(hits[order, label] > 0) & ~taken[order]]
            before = hits[free, label].cumsum(0) - hits[free, label]
            taken[free[have + before < how.per_label]] = True
        index = taken.nonzero()[:, 0]
        found = targets[index]
        chosen, rivals = torch.full_like(found, IGNORE), torch.full_like(found, IGNORE)
        weights = torch.zeros(found.shape)
        for label in range(labels):
            everywhere = (found == label).nonzero()
            if len(everywhere) == 0:
                continue
            weights[found == label] = float(hits[:, label].sum()) / len(everywhere)
            mine = everywhere[torch.randperm(len(everywhere), generator=generator)[: how.per_label]]
            chosen[mine[:, 0], mine[:, 1]] = label
            rivals[mine[:, 0], mine[:, 1]] = drawn_rivals(label, labels, len(mine), generator)
        weights = weights / weights[found != IGNORE].mean()
        return Sample(rows[index], rivals, weights, chosen)


class Tags(Stepwise):
    """A label for each step of the input."""

    name = "tags"
    words = "a label for each step"
    each_step = True
    rejects = True
    counted = "steps with this label"
    question = (
        "A module for one label: is a step of the input **{label}**, or another of its parent's "
        "{others} labels?"
    )
    joins = "At each step, the label with the best score wins {score}."

    def _answers(self, scores: Tensor, columns: Columns) -> list[list[str]]:
        answered = ~scores.isnan().any(dim=2)
        flat = iter(columns.best(scores[answered]))
        return [[next(flat) for _ in range(count)] for count in answered.sum(dim=1).tolist()]

    def nothing(self, answer: Any, reject_label: str) -> Any:
        """One for each step that was read, as always."""
        return answer

    def step_labels(self, right: Any, steps: int, end_label: str | None, row: int) -> list[Any]:
        """One label for each step."""
        if len(right) != steps:
            raise ValueError(
                f"calibrate_on: row {row} has {len(right)} labels and {steps} steps; expected a "
                "label for each step (a token of the tokenizer), None where it is not known."
            )
        return list(right)
