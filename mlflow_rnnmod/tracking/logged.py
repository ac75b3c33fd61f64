"""Where a decomposition is in MLflow, and the run that it is logged to."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run

from mlflow_rnnmod.pages.markdown import artifact_page, escape, run_page
from mlflow_rnnmod.storage import without_credentials
from mlflow_rnnmod.tracking import _mlflow
from mlflow_rnnmod.tracking.jobs import finish
from mlflow_rnnmod.tracking.record import NOTE

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

    @property
    def page(self) -> str:
        """Where a browser shows the index of the modules; of a database, behind ``mlflow ui``."""
        index = artifact_page(self.experiment_id, self.run_id, "rnnmod/modules.md")
        return page_address(self.tracking_uri, index)


def page_address(tracking_uri: str, page: str) -> str:
    """The address of one of MLflow's pages; below ``mlflow ui``'s own one for a database.

    Example:
        >>> page_address("https://me:secret@models.example/mlflow", "#/models")
        'https://models.example/mlflow/#/models'
        >>> page_address("sqlite:///mlflow.db", "#/models")
        'http://127.0.0.1:5000/#/models (after: mlflow ui --backend-store-uri sqlite:///mlflow.db)'
    """
    if tracking_uri.startswith(("http://", "https://")):
        return f"{(without_credentials(tracking_uri) or '').rstrip('/')}/{page}"
    return f"http://127.0.0.1:5000/{page} (after: mlflow ui --backend-store-uri {tracking_uri})"


@contextmanager
def run_to_log_to(
    client: MlflowClient, uri: str, run_id: str | None, experiment: str | None = None
) -> Iterator[Run]:
    """The run to log to; one that is made here is ended here.

    Args:
        client: of the server.
        uri: the server.
        run_id: the run; by default the active one, else one is made.
        experiment: its name, for a run of its own there, made where it is missing; the other run's
            description then begins with a link to it.
    """
    active = mlflow.active_run()
    if run_id is None and active is not None and uri == mlflow.get_tracking_uri():
        run_id = active.info.run_id
    if experiment is not None:
        with _apart(client, experiment, run_id) as run:
            yield run
        return
    if run_id is not None:
        yield client.get_run(run_id)
        return
    current = uri == mlflow.get_tracking_uri()
    experiment = (_mlflow.get_experiment_id() if current else None) or "0"
    with _begun(client, experiment, _mlflow.resolve_tags()) as run:
        yield run


@contextmanager
def _begun(client: MlflowClient, experiment_id: str, tags: Mapping[str, str]) -> Iterator[Run]:
    """A new run, which is ended here."""
    run = client.create_run(experiment_id, tags=dict(tags), run_name="decomposition")
    try:
        yield run
    except BaseException:
        finish(lambda: _fail(client, run.info.run_id), "rnnmod-end-run")
        raise
    client.set_terminated(run.info.run_id)


@contextmanager
def own_run(client: MlflowClient, name: str) -> Iterator[str]:
    """The id of a new run in the current experiment; one that came to nothing is deleted."""
    place = _mlflow.get_experiment_id() or "0"
    run_id = client.create_run(place, tags=_mlflow.resolve_tags(), run_name=name).info.run_id
    try:
        yield run_id
        client.set_terminated(run_id)
    except BaseException:
        with suppress(Exception):
            client.delete_run(run_id)
        raise


@contextmanager
def _apart(client: MlflowClient, experiment: str, origin: str | None) -> Iterator[Run]:
    """A run in an experiment of its own, to which the run that it comes from leads."""
    found = client.get_experiment_by_name(experiment)
    place = found.experiment_id if found else client.create_experiment(experiment)
    tags = _mlflow.resolve_tags()
    if origin is not None:
        tags["rnnmod.source_run"] = origin
    with _begun(client, place, tags) as run:
        yield run
    if origin is not None:
        note = client.get_run(origin).data.tags.get(NOTE, "")
        link = f"**Modules:** [in the experiment {escape(experiment)}]"
        page = run_page(place, run.info.run_id)
        client.set_tag(origin, NOTE, f"{link}({page})\n\n{note}".rstrip())


def _fail(client: MlflowClient, run_id: str) -> None:
    try:
        with _mlflow.brief_requests():
            client.set_terminated(run_id, "FAILED")
    except Exception as error:  # of whatever kind: what went wrong before is what is raised
        _logger.warning("The run %s could not be ended: %s", run_id, error)
