"""Rows of many steps as observations, one for each step that is answered, and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.networks.protocol import Network


@dataclass(frozen=True, eq=False)
class Observed:
    """Which steps of a batch are answered: each of them is an observation.

    Args:
        counts: steps that are answered, int64 ``(rows,)``.
        index: where they are in the batch's steps, row after row; ``None`` where all are.
    """

    counts: Tensor
    index: Tensor | None

    @classmethod
    def of(cls, network: Network, rows: Rows) -> Observed | None:
        """The observations of a batch; ``None`` where a row is a single one."""
        answered = network.answered(rows)
        if answered is None:
            return None
        counts = answered.sum(dim=1)
        if int(counts.sum()) == answered.numel():
            return cls(counts, None)
        return cls(counts, answered.flatten().nonzero()[:, 0])

    def __len__(self) -> int:
        return int(self.counts.sum())

    def pick(self, values: Tensor) -> Tensor:
        """``(trunks, observations, size)`` from ``(trunks, rows, steps, size)``."""
        flat = values.flatten(1, 2)
        return flat if self.index is None else flat.index_select(1, self.index)

    def place(self, values: Tensor) -> Tensor:
        """``(modules, rows, steps)`` from ``(modules, observations)``.

        Steps are counted from a row's first valid one; behind its last, there is NaN.
        """
        steps = int(self.counts.max())
        if self.index is None:
            return values.view(len(values), -1, steps)
        found = values.new_full((len(values), len(self.counts), steps), math.nan)
        found[:, within(self.counts, steps)] = values
        return found


def within(counts: Tensor, steps: int) -> Tensor:
    """Bool ``(rows, steps)``: the first ``counts`` of each row's steps."""
    return torch.arange(steps, device=counts.device) < counts[:, None]


def widened(tables: Sequence[Tensor]) -> list[Tensor]:
    """Tables ``(modules, rows, steps)`` with as many steps each: NaN behind the shorter ones'.

    Tables ``(modules, rows)`` pass as they are.
    """
    if not tables or tables[0].ndim == 2:
        return list(tables)
    steps = max(table.shape[2] for table in tables)
    return [
        torch.nn.functional.pad(table, (0, steps - table.shape[2]), value=math.nan)
        for table in tables
    ]
