"""What answers with a label for each step have in common: tags, and lists of labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mlflow_rnnmod.answers.base import Answer
from mlflow_rnnmod.answers.sample import Sample, drawn_rivals
from mlflow_rnnmod.answers.targets import IGNORE, Targeted, check_range, whole_numbers


class Stepwise(Answer):
    """A label for each step."""

    stepwise = True

    def conform(
        self,
        targets: Tensor,
        config: Any,
        source: str,
        answered: Callable[[], Tensor],
        side: str = "right",
    ) -> Tensor:
        """A label index for each step.

        ``IGNORE`` at steps whose target is negative (as -100, PyTorch's ``ignore_index``), that are
        padding, or that stand behind the label that ends a list.
        """
        targets = targets.long()
        targets = targets[:, None] if targets.ndim == 1 else targets
        shown = answered()
        more = shown.shape[1] - targets.shape[1]
        if more < 0:
            raise ValueError(
                f"The {source} has targets of shape {tuple(targets.shape)}, and the network "
                f"answers at {shown.shape[1]} steps; expected a label index for each of them."
            )
        ends = (0, more) if side == "right" else (more, 0)
        targets = torch.nn.functional.pad(targets, ends, value=IGNORE)
        targets = torch.where(shown.to(targets.device) & (targets >= 0), targets, IGNORE)
        if config.end_label is not None:
            ended = targets == config.labels.index(config.end_label)
            targets = targets.masked_fill(ended.cumsum(dim=1) - ended.long() > 0, IGNORE)
        check_range(targets, len(config.labels), source, ignoring=True)
        return targets

    def _checked(self, targets: Tensor, labels: int) -> Tensor:
        return whole_numbers(targets, labels, steps=True)

    def _draw(
        self,
        rows: Targeted,
        targets: Tensor,
        labels: int,
        per_label: int,
        generator: torch.Generator,
        in_order: bool,
    ) -> Sample:
        """Whole rows, until each label has its steps; of these, ``per_label`` stand for a label."""
        hits = torch.stack([(targets == label).sum(dim=1) for label in range(labels)], dim=1)
        order = torch.randperm(len(rows), generator=generator)
        taken = torch.zeros(len(rows), dtype=torch.bool)
        for label in hits.sum(dim=0).argsort().tolist():  # rare labels first
            have = int(hits[taken, label].sum())
            free = order[(hits[order, label] > 0) & ~taken[order]]
            before = hits[free, label].cumsum(0) - hits[free, label]
            taken[free[have + before < per_label]] = True
        index = taken.nonzero()[:, 0]
        found = targets[index]
        chosen, rivals = torch.full_like(found, IGNORE), torch.full_like(found, IGNORE)
        weights = torch.zeros(found.shape)
        for label in range(labels):
            everywhere = (found == label).nonzero()
            if len(everywhere) == 0:
                continue
            weights[found == label] = float(hits[:, label].sum()) / len(everywhere)
            mine = everywhere[torch.randperm(len(everywhere), generator=generator)[:per_label]]
            chosen[mine[:, 0], mine[:, 1]] = label
            rivals[mine[:, 0], mine[:, 1]] = drawn_rivals(label, labels, len(mine), generator)
        weights = weights / weights[found != IGNORE].mean()
        return Sample(rows[index], rivals, weights, chosen)
