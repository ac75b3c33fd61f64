"""What a network's units do for each label: one pass over a sample, for all labels and layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from mlflow_rnnmod.decomposition.gradients import watch
from mlflow_rnnmod.decomposition.sample import Sample
from mlflow_rnnmod.network.network import RecurrentNetwork
from mlflow_rnnmod.network.rows import Rows

BINS = 64
# |h| of ReLU has no bound: bins from 2**-20 to 2**12, equal on a log scale.
_LOG_RANGE = (-20.0, 12.0)
# Observations of units that wait to be counted.
_WAITING = 2**22
# Largest table of pairs of labels: beyond, each side is counted by itself.
_PAIRS = 2**20


@dataclass(frozen=True, eq=False)
class LayerStatistics:
    """Sums over observations of one layer; an observation is a valid step of a row.

    Positives are the observations of rows with the label, negatives those of rows drawn as its
    rivals. Shapes: ``(labels, units)`` unless stated. Two parts of a sample merge by adding.

    Args:
        count: observations of all rows, ``()``.
        total: sum of each unit's output over all rows, ``(units,)``.
        products: sum of the products of every two units' outputs, ``(units, units)``.
        observed: observations, ``(2, labels)``: positives, negatives.
        active: observations with an output above 0, ``(2, labels, units)``.
        histogram: of ``|h|``, ``(2, labels, units, bins)``; None where no rule asked for it.
        squared: sum of the squared gradient of the label's log-odds, ``(2, labels, units)``; None
            where no rule asked for it.
    """

    count: Tensor
    total: Tensor
    products: Tensor
    observed: Tensor
    active: Tensor
    histogram: Tensor | None
    squared: Tensor | None

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
        mean = self.mean
        return self.products / self.count.clamp(min=1) - mean[:, None] * mean

    def active_rate(self, side: int, label: int) -> Tensor:
        """Share of observations with an output above 0, ``(units,)``; side 0: positives."""
        return self.active[side, label] / self.observed[side, label].clamp(min=1)

    def sensitivity(self, label: int) -> Tensor:
        """Mean squared gradient of the label's log-odds, over both sides alike, ``(units,)``."""
        assert self.squared is not None
        rates = self.squared[:, label] / self.observed[:, label, None].clamp(min=1)
        return rates.mean(dim=0)


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
        is off by at most one bin (1/64 for bounded cells, 2 ** 0.5 as a factor for ReLU).
        """
        histogram = self.layers[name].histogram
        assert histogram is not None
        bounded = self.bounded and name.startswith("recurrent")
        return trimmed_mean(histogram[side, label].double(), bin_centres(bounded))


def bin_centres(bounded: bool) -> Tensor:
    """Centre of each histogram bin, float64 ``(bins,)``."""
    if bounded:
        return (torch.arange(BINS, dtype=torch.float64) + 0.5) / BINS
    low, high = _LOG_RANGE
    centres = 2 ** (low + (torch.arange(BINS, dtype=torch.float64) + 0.5) * (high - low) / BINS)
    centres[0] = 0.0  # holds everything from 0 up
    return centres


def _bins(values: Tensor, bounded: bool) -> Tensor:
    """The same, as bytes."""
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


def collect(
    network: RecurrentNetwork,
    sample: Sample,
    *,
    histograms: bool = True,
    gradients: bool = True,
    batch_size: int = 512,
    progress: Callable[[int, int], None] | None = None,
) -> ActivationStatistics:
    """Watch every unit of ``network`` over ``sample``, once, for all labels.

    Args:
        network: unmasked; it is not changed.
        sample: its memory use does not depend on how many rows this has.
        histograms: keep histograms of ``|h|`` (the paper's rule needs them).
        gradients: keep squared gradients: two backward passes more, one for each row's own label
            and one for its rival. Gradients are total derivatives of the label's log-odds with
            respect to a unit's output at a step, through later steps and layers.
        batch_size: rows run at once.
        progress: called with rows done and rows in all.
    """
    found: ActivationStatistics | None = None
    bins: dict[str, _Bins] | None = {} if histograms else None
    done = 0
    for start in range(0, len(sample.rows), batch_size):
        part = slice(start, start + batch_size)
        rows = sample.rows[part].to(network.device)
        assert rows.targets is not None
        sides = torch.stack([rows.targets, sample.rivals[part].to(network.device)])
        batch = _collect_batch(network, rows, sides, bins, gradients)
        found = batch if found is None else found.merge(batch)
        done += len(rows)
        if progress:
            progress(done, len(sample.rows))
    assert found is not None
    if bins is not None:
        counted = {
            name: replace(found.layers[name], histogram=b.total().cpu()) for name, b in bins.items()
        }
        return replace(found, layers=counted)
    return found


@torch.no_grad()
def _collect_batch(
    network: RecurrentNetwork,
    rows: Rows,
    sides: Tensor,
    bins: dict[str, _Bins] | None,
    gradients: bool,
) -> ActivationStatistics:
    slopes: dict[str, Tensor] = {}
    if gradients:
        states, slopes = watch(network, rows, sides)
    else:
        states = network.states(rows)
    bounded = network.config.cell != "rnn_relu"
    labels = len(network.labels)
    layers = {}
    for name, output in states.layers.items():
        steps = states.valid.sum(dim=1)
        valid: Tensor | None = states.valid
        if output.ndim == 2:  # a dense layer puts out one vector a row
            output, steps, valid = output[:, None], torch.ones_like(steps), None
        elif bool(states.valid.all()):
            valid = None
        # Counts up to the number of steps: exact in any float.
        seen = (valid if valid is not None else output.new_ones(output.shape[:2])).to(output.dtype)
        active_steps = torch.bmm(seen[:, None], (output > 0).to(output.dtype))[:, 0]
        flat = output.flatten(0, 1) if valid is None else output[valid]
        if bins is not None:
            places = _bins(flat, bounded and name.startswith("recurrent"))
            bins.setdefault(name, _Bins(labels)).add(places, sides, steps)
        squared = None
        if gradients:
            squared = torch.stack(
                [_group_sums(s, g, labels) for s, g in zip(slopes[name], sides, strict=True)]
            ).cpu()
        layers[name] = LayerStatistics(
            count=torch.tensor(float(len(flat)), dtype=torch.float64),
            total=flat.sum(0).double().cpu(),
            products=(flat.T @ flat).double().cpu(),
            observed=torch.stack([_group_sums(steps[:, None], g, labels)[:, 0] for g in sides])
            .long()
            .cpu(),
            active=torch.stack([_group_sums(active_steps, g, labels) for g in sides]).cpu(),
            histogram=None,
            squared=squared,
        )
    return ActivationStatistics(layers, bounded)


def _group_sums(values: Tensor, groups: Tensor, count: int) -> Tensor:
    """Sum of ``values`` ``(rows, units)`` in each group, float64 ``(count, units)``."""
    found = values.new_zeros(count, values.shape[1], dtype=torch.float64)
    return found.index_add_(0, groups, values.double())


class _Bins:
    """Counts how often each bin was hit, for each side, label and unit of a layer.

    Batches are kept, a byte an observation, until counting them is worth going through the table.

    Args:
        labels: how many there are.
    """

    def __init__(self, labels: int) -> None:
        self.labels = labels
        self.counts: Tensor | None = None
        self._waiting: list[tuple[Tensor, Tensor]] = []

    def add(self, places: Tensor, sides: Tensor, steps: Tensor) -> None:
        """Count a batch.

        Args:
            places: the bin of every unit at every observation, uint8 ``(observations, units)``.
            sides: int64 ``(sides, rows)``, the label of each row.
            steps: observations of each row, ``(rows,)``, whose sum is the observations.
        """
        self._waiting.append((places, sides.repeat_interleave(steps, dim=1)))
        if sum(waiting.numel() for waiting, _ in self._waiting) >= _WAITING:
            self._flush()

    def total(self) -> Tensor:
        """The counts so far, int64 ``(sides, labels, units, bins)``."""
        if self._waiting:
            self._flush()
        assert self.counts is not None
        return self.counts

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
        self.counts = counts if self.counts is None else self.counts.add_(counts)


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
