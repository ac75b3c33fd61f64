"""Whether servers are there, before anything waits for them: MLflow by itself tries for minutes."""

from __future__ import annotations

import functools
import os
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import quote, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

PATIENCE = 3.0
"""Seconds for a connection to a server."""
SILENCE = 20.0
"""Seconds for the first byte on a connection: a busy server is slow, and there."""
BRIEF = 4.0
"""... where nothing is lost by asking again: commands that only look."""
TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"
"""... or as long as the user says here that MLflow's own requests wait."""
RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
FEW = "2"
"""Tries after the first, of what has answered once and may be slow for a moment."""
_REMOTE = ("models:/", "runs:/", "rnnmod:/", "mlflow-artifacts:/")

F = TypeVar("F", bound=Callable[..., Any])
_lock = threading.Lock()
_inside = 0  # calls that are going on, in all threads
_ours = False  # whether the setting is what was set here


class NoAnswer(ConnectionError):
    """A server does not answer; the message names it."""


def check_http(uri: str, silence: float | None = None) -> None:
    """Whether an HTTP server is there; databases and folders are not looked at.

    Whatever it says is an answer: that it wants a certificate, that it is elsewhere, that it does
    not understand.

    ``silence`` is how many seconds its first byte may take; what the user has set for MLflow's
    requests goes before.
    """
    if urlsplit(uri).scheme not in ("http", "https"):
        return
    with suppress(ValueError):
        silence = float(os.environ.get(TIMEOUT, ""))
    silence = SILENCE if silence is None else silence
    problem, connected = list[str](), threading.Event()
    ask = functools.partial(_asked, uri, connected, silence)
    asking = threading.Thread(target=lambda: problem.append(ask()), daemon=True)
    asking.start()
    asking.join(PATIENCE + 0.5)
    if connected.is_set():
        asking.join(silence + 0.5)
    silent = _silent(silence) if connected.is_set() else f"no connection in {PATIENCE:g} seconds"
    said = problem[0] if problem else silent
    if said:
        raise NoAnswer(f"The server {shown(uri)} does not answer: {said}.")


def _silent(seconds: float) -> str:
    return (
        f"it takes connections, and nothing came back within {seconds:g} seconds; "
        f"it may be busy: with {TIMEOUT}=60 it gets a minute"
    )


def _asked(uri: str, connected: threading.Event, silence: float) -> str:
    """What is wrong with a server; empty where it says anything at all."""
    try:
        parts = urlsplit(uri)
        host, secure = parts.hostname or "", parts.scheme == "https"
        if not host:
            return "the address names no host"
        port = parts.port or (443 if secure else 80)
        proxy = "" if proxy_bypass(host) else getproxies().get(parts.scheme, "")
        via = urlsplit(proxy if not proxy or "://" in proxy else f"http://{proxy}")
        place = (str(via.hostname), via.port or 80) if via.hostname else (host, port)
        connection = socket.create_connection(place, PATIENCE)
    except (OSError, ValueError) as error:
        return str(getattr(error, "strerror", None) or error).rstrip(".") or type(error).__name__
    connected.set()
    connection.settimeout(silence)
    with connection:
        try:
            if secure and not proxy:
                # Nothing secret is sent, and nothing that comes back is used.
                ssl._create_unverified_context().wrap_socket(connection, server_hostname=host)
            elif not proxy or via.scheme == "http":
                name = f"[{host}]" if ":" in host else host
                ask = f"CONNECT {name}:{port}" if secure else f"GET http://{name}:{port}/health"
                path = parts.path.rstrip("/") + "/health"
                ask = ask if proxy else f"GET {quote(path, '/%')}"
                text = f"{ask} HTTP/1.1\r\nHost: {name}:{port}\r\nConnection: close\r\n\r\n"
                connection.sendall(text.encode("latin-1", "replace"))
                connection.recv(1)
        except TimeoutError:
            return _silent(silence)
        except OSError:  # it does not want to speak so, or closed the connection, and is there
            return ""
    return ""


def shown(uri: str) -> str:
    """A server's URI without credentials and without what is asked of it."""
    parts = urlsplit(uri)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path.partition("/api/")[0].rstrip("/"), "", ""))


def tracking_uri() -> str:
    """The tracking server's URI, without importing MLflow for it; empty for a folder ``mlruns``."""
    if "mlflow" in sys.modules:
        import mlflow

        return mlflow.get_tracking_uri()
    given = os.environ.get("MLFLOW_TRACKING_URI", "")
    return given or ("" if Path("mlruns").is_dir() else "sqlite:///mlflow.db")


def uris() -> list[str]:
    """The tracking server's and the registry's URI, without importing MLflow for it."""
    registry = os.environ.get("MLFLOW_REGISTRY_URI", "")
    if "mlflow" in sys.modules:
        import mlflow

        registry = mlflow.get_registry_uri()
    return [uri for uri in dict.fromkeys([tracking_uri(), registry]) if uri]


def asks(always: bool = True) -> Callable[[F], F]:
    """For a function that asks servers: it says within seconds that one is not there.

    While it runs, what MLflow asks is tried thrice, unless the user said how often; afterwards the
    user's settings are as they were. MLflow reads this from the environment of the whole process:
    what other threads ask meanwhile is tried thrice, too.

    ``always``: whether it asks them whatever it is given; else only where a URI is among that.
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
    """Whether the servers in use are there."""
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

    Gives whether nothing of the kind was going on before. What somebody sets meanwhile stays.
    """
    global _inside, _ours
    with _lock:
        first = _inside == 0
        _inside += 1
        if first:
            _ours = RETRIES not in os.environ
            os.environ.setdefault(RETRIES, FEW)
    try:
        yield first
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0 and _ours and os.environ.get(RETRIES) == FEW:
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
