"""Samples: which rows a decomposition looks at, and which observations stand for which label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Sample:
    """Training rows, balanced over labels.

    Args:
        rows: rows with targets, at most so many of each label.
        rivals: for each observation one *other* label, for which it stands as a negative. Every
            label gets about as many negatives as positives, drawn evenly from every other label
            (RNN-D, section III; its code takes the first rows of the data instead). Shaped as the
            targets, ``IGNORE`` where an observation stands for none; for several labels a row, or
            where a row stands for several, bool ``(rows, labels)``: which labels it is a negative
            of.
        weights: how many training observations each stands for, so that fits see the labels as
            often as they really occur; mean 1. Float32 ``(rows,)``, or ``(rows, steps)`` where
            every step has a label.
        chosen: the label that each observation stands for as a positive, shaped as ``rivals``;
            ``None`` for the targets themselves.
    """

    rows: Any
    rivals: Tensor
    weights: Tensor
    chosen: Tensor | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, part: slice | Tensor) -> Sample:
        """Some of the rows."""
        chosen = None if self.chosen is None else self.chosen[part]
        return Sample(self.rows[part], self.rivals[part], self.weights[part], chosen)

    @property
    def sides(self) -> tuple[Tensor, Tensor]:
        """What observations are positives of, and what negatives of."""
        assert self.rows.targets is not None
        return (self.rows.targets if self.chosen is None else self.chosen), self.rivals


class Draw(NamedTuple):
    """How a sample is drawn: see :meth:`~mlflow_rnnmod.answers.Answer.draw`."""

    labels: int
    per_label: int
    generator: torch.Generator
    in_order: bool


def drawn_rivals(label: int, labels: int, count: int, generator: torch.Generator) -> Tensor:
    """So many labels other than ``label``, evenly."""
    others = torch.cat([torch.arange(label), torch.arange(label + 1, labels)])
    others = others[torch.randperm(len(others), generator=generator)]
    return others[torch.arange(count) % len(others)]
