"""What is watched, against slow runs of one row each; and that it does not matter how."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from mlflow_rnnmod.answers import Sample
from mlflow_rnnmod.decomposition import collect
from mlflow_rnnmod.decomposition.statistics import BINS, ActivationStatistics
from mlflow_rnnmod.inputs.rows import IGNORE
from mlflow_rnnmod.networks.parts import part_name, split_name
from tests.contract.base import Subject
from tests.contract.subjects import drawn, structures, subject, subjects

Answered = list[tuple[int | None, int]]


def asked(sample: Sample, side: int, row: int) -> Answered:
    """Which steps of a row (None: the row itself) stand for which labels."""
    who = sample.sides[side][row]
    if who.dtype == torch.bool:
        return [(None, int(label)) for label in who.nonzero()[:, 0]]
    if who.ndim == 0:
        return [(None, int(who))] if int(who) >= 0 else []
    return [(int(step), int(who[step])) for step in (who >= 0).nonzero()[:, 0]]


def bin_of(value: float, bounded: bool) -> int:
    if bounded:
        return min(int(abs(value) * BINS), BINS - 1)
    return 0 if value == 0 else min(max(math.floor((math.log2(abs(value)) + 20) * 2), 0), BINS - 1)


class Loops:
    """All rows of a sample, run slowly: what each group's units did, and for which labels."""

    def __init__(self, subject: Subject, sample: Sample) -> None:
        self.seen: dict[str, list[tuple[Tensor, tuple[Answered, Answered], int | None]]] = {}
        self.guessed: dict[str, list[tuple[Tensor, Answered]]] = {}
        for row in range(len(sample)):
            slowly = subject.suite.slow(subject.network, sample.rows[row : row + 1])
            both = asked(sample, 0, row), asked(sample, 1, row)
            for name, group in slowly.groups.items():
                seen, guessed = self.seen.setdefault(name, []), self.guessed.setdefault(name, [])
                places = zip(group.values, group.steps, group.watched, strict=True)
                for values, step, watched in places:
                    if watched:
                        seen.append((values, both, step))
                        guessed.append((values, both[0]))
                guessed += [(values, both[0]) for values in group.more]

    def of_side(self, name: str, side: int, label: int) -> list[list[float]]:
        """Observations that are positives (side 0) or negatives of a label."""
        return [
            values.tolist()
            for values, both, step in self.seen[name]
            if any(own == label and at in (None, step) for at, own in both[side])
        ]


def check_sums(subject: Subject, sample: Sample) -> None:
    network = subject.network
    found, loops = (
        collect(network, sample, histograms=True, gradients=False),
        Loops(subject, sample),
    )
    assert list(found.layers) == list(network.groups)
    labels = range(len(network.labels))
    for name, group in network.groups.items():
        layer = found.layers[name]
        for label in labels if network.guesses_by_label else [None]:
            mine = layer if label is None else found.of(label).layers[name]
            values = [
                value for value, own in loops.guessed[name] if label is None or (None, label) in own
            ]
            assert int(mine.count) == len(values)
            table = torch.stack(values).double()
            torch.testing.assert_close(mine.mean, table.mean(0), rtol=1e-9, atol=1e-11)
            covariance = torch.cov(table.T, correction=0).reshape(group.units, group.units)
            torch.testing.assert_close(mine.covariance, covariance, rtol=1e-8, atol=1e-10)
        for side in (0, 1):
            for label in labels:
                mine = loops.of_side(name, side, label)
                assert int(layer.observed[side, label]) == len(mine)
                histogram = torch.zeros(group.units, BINS, dtype=torch.int64)
                for unit in range(group.units):
                    active = sum(values[unit] > 0 for values in mine)
                    assert int(layer.active[side, label, unit]) == active
                    rate = layer.active_rate(side, label)[unit]
                    assert rate == (active / len(mine) if mine else 0.0)
                    for values in mine:
                        histogram[unit, bin_of(values[unit], group.bounded)] += 1
                if layer.histogram is None:  # at many places, of what can be off
                    assert group.idles
                    continue
                # A rounding error apart, a value may fall into the next bin.
                moved = (layer.histogram[side, label] - histogram).abs().sum()
                assert moved <= 2 and layer.histogram[side, label].sum() == histogram.sum()


@subjects
def test_sums_are_those_of_a_loop(name):
    mine = subject(name)
    check_sums(mine, mine.sample(8))


@structures
@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data(), seed=st.integers(0, 99))
def test_so_they_are_for_any_structure(suite, data, seed):
    mine = drawn(data, suite)
    check_sums(mine, mine.sample(6, seed))


