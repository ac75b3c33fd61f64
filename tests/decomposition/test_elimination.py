"""The order in which units leave, against the costs of all sets of them."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest
import torch
from torch import Tensor

from mlflow_rnnmod.decomposition.rules import RULES, order_of_removal, removed_units
from mlflow_rnnmod.decomposition.statistics import (
    RIDGE,
    ActivationStatistics,
    LayerStatistics,
)
from mlflow_rnnmod.networks.groups import Group


def layer(seed: int, units: int, labels: int = 2) -> LayerStatistics:
    draw = torch.Generator().manual_seed(seed)
    mixed = torch.randn(units, units, generator=draw, dtype=torch.float64)
    values = torch.randn(400, units, generator=draw, dtype=torch.float64) @ mixed
    observed = torch.full((2, labels), 100)
    return LayerStatistics(
        count=torch.tensor(400.0, dtype=torch.float64),
        total=values.sum(0),
        products=values.T @ values,
        observed=observed,
        active=torch.zeros(2, labels, units),
        histogram=None,
        squared=torch.rand(2, labels, units, generator=draw, dtype=torch.float64),
    )


def statistics(*sizes: int) -> ActivationStatistics:
    layers = {f"hidden.{i}": layer(i, size) for i, size in enumerate(sizes)}
    groups = {name: Group(name, sizes[i], ()) for i, name in enumerate(layers)}
    return ActivationStatistics(layers, groups, ranks_together=True)


def cost(found: LayerStatistics, gone: tuple[int, ...]) -> float:
    """What removing a set of units costs: their weights times what the others can't guess."""
    covariance, units = found.covariance, found.covariance.shape[0]
    covariance = covariance + RIDGE * covariance.diagonal().mean() * torch.eye(units).double()
    harm = found.sensitivity(0)

    def unexplained(unit: int, kept: list[int]) -> Tensor:
        weights = torch.linalg.solve(covariance[kept][:, kept], covariance[kept, unit])
        return covariance[unit, unit] - covariance[unit, kept] @ weights

    def alone(unit: int) -> Tensor:
        return unexplained(unit, [i for i in range(units) if i != unit])

    kept = [i for i in range(units) if i not in gone]
    return float(sum(harm[u] / alone(u) * unexplained(u, kept) for u in gone))


def test_each_step_adds_least_to_what_all_that_are_gone_cost() -> None:
    found = statistics(6)
    one = found.layers["hidden.0"]
    gone: tuple[int, ...] = ()
    for name, unit in order_of_removal(found, [0]):
        assert name == "hidden.0"
        costs = {u: cost(one, (*gone, u)) for u in range(6) if u not in gone}
        assert costs[unit] == pytest.approx(min(costs.values()))
        gone = (*gone, unit)
    assert len(gone) == 5
    # Among all pairs the first two are no bad ones.
    pairs = sorted(cost(one, pair) for pair in combinations(range(6), 2))
    assert cost(one, gone[:2]) <= pairs[len(pairs) // 2]


def test_groups_are_ranked_together_and_prices_count() -> None:
    found = statistics(5, 4, 1)
    plain = order_of_removal(found, [0])
    assert sorted(plain) != plain and len(plain) == len(set(plain)) == 4 + 3
    dear = order_of_removal(found, [0], prices={"hidden.0": 1e9, "hidden.1": 1.0, "hidden.2": 1.0})
    assert [name for name, _ in dear] == ["hidden.0"] * 4 + ["hidden.1"] * 3
    assert {name for name, _ in order_of_removal(found, [0, 1], ["hidden.0"])} == {"hidden.1"}


def test_shares_are_beginnings_of_one_order() -> None:
    found, rule = statistics(5, 4, 1), RULES["sensitivity"]
    before: set[tuple[str, int]] = set()
    for share in (0.0, 0.2, 0.5, 0.9):
        masks = removed_units(rule, found, 0, share)
        gone = {(name, int(u)) for name, mask in masks.items() for u in mask.nonzero()[:, 0]}
        assert before <= gone and len(gone) == min(int(share * 10 + 1e-9), 7)
        before = gone
    kept = removed_units(rule, found, 0, 0.5, whole={"hidden.1"})
    assert not kept["hidden.1"].any() and int(kept["hidden.0"].sum()) == 3


@pytest.mark.parametrize("places", [4, 64])
def test_a_layer_with_many_places_leaves_no_earlier(places: int) -> None:
    """Squares are of rows; observations, of which guesses are made, are of rows and places."""
    found = statistics(3, 4)
    first = found.layers["hidden.0"]
    assert first.products is not None
    more = replace(
        first,
        count=first.count * places,
        total=first.total * places,
        products=first.products * places,
        observed=first.observed * places,
        active=first.active * places,
    )
    spread = replace(found, layers={**found.layers, "hidden.0": more})
    assert order_of_removal(spread, [0]) == order_of_removal(found, [0])
    for name in found.layers:
        torch.testing.assert_close(spread.harm(name, 1), found.harm(name, 1))
