"""What people name modules by: objects, URIs, lists and dicts of them, whole runs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import mlflow
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelStatus
from mlflow.exceptions import MlflowException

from mlflow_rnnmod.composition import Composite
from mlflow_rnnmod.decomposition.module import Module
from mlflow_rnnmod.networks import Parent
from mlflow_rnnmod.tracking.searching import paged

Source: TypeAlias = Module | Composite | str | os.PathLike[str]
"""A module, a composite, or a URI or folder of one."""

_RUN = re.compile(r"runs:/+([^/]+)/?")


def flat(things: Any) -> Iterator[Any]:
    """Lists unpacked, and a run as the URIs of its modules; URIs as text."""
    if isinstance(things, str | os.PathLike):
        uri = os.fspath(things)
        run = _RUN.fullmatch(uri)
        yield from _modules_of_run(run.group(1)) if run else [uri]
    elif isinstance(getattr(things, "uris", None), Mapping):  # what log_decomposition gave
        yield from things.uris.values()
    elif isinstance(things, Mapping):
        yield from things.values()
    elif isinstance(things, Iterable) and not isinstance(things, Module | Parent | Composite):
        for thing in things:
            yield from flat(thing)
    else:
        yield things


def modules_in(thing: Any) -> tuple[Module, ...]:
    """The modules of an object: itself, or those of a composite or a decomposition."""
    if isinstance(thing, Module):
        return (thing,)
    found = getattr(thing, "modules", None)
    if isinstance(found, tuple):
        return found
    raise MlflowException.invalid_parameter_value(
        f"{named(thing)}; expected a module, a composite, or a URI of one. A parent becomes "
        "modules by mlflow_rnnmod.decompose."
    )


def named(thing: Any) -> str:
    """What ``thing`` is, in a line: the repr of a network takes many."""
    if isinstance(thing, Parent):
        return f"The parent {thing.digest[:12]} (labels {list(thing.labels)!r:.120}) is a Parent"
    return f"{thing!r:.200} is a {type(thing).__name__}"


def _modules_of_run(run_id: str) -> list[str]:
    client = MlflowClient()
    experiment = client.get_run(run_id).info.experiment_id
    query = f"source_run_id = '{run_id}' AND tags.`rnnmod.kind` = 'module'"
    pages = paged(lambda t: client.search_logged_models([experiment], query, page_token=t))
    found: list[LoggedModel] = [m for m in pages if m.status == LoggedModelStatus.READY]
    if not found:
        raise MlflowException.invalid_parameter_value(
            f"The run {run_id} has no modules on {mlflow.get_tracking_uri()}; expected a run that "
            "a network was decomposed in."
        )
    # In the order of the parent's labels where that was logged, else as they were logged (they are
    # listed newest first).
    found = sorted(reversed(found), key=lambda model: int(model.params.get("index", 0)))
    # A run that was logged to twice has modules for each label twice: the last stands.
    newest = {model.tags.get("rnnmod.label", model.model_id): model for model in found}
    return [f"models:/{model.model_id}" for model in newest.values()]
