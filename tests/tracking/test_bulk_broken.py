"""Attempts at logging that break: what they leave, and what the next one does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import LoggedModelStatus
from mlflow.exceptions import MlflowException

import mlflow_rnnmod
from mlflow_rnnmod.composition import compose
from mlflow_rnnmod.tracking.bulk import LoggedDecomposition, log_decomposition
from tests.builders import tiny_decomposition, tiny_inputs, tiny_parent
from tests.tracking.test_bulk import POINTS, models, versions


def breaking(function: Callable[..., Any], at: int, error: BaseException) -> Callable[..., Any]:
    """``function``, but its call number ``at`` fails."""
    calls = 0

    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at:
            raise error
        return function(*args, **kwargs)

    return call


def assert_all_loads(logged: LoggedDecomposition, parent: Any) -> None:
    loaded = [mlflow_rnnmod.load_model(uri) for uri in logged.uris.values()]
    assert [module.label for module in loaded] == list(parent.labels)
    assert compose(loaded).predict(tiny_inputs(parent))


@pytest.mark.parametrize(
    ("owner", "name", "at", "error"),
    [(*point, MlflowException("lost")) for point in POINTS]
    + [(*point, KeyboardInterrupt()) for point in (POINTS[2], POINTS[5], POINTS[13])],
)
def test_a_broken_attempt_leaves_nothing_and_the_next_succeeds(
    tracking_uri: str,
    monkeypatch: pytest.MonkeyPatch,
    owner: type,
    name: str,
    at: int,
    error: BaseException,
) -> None:
    parent = tiny_parent("text")
    decomposition = tiny_decomposition(parent)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, breaking(getattr(owner, name), at, error))
        with pytest.raises(type(error)):
            log_decomposition(decomposition, registered_model_prefix="surnames")
    assert not models()
    assert not versions()
    assert not MlflowClient().search_registered_models()
    (run,) = MlflowClient().search_runs(["0"])
    assert run.info.status == "FAILED"

    logged = log_decomposition(decomposition, registered_model_prefix="surnames")
    assert len(models()) == 4
    assert_all_loads(logged, parent)
    loaded = mlflow_rnnmod.load_model("models:/surnames.zulu@champion")
    assert loaded.label == "zulu"


@pytest.mark.parametrize(("owner", "name", "at"), [POINTS[6], POINTS[13], POINTS[14]])
def test_a_broken_attempt_leaves_earlier_ones_alone(
    tracking_uri: str, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, at: int
) -> None:
    parent = tiny_parent("text")
    decomposition = tiny_decomposition(parent)
    with mlflow.start_run() as run:
        first = log_decomposition(decomposition, registered_model_prefix="surnames")
        MlflowClient().delete_registered_model("surnames.zulu")  # new again for the attempt below
        method = breaking(getattr(owner, name), min(at, 3), MlflowException("lost"))
        if name == "set_registered_model_alias":
            method = breaking(getattr(owner, name), 1, MlflowException("lost"))
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, method)
            with pytest.raises(MlflowException, match="lost"):
                log_decomposition(decomposition, registered_model_prefix="surnames")
        assert {m.model_id for m in models()} == {
            first.parent_model_id,
            *first.model_ids.values(),
        }
        assert versions() == [
            ("surnames", "1"),
            ("surnames.german", "1"),
            ("surnames.irish", "1"),
        ]
        assert mlflow_rnnmod.load_model("models:/surnames.irish@champion").label == "irish"
        second = log_decomposition(decomposition, registered_model_prefix="surnames")
    assert_all_loads(second, parent)
    assert run.info.run_id == second.run_id
    assert mlflow_rnnmod.load_model("models:/surnames.zulu@champion").label == "zulu"


def test_a_version_that_can_not_be_taken_back_can_be_loaded(
    tracking_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise MlflowException("no right to delete")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "delete_model_version", refuse)
        patch.setattr(
            MlflowClient,
            "create_model_version",
            breaking(MlflowClient.create_model_version, 3, MlflowException("lost")),
        )
        with pytest.raises(MlflowException, match="lost"):
            log_decomposition(
                tiny_decomposition(tiny_parent("text")), registered_model_prefix="surnames"
            )
    assert len(versions()) >= 2
    for name, version in versions():
        mlflow_rnnmod.load_model(f"models:/{name}/{version}")
        mlflow.pyfunc.load_model(f"models:/{name}/{version}")


def test_a_server_that_stops_answering_leaves_nothing_ready(
    tracking_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise MlflowException("gone")

    with monkeypatch.context() as patch:
        for name in ("finalize_logged_model", "delete_logged_model", "set_terminated"):
            patch.setattr(MlflowClient, name, refuse)
        with pytest.raises(MlflowException, match="gone"):
            log_decomposition(tiny_decomposition(tiny_parent()))
    assert {m.status for m in models()} == {LoggedModelStatus.PENDING}


def test_what_can_not_be_marked_as_failed_is_deleted(
    tracking_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise MlflowException("gone")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "finalize_logged_model", refuse)
        with pytest.raises(MlflowException, match="gone"):
            log_decomposition(tiny_decomposition(tiny_parent()))
    assert models() == []
