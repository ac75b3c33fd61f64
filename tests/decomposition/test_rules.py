"""Rules against the loops that docs/method.md gives."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_rnnmod.decomposition import RULES, ActivationStatistics
from mlflow_rnnmod.decomposition.rules import random_like, removed_units
from mlflow_rnnmod.decomposition.statistics import BINS, LayerStatistics
from tests.builders import groups_named

LABELS = 3
shares = st.sampled_from([0.0, 0.05, 0.2, 0.35, 0.5, 0.9, 0.999])


def made_up(seed: int, sizes: dict[str, int], bounded: bool) -> ActivationStatistics:
    """Statistics of a network that does not exist, with many ties."""
    draw = torch.Generator().manual_seed(seed)

    def count(*shape: int, high: int = 4) -> torch.Tensor:
        return torch.randint(0, high, shape, generator=draw)

    layers = {}
    for name, units in sizes.items():
        histogram = count(2, LABELS, units, BINS, high=2)
        histogram *= (count(2, LABELS, units, 1, high=3) > 0).long()
        layers[name] = LayerStatistics(
            count=torch.tensor(50.0, dtype=torch.float64),
            total=torch.randn(units, generator=draw).double(),
            products=torch.eye(units).double(),
            observed=count(2, LABELS) + 5,
            active=count(2, LABELS, units, high=3).double(),
            histogram=histogram,
            squared=count(2, LABELS, units).double(),
        )
    return ActivationStatistics(layers, groups_named(sizes, bounded))


def cap(share: float, units: int) -> int:
    return min(int(share * units + 1e-9), units - 1)


def paper_logistic(found: ActivationStatistics, name: str, label: int, most: int) -> set[int]:
    """Algorithm 4: in ascending order of d, while d < 0 and the cap is not reached, remove."""
    positive, negative = (found.tendency(name, side, label).tolist() for side in (0, 1))
    d = [p - n for p, n in zip(positive, negative, strict=True)]
    removed: set[int] = set()
    for unit in sorted(range(len(d)), key=lambda u: (d[u], u)):
        if not d[unit] < 0 or len(removed) >= most:
            break
        removed.add(unit)
    return removed


def paper_relu(found: ActivationStatistics, name: str, label: int, most: int) -> set[int]:
    """Algorithm 5: remove units idle on positives up to the cap, restore those that negatives use.
    """  # fmt: skip
    layer = found.layers[name]
    removed: list[int] = []
    for unit in range(layer.active.shape[-1]):
        if len(removed) < most and layer.active[0, label, unit] / layer.observed[0, label] == 0:
            removed.append(unit)
    return {u for u in removed if not layer.active[1, label, u] / layer.observed[1, label] > 0}


def sensitivity(found: ActivationStatistics, name: str, label: int, most: int) -> set[int]:
    layer = found.layers[name]
    score = {}
    for unit in range(layer.active.shape[-1]):
        means = [layer.squared[s, label, unit] / layer.observed[s, label] for s in (0, 1)]
        score[unit] = float(means[0] + means[1]) / 2
    return set(sorted(score, key=lambda u: (score[u], u))[:most])


def expected(rule, found: ActivationStatistics, name: str, label: int, most: int) -> set[int]:
    if rule == "sensitivity":
        return sensitivity(found, name, label, most)
    if found.group(name).idles:
        return paper_relu(found, name, label, most)
    return paper_logistic(found, name, label, most)


@settings(max_examples=60, deadline=None)
@given(
    rule=st.sampled_from(["paper", "sensitivity"]),
    bounded=st.booleans(),
    seed=st.integers(0, 10_000),
    share=shares,
    units=st.integers(1, 13),
)
def test_rules_are_their_loops(rule, bounded, seed, share, units):
    found = made_up(seed, {"recurrent.0.fwd": units, "hidden.0": 7}, bounded)
    for label in range(LABELS):
        removed = removed_units(RULES[rule], found, label, share)
        assert list(removed) == ["recurrent.0.fwd", "hidden.0"]
        for name, mask in removed.items():
            most = cap(share, len(mask))
            assert set(mask.nonzero()[:, 0].tolist()) == expected(rule, found, name, label, most)


@settings(max_examples=60, deadline=None)
@given(
    rule=st.sampled_from(sorted(RULES)),
    bounded=st.booleans(),
    seed=st.integers(0, 10_000),
    share=shares,
    units=st.integers(1, 30),
)
def test_caps_hold_and_a_unit_stays(rule, bounded, seed, share, units):
    found = made_up(seed, {"recurrent.0.fwd": units, "recurrent.0.bwd": 1}, bounded)
    for label in range(LABELS):
        for mask in removed_units(RULES[rule], found, label, share, seed).values():
            assert mask.dtype == torch.bool
            gone = int(mask.sum())
            assert gone < len(mask)
            if RULES[rule].overrun is None:  # the papers' code goes beyond its cap
                assert gone <= cap(share, len(mask))
            if rule in ("sensitivity", "random"):
                assert gone == cap(share, len(mask))
            if rule == "none":
                assert gone == 0


def test_shares_mean_what_they_say():
    """0.35 of 100 units are 35, though 0.35 * 100 is less in floating point."""
    found = made_up(0, {"recurrent.0.fwd": 100}, True)
    for share in (0.05, 0.1, 0.2, 0.29, 0.35, 0.57):
        removed = removed_units(RULES["sensitivity"], found, 0, share)
        assert int(removed["recurrent.0.fwd"].sum()) == round(100 * share)


def test_the_random_rule_is_seeded_and_differs_between_labels_and_layers():
    found = made_up(0, {"recurrent.0.fwd": 40, "recurrent.0.bwd": 40}, True)

    def draw(label: int, seed: int) -> dict[str, torch.Tensor]:
        return removed_units(RULES["random"], found, label, 0.5, seed)

    assert torch.equal(draw(1, 3)["recurrent.0.fwd"], draw(1, 3)["recurrent.0.fwd"])
    masks = [draw(0, 0), draw(1, 0), draw(0, 1)]
    kinds = {tuple(mask.tolist()) for found in masks for mask in found.values()}
    assert len(kinds) == 6


def test_the_random_rule_prefers_no_unit():
    found = made_up(0, {"recurrent.0.fwd": 10}, True)
    times = sum(
        removed_units(RULES["random"], found, label, 0.3, seed)["recurrent.0.fwd"].double()
        for label in range(3)
        for seed in range(300)
    )
    # 900 draws of a chance of 0.3: a deviation of 13.7
    assert (times - 270).abs().max() < 5 * 13.7


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), counts=st.lists(st.integers(0, 9), min_size=1, max_size=4))
def test_the_control_removes_as_many_of_each_layer(seed, counts):
    removed = {f"recurrent.{i}.fwd": torch.arange(10) < n for i, n in enumerate(counts)}
    drawn = random_like(removed, seed)
    assert {n: int(m.sum()) for n, m in drawn.items()} == {
        n: int(m.sum()) for n, m in removed.items()
    }
    again = random_like(removed, seed)
    assert all(torch.equal(drawn[name], again[name]) for name in drawn)


@pytest.mark.parametrize("rule", sorted(RULES))
def test_each_rule_asks_for_what_it_reads(rule):
    """With only what a rule asks for, it decides the same."""
    whole = made_up(5, {"recurrent.0.fwd": 9}, True)
    layer = whole.layers["recurrent.0.fwd"]
    less = LayerStatistics(
        layer.count,
        layer.total,
        layer.products,
        layer.observed,
        layer.active,
        layer.histogram if RULES[rule].histograms else None,
        layer.squared if RULES[rule].gradients else None,
    )
    found = removed_units(
        RULES[rule], ActivationStatistics({"recurrent.0.fwd": less}, whole.groups), 1, 0.5
    )
    expected = removed_units(RULES[rule], whole, 1, 0.5)
    assert torch.equal(found["recurrent.0.fwd"], expected["recurrent.0.fwd"])
