"""One pass of a network over a sample: statistics of all labels, groups, steps and gates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from mlflow_rnnmod.answers import Sample
from mlflow_rnnmod.decomposition.statistics import (
    BINS,
    ActivationStatistics,
    Exact,
    LayerStatistics,
    to_bins,
)
from mlflow_rnnmod.inputs.rows import IGNORE, Rows
from mlflow_rnnmod.networks.parts import split_name
from mlflow_rnnmod.networks.protocol import Network, Observations, Told

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


def collect(
    network: Network,
    sample: Sample,
    *,
    histograms: bool = True,
    gradients: bool = True,
    variant: str = "rolled",
    gates: str = "joint",
    unrolled_steps: int = 32,
    exact: bool = False,
    last_step: bool = False,
    batch_size: int = 512,
    progress: Callable[[int, int], None] | None = None,
    known: ActivationStatistics | None = None,
) -> ActivationStatistics:
    """Watch every unit of ``network`` over ``sample``, once, for all labels.

    Args:
        network: unmasked; it is not changed.
        sample: its memory use does not depend on how many rows this has.
        histograms: keep histograms of ``|h|`` (the paper's rule needs them).
        gradients: keep squared gradients: a backward pass more, for the margin of each row's own
            label less that of its rival, which counts for both; where a row has several labels one
            for the margin of each of all labels, and where it has one at each step, for each that
            it has.
            Gradients are total derivatives with respect to a unit's output at a step, through later
            steps and layers.
        variant: ``"unrolled"`` keeps the statistics of each step by itself.
        gates: ``"separate"`` keeps those of each gate's activation, in the place of outputs.
        unrolled_steps: so many steps are told apart at the most; later ones count as the last.
        exact: keep the observations in the place of histograms: medians are exact, and memory grows
            with the sample.
        last_step: of these, keep only each row's last step (the one that a direction takes last),
            where one label answers for the row and steps are not told apart.
        batch_size: rows run at once.
        progress: called with rows done and rows in all.
        known: statistics of the whole sample, where this is a part of it: what units can guess for
            one another, where gradients count what they can't. By default of this sample, in a pass
            before.

    Returns:
        statistics by group, by group and step or gate (see
        :func:`~mlflow_rnnmod.networks.parts.part_name`) where these are told apart.

    Raises:
        ValueError: if the network has no steps, or no gates, to tell apart.
    """
    told = network.told(sample.rows, variant, gates, unrolled_steps, last_step)
    if gradients and network.ranks_together:
        known = known or moments_of(network, sample, batch_size=batch_size)
        others = {name: layer.others() for name, layer in known.layers.items()}
        told = replace(told, others=others)
    pass_ = _Pass(network, told, histograms and not exact, gradients, exact)
    # Rows of like length stay together, where that leaves out steps.
    sample = sample[network.order(sample.rows)]
    found: ActivationStatistics | None = None
    done, batch_size = 0, network.rows_at_once(batch_size)
    for start in range(0, len(sample), batch_size):
        batch = pass_.run(sample[start : start + batch_size])
        found = batch if found is None else found.merge(batch)
        done += min(batch_size, len(sample) - start)
        if progress:
            progress(done, len(sample))
    assert found is not None
    return pass_.counted(found)


def moments_of(network: Network, sample: Sample, *, batch_size: int = 512) -> ActivationStatistics:
    """What units do together, and nothing else: the first of two passes over a sample."""
    return collect(network, sample, histograms=False, gradients=False, batch_size=batch_size)


class _Pass:
    """What all batches of a pass have in common; histograms are counted across batches."""

    def __init__(
        self, network: Network, told: Told, histograms: bool, gradients: bool, exact: bool
    ) -> None:
        self.network, self.told, self.labels = network, told, len(network.labels)
        self.histograms, self.gradients, self.exact = histograms, gradients, exact
        self.counters: dict[str, Counter] = {}

    @torch.no_grad()
    def run(self, sample: Sample) -> ActivationStatistics:
        """The statistics of a batch, without histograms."""
        rows, sides = _cut(self.network, sample)
        rows, sides = rows.to(self.network.device), sides.to(self.network.device)
        watch = self.network.watch(rows, self.told, self.gradients)
        squared = watch.squared(sides) if self.gradients else {}
        layers = {seen.name: self._layer(seen, squared) for seen in watch.observations(sides)}
        network = self.network
        how = network.ranks_unexplained, network.ranks_together
        return ActivationStatistics(layers, network.groups, *how)

    def _layer(self, seen: Observations, squared: dict[str, Tensor]) -> LayerStatistics:
        # Of units that can be off, rules ask how often they are: many places are not counted.
        group = self.network.groups[split_name(seen.name)[0]]
        if self.histograms and not (group.idles and seen.block > 1):
            self._count(seen)
        values, units = seen.values, seen.values.shape[1]
        # Steps of a row that stand for the same labels are added up before labels are.
        sides = seen.sides[:, :: seen.block]
        members = self._members(sides, values)
        active = members.new_zeros(len(members), units)
        if self.histograms:  # which no other rule asks for
            positive = torch.gt(values, 0, out=torch.empty_like(values))  # no copy of booleans
            if seen.block > 1:
                positive = positive.view(-1, seen.block, units).sum(1)
            active = members @ positive
        count, total, products = self._moments(seen)
        return LayerStatistics(
            count=count,
            total=total,
            products=products,
            observed=members.sum(1).long().view(2, self.labels).cpu() * seen.block,
            active=active.double().view(2, self.labels, units).cpu(),
            histogram=None,
            squared=squared.get(seen.name),
            exact=_kept(seen) if self.exact else None,
        )

    def _moments(self, seen: Observations) -> tuple[Tensor, Tensor, Tensor | None]:
        """What guesses are made from: of all observations, or of each label's own."""
        values, own = seen.values, seen.sides[0]
        if seen.also is not None:
            values = torch.cat([values, seen.also[0]])
        if not self.network.guesses_by_label:
            return moments(values, seen.joint)
        own = own if seen.also is None else torch.cat([own, seen.also[1]])
        by_label = [moments(values[own[:, y]], seen.joint) for y in range(self.labels)]
        counts, totals, products = zip(*by_label, strict=True)
        both = torch.stack(list(products)) if seen.joint else None
        return torch.stack(counts), torch.stack(totals), both

    def counted(self, found: ActivationStatistics) -> ActivationStatistics:
        """The statistics with histograms."""
        if not self.histograms:
            return found
        layers = {
            name: replace(layer, histogram=self.counters[name].total(self.labels).cpu())
            if name in self.counters
            else layer
            for name, layer in found.layers.items()
        }
        return replace(found, layers=layers)

    def _count(self, seen: Observations) -> None:
        places = to_bins(seen.values, self.network.groups[split_name(seen.name)[0]].bounded)
        several, none = seen.sides.dtype == torch.bool, self.labels
        groups = none + (several or self.network.config.answer.stepwise)
        counter = self.counters.setdefault(seen.name, Counter(groups, places.shape[1]))
        if several:
            for label in range(self.labels):
                counter.add(places, torch.where(seen.sides[:, :, label], label, none))
        else:
            counter.add(places, seen.sides)

    def _members(self, sides: Tensor, like: Tensor) -> Tensor:
        """Which observations belong to which side and label, 0 or 1, ``(2 x labels, obs)``."""
        if sides.dtype == torch.bool:
            return sides.transpose(1, 2).flatten(0, 1).to(like.dtype)
        members = like.new_zeros(2, self.labels + 1, sides.shape[1])
        members.scatter_(1, sides[:, None], 1.0)
        return members[:, : self.labels].flatten(0, 1)


def moments(values: Tensor, joint: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """Number, sum and (where units are ``joint``) products of observations, in float64."""
    count = torch.tensor(float(len(values)), dtype=torch.float64)
    products = (values.T @ values).double().cpu() if joint else None
    return count, values.sum(0).double().cpu(), products


def _kept(seen: Observations) -> Exact:
    """The observations themselves."""
    values, sides = seen.values, seen.sides
    if seen.chosen is not None:
        values, sides = values[seen.chosen], sides[:, seen.chosen]
    return Exact(values.cpu(), sides.cpu())


def _cut(network: Network, sample: Sample) -> tuple[Rows, Tensor]:
    """Rows without needless steps, and both sides: int64 with one past the labels for none."""
    rows = network.trimmed(sample.rows)
    sides = torch.stack(sample.sides)
    if sides.dtype != torch.bool:
        sides = torch.where(sides == IGNORE, len(network.labels), sides)
    if sides.ndim == 3 and sides.dtype != torch.bool and rows.targets is not None:
        sides = sides[:, :, : rows.targets.shape[1]]
    return rows, sides
