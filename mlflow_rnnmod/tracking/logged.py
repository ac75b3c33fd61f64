"""Where a decomposition is in MLflow, and the run that it is logged to."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run

from mlflow_rnnmod.tracking import _mlflow
from mlflow_rnnmod.tracking.interruptions import finish

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoggedDecomposition:
    """Where a decomposition is in MLflow.

    Args:
        run_id: the run that it was logged to.
        experiment_id: that run's experiment.
        tracking_uri: the server, or database.
        parent_model_id: the parent's LoggedModel.
        parent_uri: what the parent can be loaded by.
        model_ids: the modules' LoggedModels, by label.
        uris: what the modules can be loaded by, by label: ``models:/<name>/<version>`` where they
            were registered, else ``models:/<model id>``.
        registered_names: registered models by label; empty without a prefix.
        versions: their versions by label.
        parent_registered_name: the parent's registered model.
        parent_version: its version.
    """

    run_id: str
    experiment_id: str
    tracking_uri: str
    parent_model_id: str
    parent_uri: str
    model_ids: Mapping[str, str]
    uris: Mapping[str, str]
    registered_names: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    parent_registered_name: str | None = None
    parent_version: str | None = None


@contextmanager
def run_to_log_to(client: MlflowClient, uri: str, run_id: str | None) -> Iterator[Run]:
    """The run to log to; one that is made here is ended here."""
    active = mlflow.active_run()
    if run_id is None and active is not None and uri == mlflow.get_tracking_uri():
        run_id = active.info.run_id
    if run_id is not None:
        yield client.get_run(run_id)
        return
    current = uri == mlflow.get_tracking_uri()
    experiment = (_mlflow.get_experiment_id() if current else None) or "0"
    run = client.create_run(experiment, tags=_mlflow.resolve_tags(), run_name="decomposition")
    try:
        yield run
    except BaseException:
        finish(lambda: _fail(client, run.info.run_id), "rnnmod-end-run")
        raise
    client.set_terminated(run.info.run_id)


def _fail(client: MlflowClient, run_id: str) -> None:
    try:
        with _mlflow.brief_requests():
            client.set_terminated(run_id, "FAILED")
    except Exception as error:  # of whatever kind: what went wrong before is what is raised
        _logger.warning("The run %s could not be ended: %s", run_id, error)
