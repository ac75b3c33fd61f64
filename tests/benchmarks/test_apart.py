"""Parents trained apart: which labels each learns, which scores are asked, the page of figures."""

from __future__ import annotations

import pytest

from benchmarks.apart import ALL, SETTINGS, fits, split_labels
from benchmarks.page.apart import page

NAMES = tuple("abcdefgh")


def row(score: str, split: str, delta: float, refused: float | None = None) -> dict:
    fixed = {"dataset": "letters", "seed": 0, "whole": 90.0, "refused": refused}
    return {**fixed, "score": score, "split": split, "accuracy": 90.0 + delta}


@pytest.mark.parametrize("first", [1, 4, 7])
def test_each_label_is_learned_by_one_parent(first):
    mine, other = split_labels(NAMES, first, seed=3)
    assert len(mine) == first and sorted(mine + other) == sorted(NAMES)
    assert split_labels(NAMES, first, seed=3) == (mine, other)
    assert split_labels(NAMES, first, seed=4) != (mine, other)


def test_settings_name_tasks():
    for setting in SETTINGS.values():
        assert setting.task in ALL and (setting.second is None) == bool(setting.splits)
        assert setting.second is None or setting.second in ALL


def test_labels_without_rivals_are_compared_by_margins_alone():
    assert fits("hybrid", "label") and fits("hybrid", "tags")
    assert fits("margin", "multilabel") and not fits("hybrid", "multilabel")


def test_the_page_has_every_score_beside_the_default():
    rows = [
        row("open", "4+4/0", -6.0, 50.0),
        row("hybrid", "4+4/0", 1.5, 60.0),
        row("hybrid", "4+4/1", 0.5, 70.0),
        row("bayes", "one parent", 2.0),
    ]
    lines = page(rows).splitlines()
    assert "## letters: one parent 90.00" in lines
    hybrid = next(line for line in lines if line.startswith("| hybrid"))
    assert hybrid == "| hybrid | +1.00 ± 0.50 | +0.50 | 2 | 65 |"
    assert lines.index(hybrid) + 1 == lines.index("| open | -6.00 | -6.00 | 1 | 50 |")
    assert "| bayes | +2.00 | +2.00 | 1 |  |" in lines
