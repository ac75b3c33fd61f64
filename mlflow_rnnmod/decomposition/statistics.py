"""What a network's units do for each label, as sums that merge, or exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from mlflow_rnnmod.networks.groups import Group, Groups
from mlflow_rnnmod.networks.parts import split_name


# Memory grows with the sample, which histograms avoid; medians are exact instead of off by a bin.
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


BINS = 64
# Of the mean variance: what keeps guesses steady where units say the same.
RIDGE = 1e-3
# |h| of ReLU has no bound: bins from 2**-20 to 2**12, equal on a log scale.
_LOG_RANGE = (-20.0, 12.0)


@dataclass(frozen=True, eq=False)
class LayerStatistics:
    """Sums over observations of one layer; an observation is a valid step of a row.

    Positives are the observations of rows with the label, negatives those of rows drawn as its
    rivals. Shapes: ``(labels, units)`` unless stated. Two parts of a sample merge by adding.

    Args:
        count: observations of all rows, ``()``; with guesses for each label, of its own rows,
            ``(labels,)``, and so for the next two.
        total: sum of each unit's output over all rows, ``(units,)``.
        products: sum of the products of every two units' outputs, ``(units, units)``; None where
            steps or gates are told apart.
        observed: observations, ``(2, labels)``: positives, negatives.
        active: observations with an output above 0, ``(2, labels, units)``.
        histogram: of ``|h|``, ``(2, labels, units, bins)``; None where no rule asked for it.
        squared: sum of the squared gradient of the label's margin - where one label answers for a
            row, of its label's less its rival's - ``(2, labels, units)``, or ``(1, labels, units)``
            where only its positives owe it something; None where no rule asked for it.
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

    def of(self, label: int) -> LayerStatistics:
        """What guesses for a label's module are made from: its own rows', or else all rows'."""
        if self.count.ndim == 0 or not self.count[label] > 0:
            return self
        products = None if self.products is None else self.products[label]
        return replace(self, count=self.count[label], total=self.total[label], products=products)

    @property
    def mean(self) -> Tensor:
        """Mean output of each unit over all valid steps of all rows, float64 ``(units,)``."""
        count, total = self.count, self.total
        if count.ndim:
            count, total = count.sum(0), total.sum(0)
        return total / count.clamp(min=1)

    @property
    def covariance(self) -> Tensor:
        """Of the units' outputs, over all valid steps of all rows, float64 ``(units, units)``."""
        assert self.products is not None
        count, products = self.count, self.products
        if count.ndim:
            count, products = count.sum(0), products.sum(0)
        mean = self.mean
        return products / count.clamp(min=1) - mean[:, None] * mean

    def active_rate(self, side: int, label: int) -> Tensor:
        """Share of observations with an output above 0, ``(units,)``; side 0: positives."""
        if self.exact is not None:
            return self.exact.active_rate(side, label)
        return self.active[side, label] / self.observed[side, label].clamp(min=1)

    def sensitivity(self, label: int) -> Tensor:
        """Mean of :attr:`squared`, over the label's sides alike, ``(units,)``."""
        assert self.squared is not None
        squared = self.squared[:, label]
        rates = squared / self.observed[: len(squared), label, None].clamp(min=1)
        return rates.mean(dim=0)

    def unexplained(self) -> Tensor:
        """What the other units can't guess of each unit, as a variance, float64 ``(units,)``."""
        return 1 / self._inverse().diagonal().clamp(min=1e-30)

    def others(self) -> tuple[Tensor, Tensor]:
        """A matrix and means, which give what the other units can't guess of each unit.

        Float64 ``(units, units)`` and ``(units,)``: ``matrix @ (output - mean)`` is what is left of
        a unit's output when its best linear guess from all others is taken off.
        """
        inverse = self._inverse()
        return inverse / inverse.diagonal().clamp(min=1e-30)[:, None], self.mean

    def _inverse(self) -> Tensor:
        covariance = self.covariance
        ridge = RIDGE * covariance.diagonal().mean().clamp(min=1e-12)
        return torch.linalg.inv(covariance + ridge * torch.eye(len(covariance)).double())


@dataclass(frozen=True, eq=False)
class ActivationStatistics:
    """:class:`LayerStatistics` of every part of every group, by name.

    Args:
        layers: see :func:`~mlflow_rnnmod.networks.parts.part_name`.
        groups: of the network.
        ranks_unexplained: as the network has it.
        ranks_together: as the network has it.
        orders: in which units leave, as far as somebody asked: by what was asked.
    """

    layers: Mapping[str, LayerStatistics]
    groups: Groups
    ranks_unexplained: bool = False
    ranks_together: bool = False
    orders: dict[Any, Any] = field(init=False, default_factory=dict, repr=False)

    def merge(self, other: ActivationStatistics) -> ActivationStatistics:
        """The statistics of both parts together."""
        layers = {name: found.merge(other.layers[name]) for name, found in self.layers.items()}
        return replace(self, layers=layers)

    def of(self, label: int) -> ActivationStatistics:
        """What guesses for a label's module are made from."""
        return replace(self, layers={name: found.of(label) for name, found in self.layers.items()})

    def group(self, name: str) -> Group:
        """The group that a part is of."""
        return self.groups[split_name(name)[0]]

    def harm(self, name: str, label: int) -> Tensor:
        """What the label loses by each unit's removal, ``(units,)``: its sensitivity.

        Times what the other units can't guess of it, where the network is ranked so: to first
        order, that is what its removal changes, squared. Not where steps or gates are told apart:
        their units are not guessed from others. Where all groups are ranked together, squares hold
        what the others can't guess already.
        """
        sensitivity, own = self.layers[name].sensitivity(label), self.layers[name].of(label)
        if self.ranks_together:
            # Squares are of rows, observations of places: layers have more or fewer of these.
            counts = {n: float(x.observed[:, label].sum()) for n, x in self.layers.items()}
            return sensitivity * (counts[name] / max(min(counts.values()), 1.0))
        if not self.ranks_unexplained or own.products is None:
            return sensitivity
        return sensitivity * own.unexplained()

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
        bounded = self.group(name).bounded
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
        return values.abs().mul_(BINS).clamp_(max=BINS - 1).to(torch.uint8)
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