def rival_of(sample: Sample, side: int, row: int) -> int:
    """On the other side of a row that one label answers for; ``IGNORE`` of other rows."""
    other = sample.sides[1 - side]
    return int(other[row]) if other.dtype != torch.bool and other.ndim == 1 else IGNORE


def asked_for(margins: Tensor, step: int | None, label: int, rival: int) -> Tensor:
    """The margin of a label, less that of the row's rival."""
    if step is not None:
        return margins[step, label]
    return margins[label] if rival == IGNORE else margins[label] - margins[rival]


def squared_by_hand(
    subject: Subject, sample: Sample, layers: dict[str, Any], sides: int = 2
) -> dict[str, Tensor]:
    """Squared derivatives of margins, one row, side and label at a time, by autograd."""
    network = subject.network
    total = {
        name: torch.zeros(sides, len(network.labels), units, dtype=torch.float64)
        for name, units in network.units.items()
    }
    for row in range(len(sample)):
        one = sample.rows[row : row + 1]
        groups = subject.suite.slow(network, one).groups
        for side in range(sides):
            for step, label in asked(sample, side, row):
                added = {
                    name: torch.zeros_like(seen.values).requires_grad_()
                    for name, seen in groups.items()
                }
                margins = subject.suite.slow(network, one, added).margins
                margin = asked_for(margins, step, label, rival_of(sample, side, row))
                slopes = torch.autograd.grad(margin, list(added.values()), allow_unused=True)
                for name, slope in zip(added, slopes, strict=True):
                    if slope is not None:
                        given = groups[name].values, slope, layers[name]
                        square = subject.suite.square(network, *given)
                        total[name][side, label] += square
    return total


def thinned(sample: Sample) -> Sample:
    """One step of a row at the most for each label and side.

    Squares of several steps' derivatives come from their sum with random signs: right on average.
    """

    def first(who: Tensor) -> Tensor:
        if who.dtype == torch.bool or who.ndim == 1:
            return who
        found = torch.full_like(who, IGNORE)
        for row, step in (who != IGNORE).nonzero().tolist():
            if not (found[row] == who[row, step]).any():
                found[row, step] = who[row, step]
        return found

    positives, negatives = sample.sides
    return replace(sample, chosen=first(positives), rivals=first(negatives))


def check_gradients(subject: Subject, sample: Sample, alive: bool = True) -> None:
    sample = thinned(sample)
    found = collect(subject.network, sample, histograms=False).layers
    sides = next(iter(found.values())).squared.shape[0]
    for name, expected in squared_by_hand(subject, sample, found, sides).items():
        assert (expected > 0).any() or not alive
        torch.testing.assert_close(found[name].squared, expected, rtol=1e-7, atol=1e-10)


@subjects
def test_squared_gradients_are_those_of_autograd(name):
    mine = subject(name)
    check_gradients(mine, mine.sample(4, 1))


@structures
@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_so_are_those_of_any_structure(suite, data):
    mine = drawn(data, suite)
    assume(mine.suite.smooth(mine.network))
    check_gradients(mine, mine.sample(3), alive=False)  # ReLU may be off everywhere


def check_differences(subject: Subject, sample: Sample) -> None:
    """Of a row's first label, in the direction of every unit at every place."""
    network, slow, row, by = subject.network, subject.suite.slow, sample.rows[:1], 1e-6
    found = collect(network, sample[:1], histograms=False).layers
    ((step, label), *_) = asked(sample, 0, 0)
    groups = slow(network, row).groups

    @torch.no_grad()
    def margin(group: str, place: int, unit: int, amount: float) -> float:
        added = {name: torch.zeros_like(seen.values) for name, seen in groups.items()}
        added[group][place, unit] = amount
        margins = slow(network, row, added).margins
        return float(asked_for(margins, step, label, rival_of(sample, 0, 0)))

    for group, seen in groups.items():
        slopes = torch.zeros_like(seen.values, dtype=torch.float64)
        for place in range(len(seen.values)):
            for unit in range(slopes.shape[1]):
                ends = [margin(group, place, unit, sign * by) for sign in (1, -1)]
                slopes[place, unit] = (ends[0] - ends[1]) / (2 * by)
        given = seen.values.double(), slopes, found[group]
        expected = subject.suite.square(network, *given)
        # A single row's means leave nothing of units without places.
        assert (expected > 0).any() or network.ranks_together
        squared = found[group].squared[0, label]
        torch.testing.assert_close(squared, expected, rtol=1e-5, atol=1e-8)


@subjects
def test_gradients_are_what_differences_say(name):
    mine = subject(name)
    if mine.suite.ties(mine.network):
        pytest.skip("where several are the largest, there is no derivative to compare with")
    sample = mine.sample(5, 2)
    longest = int(mine.network.sizes(sample.rows).argmax())
    check_differences(mine, thinned(sample[longest : longest + 1]))


