"""A real MLflow store of its own for each test, and nothing of the user's."""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Both would otherwise fill the output of a test that fails.
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: starts other processes; seconds instead of parts.")


@pytest.fixture(scope="session")
def template_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sqlite database with MLflow's tables: seconds to make, 0.04 s to copy."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    folder = tmp_path_factory.mktemp("template")
    store = SqlAlchemyStore(f"sqlite:///{folder / 'mlflow.db'}", str(folder / "artifacts"))
    store.engine.dispose()
    return folder / "mlflow.db"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test finds a parent that another one, or the user, left in the process or on disk."""
    monkeypatch.setenv("RNNMOD_CACHE", str(tmp_path / "rnnmod-cache"))
    yield
    if parents := sys.modules.get("mlflow_rnnmod.tracking.parents"):
        parents.forget_parents()


@pytest.fixture(autouse=True)
def _no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ways of running trunks are taken as they are estimated: no test depends on timing."""
    if trying := sys.modules.get("mlflow_rnnmod.networks.trying"):
        monkeypatch.setattr(trying, "LEAST", float("inf"))


@pytest.fixture
def tracking_uri(
    template_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """An empty sqlite store, set as MLflow's; artifacts lie in the test's own folder.

    The working directory is that folder too: MLflow puts the artifacts of new experiments in
    ``./mlruns``.
    """
    import mlflow
    from mlflow.tracking import fluent

    database = tmp_path / "mlflow.db"
    shutil.copy(template_database, database)
    connection = sqlite3.connect(database)
    with connection:
        connection.execute(
            "UPDATE experiments SET artifact_location = ?", (str(tmp_path / "mlartifacts" / "0"),)
        )
    connection.close()
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(fluent, "_active_experiment_id", None)
    before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    uri = f"sqlite:///{database}"
    mlflow.set_tracking_uri(uri)
    yield uri
    while mlflow.active_run():
        mlflow.end_run()
    mlflow.set_tracking_uri(before)
    # set by set_experiment, and not by monkeypatch
    os.environ.pop("MLFLOW_EXPERIMENT_ID", None)
