"""What an attempt to log leaves where answers get lost, servers go, and people press Ctrl-C."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelStatus
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

import mlflow_rnnmod
from mlflow_rnnmod.tracking.bulk import log_decomposition
from mlflow_rnnmod.tracking.parents import forget_parents
from tests.builders import tiny_decomposition, tiny_parent
from tests.tracking.test_bulk import models, versions
from tests.tracking.test_bulk_broken import assert_all_loads, breaking
from tests.tracking.test_bulk_registered import aliases

PREFIX = "surnames"


def assert_whatever_is_ready_loads() -> None:
    """No READY model and no version that does not load, without the help of process and cache."""
    ready = [model for model in models() if model.status == LoggedModelStatus.READY]
    uris = [model.model_uri for model in ready]
    for uri in [*uris, *(f"models:/{name}/{version}" for name, version in versions())]:
        forget_parents()
        shutil.rmtree(os.environ["RNNMOD_CACHE"], ignore_errors=True)
        mlflow_rnnmod.load_model(uri)


def assert_nothing_is_left() -> None:
    assert not models()
    assert not versions()
    assert not MlflowClient().search_registered_models()


def folder_of(model: LoggedModel) -> Path:
    location = model.artifact_location
    return Path(url2pathname(urlsplit(location).path) if "://" in location else location)


def answer_lost(function: Callable[..., Any], at: int, error: BaseException) -> Callable[..., Any]:
    """``function``, but call number ``at`` is served and its answer lost."""
    calls = 0

    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        found = function(*args, **kwargs)
        if calls == at:
            raise error
        return found

    return call


@pytest.mark.parametrize(
    ("name", "at", "error"),
    [
        ("create_logged_model", 1, MlflowException("reset")),
        ("create_logged_model", 3, KeyboardInterrupt()),
        ("finalize_logged_model", 1, KeyboardInterrupt()),
        ("finalize_logged_model", 3, SystemExit(1)),
        ("create_registered_model", 1, MlflowException("reset")),
        ("create_registered_model", 3, KeyboardInterrupt()),
        ("create_model_version", 1, MlflowException("reset")),
        ("create_model_version", 3, KeyboardInterrupt()),
        ("set_registered_model_alias", 2, SystemExit(1)),
    ],
)
def test_what_was_made_without_an_answer_is_found_and_undone(
    tracking_uri: str, monkeypatch: pytest.MonkeyPatch, name: str, at: int, error: BaseException
) -> None:
    decomposition = tiny_decomposition(tiny_parent("text"))
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, name, answer_lost(getattr(MlflowClient, name), at, error))
        with pytest.raises(type(error)):
            log_decomposition(decomposition, registered_model_prefix=PREFIX)
    assert_nothing_is_left()
    logged = log_decomposition(decomposition, registered_model_prefix=PREFIX)
    assert_all_loads(logged, decomposition.parent)
    assert aliases(f"{PREFIX}.irish") == {"champion": "1"}


@pytest.mark.parametrize("presses", [1, 3])
def test_ctrl_c_while_undoing_waits_for_its_end(
    tracking_uri: str, monkeypatch: pytest.MonkeyPatch, presses: int
) -> None:
    left = presses

    def pressed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            if left:
                left -= 1
                os.kill(os.getpid(), signal.SIGINT)
            return function(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(
            MlflowClient,
            "log_outputs",
            breaking(MlflowClient.log_outputs, 1, MlflowException("lost")),
        )
        for name in ("delete_model_version", "delete_logged_model"):
            patch.setattr(MlflowClient, name, pressed(getattr(MlflowClient, name)))
        with pytest.raises(KeyboardInterrupt):
            log_decomposition(
                tiny_decomposition(tiny_parent("text")), registered_model_prefix=PREFIX
            )
    assert left == 0
    assert_nothing_is_left()


UNDOING = (
    "search_model_versions",
    "delete_model_version",
    "search_logged_models",
    "finalize_logged_model",
    "delete_logged_model",
)


@pytest.mark.parametrize(
    ("method", "at"),
    [(name, at) for name in UNDOING for at in ((1, 4) if name[0] == "s" else (2,))],
)
def test_a_server_that_goes_away_while_undoing_leaves_what_loads(
    tracking_uri: str, monkeypatch: pytest.MonkeyPatch, method: str, at: int
) -> None:
    decomposition = tiny_decomposition(tiny_parent("text"))
    gone = False
    undoing = False
    calls = 0

    def lost(*_: Any, **__: Any) -> None:
        nonlocal undoing
        undoing = True
        raise MlflowException("lost")

    def until(name: str) -> Callable[..., Any]:
        function = getattr(MlflowClient, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls, gone
            if undoing and name == method:
                calls += 1
                gone = gone or calls == at
            if gone:
                raise MlflowException("gone")
            return function(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for name in (*UNDOING, "get_experiment", "get_registered_model", "set_terminated"):
            patch.setattr(MlflowClient, name, until(name))
        patch.setattr(MlflowClient, "log_outputs", lost)
        with pytest.raises(MlflowException, match="lost"):
            log_decomposition(decomposition, registered_model_prefix=PREFIX)
    assert_whatever_is_ready_loads()
    logged = log_decomposition(decomposition, registered_model_prefix=PREFIX)
    assert_all_loads(logged, decomposition.parent)


def test_deletions_that_are_only_said_leave_the_parent(
    tracking_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something on the way answers 200 to deletions and does nothing."""
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "delete_logged_model", lambda *_: None)
        patch.setattr(
            MlflowClient,
            "finalize_logged_model",
            lambda self, model_id, status, real=MlflowClient.finalize_logged_model: (
                real(self, model_id, status) if status == LoggedModelStatus.READY else None
            ),
        )
        patch.setattr(
            MlflowClient,
            "log_outputs",
            breaking(MlflowClient.log_outputs, 1, MlflowException("lost")),
        )
        with pytest.raises(MlflowException, match="lost"):
            log_decomposition(tiny_decomposition(tiny_parent("text")))
    assert len(models()) == 4
    assert_whatever_is_ready_loads()


