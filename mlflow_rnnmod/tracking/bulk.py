"""Logging a whole decomposition: the parent once, every module, figures, reports, registration.

``log_model`` for each module would take seconds a module. Here the files that are the same for all
are made once, requests go out side by side where a server answers them, and what concerns all
modules is one request (docs/mlflow.md).

Either everything is logged or nothing is: no model is ready before all files are there and can be
read back, and what an attempt has made is deleted again where it fails.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mlflow_rnnmod.tracking import record
from mlflow_rnnmod.tracking.attempt import Attempt
from mlflow_rnnmod.tracking.jobs import Progress, finish
from mlflow_rnnmod.tracking.logged import LoggedDecomposition, run_to_log_to
from mlflow_rnnmod.tracking.names import registered_name

if TYPE_CHECKING:
    from mlflow_rnnmod.decomposition import Decomposition

__all__ = ["LoggedDecomposition", "log_decomposition"]


def log_decomposition(
    decomposition: Decomposition,
    run_id: str | None = None,
    tracking_uri: str | None = None,
    registered_model_prefix: str | None = None,
    dataset: Any = None,
    progress: Progress | None = None,
    experiment: str | None = None,
) -> LoggedDecomposition:
    """Log a decomposition to MLflow: the parent, a model for each module, figures and reports.

    Args:
        decomposition: what ``decompose`` gave.
        run_id: the run to log to, running or finished; by default the active run, else a new one,
            which is ended again.
        tracking_uri: server or database; by default MLflow's current one.
        registered_model_prefix: register the parent under this name and the modules under
            ``<prefix>.<label>``; ``None`` registers nothing.
        dataset: an ``mlflow.data`` dataset of the rows that the figures come from. It is logged as
            an input of the run, and figures of models stand beside its name and digest.
        progress: called with a stage's name, how much of it is done, and of how much.
        experiment: name of an experiment for the modules alone, in a run of its own, made where it
            is missing: MLflow's list of runs shows no more than 50 models of an experiment, so that
            many modules hide all others. The run's description then begins with a link to them.

    Returns:
        Ids, URIs, registered names and versions.

    Raises:
        MlflowException: if there is no module, an argument does not fit, or the server refuses
            something. Nothing is left behind then that can't be loaded: the models of this attempt
            are deleted, and its registered versions too.
    """
    if not decomposition.modules:
        raise MlflowException.invalid_parameter_value(
            "decomposition.modules is empty; expected at least one module to log."
        )
    if registered_model_prefix is not None:
        registered_name(registered_model_prefix)
    data = record.dataset_entity(dataset)
    uri = tracking_uri or mlflow.get_tracking_uri()
    client = MlflowClient(tracking_uri=uri)
    with run_to_log_to(client, uri, run_id, experiment) as run:
        attempt = Attempt(client, uri, run, decomposition, registered_model_prefix, data)
        try:
            return attempt.log(progress or (lambda stage, done, total: None))
        except BaseException:
            finish(attempt.undo, "rnnmod-undo")
            raise
