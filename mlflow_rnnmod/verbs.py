"""Compose, replace, add, remove, select, export: over objects and MLflow URIs in any mix.

What a verb means is decided in :mod:`mlflow_rnnmod.composition`; here URIs become modules. Every
verb returns something new and leaves what it was given as it was.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace as changed
from pathlib import Path
from typing import Any, TypeAlias

import mlflow
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelStatus
from mlflow.exceptions import MlflowException

from mlflow_rnnmod import composition, download, fetch, flavor
from mlflow_rnnmod.composition import Composite
from mlflow_rnnmod.decomposition.module import Module
from mlflow_rnnmod.network import Parent

Source: TypeAlias = Module | Composite | str | os.PathLike[str]
"""A module, a composite, or a URI or folder of one."""

_THREADS = 8
_RUN = re.compile(r"runs:/+([^/]+)/?")


def compose(
    things: Source | Iterable[Any],
    score: str | None = None,
    calibrate_on: tuple[Any, Sequence[str]] | None = None,
) -> Composite:
    """A composite of modules from anywhere.

    Args:
        things: modules, composites (for all of their modules), decompositions, or URIs of them:
            ``models:/name/version``, ``models:/name@alias``, ``models:/m-...``,
            ``runs:/run/name``, and ``runs:/run`` for all modules of that run. Lists of them, dicts
            with them as values, and what ``log_decomposition`` gave, too.
        score: how modules are compared; ``None`` for the default, which depends on how many
            parents they have.
        calibrate_on: inputs and their labels, to fit a scale and an offset for each module on.

    Returns:
        A composite that answers one of the modules' labels.

    Raises:
        MlflowException: if something can't be found or loaded, or is no module.
        IncompatibleModules: if the modules don't go together; all reasons at once.
    """
    return composition.compose(modules_of(things), score=score, calibrate_on=calibrate_on)


def replace(composite: Composite | str | os.PathLike[str], label: str, thing: Source) -> Composite:
    """A composite with another module for one of its labels.

    Args:
        composite: the composite, or its URI.
        label: a label of it.
        thing: the new module, or its URI.

    Raises:
        MlflowException: if something can't be found or loaded, or ``thing`` is not one module.
        IncompatibleModules: if the module does not fit.
        ValueError: if the composite has no such label.
    """
    found = modules_of(thing)
    if len(found) != 1:
        raise MlflowException.invalid_parameter_value(
            f"thing={thing!r} holds the modules of {[m.label for m in found]}; expected one module "
            f"to put in the place of {label!r}."
        )
    composite = _composite(composite)
    return composition.replace(composite, label, *_beside(composite, found))


def add(composite: Composite | str | os.PathLike[str], *things: Any) -> Composite:
    """A composite with more modules; ``things`` as in :func:`compose`.

    Raises:
        MlflowException: if something can't be found or loaded, or is no module.
        IncompatibleModules: if a module does not fit, or its label is there already.
    """
    composite = _composite(composite)
    return composition.add(composite, *_beside(composite, modules_of(things)))


def remove(composite: Composite | str | os.PathLike[str], *labels: str) -> Composite:
    """A composite without the modules of these labels.

    Raises:
        MlflowException: if the composite can't be found or loaded.
        ValueError: if it lacks one of the labels, or no module would be left.
    """
    return composition.remove(_composite(composite), *labels)


def select(composite: Composite | str | os.PathLike[str], *labels: str) -> Composite:
    """A composite with the modules of these labels only, in this order.

    Raises:
        MlflowException: if the composite can't be found or loaded.
        ValueError: if it lacks one of the labels, or none is named.
    """
    return composition.select(_composite(composite), *labels)


def export(
    thing: Parent | Module | Composite | str | os.PathLike[str], path: str | Path, **options: Any
) -> Path:
    """Write a parent, a module or a composite as an MLflow model that needs no other files.

    Args:
        thing: what to write, or its URI. A module takes its parent along.
        path: a new or empty folder.
        options: for :func:`mlflow_rnnmod.save_model`.

    Returns:
        ``path``, which :func:`mlflow_rnnmod.load_model` and ``mlflow.pyfunc.load_model`` read.

    Raises:
        MlflowException: if it can't be found or loaded, or ``path`` is not empty.
    """
    if isinstance(thing, str | os.PathLike):
        thing = fetch.load(thing)
    flavor.save_model(thing, path, standalone=True, **options)
    return Path(path)


def modules_of(things: Any) -> list[Module]:
    """All modules in ``things``, in order; URIs are downloaded in threads, each parent once.

    Raises:
        MlflowException: if something can't be found or loaded, or is no module.
    """
    found = list(_flat(things))
    places = [place for place, thing in enumerate(found) if isinstance(thing, str)]
    if places:
        with download.quiet_downloads(), ThreadPoolExecutor(_THREADS) as pool:
            loaded = pool.map(fetch.load, [found[place] for place in places])
            for place, thing in zip(places, loaded, strict=True):
                found[place] = thing
    modules: list[Module] = []
    for thing in found:
        if isinstance(thing, Module):
            modules.append(thing)
        elif isinstance(getattr(thing, "modules", None), tuple):  # a composite or a decomposition
            modules.extend(thing.modules)
        else:
            raise MlflowException.invalid_parameter_value(
                f"{_named(thing)}; expected a module, a composite, or a URI of one. A parent "
                "becomes modules by mlflow_rnnmod.decompose."
            )
    return _sharing(modules)


def _flat(things: Any) -> Iterator[Any]:
    """Lists unpacked, and a run as the URIs of its modules."""
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
            yield from _flat(thing)
    else:
        yield things


def _modules_of_run(run_id: str) -> list[str]:
    client = MlflowClient()
    experiment = client.get_run(run_id).info.experiment_id
    found: list[LoggedModel] = []
    token = None
    while True:
        page = client.search_logged_models(
            experiment_ids=[experiment],
            filter_string=f"source_run_id = '{run_id}' AND tags.`rnnmod.kind` = 'module'",
            page_token=token,
        )
        found.extend(model for model in page if model.status == LoggedModelStatus.READY)
        token = page.token
        if not token:
            break
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


def _sharing(modules: list[Module]) -> list[Module]:
    """The modules, where those of one parent share one object: loaded twice, it is held once."""
    parents: dict[tuple[str, str | None], Parent] = {}
    shared = []
    for module in modules:
        parent = module.parent
        tokenizer = parent.tokenizer.digest if parent.tokenizer else None
        first = parents.setdefault((parent.digest, tokenizer), parent)
        shared.append(module if first is parent else changed(module, parent=first))
    return shared


def _beside(composite: Composite, modules: list[Module]) -> list[Module]:
    """The modules, with the composite's own parents where they are the same."""
    return _sharing([*composite.modules, *modules])[len(composite.modules) :]


def _named(thing: Any) -> str:
    """What ``thing`` is, in a line: the repr of a network takes many."""
    if isinstance(thing, Parent):
        return f"The parent {thing.digest[:12]} (labels {list(thing.labels)!r:.120}) is a Parent"
    return f"{thing!r:.200} is a {type(thing).__name__}"


def _composite(thing: Composite | str | os.PathLike[str]) -> Composite:
    if isinstance(thing, str | os.PathLike):
        thing = fetch.load(thing)  # type: ignore[assignment]
    if not isinstance(thing, Composite):
        raise MlflowException.invalid_parameter_value(
            f"composite: {_named(thing)}; expected a composite or the URI of one. "
            "mlflow_rnnmod.compose makes one from modules."
        )
    return thing
