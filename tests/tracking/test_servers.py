"""Dead servers are named at once, by every door of the Python interface, and settings stay."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.exceptions import MlflowException

import mlflow_rnnmod
from mlflow_rnnmod.tracking import servers
from tests.builders import tiny_module, tiny_modules, tiny_parent

ALIAS = "models:/names@champion"
MODULE = "models:/more.irish/1"


@pytest.fixture
def dead(tracking_uri: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a server that is not there; whoever asks MLflow for it fails the test."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://somebody:secret@127.0.0.1:{free.getsockname()[1]}"

    def asked(*arguments: Any, **named: Any) -> Any:
        raise AssertionError("MLflow was asked, which would have tried for minutes")

    monkeypatch.delenv(servers.RETRIES, raising=False)
    monkeypatch.setattr("mlflow.utils.rest_utils._get_http_response_with_retries", asked)
    mlflow.set_tracking_uri(address)
    return address


@pytest.mark.parametrize(
    "call",
    [
        lambda: mlflow_rnnmod.promote(ALIAS, replace={"irish": MODULE}, max_drop=None),
        lambda: mlflow_rnnmod.rollback(ALIAS),
        lambda: mlflow_rnnmod.where_used(MODULE),
        lambda: mlflow_rnnmod.compose([MODULE]),
        lambda: mlflow_rnnmod.compose({"a": [MODULE]}),
        lambda: mlflow_rnnmod.replace("models:/names/1", "irish", MODULE),
        lambda: mlflow_rnnmod.plan([MODULE]),
        lambda: mlflow_rnnmod.load_model("models:/names/1"),
        lambda: mlflow_rnnmod.stale(),
        lambda: mlflow_rnnmod.follow(ALIAS),
    ],
)
def test_every_door_names_a_dead_server(dead: str, call: Any) -> None:
    with pytest.raises(MlflowException, match=r"The server http://127\.0\.0\.1:\d+ does not") as e:
        call()
    assert "secret" not in str(e.value)
    assert e.value.error_code == "TEMPORARILY_UNAVAILABLE"
    assert servers.RETRIES not in os.environ


def test_what_needs_no_server_asks_none(dead: str, tmp_path: Any) -> None:
    modules = tiny_modules(tiny_parent("text"))
    composite = mlflow_rnnmod.compose(modules)
    mlflow_rnnmod.export(composite, tmp_path / "model")
    assert mlflow_rnnmod.remove(tmp_path / "model", "irish").labels == ("german", "zulu")


@pytest.mark.parametrize("own", [None, "6"])
def test_requests_are_tried_a_few_times_and_settings_stay(tracking_uri, monkeypatch, own) -> None:
    """While something is asked, nested or not, MLflow tries as often as said here, or by users."""
    monkeypatch.delenv(servers.RETRIES, raising=False)
    if own is not None:
        monkeypatch.setenv(servers.RETRIES, own)
    seen, real = [], servers.check

    def check() -> None:
        seen.append(os.environ[servers.RETRIES])
        real()

    monkeypatch.setattr(servers, "check", check)
    with pytest.raises(MlflowException):
        mlflow_rnnmod.promote(ALIAS, replace={"irish": MODULE}, max_drop=None)
    mlflow_rnnmod.log_model(tiny_module(tiny_parent("text"), "irish"), registered_model_name="a")
    mlflow_rnnmod.export(mlflow_rnnmod.compose("models:/a/1"), "there")
    assert seen == [own or servers.FEW] * 2
    assert os.environ.get(servers.RETRIES) == own


def test_what_is_set_meanwhile_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(servers.RETRIES, raising=False)

    @servers.asks(always=False)
    def asking(uri: str) -> None:
        os.environ[servers.RETRIES] = "9"

    monkeypatch.setattr(servers, "check", lambda: None)
    asking("models:/a/1")
    assert os.environ[servers.RETRIES] == "9"


def answering(answer: Callable[[socket.socket], None]) -> str:
    """The address of a server that does so with each connection."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            connection, _ = listening.accept()
            with connection:
                answer(connection)

    threading.Thread(target=serve, daemon=True).start()
    return f"127.0.0.1:{listening.getsockname()[1]}"


