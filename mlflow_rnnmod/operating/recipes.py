"""Composites from recipes (:mod:`mlflow_rnnmod.tracking.recipes` says how they look)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace as changed
from typing import Any

from mlflow.exceptions import MlflowException

from mlflow_rnnmod import verbs
from mlflow_rnnmod.composition import Composite
from mlflow_rnnmod.decomposition.module import Module
from mlflow_rnnmod.tracking.recipes import Recipe, composite_digest, read_recipe


def compose_recipe(recipe: Recipe | str | os.PathLike[str]) -> Composite:
    """The composite that a recipe describes.

    Args:
        recipe: read, or the path of its file.

    Raises:
        MlflowException: if the recipe is wrong, something that it names can't be found, or it says
            a digest and gives another composite.
        IncompatibleModules: if the modules don't go together.
        ValueError: if score, thresholds or the limit do not fit them.
    """
    if not isinstance(recipe, Recipe):
        recipe = read_recipe(recipe)
    modules = _modules(recipe)
    options: dict[str, Any] = {}
    if recipe.thresholds:
        options["thresholds"] = dict(recipe.thresholds)
    if recipe.reject_below is not None:
        options["reject_below"] = float(recipe.reject_below)
    if recipe.parameters is None:
        return _checked(verbs.compose(modules, recipe.score, **options), recipe)
    if options:
        raise MlflowException.invalid_parameter_value(
            f"the recipe has parameters and {' and '.join(options)}; expected one of them: "
            "parameters are all that a composite carries."
        )
    # Scales that were fitted on joint rows stand in the recipe: nothing is fitted again.
    composite = verbs.compose(modules)
    score = recipe.score or composite.score
    made = changed(composite, score=score, parameters=dict(recipe.parameters))
    return _checked(made, recipe)


def compose_asked(asked: Mapping[str, str]) -> Composite:
    """The composite that a ``rnnmod:/`` URI asks for.

    ``asked``: ``modules``, as ``a.x@champion,b.y/3`` (or URIs, without a comma in them), or
    ``recipe``; and ``score`` and ``reject_below``.
    """
    options: dict[str, Any] = {}
    if "score" in asked:
        options["score"] = asked["score"]
    if "reject_below" in asked:
        options["reject_below"] = float(asked["reject_below"])
    if "recipe" in asked:
        return compose_recipe(changed(read_recipe(asked["recipe"]), **options))
    names = [name.strip() for name in asked["modules"].split(",") if name.strip()]
    uris = [name if ":/" in name else f"models:/{name}" for name in names]
    return verbs.compose(uris, **options)


def _modules(recipe: Recipe) -> list[Module]:
    """The modules of all entries, loaded once each."""
    if all(entry.label is None for entry in recipe.modules):
        return verbs.modules_of(recipe.uris)
    found: list[Module] = []
    for entry in recipe.modules:
        here = verbs.modules_of([entry.uri], found if entry.label is None else ())
        if entry.label is not None:
            labels = [module.label for module in here]
            if entry.label not in labels:
                raise MlflowException.invalid_parameter_value(entry.missing(labels))
            here = [module for module in here if module.label == entry.label]
        found += here
    return found


def _checked(composite: Composite, recipe: Recipe) -> Composite:
    found = composite_digest(composite)
    if recipe.digest is not None and found != recipe.digest:
        raise MlflowException.invalid_parameter_value(
            f"the recipe says the digest {recipe.digest} and gives {found}: a version that it "
            "names is another one here. Without the line 'digest:' it can be composed nevertheless."
        )
    return composite
