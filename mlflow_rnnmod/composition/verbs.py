"""Reuse and replacement: new composites from old ones, which stay as they were."""

from __future__ import annotations

from dataclasses import replace as changed
from typing import Any

from mlflow_rnnmod.composition.composite import Composite
from mlflow_rnnmod.composition.kinds import competes, output_of
from mlflow_rnnmod.composition.scores import default_score
from mlflow_rnnmod.decomposition.module import Module


def replace(composite: Composite, label: str, module: Module) -> Composite:
    """The composite with another module in the place of ``label``'s.

    Raises:
        ValueError: if no module answers for ``label``, or the new one answers for another label.
        IncompatibleModules: if the new module does not fit the others.
    """
    position = check_replacement(composite, label, module.label)
    modules = list(composite.modules)
    modules[position] = module
    step = {"verb": "replace", "label": label, **_named(module)}
    return _rebuilt(composite, tuple(modules), step)


def check_replacement(composite: Composite, label: str, new: str) -> int:
    """The position of ``label``'s module, if one for the label ``new`` may take its place.

    Raises:
        ValueError: if no module answers for ``label``, or the new one answers for another label.
    """
    position = _position(composite, label)
    if new != label:
        raise ValueError(
            f"label={label!r} would be replaced by a module for {new!r}; expected a module for the "
            "same label. To swap labels, remove() one and add() the other."
        )
    return position


def add(composite: Composite, *modules: Module) -> Composite:
    """The composite with more modules behind its own.

    Raises:
        ValueError: if no module is given.
        IncompatibleModules: if one does not fit, or answers for a label that is there already.
    """
    if not modules:
        raise ValueError("modules is empty; expected at least one module to add.")
    step = {"verb": "add", "modules": [{"label": m.label, **_named(m)} for m in modules]}
    return _rebuilt(composite, (*composite.modules, *modules), step)


def remove(composite: Composite, *labels: str) -> Composite:
    """The composite without the modules of some labels.

    Raises:
        ValueError: if a label is not there.
        IncompatibleModules: if no module would be left.
    """
    gone = {_position(composite, label) for label in labels}
    modules = tuple(m for i, m in enumerate(composite.modules) if i not in gone)
    return _rebuilt(composite, modules, {"verb": "remove", "labels": list(labels)})


def select(composite: Composite, *labels: str) -> Composite:
    """The composite of some labels' modules alone, in this order.

    Raises:
        ValueError: if a label is not there.
        IncompatibleModules: if no label is given, or one twice.
    """
    modules = tuple(composite.modules[_position(composite, label)] for label in labels)
    return _rebuilt(composite, modules, {"verb": "select", "labels": list(labels)})


def _position(composite: Composite, label: str) -> int:
    if label not in composite.labels:
        raise ValueError(
            f"label={label!r} is none of the composite's labels {list(composite.labels)}."
        )
    return composite.labels.index(label)


def _named(module: Module) -> dict[str, Any]:
    return {"uri": module.origin.get("uri"), "parent": module.parent.digest}


def _rebuilt(composite: Composite, modules: tuple[Module, ...], step: dict[str, Any]) -> Composite:
    """A composite of ``modules`` with the old one's score, or the default where it no longer fits.

    Scales that were fitted on joint rows hold for the modules they were fitted with: modules that
    stay keep theirs, and as soon as one is without, or another kind of answer is given, the score
    falls back to the one underneath. Thresholds are a label's own, whichever module answers for it.
    """
    score, parameters = composite.score, dict(composite.parameters)
    output = output_of(m.contract.output for m in modules)
    rivals = competes(m.contract for m in modules)
    notes = []
    if score == "joint":
        fitted = {m.label for m in composite.modules if m in modules}
        same = output == composite.output and rivals == composite.rivals
        if same and all(m.label in fitted for m in modules):
            parameters["scales"] = {m.label: parameters["scales"][m.label] for m in modules}
        else:
            score = parameters.pop("base")
            parameters.pop("scales")
            notes.append("scales fitted on joint rows were dropped")
    if modules and (score == default_score(composite.modules) or (score == "open" and not rivals)):
        score = default_score(modules)
    if thresholds := parameters.pop("thresholds", {}):
        labels = [m.label for m in modules]
        kept = {} if rivals else {y: t for y, t in thresholds.items() if y in labels}
        if kept:
            parameters["thresholds"] = kept
        if rivals:
            notes.append("thresholds were dropped, as the labels are rivals now")
    if notes:
        step = {**step, "note": "; ".join(notes)}
    return changed(
        composite,
        modules=modules,
        score=score,
        parameters=parameters,
        recipe=(*composite.recipe, step),
    )
