"""What every test of faults leaves as it was."""

from __future__ import annotations

import os
from collections.abc import Iterator

import mlflow
import pytest


@pytest.fixture(autouse=True)
def _store_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = mlflow.get_tracking_uri()
    monkeypatch.setenv("RNNMOD_CACHE", "")
    yield
    mlflow.set_tracking_uri(before)
    os.environ.pop("MLFLOW_EXPERIMENT_ID", None)
