"""Whether servers are there, before anything waits for them: MLflow by itself tries for minutes."""

from __future__ import annotations

import functools
import os
import ssl
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit, urlunsplit
from urllib.request import urlopen

PATIENCE = 3.0
"""Seconds for a server to say that it is there."""
RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
FEW = "2"
"""Tries after the first, of what has answered once and may be slow for a moment."""
_REMOTE = ("models:/", "runs:/", "rnnmod:/", "mlflow-artifacts:/")

F = TypeVar("F", bound=Callable[..., Any])
_lock = threading.Lock()
_inside = 0  # calls that are going on, in all threads
_before: str | None = None


class NoAnswer(ConnectionError):
    """A server does not answer; the message names it."""


def check_http(uri: str) -> None:
    """Whether an HTTP server is there; databases and folders are not looked at.

    Raises:
        NoAnswer: naming the server, without credentials, within 3.5 seconds.
    """
    if urlsplit(uri).scheme not in ("http", "https"):
        return
    problem: list[str] = []
    asking = threading.Thread(target=lambda: problem.append(_asked(uri)), daemon=True)
    asking.start()
    asking.join(PATIENCE + 0.5)
    said = problem[0] if problem else f"nothing came back within {PATIENCE:g} seconds"
    if said:
        raise NoAnswer(f"The server {shown(uri)} does not answer: {said}.")


def _asked(uri: str) -> str:
    """What is wrong with a server; empty where it says anything at all."""
    parts = urlsplit(uri)
    host = parts.netloc.rpartition("@")[2]
    address = urlunsplit((parts.scheme, host, parts.path.rstrip("/") + "/health", "", ""))
    # Nothing secret is sent, and nothing that comes back is used.
    context = ssl._create_unverified_context() if parts.scheme == "https" else None
    try:
        urlopen(address, timeout=PATIENCE, context=context).close()
    except HTTPError:
        return ""
    except URLError as error:
        return str(getattr(error.reason, "strerror", None) or error.reason).rstrip(".")
    except (OSError, ValueError) as error:
        return str(error).rstrip(".") or type(error).__name__
    return ""


def shown(uri: str) -> str:
    """A server's URI without credentials and without what is asked of it."""
    parts = urlsplit(uri)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path.partition("/api/")[0].rstrip("/"), "", ""))


def uris() -> list[str]:
    """The tracking server's and the registry's URI, without importing MLflow for it."""
    if "mlflow" in sys.modules:
        import mlflow

        return list(dict.fromkeys([mlflow.get_tracking_uri(), mlflow.get_registry_uri()]))
    names = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
    given = [os.environ[name] for name in names if os.environ.get(name)]
    if given or Path("mlruns").is_dir():
        return list(dict.fromkeys(given))
    return ["sqlite:///mlflow.db"]


def asks(always: bool = True) -> Callable[[F], F]:
    """For a function that asks servers: it says within seconds that one is not there.

    While it runs, what MLflow asks is tried thrice, unless the user said how often; afterwards the
    user's settings are as they were.

    Args:
        always: whether it asks them whatever it is given; else only where a URI is among that.
    """

    def decorated(function: F) -> F:
        @functools.wraps(function)
        def asking(*arguments: Any, **named: Any) -> Any:
            if not always and not _is_remote((arguments, named)):
                return function(*arguments, **named)
            with _few_tries() as first:
                if first:
                    check()
                return function(*arguments, **named)

        return cast(F, asking)

    return decorated


def check() -> None:
    """Whether the servers in use are there.

    Raises:
        MlflowException: naming the one that is not.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE

    for uri in uris():
        try:
            check_http(uri)
        except NoAnswer as error:
            raise MlflowException(str(error), error_code=TEMPORARILY_UNAVAILABLE) from error


@contextmanager
def _few_tries() -> Iterator[bool]:
    """Few tries for each request of MLflow's, which reads the setting from the environment alone.

    Gives whether nothing of the kind was going on before.
    """
    global _inside, _before
    with _lock:
        first = _inside == 0
        _inside += 1
        if first:
            _before = os.environ.get(RETRIES)
            os.environ.setdefault(RETRIES, FEW)
    try:
        yield first
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0 and _before is None:
                os.environ.pop(RETRIES, None)


def _is_remote(given: Any) -> bool:
    """Whether a URI that a server is asked for is among what somebody handed over."""
    if isinstance(given, str | os.PathLike):
        return str(given).startswith(_REMOTE)
    if isinstance(getattr(given, "uris", None), Mapping):  # what log_decomposition gave
        given = given.uris
    if isinstance(given, Mapping):
        return any(map(_is_remote, given.values()))
    return isinstance(given, list | tuple) and any(map(_is_remote, given))
