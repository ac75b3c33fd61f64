"""A composite's own limit: said, or found on rows; kept as long as its score is the same."""

from __future__ import annotations

import pytest

from mlflow_rnnmod.composition import compose
from mlflow_rnnmod.composition.verbs import add, select
from mlflow_rnnmod.storage import read_composite, write_composite
from tests.builders import LABELS, tiny_modules, tiny_parent, tiny_texts
from tests.composition.test_kinds import parent_of

MODULES = tiny_modules(tiny_parent("text"))
TEXTS = tiny_texts(40)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5])
def test_the_limit_rejects_the_share_that_was_said(share):
    composite = compose(MODULES, reject_at=share, reject_on=TEXTS)
    best = sorted(composite.scores(TEXTS).amax(dim=1).tolist())
    rejected = composite.predict(TEXTS).count("none of these")
    assert rejected == sum(score < best[int(share * 40)] for score in best)
    assert rejected <= share * 40
    assert composite.predict(TEXTS, reject_below=float("-inf")).count("none of these") == 0
    assert set(composite.predict(TEXTS, reject_below=1e9)) == {"none of these"}


def test_rows_that_scales_were_fitted_on_will_do():
    right = [LABELS[i % 3] for i in range(40)]
    composite = compose(MODULES, calibrate_on=(TEXTS, right), reject_at=0.25)
    assert composite.score == "joint"
    assert composite.predict(TEXTS).count("none of these") == 10


def test_it_is_stored(tmp_path):
    composite = compose(MODULES, reject_below=0.5)
    write_composite(composite, tmp_path)
    again = read_composite(tmp_path)
    assert again.parameters == {"reject_below": 0.5}
    assert again.predict(TEXTS) == composite.predict(TEXTS, reject_below=0.5)


def test_it_holds_for_the_score_that_it_was_found_with():
    composite = compose(MODULES, reject_below=0.5)
    assert select(composite, *LABELS[:2]).parameters == {"reject_below": 0.5}
    stranger = tiny_modules(tiny_parent("text", labels=("x", "y"), seed=1))[0]
    wider = add(composite, stranger)
    assert (wider.score, dict(wider.parameters)) == ("open", {})
    assert "limit to reject below was dropped" in wider.recipe[-1]["note"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reject_at": 1.0, "reject_on": TEXTS}, "reject_at=1.0; expected the share"),
        ({"reject_at": True, "reject_on": TEXTS}, "reject_at=True; expected the share"),
        ({"reject_at": 0.1}, "reject_at=0.1 needs rows"),
        ({"reject_at": 0.1, "reject_on": []}, "needs rows"),
        ({"reject_at": 0.1, "reject_below": 0.0, "reject_on": TEXTS}, "expected one of them"),
        ({"reject_below": float("nan")}, "reject_below=nan; expected a finite number"),
        ({"reject_below": "high"}, "reject_below='high'; expected a finite number"),
    ],
)
def test_limits_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        compose(MODULES, **options)


@pytest.mark.parametrize("kind", ["multilabel", "list"])
def test_labels_without_rivals_have_thresholds_instead(kind):
    with pytest.raises(ValueError, match="Labels without rivals have thresholds"):
        compose(tiny_modules(parent_of(kind)), reject_below=0.5)
