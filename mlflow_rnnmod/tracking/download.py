"""Files of models on a tracking server: fetched, and whether those sent are there."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
from mlflow.environment_variables import MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

from mlflow_rnnmod.tracking import _mlflow
from mlflow_rnnmod.tracking.searching import experiments

__all__ = ["DATA", "THREADS", "content", "downloaded", "experiments", "quiet_downloads", "server"]

DATA = "data"
"""The folder of a model that holds all that is read of it."""
THREADS = 8
"""Files that are asked for at once."""


def server() -> str:
    """The tracking server in use, as it is written into files: without credentials."""
    from mlflow_rnnmod.storage import without_credentials  # with torch, which a card needs not

    return without_credentials(mlflow.get_tracking_uri()) or ""


@contextmanager
def downloaded(
    uri: str, dst_path: str | None = None, tracking_uri: str | None = None
) -> Iterator[Path]:
    """The model's folder; a temporary one is removed again."""
    if not uri.strip() or (":/" not in uri and not Path(uri).exists()):
        raise MlflowException(
            f"{uri!r} is no folder that is here; expected one, or models:/NAME/VERSION, "
            "models:/NAME@ALIAS, models:/m-... or runs:/RUN/NAME.",
            error_code=RESOURCE_DOES_NOT_EXIST,
        )
    if dst_path is None and Path(uri).is_dir():
        yield Path(uri)
        return
    with tempfile.TemporaryDirectory(prefix="rnnmod-") as temporary:
        yield Path(_fetched(uri, dst_path or temporary, tracking_uri))


def _fetched(uri: str, folder: str, tracking_uri: str | None) -> str:
    """Where MLflow has put the files; what its stores raise bare is said with the URI."""
    try:
        return mlflow.artifacts.download_artifacts(  # type: ignore[no-any-return]
            artifact_uri=uri, dst_path=folder, tracking_uri=tracking_uri
        )
    except (ValueError, ImportError, OSError) as error:
        words = f"{uri} can't be fetched: {type(error).__name__}: {error}"
        raise MlflowException(words) from error


def content(folder: str, name: str) -> bytes:
    """One file of a folder of artifacts; MLflow's own way would list the folder first."""
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


def digests_in(folder: str | os.PathLike[str]) -> dict[str, str]:
    """SHA-256 of every file below a folder, by its path there."""
    found = {}
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file():
            found[path.relative_to(folder).as_posix()] = _digest(path)
    return found


def check_stored(
    location: str, digests: dict[str, str], what: str, tracking_uri: str | None = None
) -> None:
    """Whether files that were sent can be read as they were sent."""
    repository = _mlflow.get_artifact_repository(location, tracking_uri=tracking_uri)
    problems = []
    with tempfile.TemporaryDirectory(prefix="rnnmod-") as folder:
        copy = Path(folder, "file")
        for name, expected in digests.items():
            try:
                repository._download_file(name, str(copy))
                found = _digest(copy)
                size = copy.stat().st_size
                copy.unlink()
            except Exception as error:  # whatever a store raises for what it does not have
                problems.append(f"{name} can't be read back: {first_line(error)}")
                continue
            if found != expected:
                problems.append(
                    f"{name} holds {size} bytes with SHA-256 {found}, expected {expected}"
                )
    if problems:
        raise MlflowException(
            f"{what} was sent to {location}, and is not there as it was sent: "
            + "; ".join(problems)
            + ". Something between here and the store answers for it without storing: a proxy, a "
            "cache, or a full disk. Nothing that can't be read is made ready."
        )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def first_line(error: BaseException) -> str:
    """The first line of an error, or else its type."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
