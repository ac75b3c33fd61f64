"""Composites made of modules, and new ones from old ones, which stay as they were."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace as changed
from typing import Any

from mlflow_rnnmod.answers.base import REJECT
from mlflow_rnnmod.answers.joining import joined
from mlflow_rnnmod.composition.composite import Composite
from mlflow_rnnmod.composition.contracts import IncompatibleModules, doubts
from mlflow_rnnmod.composition.joint import calibrated
from mlflow_rnnmod.composition.rejection import with_limit
from mlflow_rnnmod.composition.scores import (
    default_score,
    note_on_default,
    other_scores,
    score_problem,
)
from mlflow_rnnmod.composition.translation import TranslatingComposite, composite_class
from mlflow_rnnmod.composition.unlabelled import shifted
from mlflow_rnnmod.decomposition.module import Energy, Head, Module, make_contract
from mlflow_rnnmod.networks.parent import Parent
from mlflow_rnnmod.networks.trunk import Trunk


def compose(
    modules: Iterable[Module],
    score: str | None = None,
    calibrate_on: tuple[Any, Sequence[Any]] | None = None,
    thresholds: Mapping[str, float] | None = None,
    unlabelled: Any = None,
    reject_below: float | None = None,
    reject_at: float | None = None,
    reject_on: Any = None,
) -> Composite:
    """Make a model of some modules, without training.

    Args:
        modules: one for each label, of one parent or of many.
        score: how they are compared: ``"margin"`` (the default for parents of the same labels, and
            for labels without rivals), ``"coupled"`` (where modules for all that parents of fewer
            labels knew are there), ``"hybrid"`` (for others; ``"coupled_open"`` and ``"open"``
            where modules have no likelihoods), ``"bayes"``, ``"likelihood"``, ``"joint"``,
            ``"logit"``, ``"probability"``. ``"open"`` leaves likelihoods out, ``"bayes"`` adds them
            to margins of one parent, too.
        calibrate_on: inputs and what is right for them, of all the composite's labels (see
            :func:`~mlflow_rnnmod.composition.joint.calibrated`); scales and an offset are fitted
            for each module on its score (``"joint"``): one scale for the margin, or one each for
            the open head, the parent's energy and the likelihood. Offsets learn how often labels
            are met: give rows in about these shares.
        thresholds: what the scores of single labels have to reach, where labels have no rivals; 0
            for the others.
        unlabelled: inputs as the composite will be asked, some hundreds, to find one offset for
            each parent on (see :func:`~mlflow_rnnmod.composition.unlabelled.shifted`).
        reject_below: the best score from which on an answer counts; what scores lower is "none of
            these". ``predict`` can say otherwise.
        reject_at: instead of it the share of ``reject_on`` that may be rejected, 0.05 for one.
        reject_on: inputs that should be answered; by default those of ``calibrate_on``.

    Raises:
        IncompatibleModules: with every reason why the modules do not fit together.
        TypeError: if something else than modules is given.
        ValueError: if ``score`` is unknown or asks for ``calibrate_on``, a label of
            ``calibrate_on`` or ``thresholds`` is none of the modules', labels with thresholds
            are rivals, or a limit does not fit.
    """
    if isinstance(modules, Module):
        raise TypeError(f"modules is the single {modules!r}; expected a list of modules.")
    modules = tuple(modules)
    for position, module in enumerate(modules):
        if not isinstance(module, Module):
            raise TypeError(f"modules[{position}] is {module!r:.80}; expected a Module.")
    if not modules:
        raise IncompatibleModules(["there is no module; expected at least one"])
    _warn(modules)
    step: dict[str, Any] = {"verb": "compose", "labels": [module.label for module in modules]}
    recipe = (step,)
    if composite_class(modules) is TranslatingComposite:
        settings = {
            "score": score,
            "calibrate_on": calibrate_on,
            "thresholds": thresholds,
            "reject_below": reject_below,
            "reject_at": reject_at,
            "unlabelled": unlabelled,
        }
        given = [f"{name}={value!r:.60}" for name, value in settings.items() if value is not None]
        if given:
            raise ValueError(
                f"{', '.join(given)}; translations are routed by language, nothing is compared: "
                "expected none of these."
            )
        return TranslatingComposite(modules, recipe=recipe)
    if score == "joint" and calibrate_on is None:
        raise ValueError('score="joint" needs calibrate_on=(inputs, labels); got None.')
    base = default_score(modules) if score in (None, "joint") else str(score)
    parameters = {} if thresholds is None else {"thresholds": dict(thresholds)}
    if score in (None, "joint") and (note := note_on_default(modules, base)):
        recipe = ({**step, "note": note},)
    composite = Composite(modules, base, parameters, recipe)
    if calibrate_on is not None:
        also = other_scores(base) if score in (None, "joint") else ()
        composite = calibrated(composite, *calibrate_on, also=also)
        reject_on = calibrate_on[0] if reject_on is None else reject_on
    if unlabelled is not None:
        composite = shifted(composite, unlabelled)
    return with_limit(composite, reject_below, reject_at, reject_on)


def _warn(modules: Sequence[Module]) -> None:
    """Tell what nobody can know of modules that fit."""
    for doubt in doubts((m.label, m.contract, m.parent.digest) for m in modules):
        warnings.warn(f"Composing {len(modules)} modules: {doubt}.", stacklevel=3)


def whole_parent(parent: Parent) -> Composite:
    """A parent as the composite of modules that remove nothing, which is what it is."""
    trunk = Trunk.whole(parent.network.units)
    return compose(
        Module(parent, trunk, Head(), Head(), Energy(), make_contract(parent, label, trunk))
        for label in parent.labels
    )


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
    """The position of ``label``'s module, if one for the label ``new`` may take its place."""
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
    A limit to reject below holds for the score that it was found with.
    """
    _warn(modules)
    score, parameters = composite.score, dict(composite.parameters)
    answer = joined(m.contract for m in modules)
    rivals = answer is not None and answer.rivals
    notes = []
    if score == "joint":
        fitted = {m.label for m in composite.modules if m in modules}
        stays = answer == composite.answer and all(m.label in fitted for m in modules)
        if stays and score_problem(score, composite.base, composite.answer, modules) is None:
            parameters["scales"] = {m.label: parameters["scales"][m.label] for m in modules}
        else:
            score = parameters.pop("base")
            parameters.pop("scales")
            if any(step.get("chosen") == score for step in composite.recipe):
                score = default_score(composite.modules)  # rows chose it, nobody named it
            notes.append("scales fitted on joint rows were dropped")
    if parameters.pop("offsets", None) is not None:
        notes.append("offsets found from unlabelled inputs were dropped")
    if modules:
        usual = default_score(composite.modules)
        base = parameters.get("base", score)
        if score == usual or (
            answer is not None
            and answer.scored  # translations are routed
            and score_problem(score, base, answer, modules) is not None
        ):
            score = default_score(modules)
            if note := note_on_default(modules, score):
                notes.append(note)
    if REJECT in parameters and (score != composite.score or answer is None or not answer.rejects):
        del parameters[REJECT]
        notes.append("the limit to reject below was dropped, as the score is another one")
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