def test_a_parent_that_another_attempt_took_up_stays(
    tracking_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    decomposition = tiny_decomposition(tiny_parent("text"))
    real = MlflowClient.log_outputs
    calls = 0

    def meanwhile(self: MlflowClient, run_id: str, *args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:  # somebody else logs to the same run, and succeeds
            log_decomposition(decomposition, run_id=run_id)
            raise MlflowException("lost")
        real(self, run_id, *args)

    monkeypatch.setattr(MlflowClient, "log_outputs", meanwhile)
    with pytest.raises(MlflowException, match="lost"):
        log_decomposition(decomposition)
    assert len(models()) == 4
    assert_whatever_is_ready_loads()


def swallowing(function: Callable[..., Any], at: int) -> Callable[..., Any]:
    """``function`` of a store, but call number ``at`` answers well and stores nothing."""
    calls = 0

    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        return None if calls == at else function(*args, **kwargs)

    return call


@pytest.mark.parametrize("at", [1, 2, 4])
def test_what_was_not_stored_is_never_ready(
    tracking_uri: str, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    decomposition = tiny_decomposition(tiny_parent("text"))
    log = LocalArtifactRepository.log_artifacts
    with mlflow.start_run():
        with monkeypatch.context() as patch:
            patch.setattr(LocalArtifactRepository, "log_artifacts", swallowing(log, at))
            with pytest.raises(MlflowException, match=r"module.json|network.json"):
                log_decomposition(decomposition, registered_model_prefix=PREFIX)
        assert_nothing_is_left()
        logged = log_decomposition(decomposition, registered_model_prefix=PREFIX)
    assert_all_loads(logged, decomposition.parent)


def test_a_broken_parent_of_the_run_is_not_used_again(tracking_uri: str) -> None:
    decomposition = tiny_decomposition(tiny_parent("text"))
    with mlflow.start_run():
        first = log_decomposition(decomposition)
        broken = MlflowClient().get_logged_model(first.parent_model_id)
        (weights,) = folder_of(broken).rglob("weights.safetensors")
        weights.write_bytes(weights.read_bytes()[:-1] + b"x")
        second = log_decomposition(decomposition)
    assert second.parent_model_id != first.parent_model_id
    forget_parents()
    assert_all_loads(second, decomposition.parent)


def test_champion_is_set_after_an_attempt_that_left_a_version(
    tracking_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    decomposition = tiny_decomposition(tiny_parent("text"))
    set_alias = MlflowClient.set_registered_model_alias
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_registered_model_alias", breaking(set_alias, 2, OSError()))
        for name in UNDOING:
            if name != "search_logged_models":
                patch.setattr(
                    MlflowClient, name, breaking(getattr(MlflowClient, name), 10**9, OSError())
                )
        patch.setattr(MlflowClient, "delete_model_version", breaking(lambda *_: None, 1, OSError()))
        with pytest.raises(OSError):
            log_decomposition(decomposition, registered_model_prefix=PREFIX)
    assert versions()
    assert_whatever_is_ready_loads()
    log_decomposition(decomposition, registered_model_prefix=PREFIX)
    for label in decomposition.parent.labels:
        assert "champion" in aliases(f"{PREFIX}.{label}")


def test_a_model_that_was_made_twice_for_a_lost_answer_is_tidied(
    tracking_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the client's own retries do it: the first answer is lost, and the request sent again."""
    create = MlflowClient.create_logged_model
    calls = 0

    def twice(*args: Any, **kwargs: Any) -> LoggedModel:
        nonlocal calls
        calls += 1
        if calls == 2:
            create(*args, **kwargs)
        return create(*args, **kwargs)

    monkeypatch.setattr(MlflowClient, "create_logged_model", twice)
    log_decomposition(tiny_decomposition(tiny_parent("text")))
    assert len(models()) == 4


@pytest.mark.parametrize("registered", [None, "mine"])
def test_a_single_model_that_was_not_stored_is_neither_ready_nor_registered(
    tracking_uri: str, monkeypatch: pytest.MonkeyPatch, registered: str | None
) -> None:
    parent = tiny_parent("text")
    log = LocalArtifactRepository.log_artifacts
    with monkeypatch.context() as patch:
        patch.setattr(LocalArtifactRepository, "log_artifacts", swallowing(log, 1))
        with pytest.raises(MlflowException, match="network.json can't be read back"):
            mlflow_rnnmod.log_model(parent, registered_model_name=registered)
    assert_nothing_is_left()
    info = mlflow_rnnmod.log_model(parent, registered_model_name=registered)
    assert info.registered_model_version == (1 if registered else None)
    assert_whatever_is_ready_loads()
