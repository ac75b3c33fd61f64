"""Guesses for what is removed are kept where they help, and only there."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mlflow_rnnmod.decomposition import DecompositionConfig, folding
from mlflow_rnnmod.decomposition.folding import guarded_trunks
from mlflow_rnnmod.decomposition.head_job import HeadJob
from mlflow_rnnmod.decomposition.material import Material
from mlflow_rnnmod.decomposition.statistics import ActivationStatistics
from mlflow_rnnmod.decomposition.watching import collect
from mlflow_rnnmod.networks import Parent, Trunk
from tests.builders import tiny_parent
from tests.decomposition.test_fitting import ALL, answered, best_loss, make_material, plain_margins


@pytest.fixture(scope="module")
def parent() -> Parent:
    return tiny_parent(recurrent=((8,),))


@pytest.fixture(scope="module")
def material(parent: Parent) -> Material:
    rows = (answered(parent, count, seed) for seed, count in ((1, 300), (2, 200), (3, 50)))
    return make_material(parent, *rows)


@pytest.fixture(scope="module")
def statistics(parent: Parent, material: Material) -> ActivationStatistics:
    return collect(parent.network, material.fit)


def half(statistics: ActivationStatistics, labels: int = 3) -> list[dict[str, torch.Tensor]]:
    return [
        {name: torch.arange(8) % 2 == label % 2 for name in statistics.layers}
        for label in range(labels)
    ]


def astray(statistics: ActivationStatistics) -> ActivationStatistics:
    """As if every unit had always been at 3 and never moved."""
    layers = {
        name: replace(
            found,
            total=3.0 * found.count * torch.ones(8).double(),
            products=9.0 * found.count * torch.ones(8, 8).double() + torch.eye(8).double(),
        )
        for name, found in statistics.layers.items()
    }
    return replace(statistics, layers=layers)


def guesses(trunk: Trunk) -> bool:
    return any(bool(constants.any()) for constants in trunk.fold.values())


@pytest.mark.parametrize("wrong", [False, True])
def test_the_lower_loss_is_taken(parent, material, statistics, wrong):
    given = astray(statistics) if wrong else statistics
    removed = half(statistics)
    trunks, repairs = guarded_trunks(material, given, removed, ALL)
    folded, _ = guarded_trunks(material, given, removed, ("fold",))
    plain, none = guarded_trunks(material, given, removed, ("refit", "calibrate"))
    assert none == ("refit", "calibrate") and not any(map(guesses, plain))
    assert folded == trunks

    def loss(trunks):
        rows = material.calibration
        return sum(
            best_loss(plain_margins(parent, trunk, rows, y)[1], rows.targets == y)
            for y, trunk in enumerate(trunks)
        )

    assert ("fold" in repairs) == (not wrong) == all(map(guesses, trunks))
    if wrong:
        assert trunks == plain and repairs == ("refit", "calibrate")
    else:
        assert loss(trunks) <= 1.01 * loss(plain)


@pytest.mark.parametrize("rows", [1, 1000])
def test_a_loss_of_one_row_is_chance(material, statistics, monkeypatch, rows):
    """As much more in all: of a label's few rows it says nothing, of all rows it does."""

    def losses(material, trunks):
        more = torch.zeros(1000, dtype=torch.float64)
        more[:rows] = 2.0 / rows
        return 0.04 + more * all(map(guesses, trunks))

    monkeypatch.setattr(folding, "_losses", losses)
    trunks, repairs = guarded_trunks(material, statistics, half(statistics), ALL)
    assert all(map(guesses, trunks)) == ("fold" in repairs) == (rows == 1)


def test_nothing_removed_is_left_as_it_is(material, statistics):
    nothing = [{name: torch.zeros(8, dtype=torch.bool) for name in statistics.layers}] * 3
    trunks, repairs = guarded_trunks(material, statistics, nothing, ALL)
    assert all(trunk.full for trunk in trunks) and repairs == ALL


def test_modules_say_that_their_guesses_were_not_kept(material, statistics):
    parent, config = material.parent, DecompositionConfig()
    job = HeadJob(parent, astray(statistics), config, lambda *_: None, material)
    made = job.make(half(statistics), "fitting")
    trunks, heads = made.trunks, made.rest
    assert not any(map(guesses, trunks))
    assert all("fold" not in found.kept for found in heads)
