"""Repairs that each help their label, and together answer fewer rows right."""

from __future__ import annotations

import pytest
import torch

from mlflow_rnnmod.answers import Labelled, answer_of
from mlflow_rnnmod.decomposition.fitting import FittedHeads
from mlflow_rnnmod.decomposition.head_job import clearly_better
from mlflow_rnnmod.decomposition.module import Head
from mlflow_rnnmod.decomposition.repairs import fit_calibration
from mlflow_rnnmod.networks import Rows
from tests.builders import tiny_parent

LABEL = answer_of("label")


def heads_of(margins: torch.Tensor, targets: torch.Tensor, kept: tuple[str, ...]) -> list:
    """Heads whose margins on calibration rows are given, ``(rows, labels)``."""
    known = torch.ones(len(targets), dtype=torch.bool)
    none = torch.zeros(0)
    found = []
    for label in range(margins.shape[1]):
        positive, own = targets == label, margins[:, label]
        head = Head(calibration=fit_calibration(own, positive)) if kept else Head()
        found.append(
            FittedHeads(head, head, kept, own, head.calibration(own), none, positive, known)
        )
    return found


@pytest.fixture
def targets() -> torch.Tensor:
    return torch.arange(300) % 3


@pytest.fixture
def truth(targets: torch.Tensor) -> Labelled:
    parent = tiny_parent("tokens", labels=("a", "b", "c"))
    return Labelled(Rows(torch.ones(300, 2, dtype=torch.int64), targets=targets), parent.network)


def margins_with(targets: torch.Tensor, wrong: int, seed: int = 0) -> torch.Tensor:
    """Margins by which so many rows are answered wrong."""
    said = targets.clone()
    rows = torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed))[:wrong]
    said[rows] = (said[rows] + 1) % 3
    return 4.0 * torch.nn.functional.one_hot(said, 3).float() - 2.0


@pytest.mark.parametrize(
    ("mine", "other", "expected"),
    [(60, 20, True), (20, 60, False), (21, 20, False), (20, 20, False)],
)
def test_fewer_repairs_are_taken_where_they_answer_clearly_more(
    targets, truth, mine, other, expected
):
    one = heads_of(margins_with(targets, mine), targets, ("refit", "calibrate"))
    less = heads_of(margins_with(targets, other, 1), targets, ("calibrate",))
    assert clearly_better(LABEL, one, less, truth) is expected
