"""What a network's units do for each label, as sums that merge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from mlflow_rnnmod.decomposition.exact import Exact

BINS = 64
# |h| of ReLU has no bound: bins from 2**-20 to 2**12, equal on a log scale.
_LOG_RANGE = (-20.0, 12.0)


@dataclass(frozen=True, eq=False)
class LayerStatistics:
    """Sums over observations of one layer; an observation is a valid step of a row.

    Positives are the observations of rows with the label, negatives those of rows drawn as its
    rivals. Shapes: ``(labels, units)`` unless stated. Two parts of a sample merge by adding.

    Args:
        count: observations of all rows, ``()``.
        total: sum of each unit's output over all rows, ``(units,)``.
        products: sum of the products of every two units' outputs, ``(units, units)``; None where
            steps or gates are told apart.
        observed: observations, ``(2, labels)``: positives, negatives.
        active: observations with an output above 0, ``(2, labels, units)``.
        histogram: of ``|h|``, ``(2, labels, units, bins)``; None where no rule asked for it.
        squared: sum of the squared gradient of the label's log-odds, ``(2, labels, units)``; None
            where no rule asked for it.
        exact: the observations themselves, which then give rates and tendencies; None where no rule
            asked for them.
    """

    count: Tensor
    total: Tensor
    products: Tensor | None
    observed: Tensor
    active: Tensor
    histogram: Tensor | None
    squared: Tensor | None
    exact: Exact | None = None

    def merge(self, other: LayerStatistics) -> LayerStatistics:
        """The statistics of both parts together."""
        pairs = {f.name: (getattr(self, f.name), getattr(other, f.name)) for f in fields(self)}
        merged: dict[str, Any] = {k: None if a is None else a + b for k, (a, b) in pairs.items()}
        return LayerStatistics(**merged)

    @property
    def mean(self) -> Tensor:
        """Mean output of each unit over all valid steps of all rows, float64 ``(units,)``."""
        return self.total / self.count.clamp(min=1)

    @property
    def covariance(self) -> Tensor:
        """Of the units' outputs, over all valid steps of all rows, float64 ``(units, units)``."""
        assert self.products is not None
        mean = self.mean
        return self.products / self.count.clamp(min=1) - mean[:, None] * mean

    def active_rate(self, side: int, label: int) -> Tensor:
        """Share of observations with an output above 0, ``(units,)``; side 0: positives."""
        if self.exact is not None:
            return self.exact.active_rate(side, label)
        return self.active[side, label] / self.observed[side, label].clamp(min=1)

    def sensitivity(self, label: int) -> Tensor:
        """Mean squared gradient of the label's log-odds, over both sides alike, ``(units,)``."""
        assert self.squared is not None
        rates = self.squared[:, label] / self.observed[:, label, None].clamp(min=1)
        return rates.mean(dim=0)

    def harm(self, label: int) -> Tensor:
        """What the label loses by each unit's removal, ``(units,)``: its sensitivity."""
        return self.sensitivity(label)


@dataclass(frozen=True, eq=False)
class ActivationStatistics:
    """:class:`LayerStatistics` of every maskable layer, by name."""

    layers: Mapping[str, LayerStatistics]
    bounded: bool

    def merge(self, other: ActivationStatistics) -> ActivationStatistics:
        """The statistics of both parts together."""
        return ActivationStatistics(
            {name: found.merge(other.layers[name]) for name, found in self.layers.items()},
            self.bounded,
        )

    def tendency(self, name: str, side: int, label: int) -> Tensor:
        """The papers' central tendency of ``|h|``: its mean without outliers, ``(units,)``.

        Outliers are observations further than two median absolute deviations from the median
        (all are kept where that deviation is 0). Median and deviation come from the histogram: each
        is off by at most one bin (1/64 for bounded cells, 2 ** 0.5 as a factor for ReLU), unless
        the observations themselves were kept.
        """
        exact = self.layers[name].exact
        if exact is not None:
            return exact.tendency(side, label)
        histogram = self.layers[name].histogram
        assert histogram is not None
        bounded = self.bounded and not name.startswith("hidden")
        return trimmed_mean(histogram[side, label].double(), bin_centres(bounded))


def bin_centres(bounded: bool) -> Tensor:
    """Centre of each histogram bin, float64 ``(bins,)``."""
    if bounded:
        return (torch.arange(BINS, dtype=torch.float64) + 0.5) / BINS
    low, high = _LOG_RANGE
    centres = 2 ** (low + (torch.arange(BINS, dtype=torch.float64) + 0.5) * (high - low) / BINS)
    centres[0] = 0.0  # holds everything from 0 up
    return centres


def to_bins(values: Tensor, bounded: bool) -> Tensor:
    """The bin of each value's size, as bytes."""
    if bounded:
        index = values.abs().mul_(BINS)
    else:
        low, high = _LOG_RANGE
        index = (torch.log2(values.abs().clamp(min=2**low)) - low) * (BINS / (high - low))
    return index.clamp_(0, BINS - 1).to(torch.uint8)


def trimmed_mean(histogram: Tensor, centres: Tensor) -> Tensor:
    """Mean without outliers of binned values, ``(units,)`` from counts ``(units, bins)``."""
    median = _weighted_median(centres.expand_as(histogram), histogram)
    distance = (centres - median[:, None]).abs()
    order = distance.argsort(dim=1)
    deviation = _weighted_median(distance.gather(1, order), histogram.gather(1, order))
    kept = histogram * ((deviation[:, None] == 0) | (distance < 2 * deviation[:, None]))
    return (kept * centres).sum(1) / kept.sum(1).clamp(min=1)


def _weighted_median(values: Tensor, counts: Tensor) -> Tensor:
    """Median of ascending ``values`` with ``counts``, both ``(units, bins)``."""
    above = counts.cumsum(1) >= counts.sum(1, keepdim=True) / 2
    return values.gather(1, above.long().argmax(1, keepdim=True))[:, 0]
