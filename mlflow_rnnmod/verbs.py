"""Compose, replace, add, remove, select, export: over objects and MLflow URIs in any mix.

What a verb means is decided in :mod:`mlflow_rnnmod.composition`; here URIs become modules. Every
verb returns something new and leaves what it was given as it was.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException

from mlflow_rnnmod import composition
from mlflow_rnnmod.composition import Composite
from mlflow_rnnmod.composition.verbs import check_replacement
from mlflow_rnnmod.decomposition.module import Module
from mlflow_rnnmod.networks import Parent
from mlflow_rnnmod.tracking import download, fetch, flavor
from mlflow_rnnmod.tracking.parents import remember
from mlflow_rnnmod.tracking.planning import Survey, survey
from mlflow_rnnmod.tracking.servers import asks
from mlflow_rnnmod.tracking.sources import Source, named


@asks(always=False)
def compose(
    things: Source | Iterable[Any],
    score: str | None = None,
    calibrate_on: tuple[Any, Sequence[Any]] | None = None,
    thresholds: Mapping[str, float] | None = None,
    unlabelled: Any = None,
    reject_below: float | None = None,
    reject_at: float | None = None,
    reject_on: Any = None,
) -> Composite:
    """A composite of modules from anywhere.

    Args:
        things: modules, composites (for all of their modules), decompositions, or URIs of them:
            ``models:/name/version``, ``models:/name@alias``, ``models:/m-...``,
            ``runs:/run/name``, and ``runs:/run`` for all modules of that run. Lists of them, dicts
            with them as values, and what ``log_decomposition`` gave, too.
        score: how modules are compared; ``None`` for the default, which depends on how many
            parents they have.
        calibrate_on: inputs and what is right for them, to fit a scale and an offset for each
            module on; labels in about the shares in which they will be met, since offsets learn
            these.
        thresholds: what the scores of single labels have to reach, where labels have no rivals.
        unlabelled: inputs as the composite will be asked, some hundreds, to find one offset for
            each parent on.
        reject_below: the best score from which on an answer counts; stored with the composite.
        reject_at: instead of it the share of ``reject_on`` that may be rejected.
        reject_on: inputs that should be answered; by default those of ``calibrate_on``.

    Returns:
        A composite; what it answers is its ``output``: one of the modules' labels, several of them,
        one for each step, a list of them, or translations.

    Raises:
        MlflowException: if something can't be found or loaded, or is no module.
        IncompatibleModules: if the modules don't go together; all reasons at once.
        ValueError: if ``score``, ``calibrate_on``, ``thresholds``, ``unlabelled`` or a limit do
            not fit the modules.
    """
    modules = modules_of(things)
    return composition.compose(
        modules,
        score,
        calibrate_on,
        thresholds,
        unlabelled,
        reject_below=reject_below,
        reject_at=reject_at,
        reject_on=reject_on,
    )


@asks(always=False)
def replace(composite: Composite | str | os.PathLike[str], label: str, thing: Source) -> Composite:
    """A composite with another module for one of its labels.

    Args:
        composite: the composite, or its URI.
        label: a label of it.
        thing: the new module, or its URI.

    Raises:
        MlflowException: if something can't be found or loaded, or ``thing`` is not one module.
        IncompatibleModules: if the module does not fit.
        ValueError: if the composite has no such label, or the module answers for another one.
    """
    composite = _composite(composite)
    with download.quiet_downloads():
        found = survey(thing)
        entries = found.entries
        if len(entries) > 1 or not (entries or found.failures):
            raise MlflowException.invalid_parameter_value(
                f"thing={thing!r:.200} holds the modules of {[e.contract.label for e in entries]}; "
                f"expected one module to put in the place of {label!r}."
            )
        for entry in entries:
            check_replacement(composite, label, entry.contract.label)
        others = [module for module in composite.modules if module.label != label]
        module = _loaded(found, others)[0]
    return composition.replace(composite, label, module)


@asks(always=False)
def add(composite: Composite | str | os.PathLike[str], *things: Any) -> Composite:
    """A composite with more modules; ``things`` as in :func:`compose`.

    Raises:
        MlflowException: if something can't be found or loaded, or is no module.
        IncompatibleModules: if a module does not fit, or its label is there already.
    """
    composite = _composite(composite)
    return composition.add(composite, *modules_of(things, composite.modules))


@asks(always=False)
def remove(composite: Composite | str | os.PathLike[str], *labels: str) -> Composite:
    """A composite without the modules of these labels.

    Raises:
        MlflowException: if the composite can't be found or loaded.
        ValueError: if it lacks one of the labels, or no module would be left.
    """
    return composition.remove(_composite(composite), *labels)


@asks(always=False)
def select(composite: Composite | str | os.PathLike[str], *labels: str) -> Composite:
    """A composite with the modules of these labels only, in this order.

    Raises:
        MlflowException: if the composite can't be found or loaded.
        ValueError: if it lacks one of the labels, or none is named.
    """
    return composition.select(_composite(composite), *labels)


@asks(always=False)
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


@asks(always=False)
def modules_of(things: Any, beside: Sequence[Module] = ()) -> list[Module]:
    """All modules in ``things``, in order, if they go together; those under URIs are loaded.

    Every ``module.json`` is fetched first, and nothing else where they do not go together.

    ``beside``: modules that they are to go together with; loaded ones share their parents.
    """
    with download.quiet_downloads():
        return _loaded(survey(things), beside)


def _loaded(found: Survey, beside: Sequence[Module]) -> list[Module]:
    found.check(beside)
    for module in (*beside, *found.modules):
        remember(module.parent)
    return _sharing([*beside, *found.load()])[len(beside) :]


def _sharing(modules: Sequence[Module]) -> list[Module]:
    """The modules, where those of one parent share one object: loaded twice, it is held once."""
    parents: dict[tuple[str, str | None], Parent] = {}
    shared = []
    for module in modules:
        parent = module.parent
        first = parents.setdefault((parent.digest, parent.tokenizers), parent)
        shared.append(module if first is parent else changed(module, parent=first))
    return shared


def _composite(thing: Composite | str | os.PathLike[str]) -> Composite:
    if isinstance(thing, str | os.PathLike):
        thing = fetch.load(thing)  # type: ignore[assignment]
    if not isinstance(thing, Composite):
        raise MlflowException.invalid_parameter_value(
            f"composite: {named(thing)}; expected a composite or the URI of one. "
            "mlflow_rnnmod.compose makes one from modules."
        )
    return thing
