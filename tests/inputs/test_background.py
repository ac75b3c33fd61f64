"""Made-up rows: mixed of two real ones, and of nothing else."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_rnnmod.inputs import input_of
from mlflow_rnnmod.inputs.tokens import UNKNOWN_SHARE
from mlflow_rnnmod.networks import Rows
from tests.builders import tiny_parent, tiny_rows

PAD, UNKNOWN = 3, 1


def make_background(rows: Rows, config, count: int, seed: int, unknown: int | None = None) -> Rows:
    return input_of(config.input).background(rows, config, count, seed, unknown)


def token_rows(side: str, count: int = 40, steps: int = 8) -> tuple[object, Rows]:
    parent = tiny_parent(pad_index=PAD, side=side, input_size=12)
    rows = tiny_rows(parent, count, steps, seed=4)
    content = torch.where(rows.values == PAD, 5, rows.values)
    valid = parent.network.valid(rows.lengths, steps)
    return parent.network.config, Rows(torch.where(valid, content, PAD), rows.lengths)


def cut(rows: Rows, row: int, side: str) -> tuple[list, list]:
    """A row's content and its padding."""
    values, length = rows.values[row].tolist(), int(rows.lengths[row])
    return (
        (values[:length], values[length:])
        if side == "right"
        else (values[len(values) - length :], values[: len(values) - length])
    )


@settings(max_examples=25, deadline=None)
@given(
    side=st.sampled_from(["right", "left"]),
    seed=st.integers(0, 1000),
    unknown=st.sampled_from([None, UNKNOWN]),
    count=st.integers(1, 60),
)
def test_tokens_are_tokens_and_padding_is_padding(side, seed, unknown, count):
    config, rows = token_rows(side)
    found = make_background(rows, config, count, seed, unknown)
    assert found.values.shape == (count, 8) and found.values.dtype == torch.int64
    assert found.targets is None
    lengths = set(rows.lengths.tolist())
    for row in range(count):
        content, padding = cut(found, row, side)
        assert set(padding) <= {PAD} and PAD not in content
        assert int(found.lengths[row]) in lengths
        assert all(0 <= token < 12 for token in content)
    again = make_background(rows, config, count, seed, unknown)
    assert torch.equal(found.values, again.values)


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_row_is_two_rows_token_by_token(side):
    """What is not unknown stands where one of two rows has it."""
    config, rows = token_rows(side, count=25, steps=6)
    found = make_background(rows, config, 200, seed=0, unknown=99)
    sources = [cut(rows, row, side)[0] for row in range(25)]
    if side == "left":  # steps are counted from where both rows have some
        sources = [source[::-1] for source in sources]
    mixed = 0
    for row in range(200):
        content = cut(found, row, side)[0]
        content = content[::-1] if side == "left" else content

        def left_over(source: list[int], content: list[int] = content) -> set[int]:
            return {
                t
                for t, token in enumerate(content)
                if token != 99 and not (t < len(source) and source[t] == token)
            }

        whole = [s for s in sources if len(s) == len(content)]
        pairs = [left_over(a) & left_over(b) for a in whole for b in sources]
        assert set() in pairs
        mixed += all(left_over(a) for a in whole)
    assert mixed > 40


def test_the_share_of_unknown_tokens():
    config, rows = token_rows("right", count=200)
    rows = Rows(torch.where(rows.values == UNKNOWN, 2, rows.values), rows.lengths)
    found = make_background(rows, config, 4000, seed=0, unknown=UNKNOWN)
    valid = torch.arange(8) < found.lengths[:, None]
    unknown = (found.values == UNKNOWN) & valid
    assert float(unknown.sum() / valid.sum()) == pytest.approx(UNKNOWN_SHARE, abs=0.02)
    long = found.lengths >= 6
    share = unknown[long].sum(1) / found.lengths[long]
    assert (share < 0.05).any() and (share > 0.5).any()  # all degrees of strangeness


def test_random_tokens_reach_the_whole_vocabulary_but_padding():
    config, rows = token_rows("right", count=30)
    rows = Rows(torch.where(rows.values == PAD, PAD, 7), rows.lengths)
    found = make_background(rows, config, 2000, seed=0)
    valid = torch.arange(8) < found.lengths[:, None]
    assert set(found.values[valid].tolist()) == set(range(12)) - {PAD}


@settings(max_examples=25, deadline=None)
@given(side=st.sampled_from(["right", "left"]), seed=st.integers(0, 1000))
def test_features_keep_their_steps(side, seed):
    """Each made-up row is a shuffle of two rows' steps, one of the two at each place."""
    parent = tiny_parent("features", side=side)
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 7, (10,), generator=draw)
    valid = parent.network.valid(lengths, 6)
    # A step is told by its row and its place from the row's own beginning (left: end).
    place = torch.arange(6) if side == "right" else torch.arange(6).flip(0)
    marks = torch.stack(torch.broadcast_tensors(torch.arange(10.0)[:, None], place.float()), -1)
    values = torch.where(valid[..., None], torch.cat([marks, torch.randn(10, 6, 3)], -1), -1.0)
    found = make_background(Rows(values, lengths), parent.network.config, 50, seed)
    assert found.values.shape == (50, 6, 5)
    known = {tuple(step) for row, mask in zip(values, valid, strict=True)
             for step in row[mask].tolist()}  # fmt: skip
    shuffled = 0
    for row in range(50):
        content, padding = cut(found, row, side)
        assert all(step == [-1.0] * 5 for step in padding)
        assert all(tuple(step) in known for step in content)
        assert len({step[0] for step in content}) <= 2
        places = [step[1] for step in content]
        assert sorted(places) == list(range(len(content)))
        shuffled += places not in (sorted(places), sorted(places, reverse=True))
    if int(lengths.max()) > 3:
        assert shuffled > 0


def test_rows_without_lengths_are_whole():
    parent = tiny_parent("features")
    rows = Rows(torch.randn(5, 4, 5))
    found = make_background(rows, parent.network.config, 7, 0)
    assert found.lengths.tolist() == [4] * 7


def test_vectors_are_two_rows_number_by_number():
    draw = torch.Generator().manual_seed(0)
    rows = Rows(torch.rand(10, 30, generator=draw))
    found = input_of("vectors").background(rows, None, 50, 3)
    again = input_of("vectors").background(rows, None, 50, 3)
    assert torch.equal(found.values, again.values) and found.values.shape == (50, 30)
    assert (found.lengths, found.targets) == (None, None)
    same = found.values[:, None] == rows.values  # which of the ten rows each number is from
    assert same.any(dim=1).all()
    sources = same.any(dim=2).sum(dim=1)
    assert sources.max() == 2 and (sources == 2).float().mean() > 0.7


def test_the_unknown_token_is_the_tokenizers():
    assert tiny_parent("text").tokenizer.unknown == 1
    made = tiny_parent("text").background(Rows(torch.full((9, 8), 5)), 200, 0)
    assert set(made.values.flatten().tolist()) == {1, 5}
    made = tiny_parent("tokens").background(Rows(torch.full((9, 8), 5)), 200, 0)
    assert set(made.values.flatten().tolist()) > {1, 5}
