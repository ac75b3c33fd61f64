"""Dead servers are named at once, by every door of the Python interface, and settings stay."""

from __future__ import annotations

import os
import socket
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
