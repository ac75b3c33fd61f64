"""Histograms of many units, labels and sides at once."""

from __future__ import annotations

import torch
from torch import Tensor

from mlflow_rnnmod.decomposition.statistics import BINS

# Observations of units that wait to be counted.
_WAITING = 2**22
# Observations of units that are counted at once.
_PIECE = 2**18
# Largest table of pairs of labels: beyond, each side is counted by itself.
_PAIRS = 2**20


class Counter:
    """Counts how often each bin was hit, for each side, label and unit of a layer.

    Batches are kept, a byte an observation, until counting them is worth going through the table.

    Args:
        labels: how many there are; the last may stand for none.
        units: of the layer.
    """

    def __init__(self, labels: int, units: int) -> None:
        self.labels = labels
        self.counts = torch.zeros(2, labels, units, BINS, dtype=torch.int64)
        self._waiting: list[tuple[Tensor, Tensor]] = []

    def add(self, places: Tensor, sides: Tensor) -> None:
        """Count a batch.

        Args:
            places: the bin of every unit at every observation, uint8 ``(observations, units)``.
            sides: int64 ``(2, observations)``, the label that each stands for on either side; one
                past the last label for none.
        """
        self._waiting.append((places, sides))
        if sum(waiting.numel() for waiting, _ in self._waiting) >= _WAITING:
            self._flush()

    def total(self, labels: int) -> Tensor:
        """The counts so far of the first ``labels``, int64 ``(sides, labels, units, bins)``."""
        if self._waiting:
            self._flush()
        return self.counts[:, :labels]

    def _flush(self) -> None:
        places = torch.cat([waiting for waiting, _ in self._waiting])
        sides = torch.cat([labels for _, labels in self._waiting], dim=1)
        self._waiting = []
        units = places.shape[1]
        pairs = self.labels**2
        if pairs * units * BINS <= _PAIRS:  # counted once, for both sides
            table = torch.zeros(pairs, units * BINS, dtype=torch.int64, device=places.device)
            _count(places, sides[0] * self.labels + sides[1], table)
            both = table.view(self.labels, self.labels, units, BINS)
            for side in range(2):
                self.counts[side] += both.sum(1 - side).cpu()
            return
        for side, groups in enumerate(sides):
            here = self.counts[side].view(self.labels, -1).to(places.device)
            _count(places, groups, here)
            if here.device != self.counts.device:
                self.counts[side] = here.view(self.labels, units, BINS).cpu()


def _count(places: Tensor, groups: Tensor, table: Tensor) -> None:
    """Add how often each group hit each bin of each unit to int64 ``(groups, units x bins)``.

    Observations are sorted by their group and counted piece by piece, so that indices and the part
    of the table that a piece hits stay in the processor's cache.
    """
    units = places.shape[1]
    row, size = units * BINS, max(_PIECE // units, 1)
    offsets = torch.arange(units, device=places.device, dtype=torch.int32) * BINS
    groups, order = groups.sort()
    index = places.new_empty(min(size, len(groups)), units, dtype=torch.int32)
    for start in range(0, len(groups), size):
        piece = groups[start : start + size]
        first, last = int(piece[0]), int(piece[-1]) + 1
        if (last - first) * row >= 2**31:  # many groups of many units: one after the other
            _count_each(table, places, piece, order[start : start + size], offsets)
            continue
        here = index[: len(piece)]
        torch.add(((piece - first) * row).to(torch.int32)[:, None], offsets, out=here)
        here.add_(places.index_select(0, order[start : start + size]))
        found = torch.bincount(here.view(-1), minlength=(last - first) * row)
        table[first:last].view(-1).add_(found)


def _count_each(
    table: Tensor, places: Tensor, piece: Tensor, order: Tensor, offsets: Tensor
) -> None:
    for group in piece.unique().tolist():
        index = places.index_select(0, order[piece == group]) + offsets
        table[group] += torch.bincount(index.view(-1), minlength=table.shape[1])
