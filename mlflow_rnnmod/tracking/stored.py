"""Whether what was sent to a store of artifacts is there: every file is read back.

An answer of success does not say so: proxies and caches on the way give one too.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from mlflow.exceptions import MlflowException

from mlflow_rnnmod.tracking import _mlflow


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
    """Whether files that were sent can be read as they were sent.

    Args:
        location: the artifacts' folder.
        digests: of all files, as :func:`digests_in` gives them.
        what: the model, for an error.
        tracking_uri: the server that hands out the artifacts.

    Raises:
        MlflowException: naming every file that is not there, or is another.
    """
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