# --- how ---


def assert_same(first: ActivationStatistics, second: ActivationStatistics) -> None:
    """Sums are equal: numbers of observations exactly, others up to rounding."""
    assert first.groups == second.groups and set(first.layers) == set(second.layers)
    for name, one in first.layers.items():
        for field in fields(one):
            a, b = getattr(one, field.name), getattr(second.layers[name], field.name)
            if a is None:
                assert b is None
            elif field.name in ("count", "observed", "active", "histogram"):
                assert torch.equal(a, b), (name, field.name)
            elif field.name != "exact":
                torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-12)


def check_parts(subject: Subject, sample: Sample, size: int, cut: int, **told) -> None:
    """Batches of any size and merged parts are the whole."""
    network = subject.network
    whole = collect(network, sample, **told)
    assert_same(collect(network, sample, batch_size=size, **told), whole)
    known = {"known": whole} if network.ranks_together else {}
    first, second = (
        collect(network, sample[part], **told, **known) for part in (slice(cut), slice(cut, None))
    )
    assert_same(first.merge(second), whole)
    assert_same(second.merge(first), whole)


@subjects
def test_neither_batches_nor_parts_matter(name):
    mine = subject(name)
    sample = mine.sample(9)
    for variant, gates in mine.kinds:
        check_parts(mine, sample, 2, 4, variant=variant, gates=gates, unrolled_steps=2)


@structures
@settings(max_examples=12, deadline=None, derandomize=True)
@given(data=st.data(), size=st.integers(1, 6), cut=st.integers(1, 5))
def test_nor_do_they_for_any_structure(suite, data, size, cut):
    mine = drawn(data, suite)
    check_parts(mine, mine.sample(7), size, cut)


@subjects
def test_observations_that_are_kept_are_those_that_are_counted(name):
    """``exact`` keeps them: rates are the same, and medians no bin off."""
    mine = subject(name)
    sample, labels = mine.sample(12), range(len(mine.parent.labels))
    counted = collect(mine.network, sample, gradients=False)
    kept = collect(mine.network, sample, gradients=False, exact=True, batch_size=5)
    for group, layer in kept.layers.items():
        assert layer.histogram is None
        for side in (0, 1):
            for label in labels:
                rates = [s.layers[group].active_rate(side, label) for s in (kept, counted)]
                torch.testing.assert_close(*rates)
                observed = int(counted.layers[group].observed[side, label])
                assert len(layer.exact.of(side, label)) == observed


@subjects
def test_what_is_told_apart_adds_up(name):
    """Steps to all steps; and those without steps or gates say so."""
    mine = subject(name)
    network, sample = mine.network, mine.sample(9)
    for variant, gates in (("unrolled", "joint"), ("rolled", "separate")):
        if (variant, gates) not in mine.kinds:
            with pytest.raises(ValueError, match="neither steps nor gates"):
                collect(network, sample, variant=variant, gates=gates)
    if ("rolled", "separate") in mine.kinds:
        found = collect(network, sample, gates="separate").layers
        assert list(found) == [
            part_name(group.name, gate=letter)
            for group in network.groups.values()
            for letter in ([gate.letter for gate in group.gates] or [None])
        ]
    if ("unrolled", "joint") not in mine.kinds:
        return
    whole = collect(network, sample, histograms=False)
    found = collect(network, sample, histograms=False, variant="unrolled", unrolled_steps=3)
    for group, layer in whole.layers.items():
        parts = [part for n, part in found.layers.items() if split_name(n)[0] == group]
        for field in ("observed", "active", "squared"):
            total = sum(getattr(part, field) for part in parts)
            torch.testing.assert_close(total, getattr(layer, field), rtol=1e-7, atol=1e-10)
        assert all(part.products is None for part in parts) or len(parts) == 1


@subjects
def test_the_parent_stays_and_only_what_was_asked_for_is_kept(name):
    mine = subject(name)
    digest, told = mine.parent.digest, []
    sample = mine.sample(9)
    progress = lambda done, total: told.append((done, total))  # noqa: E731
    options = {"histograms": False, "gradients": False}
    plain = collect(mine.network, sample, **options, batch_size=4, progress=progress)
    total = len(sample)
    assert told == [(min(done + 4, total), total) for done in range(0, total, 4)]
    merged = plain.merge(plain)
    for layer in (*plain.layers.values(), *merged.layers.values()):
        assert layer.histogram is None and layer.squared is None and layer.exact is None
    full = collect(mine.network, sample)
    for group, layer in full.layers.items():
        assert layer.histogram is not None or mine.network.groups[group].idles
        assert layer.squared is not None
    assert type(mine.parent)(mine.network).digest == digest
    assert all(weight.grad is None for weight in mine.network.parameters())
