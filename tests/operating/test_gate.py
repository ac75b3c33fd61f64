"""The gate's figures against slow and obvious ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU
from sklearn.metrics import accuracy_score, f1_score

from mlflow_rnnmod.answers import answer_of
from mlflow_rnnmod.tracking.gate import compare, mcnemar
from mlflow_rnnmod.tracking.translations import compare_translations

LABELS = ["a", "b", "c"]
ROW = st.sampled_from([*LABELS, "none of these"])


@given(st.lists(st.tuples(ROW, ROW, ROW), min_size=1, max_size=40))
@settings(max_examples=60, deadline=None)
def test_figures_are_those_of_scikit_learn(rows):
    truth, old, new = (list(column) for column in zip(*rows, strict=True))
    found = compare(truth, old, new, LABELS, answer_of("label"))
    assert found.overall.old == pytest.approx(accuracy_score(truth, old))
    assert found.overall.new == pytest.approx(accuracy_score(truth, new))
    for change in found.labels:
        own = [change.label]
        assert change.rows == truth.count(change.label)
        for figure, said in ((change.old, old), (change.new, new)):
            right = f1_score(truth, said, labels=own, average="macro", zero_division=0)
            if not math.isnan(figure):
                assert figure == pytest.approx(right)


def test_several_labels_and_lists():
    truth, old, new = [["a", "b"], [], ["c"]], [["a"], ["b"], []], [["a", "b"], [], ["c", "a"]]
    for kind in ("multilabel", "list"):
        found = compare(truth, old, new, LABELS, answer_of(kind))
        assert (found.metric, found.overall.old, found.overall.new) == ("F1", 2 / 5, 6 / 7)
        assert [c.new for c in found.labels] == [2 / 3, 1.0, 1.0]
        assert [c.old for c in found.labels] == [1.0, 0.0, 0.0]


def test_steps_are_judged_where_they_are_known():
    truth, old = [["a", None, "b"], ["c"]], [["a", "a", "a"], ["c"]]
    new = [["a", "b", "b"], ["c"]]
    found = compare(truth, old, new, LABELS, answer_of("tags"))
    assert (found.rows, found.overall.rows) == (2, 3)
    assert (found.overall.old, found.overall.new) == (2 / 3, 1.0)
    with pytest.raises(ValueError, match="Row 0 has 2 right labels"):
        compare([["a", "b"]], [["a"]], [["a"]], LABELS, answer_of("tags"))


def test_intervals_hold_what_they_promise():
    """In 95 of 100 samples of a known world the interval holds its difference."""
    draw = np.random.default_rng(0)

    def answers(truth, right):
        other = draw.choice(LABELS, len(truth))
        return np.where(draw.random(len(truth)) < right, truth, other)

    def sample(n):
        truth = draw.choice(LABELS, n, p=[0.5, 0.3, 0.2])
        old, new = answers(truth, 0.6), answers(truth, 0.75)
        return compare(truth.tolist(), old.tolist(), new.tolist(), LABELS, answer_of("label"))

    world = {c.label: c.difference for c in sample(400_000).labels}
    held = [
        change.low <= world[change.label] <= change.high
        for _ in range(300)
        for change in sample(300).labels
    ]
    assert 0.92 < np.mean(held) < 0.975


def test_mcnemar_is_the_binomial_test():
    from scipy.stats import binomtest

    for better, worse in ((0, 0), (3, 0), (7, 2), (40, 61), (500, 501)):
        right = binomtest(better, better + worse).pvalue if better + worse else 1.0
        assert mcnemar(better, worse) == pytest.approx(right)
    assert mcnemar(900, 1000) == pytest.approx(binomtest(900, 1900).pvalue, rel=0.02)


def test_refusals():
    truth = ["a"] * 40 + ["b"] * 10
    found = compare(truth, truth, ["a"] * 50, ["a", "b"], answer_of("label"))
    assert [change.label for change in found.lost(0.5)] == ["b", "a"]
    assert found.lost(100) == []
    assert found.refusal(100, 5) is None
    assert "'b' (10)" in found.refusal(100, 20)
    assert "'b' 100.0 to 0.0 (-100.0 points of F1" in found.refusal(0.5, 0)
    same = compare(truth, truth, truth, ["a", "b"], answer_of("label"))
    assert (same.refusal(0, 0), same.overall.p, same.overall.low) == (None, 1.0, 0.0)


def test_a_label_that_is_dropped_is_lost():
    truth = ["a", "b"] * 30
    found = compare(truth, truth, ["a", "none of these"] * 30, ["a", "b"], answer_of("label"))
    assert [change.label for change in found.lost(0.5)] == ["b"]


SENTENCES = ["das ist ein kleines altes Haus", "der Hund schläft", "wir gehen nach Hause heute"]


def test_bleu_is_that_of_sacrebleu():
    right = SENTENCES * 8
    old = ["das ist ein Haus", "ein Hund schläft", "wir gehen heute nach Hause"] * 8
    new = ["das ist ein kleines Haus", "der Hund schläft", "heute gehen wir nach Hause"] * 8
    found = compare_translations([{"de": r} for r in right], old, new, ["de"], ["de"])
    (change,) = found.labels
    for figure, said in ((change.old, old), (change.new, new)):
        assert figure == pytest.approx(BLEU().corpus_score(said, [right]).score / 100)
    assert change.low <= change.difference <= change.high
    assert (found.figure, change.rows) == ("BLEU", 24)


def test_languages_by_name():
    truth = [{"de": s, "nl": s} for s in SENTENCES] * 10
    old = [{"de": s, "nl": s} for s in SENTENCES] * 10
    new = [{"de": s} for s in SENTENCES] * 10
    found = compare_translations(truth, old, new, ["de", "nl"], ["de"])
    assert [change.label for change in found.lost(0.5)] == ["nl"]
    with pytest.raises(ValueError, match="token ids"):
        compare_translations(truth[:1], [[1, 2]], [[1, 2]], ["de"], ["de"])
