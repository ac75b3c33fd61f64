"""Labels in whichever form people have them."""

from __future__ import annotations

from collections import namedtuple
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from lightning_callbacks.decomposer import Decomposer
from lightning_callbacks.sources import check_order, find_labels, listed_labels


@pytest.mark.parametrize(
    "labels",
    [
        ["no", "yes"],
        ("no", "yes"),
        namedtuple("Labels", "first second")("no", "yes"),
        np.array(["no", "yes"]),
        {0: "no", 1: "yes"},
        {"1": "yes", "0": "no"},
        {"yes": 1, "no": 0},
    ],
)
def test_forms_of_labels(labels):
    assert listed_labels(labels) == ["no", "yes"]
    assert Decomposer(labels).settings.labels == ["no", "yes"]
    for name in ("labels", "classes", "id2label"):
        assert find_labels(SimpleNamespace(**{name: labels})) == ["no", "yes"]


@pytest.mark.parametrize("labels", [{0: "no", 2: "yes"}, {"no": "a", "yes": "b"}, {"no", "yes"}, 3])
def test_what_has_no_order_is_refused(labels):
    with pytest.raises(ValueError, match="labels="):
        Decomposer(labels)


def test_labels_in_another_order_than_the_models_own_are_refused():
    model = SimpleNamespace(id2label={0: "no", 1: "yes"})
    with pytest.raises(ValueError, match="has 'yes' as number 0, and id2label of .* has 'no'"):
        check_order(["yes", "no"], None, model)
    check_order(["no", "yes"], None, model)
    check_order(["nein", "ja"], None, model)  # other names for the same
    check_order(["no", "yes"], SimpleNamespace(id2label=None), SimpleNamespace())


def test_labels_of_rows_are_no_names():
    rows = pd.Series(["yes", "no", "yes", "no"])
    assert find_labels(SimpleNamespace(labels=rows, classes=["no", "yes"])) == ["no", "yes"]
    assert find_labels(SimpleNamespace(labels=list(rows))) is None
    model = SimpleNamespace(id2label={0: "no", 1: "yes"})
    assert find_labels(SimpleNamespace(labels=rows.to_numpy()), model) == ["no", "yes"]
