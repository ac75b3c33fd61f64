"""One course over all stages: it never goes back, and what it says is left comes true."""

from __future__ import annotations

from typing import Any

import pytest

from mlflow_rnnmod.decomposition import DecompositionConfig, decompose
from mlflow_rnnmod.decomposition.course import CHAPTERS, Course, Step, _chapter_of
from tests.decomposition.test_decompose import PARENT, REPORT, TRAIN, VALIDATION

SIZES = ("sizing: modules of all units", "sizing: 10 trunks, 35%", "sizing: 10 trunks, 50%")
LOGGING = ("create", "upload", "finalize", "register")
SHARES = {names[0]: share for names, share in CHAPTERS}


def told(stages: dict[str, float], logs: bool = True) -> list[tuple[float, Step]]:
    """Stages that take so many seconds each, told of in ten parts; with the time of each."""
    now = 0.0
    course, found = Course(logs, lambda: now), []
    for stage, seconds in stages.items():
        for done in range(1, 11):
            now += seconds / 10
            found.append((now, course.told(stage, done, 10)))
    return found


def usual(pace: float, sizing: bool = True, logs: bool = True) -> dict[str, float]:
    stages = {"watching units": pace * SHARES["watching"]}
    if sizing:
        stages |= {stage: pace * SHARES["sizing"] / 3 for stage in SIZES}
    for stage in ("fitting modules", "control", "random control", "likelihoods"):
        stages[stage] = pace * SHARES[stage]
    if logs:
        stages |= {stage: pace * SHARES["create"] / 4 for stage in LOGGING}
    return stages


@pytest.mark.parametrize("pace", [3.0, 400.0])
@pytest.mark.parametrize("logs", [True, False])
def test_what_takes_as_long_as_usual_is_foretold_from_the_beginning(pace, logs):
    steps = told(usual(pace, logs=logs), logs)
    end = steps[-1][0]
    for now, step in steps:
        assert step.left == pytest.approx(end - now, abs=1e-6 * end)
        assert step.share == pytest.approx(now / end, abs=1e-6)


@pytest.mark.parametrize(
    "slow", [{"watching units": 9.0}, {SIZES[1]: 5.0}, {"random control": 8.0}, {"upload": 3.0}]
)
@pytest.mark.parametrize("sizing", [True, False])
def test_it_never_goes_back_and_learns(slow, sizing):
    stages = usual(100.0, sizing)
    stages = {stage: seconds * slow.get(stage, 1.0) for stage, seconds in stages.items()}
    steps = told(stages)
    shares = [step.share for _, step in steps]
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1.0)
    end = steps[-1][0]
    # In the last chapter its own pace tells; before nobody can know how slow it will be.
    last = [(now, step) for now, step in steps if step.stage.startswith(LOGGING[-2:])]
    assert all(step.left == pytest.approx(end - now, rel=1.1, abs=0.02 * end) for now, step in last)
    assert steps[-1][1].left == pytest.approx(0.0, abs=1e-6)


def test_more_settings_than_usual():
    stages = usual(100.0) | {f"sizing: 2 trunks, {i}%": 12.0 for i in range(9)}
    order = sorted(stages, key=lambda stage: _chapter_of(stage))
    shares = [step.share for _, step in told({stage: stages[stage] for stage in order})]
    assert shares == sorted(shares)


@pytest.mark.parametrize(
    ("left", "words"),
    [(None, ""), (0.4, "about 5 s left"), (62, "about 60 s left"), (600, "about 10 min left"),
     (9000, "about 2 h left")],
)  # fmt: skip
def test_no_more_exactly_than_it_is_known(left, words):
    assert Step("sizing 1/2", 0.5, left).words == words


@pytest.mark.parametrize("removal", ["auto", 0.25])
def test_all_stages_of_a_decomposition_are_known_and_in_order(removal):
    stages: dict[str, Any] = {}
    config = DecompositionConfig(removal=removal)
    found = decompose(
        PARENT, TRAIN, VALIDATION, REPORT, config, lambda s, d, t: stages.setdefault(s, d)
    )
    chapters = [_chapter_of(stage) for stage in stages]
    assert chapters == sorted(chapters)
    assert all(stage.startswith("watching") for stage in stages if _chapter_of(stage) == 0)
    assert {0, 2, 5} <= set(chapters)
    removes = not all(module.trunk.full for module in found.modules)
    assert (4 in chapters) is removes and (removes or removal == "auto")  # random masks beside
    assert (1 in chapters) is (removal == "auto")
