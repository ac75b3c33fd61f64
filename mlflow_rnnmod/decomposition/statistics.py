"""What a network's units do for each label: one pass over a sample, for all labels and layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from mlflow_rnnmod.decomposition.module import all_log_odds
from mlflow_rnnmod.decomposition.sample import Sample
from mlflow_rnnmod.network.network import RecurrentNetwork, States
from mlflow_rnnmod.network.rows import Rows

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


def bin_index(values: Tensor, bounded: bool) -> Tensor:
    """The histogram bin of each value's magnitude, int64."""
    if bounded:
        index = values.abs() * BINS
    else:
        low, high = _LOG_RANGE
        index = (torch.log2(values.abs().clamp(min=2**low)) - low) * (BINS / (high - low))
    return index.long().clamp_(0, BINS - 1)


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
    done = 0
    for start in range(0, len(sample.rows), batch_size):
        part = slice(start, start + batch_size)
        rows = sample.rows[part].to(network.device)
        assert rows.targets is not None
        sides = torch.stack([rows.targets, sample.rivals[part].to(network.device)])
        batch = _collect_batch(network, rows, sides, histograms, gradients)
        found = batch if found is None else found.merge(batch)
        done += len(rows)
        if progress:
            progress(done, len(sample.rows))
    assert found is not None
    return found


def _collect_batch(
    network: RecurrentNetwork, rows: Rows, sides: Tensor, histograms: bool, gradients: bool
) -> ActivationStatistics:
    with torch.set_grad_enabled(gradients):
        states = network.states(rows, perturb=gradients)
        slopes = _squared_gradients(network, states, sides) if gradients else {}
    bounded = network.config.cell != "rnn_relu"
    labels = len(network.labels)
    layers = {}
    for name, output in states.layers.items():
        output = output.detach()
        groups = sides
        if output.ndim == 3:  # every valid step is an observation
            groups = sides[:, :, None].expand(-1, -1, output.shape[1])[:, states.valid]
            output = output[states.valid]
        units = output.shape[1]
        active = torch.stack([_group_sums((output > 0).double(), g, labels) for g in groups])
        squared = None
        if gradients:
            squares = slopes[name]
            squares = squares[:, states.valid] if squares.ndim == 4 else squares
            squared = torch.stack(
                [_group_sums(s.double(), g, labels) for s, g in zip(squares, groups, strict=True)]
            )
        histogram = None
        if histograms:
            bins = bin_index(output, bounded and name.startswith("recurrent"))
            cells = torch.arange(units, device=bins.device) * BINS + bins
            size = labels * units * BINS
            histogram = torch.stack(
                [
                    torch.bincount((g[:, None] * (units * BINS) + cells).view(-1), minlength=size)
                    for g in groups
                ]
            ).view(2, labels, units, BINS)
        layers[name] = LayerStatistics(
            count=torch.tensor(float(len(output)), dtype=torch.float64),
            total=output.double().sum(0).cpu(),
            products=(output.T.double() @ output.double()).cpu(),
            observed=torch.stack([torch.bincount(g, minlength=labels) for g in groups]).cpu(),
            active=active.cpu(),
            histogram=None if histogram is None else histogram.cpu(),
            squared=None if squared is None else squared.cpu(),
        )
    return ActivationStatistics(layers, bounded)


def _group_sums(values: Tensor, groups: Tensor, count: int) -> Tensor:
    """Sum of ``values`` ``(n, units)`` in each group, ``(count, units)``."""
    return values.new_zeros(count, values.shape[1]).index_add_(0, groups, values)


def _squared_gradients(
    network: RecurrentNetwork, states: States, sides: Tensor
) -> dict[str, Tensor]:
    """Squared total derivatives of the own label's and the rival's log-odds, by layer.

    Returns:
        for each layer ``(2, rows, steps, units)``, or ``(2, rows, units)`` for dense layers.
    """
    odds = all_log_odds(network.logits(states.readout))
    names, inputs = list(states.perturbations), list(states.perturbations.values())
    found = []
    for side in sides:
        wanted = odds.gather(1, side[:, None]).sum()
        found.append(torch.autograd.grad(wanted, inputs, retain_graph=True))
    return {name: torch.stack([g[i] for g in found]) ** 2 for i, name in enumerate(names)}
