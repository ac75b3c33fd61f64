"""On which side of a split rows fall."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_rnnmod.decomposition.splitting import split_by_hash
from mlflow_rnnmod.networks import Rows


def padded(items: list[torch.Tensor], steps: int, side: str, filler: float) -> Rows:
    values = torch.full((len(items), steps, *items[0].shape[1:]), filler).to(items[0].dtype)
    for row, item in enumerate(items):
        if side == "right":
            values[row, : len(item)] = item
        else:
            values[row, steps - len(item) :] = item
    return Rows(values, torch.tensor([len(item) for item in items]))


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    side=st.sampled_from(["left", "right"]),
    features=st.booleans(),
    wider=st.integers(0, 4),
)
def test_a_row_stays_on_its_side_whatever_its_place_or_padding(seed, side, features, wider):
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 6, (30,), generator=draw).tolist()
    items = [
        torch.randn(n, 3, generator=draw) if features else torch.randint(1, 9, (n,), generator=draw)
        for n in lengths
    ]
    first, second = split_by_hash(padded(items, 5, side, 0), seed, side)
    assert torch.equal(second, ~first)
    order = torch.randperm(30, generator=draw).tolist()
    moved = padded([items[i] for i in order], 5 + wider, side, 0 if wider < 3 else 7)
    assert split_by_hash(moved, seed, side)[0].tolist() == [bool(first[i]) for i in order]
    alone = padded([items[0]], 5 + wider, side, 0)
    assert bool(split_by_hash(alone, seed, side)[0]) == bool(first[0])


@pytest.mark.parametrize("seed", [0, 1, -5])
def test_halves_are_about_equal_and_seeded(seed):
    rows = Rows(torch.arange(2000)[:, None], torch.ones(2000, dtype=torch.int64))
    first, _ = split_by_hash(rows, seed)
    assert abs(int(first.sum()) - 1000) < 120  # more than five deviations
    other, _ = split_by_hash(rows, seed + 1)
    assert abs(int((first == other).sum()) - 1000) < 120


def test_without_lengths_the_whole_row_counts():
    rows = Rows(torch.arange(200).reshape(100, 2))
    lengths = Rows(rows.values, torch.full((100,), 2))
    assert torch.equal(split_by_hash(rows, 3)[0], split_by_hash(lengths, 3)[0])