def elsewhere(connection: socket.socket) -> None:
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: http://nowhere.invalid/login\r\n\r\n")


def other_words(connection: socket.socket) -> None:
    connection.recv(4096)
    connection.sendall(b"\x15\x03\x01\x00\x02\x02\x46")


def nothing(connection: socket.socket) -> None:
    connection.recv(4096)


@pytest.mark.parametrize("answer", [elsewhere, other_words, nothing])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_whatever_is_said_is_an_answer(scheme: str, answer: Any, monkeypatch: Any) -> None:
    raised = list[Any]()
    monkeypatch.setattr(threading, "excepthook", raised.append)
    servers.check_http(f"{scheme}://{answering(answer)}")
    assert not raised


def test_a_server_that_is_slower_than_a_connection_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers only once the time for a connection is long over."""
    monkeypatch.setattr(servers, "PATIENCE", 0.05)
    over = threading.Event()
    join = threading.Thread.join

    def joined(thread: threading.Thread, timeout: float | None = None) -> None:
        join(thread, timeout)
        over.set()  # the first wait is over

    def slow(connection: socket.socket) -> None:
        over.wait()
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

    address = answering(slow)
    monkeypatch.setattr(threading.Thread, "join", joined)
    servers.check_http(f"http://{address}")
    monkeypatch.setattr(servers, "SILENCE", 0.05)
    over.clear()
    monkeypatch.setattr(threading.Thread, "join", join)
    with pytest.raises(servers.NoAnswer, match=r"it takes connections, and nothing came back"):
        servers.check_http(f"http://{address}")
    over.set()


def test_how_long_a_silent_server_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked, unless the user says how long MLflow's requests may take."""
    given = list[float]()

    def asked(uri: str, connected: threading.Event, silence: float) -> str:
        given.append(silence)
        return ""

    monkeypatch.setattr(servers, "_asked", asked)
    for set_to, expected in (("", [20, 4]), ("60", [60, 60]), ("soon", [20, 4])):
        monkeypatch.setenv(servers.TIMEOUT, set_to)
        servers.check_http("http://tracking.invalid")
        servers.check_http("http://tracking.invalid", servers.BRIEF)
        assert given[-2:] == expected


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl")
def test_a_server_that_wants_a_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = "openssl req -x509 -newkey rsa:2048 -nodes -keyout k -out c -days 1 -subj /CN=localhost"
    subprocess.run(ask.split(), cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "c", tmp_path / "k")
    context.load_verify_locations(tmp_path / "c")
    context.verify_mode = ssl.CERT_REQUIRED

    def certified(connection: socket.socket) -> None:
        try:
            context.wrap_socket(connection, server_side=True)
        except OSError:
            return

    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context.maximum_version = version
        servers.check_http(f"https://{answering(certified)}")


def test_a_proxy_is_asked_for_what_only_it_reaches(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[bytes]()

    def proxy(connection: socket.socket) -> None:
        asked.append(connection.recv(4096).splitlines()[0])
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

    address = answering(proxy)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, f"http://{address}")
    servers.check_http("http://tracking.invalid:5000")
    servers.check_http("https://tracking.invalid")
    assert asked == [
        b"GET http://tracking.invalid:5000/health HTTP/1.1",
        b"CONNECT tracking.invalid:443 HTTP/1.1",
    ]


@pytest.mark.parametrize(
    "uri", ["http://tracking.invalid", "http://127.0.0.1:99999999", "http:///a"]
)
def test_what_is_no_address(uri: str) -> None:
    with pytest.raises(servers.NoAnswer, match="does not answer: "):
        servers.check_http(uri)
