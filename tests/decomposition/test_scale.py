"""A thousand labels, simulated: what is run does not grow with them."""

from __future__ import annotations

import pytest
import torch

from mlflow_rnnmod.decomposition import Decomposition, DecompositionConfig, decompose
from mlflow_rnnmod.decomposition.material import MIN_FIT_ROWS, Batches
from mlflow_rnnmod.networks import Rows
from tests.builders import tiny_parent

TRAIN, CALIBRATION, REPORT = 1000, 400, 200


def simulated(labels: int, monkeypatch: pytest.MonkeyPatch) -> tuple[Decomposition, int]:
    """A default decomposition of made-up rows, and how many rows went through trunks."""
    parent = tiny_parent(
        "features",
        labels=tuple(f"label {i}" for i in range(labels)),
        cell="gru",
        recurrent=((12,),),
    )
    draw = torch.Generator().manual_seed(0)
    size = parent.network.config.input_size

    def rows(count: int) -> Rows:
        values = torch.randn(count, 3, size, generator=draw)
        return Rows(values, targets=torch.arange(count) % labels)

    seen = 0
    run = Batches.run

    def counted(batches, readout):
        nonlocal seen
        seen += sum(len(part) for part in batches.parts)
        return run(batches, readout)

    monkeypatch.setattr(Batches, "run", counted)
    config = DecompositionConfig(removal=0.5)
    found = decompose(parent, rows(TRAIN), rows(CALIBRATION), rows(REPORT), config)
    monkeypatch.setattr(Batches, "run", run)
    return found, seen


@pytest.mark.slow
def test_a_thousand_labels_take_as_many_rows_as_twenty(monkeypatch):
    few, of_few = simulated(20, monkeypatch)
    many, of_many = simulated(1000, monkeypatch)
    assert few.figures["trunks"] <= 3 and many.figures["trunks"] <= 3
    assert many.figures["isolated_cost"] > 100
    # All rows, with their backgrounds, of one trunk; isolated ones would take them for each label.
    rows = 2 * (TRAIN + CALIBRATION) + REPORT
    for found, seen in ((few, of_few), (many, of_many)):
        # Nothing removed; each setting that was tried, with and without guesses; a random one.
        trials = sum(row["trunks"] for row in found.sizing) + 2 * 3
        assert rows <= seen <= rows * (1 + 2 * trials)
    assert of_many < 0.1 * 1000 * (MIN_FIT_ROWS + CALIBRATION + REPORT)
    assert len(many.modules) == 1000
