"""Settings: what fits, what is said of the rest, and that they survive JSON."""

from __future__ import annotations

import json

import pytest

from mlflow_rnnmod.decomposition import DecompositionConfig


def test_all_problems_at_once():
    with pytest.raises(ValueError) as error:
        DecompositionConfig(
            rule="best",
            removal=1.0,
            repairs=("fold", "paint"),
            tolerance=-1,
            rows_per_label=0,
            seed="x",
            batch_size=2.5,
        )
    text = str(error.value)
    for shown in (
        "rule='best'",
        "removal=1.0",
        "repairs=('fold', 'paint')",
        "tolerance=-1",
        "rows_per_label=0",
        "seed='x'",
        "batch_size=2.5",
    ):
        assert shown in text
    assert "'sensitivity'" in text and '"auto"' in text


@pytest.mark.parametrize(
    "changes",
    [
        {"removal": -0.1},
        {"removal": float("nan")},
        {"removal": True},
        {"removal": "a lot"},
        {"removal": None},
        {"repairs": "some"},
        {"repairs": None},
        {"repairs": 5},
        {"repairs": [["fold"]]},
        {"tolerance": float("nan")},
        {"rows_per_label": True},
        {"batch_size": "512"},
        {"rule": None},
        {"rule": ["paper"]},
    ],
)
def test_each_is_refused(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        DecompositionConfig(**changes)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("all", ("fold", "refit", "calibrate")),
        ("none", ()),
        ((), ()),
        ("refit", ("refit",)),
        (["calibrate", "fold"], ("fold", "calibrate")),
        (("calibrate", "fold", "fold"), ("fold", "calibrate")),
    ],
)
def test_repairs_are_put_in_order(given, expected):
    assert DecompositionConfig(repairs=given).repairs == expected


def test_settings_survive_json():
    config = DecompositionConfig(rule="paper", removal=0.2, repairs=["fold"], seed=7)
    assert DecompositionConfig(**json.loads(json.dumps(config.to_dict()))) == config
