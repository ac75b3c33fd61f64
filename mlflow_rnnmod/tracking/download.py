"""Files of models from a tracking server."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
from mlflow.environment_variables import MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR

from mlflow_rnnmod.storage import without_credentials
from mlflow_rnnmod.tracking import _mlflow
from mlflow_rnnmod.tracking.searching import experiments

__all__ = ["DATA", "THREADS", "content", "downloaded", "experiments", "quiet_downloads", "server"]

DATA = "data"
"""The folder of a model that holds all that is read of it."""
THREADS = 8
"""Files that are asked for at once."""


def server() -> str:
    """The tracking server in use, as it is written into files: without credentials."""
    return without_credentials(mlflow.get_tracking_uri()) or ""


@contextmanager
def downloaded(
    uri: str, dst_path: str | None = None, tracking_uri: str | None = None
) -> Iterator[Path]:
    """The model's folder; a temporary one is removed again."""
    if dst_path is None and Path(uri).is_dir():
        yield Path(uri)
        return
    with tempfile.TemporaryDirectory(prefix="rnnmod-") as temporary:
        yield Path(
            mlflow.artifacts.download_artifacts(
                artifact_uri=uri, dst_path=dst_path or temporary, tracking_uri=tracking_uri
            )
        )


def content(folder: str, name: str) -> bytes:
    """One file of a folder of artifacts; MLflow's own way would list the folder first.

    Raises:
        MlflowException: if there is none.
    """
    with tempfile.TemporaryDirectory(prefix="rnnmod-") as temporary:
        file = Path(temporary) / "file"
        _mlflow.download_file(folder, name, file)
        return file.read_bytes()


@contextmanager
def quiet_downloads() -> Iterator[None]:
    """Without MLflow's progress bar for each of many downloads, unless the user asked for it."""
    name = MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.name
    if name in os.environ:
        yield
        return
    os.environ[name] = "false"
    try:
        yield
    finally:
        os.environ.pop(name, None)
