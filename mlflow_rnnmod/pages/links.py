"""Links to MLflow's own pages, as they stand in its descriptions and Markdown files.

A fresh browser opens MLflow's pages in another mode than the one that shows models; the query at
the end of each link opens the right one.
"""

from __future__ import annotations

from urllib.parse import quote

WORKFLOW = "?workflowType=machine_learning"
"""What makes MLflow's pages open in *Model training*."""


def model_page(experiment_id: str, model_id: str) -> str:
    """The page of a LoggedModel.

    Example:
        >>> model_page("1", "m-2")
        '#/experiments/1/models/m-2?workflowType=machine_learning'
    """
    return f"#/experiments/{experiment_id}/models/{model_id}{WORKFLOW}"


def models_page(experiment_id: str) -> str:
    """The list of an experiment's LoggedModels."""
    return f"#/experiments/{experiment_id}/models{WORKFLOW}"


def run_page(experiment_id: str, run_id: str) -> str:
    """The page of a run."""
    return f"#/experiments/{experiment_id}/runs/{run_id}{WORKFLOW}"


def artifact_page(experiment_id: str, run_id: str, path: str) -> str:
    """An artifact of a run, opened."""
    return f"#/experiments/{experiment_id}/runs/{run_id}/artifacts/{path}{WORKFLOW}"


def artifacts_page(experiment_id: str, model_id: str) -> str:
    """The artifacts of a LoggedModel."""
    return f"#/experiments/{experiment_id}/models/{model_id}/artifacts{WORKFLOW}"


def registered_page(name: str, version: str | None = None) -> str:
    """The page of a registered model, or of a version of it."""
    page = f"#/models/{quote(name, safe='')}"
    return f"{page}/versions/{version}{WORKFLOW}" if version else page + WORKFLOW
