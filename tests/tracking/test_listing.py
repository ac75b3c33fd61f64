"""What lists show without MLflow is what MLflow's own client finds."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from werkzeug.serving import make_server

import mlflow_rnnmod
from mlflow_rnnmod.tracking import listing, searching
from mlflow_rnnmod.tracking.bulk import log_decomposition
from tests.builders import ODD_LABELS, tiny_decomposition, tiny_module, tiny_parent


@pytest.fixture
def shop(tracking_uri: str) -> str:
    """Models of all kinds, some of which must not be listed; a figure that was measured twice."""
    client = MlflowClient()
    made = log_decomposition(
        tiny_decomposition(tiny_parent("text")), registered_model_prefix="names"
    )
    model_id = next(iter(made.model_ids.values()))
    with mlflow.start_run() as run:
        for step, value in enumerate((0.25, 0.75)):
            client.log_metric(run.info.run_id, "f1", value, step=step, model_id=model_id)
        client.log_metric(run.info.run_id, "odd", float("nan"), model_id=model_id)
        client.log_metric(run.info.run_id, "far", float("inf"), model_id=model_id)
    mlflow.set_experiment('o\'clock "ünï"')
    for label in ODD_LABELS[:2]:
        mlflow_rnnmod.log_model(
            tiny_module(tiny_parent("text", labels=ODD_LABELS), label), name="odd"
        )
    client.create_logged_model("0", "never-ready", tags={"rnnmod.kind": "module"})
    client.create_logged_model("0", "of-another-flavor")
    gone = mlflow.set_experiment("gone").experiment_id
    mlflow_rnnmod.log_model(tiny_module(tiny_parent("text", seed=2), "irish"), name="gone")
    client.delete_experiment(gone)
    mlflow.set_experiment("Default")
    return tracking_uri


@pytest.fixture
def server(shop: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """MLflow's own server over the same database, in this process."""
    from mlflow.server import app, handlers

    for name in ("_MLFLOW_SERVER_FILE_STORE", "_MLFLOW_SERVER_REGISTRY_STORE"):
        monkeypatch.setenv(name, shop)
    for name in ("_tracking_store", "_model_registry_store"):
        monkeypatch.setattr(handlers, name, None)
    serving = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{serving.server_port}"
    serving.shutdown()
    serving.server_close()


def by_mlflow(*kinds: str, experiment: str | None = None) -> list[listing.Listed]:
    found = searching.logged_models(MlflowClient(), [], kinds or listing.KINDS, experiment)
    return [
        listing.Listed(
            m.model_id,
            m.name,
            m.tags,
            m.params,
            {x.key: x.value for x in sorted(m.metrics or (), key=lambda x: (x.timestamp, x.step))},
        )
        for m in found
    ]


def same(found: list[listing.Listed] | None, expected: list[listing.Listed]) -> bool:
    def comparable(model: listing.Listed) -> tuple[object, ...]:
        figures = {key: str(value) for key, value in model.figures.items()}  # NaN is not itself
        return model.model_id, model.name, model.tags, model.params, figures

    return list(map(comparable, found or [])) == list(map(comparable, expected))


@pytest.mark.parametrize("kinds", [(), ("module",), ("module", "parent")])
@pytest.mark.parametrize("experiment", [None, "Default", 'o\'clock "ünï"'])
def test_a_database(shop: str, kinds: tuple[str, ...], experiment: str | None) -> None:
    expected = by_mlflow(*kinds, experiment=experiment)
    assert len(expected) > 1
    found = listing._from_sqlite(shop, kinds or listing.KINDS, experiment)
    assert same(found, expected)
    if experiment != 'o\'clock "ünï"':
        assert any(model.figures.get("f1") == 0.75 for model in found or [])


@pytest.mark.parametrize("experiment", [None, 'o\'clock "ünï"'])
def test_a_server(server: str, experiment: str | None) -> None:
    expected = by_mlflow(experiment=experiment)
    assert same(listing._over_http(server, listing.KINDS, experiment), expected)


def test_what_is_not_known_goes_through_mlflow(
    shop: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert listing._from_sqlite(shop, listing.KINDS, "nowhere") is None
    with pytest.raises(mlflow.MlflowException, match="'nowhere' is not on this tracking server"):
        listing.listed(experiment="nowhere")
    assert listing._from_sqlite(f"sqlite:///{tmp_path / 'none.db'}", listing.KINDS, None) is None
    assert listing._over_http("http://127.0.0.1:9", listing.KINDS, None) is None
    expected = listing.listed()
    monkeypatch.setattr(listing, "REVISIONS", frozenset({"another"}))
    assert listing._from_sqlite(shop, listing.KINDS, None) is None
    assert same(listing.listed(), expected)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "secret")
    monkeypatch.setattr(listing, "_from_sqlite", None)
    assert same(listing.listed(), expected)


def test_the_revision_of_the_mlflow_that_is_installed_is_known(shop: str) -> None:
    """Where this fails, look at what the new revision changes, and add it to ``REVISIONS``."""
    from mlflow.store.db.utils import _get_latest_schema_revision

    assert _get_latest_schema_revision() in listing.REVISIONS
