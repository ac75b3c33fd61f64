"""Which labels share a trunk, against Ward's criterion in plain loops."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mlflow_rnnmod.decomposition.sharing import FIXED_COST, estimated_cost, group_labels
from mlflow_rnnmod.networks import Trunk
from tests.builders import tiny_parent, tiny_trunk


def spread(masks: list[list[float]], group: list[int]) -> float:
    """Sum of squared distances of a group's masks from their mean."""
    columns = list(zip(*(masks[i] for i in group), strict=True))
    means = [sum(column) / len(group) for column in columns]
    return sum((x - m) ** 2 for column, m in zip(columns, means, strict=True) for x in column)


def by_hand(masks: list[list[float]], groups: int) -> list[list[int]] | None:
    """Join the two groups that spread least when joined; None where two choices tie."""
    members = [[i] for i in range(len(masks))]
    while len(members) > groups:
        costs = sorted(
            (spread(masks, a + b) - spread(masks, a) - spread(masks, b), i, j)
            for i, a in enumerate(members)
            for j, b in enumerate(members)
            if i < j
        )
        if len(costs) > 1 and costs[1][0] - costs[0][0] < 1e-9:
            return None
        _, i, j = costs[0]
        joined = sorted(members[i] + members[j])
        members = [group for k, group in enumerate(members) if k not in (i, j)] + [joined]
    return sorted(members)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), labels=st.integers(2, 7), data=st.data())
def test_groups_are_those_of_wards_criterion(seed, labels, data):
    groups = data.draw(st.integers(1, labels))
    draw = torch.Generator().manual_seed(seed)
    removed = [
        {"a": torch.rand(40, generator=draw) < 0.4, "b": torch.rand(23, generator=draw) < 0.4}
        for _ in range(labels)
    ]
    expected = by_hand([torch.cat(list(m.values())).double().tolist() for m in removed], groups)
    found = group_labels(removed, groups)
    assert len(found) == groups
    assert sorted(label for group in found for label in group) == list(range(labels))
    assert found == sorted(sorted(group) for group in found)
    assume(expected is not None)
    assert found == expected


def test_labels_with_the_same_concern_share_first():
    masks = [torch.arange(12) % 3 == k for k in (0, 1, 0, 2, 1, 0)]
    assert group_labels([{"a": m} for m in masks], 3) == [[0, 2, 5], [1, 4], [3]]


def test_each_distinct_trunk_costs_once():
    parent = tiny_parent(recurrent=((8,),))
    network, whole = parent.network, Trunk.whole(parent.network.units)
    assert estimated_cost(network, [whole, whole, whole]) == 1.0
    half = tiny_trunk(parent, 0.5)
    once = estimated_cost(network, [half])
    assert FIXED_COST < once < 1.0
    assert estimated_cost(network, [half, whole, half]) == pytest.approx(1.0 + once)
