"""Taken apart and composed on another device, everything answers as on the CPU.

Without a GPU the CPU stands in for it, for one network of each kind, so that the tests stay sound.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mlflow_rnnmod.composition import Composite, compose
from tests.contract.base import Subject
from tests.contract.subjects import NAMES, SUITES, subject
from tests.contract.test_decompose import taken_apart

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
FEW = [next(name for name in NAMES if name.startswith(suite.name)) for suite in SUITES]
devices = pytest.mark.parametrize(
    ("name", "device"),
    [(name, "cpu") for name in FEW] + [pytest.param(name, "cuda", marks=gpu) for name in NAMES],
)
SETTINGS = {"removal": 0.3, "seed": 1}


def check_alike(mine: Subject, one: Composite, other: Composite) -> None:
    inputs = mine.inputs(9, seed=5)
    if not mine.scored:
        assert one.predict(inputs) == other.predict(inputs)
        return
    for engine in ("auto", "loop"):
        found, expected = (each.scores(inputs, engine) for each in (other, one))
        assert found.device.type == "cpu"
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4, equal_nan=True)


@devices
def test_composites_answer_alike(name, device):
    mine = subject(name)
    composite = compose(taken_apart(mine, **SETTINGS).modules)
    moved = composite.to(device)
    assert moved.modules[0].parent.device.type == device
    check_alike(mine, composite, moved)


@pytest.mark.slow
@devices
@pytest.mark.parametrize("rule", ["sensitivity", "paper"])
def test_networks_are_taken_apart_alike(name, device, rule):
    mine = subject(name)
    there = replace(mine, parent=mine.parent.to(device))
    here, found = (taken_apart(each, rule=rule, **SETTINGS) for each in (mine, there))
    for own, other in zip(here.modules, found.modules, strict=True):
        for group, keep in own.trunk.keep.items():
            assert torch.equal(keep, other.trunk.keep[group].cpu()), (own.label, group)
    for figure, value in here.figures.items():
        assert found.figures[figure] == pytest.approx(value, abs=1e-4), figure
    check_alike(mine, compose(here.modules), compose(found.modules))
