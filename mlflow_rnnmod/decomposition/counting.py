"""Histograms of many units, labels and sides at once."""

from __future__ import annotations

import torch
from torch import Tensor

from mlflow_rnnmod.decomposition.statistics import BINS

# Observations of units that wait to be counted.
_WAITING = 2**22
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
            table = _count(places, sides[0] * self.labels + sides[1], pairs)
            table = table.view(self.labels, self.labels, units, BINS)
            counts = torch.stack([table.sum(1), table.sum(0)])
        else:
            found = [_count(places, side, self.labels) for side in sides]
            counts = torch.stack(found).view(len(sides), self.labels, units, BINS)
        self.counts += counts.cpu()


def _count(places: Tensor, groups: Tensor, count: int) -> Tensor:
    """How often each bin of each unit was hit in each group, int64 ``(groups x units x bins,)``."""
    units = places.shape[1]
    size = count * units * BINS
    kind = torch.int32 if size < 2**31 else torch.int64
    offsets = torch.arange(units, device=places.device, dtype=kind) * BINS
    groups, order = groups.sort()  # so that counting stays in one part of the table
    start = (groups * (units * BINS)).to(kind)[:, None] + offsets
    index = start.add_(places.index_select(0, order))
    return torch.bincount(index.view(-1), minlength=size)
