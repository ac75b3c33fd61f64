"""Which rows are drawn, and whose rivals they are."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_rnnmod.answers import answer_of, draw_sample
from mlflow_rnnmod.networks import Rows


def numbered(targets: list[int]) -> Rows:
    """Rows whose one token is their own number."""
    index = torch.arange(len(targets))
    return Rows(index[:, None], torch.ones_like(index), torch.tensor(targets))


@settings(max_examples=60, deadline=None)
@given(
    targets=st.lists(st.integers(0, 4), min_size=1, max_size=80),
    per_label=st.integers(1, 12),
    seed=st.integers(0, 1000),
)
def test_a_sample_is_balanced_and_its_rivals_are_spread_evenly(targets, per_label, seed):
    labels = 5
    sample = draw_sample(numbered(targets), labels, per_label, seed)
    numbers, found = sample.rows.values[:, 0].tolist(), sample.rows.targets.tolist()
    assert numbers == sorted(set(numbers))
    assert found == [targets[i] for i in numbers]
    assert Counter(found) == {y: min(n, per_label) for y, n in Counter(targets).items()}
    rivals = Counter(zip(found, sample.rivals.tolist(), strict=True))
    for label, count in Counter(found).items():
        share = [rivals[label, other] for other in range(labels) if other != label]
        assert rivals[label, label] == 0
        assert sum(share) == count and max(share) - min(share) <= 1


@settings(max_examples=40, deadline=None)
@given(
    targets=st.lists(st.integers(0, 3), min_size=1, max_size=60),
    per_label=st.integers(1, 9),
)
def test_weights_undo_the_sampling(targets, per_label):
    sample = draw_sample(numbered(targets), 4, per_label, seed=0)
    assert sample.weights.dtype == torch.float32
    assert float(sample.weights.mean()) == pytest.approx(1.0, rel=1e-5)
    total = float(sample.weights.sum())
    for label, count in Counter(targets).items():
        share = float(sample.weights[sample.rows.targets == label].sum()) / total
        assert share == pytest.approx(count / len(targets), rel=1e-5)


def test_negatives_are_about_as_many_as_positives():
    """M rows with a label, about M / (labels - 1) of every other."""
    sample = draw_sample(numbered([i % 6 for i in range(6 * 50)]), 6, 50, seed=1)
    for label in range(6):
        against = sample.rows.targets[sample.rivals == label]
        assert Counter(against.tolist()) == {other: 10 for other in range(6) if other != label}


@settings(max_examples=60, deadline=None)
@given(
    targets=st.lists(st.integers(0, 3), min_size=1, max_size=60),
    per_label=st.integers(1, 9),
)
def test_in_order_the_first_rows_are_taken(targets, per_label):
    """The papers' code: M of the label, M / (labels - 1) of others, rounded up."""
    sample = draw_sample(numbered(targets), 4, per_label, 0, in_order=True)
    numbers = sample.rows.values[:, 0]
    assert numbers.tolist() == sorted(set(numbers.tolist()))
    positives, negatives = sample.sides
    for label in range(4):
        own = [i for i, y in enumerate(targets) if y == label]
        others = [i for i, y in enumerate(targets) if y != label]
        assert numbers[positives[:, label]].tolist() == own[:per_label]
        assert numbers[negatives[:, label]].tolist() == others[: math.ceil(per_label / 3)]
    for label, count in Counter(targets).items():
        share = sample.weights[sample.rows.targets == label].sum() / sample.weights.sum()
        assert float(share) == pytest.approx(count / len(targets), rel=1e-5)


def test_the_seed_decides():
    rows = numbered([i % 3 for i in range(90)])
    draws = [draw_sample(rows, 3, 5, seed) for seed in (0, 0, 1)]
    numbers = [draw.rows.values[:, 0].tolist() for draw in draws]
    assert numbers[0] == numbers[1] != numbers[2]
    assert torch.equal(draws[0].rivals, draws[1].rivals)


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        (None, "no targets"),
        (torch.tensor([], dtype=torch.int64), "no targets"),
        (torch.tensor([0.0, 1.0]), "float32 of shape"),
        (torch.tensor([[0], [1]]), r"\(2, 1\)"),
        (torch.tensor([0, 3]), "from 0 to 3; expected the index of one of 3 labels, 0 to 2"),
        (torch.tensor([-1, 2]), "from -1 to 2"),
    ],
)
def test_targets_that_are_no_labels(targets, said):
    rows = Rows(torch.ones(0 if targets is None else len(targets), 2), None, targets)
    for use in (
        lambda: answer_of("label").checked(rows, 3),
        lambda: draw_sample(rows, 3, 5, 0),
    ):
        with pytest.raises(ValueError, match=said):
            use()


def test_a_label_needs_a_rival():
    with pytest.raises(ValueError, match="labels=1; expected at least two"):
        draw_sample(numbered([0, 0]), 1, 5, 0)
