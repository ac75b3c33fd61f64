"""Taking parents apart: by every rule, share and repair, and every kind of mask."""

from __future__ import annotations

import math

import pytest

from mlflow_rnnmod.composition import compose
from mlflow_rnnmod.decomposition import RULES, Decomposition, DecompositionConfig, decompose
from tests.contract.base import Subject
from tests.contract.subjects import subject, subjects


@pytest.fixture(autouse=True)
def kernels_are_fitted_on_few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """As they are on many: subjects have few."""
    monkeypatch.setattr("mlflow_rnnmod.networks.graph.refitting.MIN_ROWS", 8)


def taken_apart(subject: Subject, **settings) -> Decomposition:
    data = [subject.data(count, seed) for seed, count in enumerate((30, 24, 16))]
    config = DecompositionConfig(rows_per_label=20, unrolled_steps=2, **settings)
    digest = subject.parent.digest
    found = decompose(subject.parent, *data, config)
    assert type(subject.parent)(subject.network).digest == digest  # bit for bit
    assert found.parent is subject.parent and found.config is config
    return found


def check_complete(subject: Subject, found: Decomposition) -> None:
    """Whether there is a module for each label, and every figure that is promised."""
    labels, metric = subject.parent.labels, found.metric
    assert tuple(module.label for module in found.modules) == labels
    promised = {f"{who}_{metric}" for who in ("parent", "composed", "delta", "control", "random")}
    promised |= {"net", "units_kept", "weights_kept", "mean_jaccard", "modules", "rows"}
    promised |= {"trunks", "removal"}
    assert promised <= set(found.figures)
    figures = found.figures
    composed = figures[f"composed_{metric}"]
    assert figures[f"delta_{metric}"] == pytest.approx(composed - figures[f"parent_{metric}"])
    assert figures["net"] == pytest.approx(composed - figures[f"control_{metric}"])
    assert figures["modules"] == len(labels) and figures["rows"] == 16
    assert all(math.isfinite(value) for value in figures.values())
    assert found.overlap.shape == (len(labels), len(labels))
    assert set(found.rows) == {"fitted", "calibrated", "figures"} and found.seconds > 0
    for module in found.modules:
        expected = subject.network.shares_kept(module.trunk)
        assert {name: module.figures[name] for name in expected} == pytest.approx(expected)
        assert {"agreement", "support", "jaccard"} <= set(module.figures)
        assert module.made["rule"] == found.config.rule
        assert module.made["removal"] == figures["removal"]
        assert module.contract.output == subject.network.config.output
        assert module.contract.mask_steps == module.trunk.steps
    inputs = subject.inputs(4)
    assert len(compose(found.modules).predict(inputs)) == len(inputs)


def check_shares(found: Decomposition, share: float, exact: bool) -> None:
    """At most a share of each group's units leaves, at each step and gate that is told apart.

    Or of all together, where a network is ranked so: some of each stay.
    """
    together = found.config.rule == "sensitivity" and found.parent.network.ranks_together
    for module in found.modules:
        if together:
            left = module.trunk.total - module.trunk.kept
            assert left == int(share * module.trunk.total + 1e-9) or not exact
            continue
        for mask in module.trunk.keep.values():
            units = mask.shape[-1]
            most = min(int(share * units + 1e-9), units - 1)
            gone = (~mask).sum(-1)
            assert int(gone.max()) <= most
            assert not exact or int(gone.min()) == most


@pytest.mark.parametrize("rule", [name for name in RULES if name != "none"])
@subjects
def test_every_rule(name, rule):
    mine = subject(name)
    if RULES[rule].published and mine.network.ranks_together:
        with pytest.raises(ValueError, match="single positions"):
            taken_apart(mine, rule=rule, removal=0.34)
        return
    found = taken_apart(mine, rule=rule, removal=0.34, repairs="none")
    check_complete(mine, found)
    if not RULES[rule].overrun:
        check_shares(found, 0.34, exact=rule in ("sensitivity", "random"))
    for module in found.modules:
        assert not module.trunk.mix and not any(f.any() for f in module.trunk.fold.values())
        assert module.head.weight is None and module.made["repairs"] == []


@subjects
def test_every_kind_of_mask_with_all_repairs(name):
    mine = subject(name)
    for variant, gates in mine.kinds:
        found = taken_apart(mine, removal=0.34, variant=variant, gates=gates)
        check_complete(mine, found)
        check_shares(found, 0.34, exact=True)
        assert {(m.trunk.variant, m.trunk.gates) for m in found.modules} == {(variant, gates)}


@subjects
def test_a_share_is_found(name):
    mine = subject(name)
    found = taken_apart(mine, rule="paper", repairs="none")
    check_complete(mine, found)
    assert found.figures["removal"] in [tried["removal"] for tried in found.sizing]
    check_shares(found, found.figures["removal"], exact=False)


@pytest.mark.slow
@subjects
def test_a_seed_is_all_there_is_to_chance(name):
    mine = subject(name)
    one, two, other = (taken_apart(mine, rule="random", removal=0.5, seed=s) for s in (5, 5, 6))
    assert one.figures == two.figures and list(one.sizing) == list(two.sizing)
    assert [m.trunk for m in one.modules] == [m.trunk for m in two.modules]
    assert [m.trunk for m in one.modules] != [m.trunk for m in other.modules]
    inputs = mine.inputs(5)
    first, second = (mine.suite.answers(compose(d.modules), inputs) for d in (one, two))
    assert first == second


@subjects
def test_what_is_no_data_is_refused(name):
    mine = subject(name)
    with pytest.raises(TypeError, match="train is a? ?list"):
        decompose(mine.parent, [1, 2])
