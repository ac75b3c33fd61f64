"""Finds the package ``mlflow_rnnmod``, which this model needs: a module brings none of its own.

This file is the package's stand-in beside a module that refers to its parent. Where the package is
installed, that is what is imported; elsewhere the archive that the parent's model carries, if it is
what it was when the module was logged.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
import tempfile
from typing import Any

PARENT = ""
SHA256 = ""
SERVER = ""
ARCHIVE = "code/mlflow_rnnmod.zip"
NAME = "mlflow_rnnmod"


def installed(name: str, here: str) -> bool:
    """Whether there is a package of this name anywhere but in the folder ``here``."""
    before = list(sys.path)
    sys.path[:] = [entry for entry in before if os.path.abspath(entry or ".") != here]
    stand_in = sys.modules.pop(name, None)
    try:
        importlib.invalidate_caches()
        return importlib.util.find_spec(name) is not None
    finally:
        sys.path[:] = before
        if stand_in is not None:
            sys.modules[name] = stand_in


def archive() -> str:
    """The parent's archive, downloaded, and checked before anything in it is run."""
    import mlflow

    folder = tempfile.mkdtemp(prefix="rnnmod-code-")
    try:
        location = mlflow.MlflowClient().get_logged_model(PARENT).artifact_location
        path: str = mlflow.artifacts.download_artifacts(f"{location}/{ARCHIVE}", dst_path=folder)
        with open(path, "rb") as file:
            found = hashlib.sha256(file.read()).hexdigest()
    except Exception as error:
        raise ModuleNotFoundError(_told(f"can't be read: {error}"), name=NAME) from error
    if found != SHA256:
        raise ModuleNotFoundError(_told(f"has SHA-256 {found}, expected {SHA256}"), name=NAME)
    return path


def _told(what: str) -> str:
    return (
        "This model needs the package mlflow_rnnmod, which is not installed here, and the archive "
        f"of its parent's model models:/{PARENT} on {SERVER} {what}. Set MLFLOW_TRACKING_URI to "
        "that server, install the package (pip install mlflow-rnnmod, or from its repository), or "
        "export the module where it can be loaded: mlflow_rnnmod.export(uri, path)."
    )


def take_place(stand_in: Any) -> None:
    """Import the package itself in the place of this file."""
    here = os.path.dirname(os.path.dirname(os.path.abspath(stand_in)))
    if not installed(NAME, here):
        sys.path.insert(0, archive())
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != here]
    sys.modules.pop(NAME, None)
    importlib.invalidate_caches()
    importlib.import_module(NAME)


if __name__ == NAME:  # as the stand-in, not as a file of the package
    take_place(__file__)
