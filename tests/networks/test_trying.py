"""Which way is taken, by made-up times: no clock is read here."""

from __future__ import annotations

import pytest

from mlflow_rnnmod.networks import trying
from mlflow_rnnmod.networks.trying import Trials

# Seconds that each way is estimated to take: threads are best, the last is far off.
ESTIMATES = {"sliced": 3e-3, "threads": 2e-3, "stacked": 2.5e-3, "loop": 1.0}


@pytest.fixture(autouse=True)
def _as_users_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trying, "LEAST", 1e-3)


def asked(trials: Trials, times: dict[str, float], count: int, rows: int = 1) -> list[str]:
    """The ways in which so many batches are run, that take as long as ``times`` says."""
    found = []
    for _ in range(count):
        way = trials.due(rows, 15)
        found.append(way)
        trials.note(way, rows, 15, times[way])
    return found


def test_what_was_fastest_is_taken_whatever_the_estimates_say():
    trials = Trials(lambda rows, steps: ESTIMATES)
    assert trials.best(1, 15) == "threads"  # nothing has been run
    found = asked(trials, {"sliced": 9e-3, "threads": 16e-3, "stacked": 10e-3}, 1000)
    assert found[:3] == ["threads", "stacked", "sliced"] and trials.best(1, 15) == "sliced"
    assert found.count("sliced") > 975  # the others are tried again, more and more rarely
    assert "loop" not in found
    assert trials.best(100, 15) == "threads"  # of other sizes nothing is known


@pytest.mark.parametrize("rows", [15, 18])
def test_batches_of_about_one_size_share_what_is_known(rows):
    trials = Trials(lambda rows, steps: {w: rows * t for w, t in ESTIMATES.items()})
    asked(trials, {"sliced": 0.1, "threads": 0.2, "stacked": 0.3}, 20, 16)
    assert trials.best(rows, 14) == "sliced"


def test_what_was_measured_under_load_is_not_kept():
    trials = Trials(lambda rows, steps: ESTIMATES)
    asked(trials, {"sliced": 9.0, "threads": 1e-3, "stacked": 9.0}, 10)
    assert trials.best(1, 15) == "threads"
    quiet = {"sliced": 1e-4, "threads": 1e-3, "stacked": 1e-3}
    assert asked(trials, quiet, 100)[-1] == "sliced"
    # ... and what has become slow is left without waiting for the others' turn.
    assert asked(trials, {**quiet, "sliced": 1.0}, 4)[-1] != "sliced"


def test_nothing_is_tried_where_there_is_little_to_win():
    trials = Trials(lambda rows, steps: {"sliced": 5e-4, "stacked": 6e-4})
    assert set(asked(trials, {"sliced": 1.0, "stacked": 1e-9}, 9)) == {"sliced"}
    only = Trials(lambda rows, steps: {"stacked": 0.0})
    assert set(asked(only, {"stacked": 1.0}, 9)) == {"stacked"}
