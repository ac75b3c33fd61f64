"""Statistics from the observations themselves, where bins are not exact enough.

Memory grows with the sample, which histograms avoid; medians are exact instead of off by a bin.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Exact:
    """What the units of a layer put out at each observation, and what each stands for.

    Two parts of a sample merge by adding.

    Args:
        values: float ``(observations, units)``.
        sides: int64 ``(2, observations)``, the label that each is a positive and a negative of, one
            past the last label for none; or bool ``(2, observations, labels)``.

    Example:
        >>> values = torch.tensor([[0.0], [1.0], [2.0], [9.0], [5.0]])
        >>> found = Exact(values, torch.tensor([[0, 0, 0, 0, 1], [1, 1, 1, 1, 0]]))
        >>> found.tendency(0, 0).tolist()
        [1.0]
    """

    values: Tensor
    sides: Tensor

    def __add__(self, other: Exact) -> Exact:
        values = torch.cat([self.values, other.values])
        return Exact(values, torch.cat([self.sides, other.sides], dim=1))

    def of(self, side: int, label: int) -> Tensor:
        """Observations of a label, float64 ``(observations, units)``; side 0: its positives."""
        own = self.sides[side]
        return self.values[own[:, label] if own.ndim == 2 else own == label].double()

    def tendency(self, side: int, label: int) -> Tensor:
        """The papers' central tendency of ``|h|``: its mean without outliers, ``(units,)``.

        Outliers are two median absolute deviations or more from the median (where that deviation is
        0, all are kept). 0 where there is no observation.
        """
        sizes = self.of(side, label).abs()
        if len(sizes) == 0:
            return sizes.new_zeros(sizes.shape[1])
        distance = (sizes - _median(sizes)).abs()
        deviation = _median(distance)
        kept = (distance < 2 * deviation) | (deviation == 0)
        return (sizes * kept).sum(dim=0) / kept.sum(dim=0)

    def active_rate(self, side: int, label: int) -> Tensor:
        """Share of observations with an output above 0, float64 ``(units,)``."""
        values = self.of(side, label)
        return (values > 0).double().sum(dim=0) / max(len(values), 1)


def _median(values: Tensor) -> Tensor:
    """Of each column; of the two in the middle, their mean."""
    ordered = values.sort(dim=0).values
    return (ordered[(len(values) - 1) // 2] + ordered[len(values) // 2]) / 2
