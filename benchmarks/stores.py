"""An ``mlflow server`` over PostgreSQL and an S3 stand-in, all of its own, on the loopback address.

Needs Debian's ``postgresql`` (or any ``initdb`` and ``postgres``) and the extra ``stores``:
``psycopg2`` and ``moto``'s server. Databases and buckets are in memory or in a temporary folder,
and gone with it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

import requests

from benchmarks.logging import free_port, server

_BUCKET = "models"
_DEBIAN = Path("/usr/lib/postgresql")


def missing() -> str:
    """What is not on this machine and would be needed; empty if all is."""
    packages = [name for name in ("psycopg2", "boto3", "moto", "flask") if find_spec(name) is None]
    return ", ".join(packages + ([] if _program("postgres") else ["PostgreSQL"]))


def described() -> str:
    """Which versions a figure was measured on."""
    told = subprocess.run([_program("postgres"), "--version"], capture_output=True, text=True)
    words = told.stdout.split()
    return f"PostgreSQL {words[2]}, S3 by moto {version('moto')}, MLflow {version('mlflow')}"


@contextmanager
def served(folder: Path, *, workers: int = 1, direct: bool = False) -> Iterator[str]:
    """A server over both; its URI.

    Args:
        folder: for its log, and for the database's files.
        workers: of the server.
        direct: clients read and write the bucket themselves, instead of through the server.
    """
    with ExitStack() as stack:
        endpoint = stack.enter_context(_bucket(folder))
        stack.enter_context(_environment(endpoint))
        database = stack.enter_context(_database())
        root = f"s3://{_BUCKET}/artifacts"
        artifacts = ["--default-artifact-root", root, "--no-serve-artifacts"]
        if not direct:
            artifacts = ["--artifacts-destination", root]
        yield stack.enter_context(server(folder, workers, database, artifacts))


@contextmanager
def _database() -> Iterator[str]:
    """A cluster of PostgreSQL with an empty database; its URI. Root runs it as ``postgres``."""
    own = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        if own:
            shutil.chown(folder, **own)
        data, port = f"{folder}/data", free_port()
        make = [_program("initdb"), "-D", data, "-U", "mlflow", "--auth", "trust", "-E", "UTF8"]
        subprocess.run(make, check=True, capture_output=True, cwd=folder, **own)  # type: ignore[call-overload]
        command = [_program("postgres"), "-D", data, "-p", str(port), "-k", folder]
        with _running([*command, "-h", "127.0.0.1"], folder, signal.SIGINT, own):
            ready = [_program("pg_isready"), "-h", "127.0.0.1", "-p", str(port)]
            _until(lambda: not subprocess.run(ready, capture_output=True).returncode, "PostgreSQL")
            yield f"postgresql+psycopg2://mlflow@127.0.0.1:{port}/postgres"


def _until(ready: Callable[[], bool], what: str) -> None:
    for _ in range(600):
        if ready():
            return
        time.sleep(0.1)
    raise RuntimeError(f"{what} did not start within a minute.")


@contextmanager
def _bucket(folder: Path) -> Iterator[str]:
    """A stand-in for S3 with an empty bucket; its URL."""
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    with _running([sys.executable, "-m", "moto.server", "-p", str(port)], str(folder)):
        _until(lambda: _made(f"{endpoint}/{_BUCKET}"), "moto's server")
        yield endpoint


def _made(bucket: str) -> bool:
    try:
        requests.put(bucket, timeout=5).raise_for_status()
    except requests.ConnectionError:
        return False
    return True


@contextmanager
def _running(
    command: Sequence[str], folder: str, end: int = signal.SIGTERM, own: Mapping[str, str] = {}
) -> Iterator[None]:
    """A program, told to end afterwards."""
    nothing = subprocess.DEVNULL
    process = subprocess.Popen(command, stdout=nothing, stderr=nothing, cwd=folder, **own)  # type: ignore[call-overload]
    try:
        yield
    finally:
        process.send_signal(end)
        process.wait(timeout=60)


def _environment(endpoint: str) -> AbstractContextManager[Any]:
    """What tells clients, and the server, where the stand-in is."""
    wanted = {
        "MLFLOW_S3_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    return patch.dict(os.environ, wanted)


def _program(name: str) -> str:
    """The newest of PostgreSQL's programs of that name; empty if there is none."""
    found = sorted(_DEBIAN.glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    return str(found[-1]) if found else shutil.which(name) or ""
