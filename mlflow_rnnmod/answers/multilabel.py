"""Any number of labels for the whole input: each says yes or no for itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mlflow_rnnmod.answers.base import Answer, Columns
from mlflow_rnnmod.answers.targets import Draw, Labelled, Sample, Shown, Targeted


class Multilabel(Answer):
    """Any number of labels: a sigmoid each, so that a label's logit is its margin."""

    name = "multilabel"
    words = "any number of labels"
    rivals = False
    metric = "f1"
    beside = ("list",)
    question = (
        "A module for one label: does **{label}** apply to the input? Its parent's {others} other "
        "labels are no rivals; any number of them can apply, too."
    )
    joins = "Each label whose score reaches its threshold is answered {score}; {limits}."

    def conform(self, targets: Tensor, config: Any, source: str, shown: Shown) -> Tensor:
        """Whether each label is right, bool ``(rows, labels)``."""
        wanted = (len(targets), len(config.labels))
        if targets.shape != wanted or bool(((targets != 0) & (targets != 1)).any()):
            low, high = int(targets.min()), int(targets.max())
            raise ValueError(
                f"The {source} has targets of shape {tuple(targets.shape)}, from {low} to "
                f"{high}, and the network answers with several labels a row; expected "
                f"zeros and ones of shape (rows, {wanted[1]}), one for whether each label is right."
            )
        return targets.bool()

    def _checked(self, targets: Tensor, labels: int) -> Tensor:
        wanted = (len(targets), labels)
        if targets.dtype != torch.bool or targets.shape != wanted:
            raise ValueError(
                f"targets is {targets.dtype} of shape {tuple(targets.shape)}; expected bool of "
                f"shape (rows, labels) = {wanted}."
            )
        return targets.cpu()

    def known(self, targets: Tensor) -> Tensor:
        """All rows have targets."""
        return torch.ones(len(targets), dtype=torch.bool)

    def positive(self, targets: Tensor, label: int) -> Tensor:
        """Which rows carry a label, bool ``(rows,)``."""
        return targets[:, label]

    def _draw(self, rows: Targeted, targets: Tensor, how: Draw) -> Sample:
        """Rows of each label and as many that have none; each is a negative of what it lacks."""
        none = ~targets.any(dim=1, keepdim=True)
        order = torch.randperm(len(rows), generator=how.generator)
        taken = torch.zeros(len(rows), dtype=torch.bool)
        groups = torch.cat([targets, none], dim=1)
        for group in groups.sum(dim=0).argsort().tolist():  # rare labels first
            have = int(groups[taken, group].sum())
            free = order[groups[order, group] & ~taken[order]]
            taken[free[: max(how.per_label - have, 0)]] = True
        index = taken.nonzero()[:, 0]
        # Rows stand for those with the same labels.
        _, kinds = groups.unique(dim=0, return_inverse=True)
        of, here = kinds.bincount(), kinds[index].bincount(minlength=int(kinds.max()) + 1)
        weights = (of / here.clamp(min=1))[kinds[index]].to(torch.float32)
        found = targets[index]
        return Sample(rows[index], ~found, weights / weights.mean(), found)

    def margins(self, logits: Tensor, index: int) -> Tensor:
        """The label's logit."""
        return logits[..., index]

    def all_margins(self, logits: Tensor) -> Tensor:
        """The logits."""
        return logits

    def said(self, scores: Tensor, truth: Labelled) -> tuple[Tensor, Tensor]:
        """Labels that score at least 0, and those that are right."""
        return scores >= 0, truth.targets

    def _answers(self, scores: Tensor, columns: Columns) -> list[list[str]]:
        return columns.reached(scores)
