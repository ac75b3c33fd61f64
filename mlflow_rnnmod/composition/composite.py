"""Composites: models made of modules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as changed
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from mlflow_rnnmod.composition.contracts import (
    NONE_OF_THESE,
    IncompatibleModules,
    find_problems,
)
from mlflow_rnnmod.composition.engine import Engine
from mlflow_rnnmod.composition.heads import ModuleOutputs
from mlflow_rnnmod.composition.inputs import check_inputs
from mlflow_rnnmod.composition.scores import SCORES, default_score, fit_joint
from mlflow_rnnmod.decomposition.module import Module


@dataclass(frozen=True, eq=False)
class Composite:
    """A model made of modules: the label whose module scores highest wins.

    It is never changed: :func:`replace`, :func:`add`, :func:`remove` and :func:`select` return new
    ones. Use :func:`compose` to make one.

    Args:
        modules: one for each label; ties go to the first.
        score: name of the score strategy that compares them (a key of ``SCORES``).
        parameters: what the strategy needs, as JSON types.
        recipe: what was done to get here, as JSON types.

    Raises:
        IncompatibleModules: if the modules do not fit together, with every reason.
        ValueError: if there is no such score strategy.
    """

    modules: tuple[Module, ...]
    score: str = "margin"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    recipe: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        problems = find_problems(
            (module.origin.get("uri") or module.label, module.contract, module.parent.digest)
            for module in self.modules
        )
        if problems:
            raise IncompatibleModules(problems)
        if self.score not in SCORES:
            raise ValueError(f"score={self.score!r}, expected one of {tuple(SCORES)}.")

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels it can answer, in the order of the columns of :meth:`scores`."""
        return tuple(module.label for module in self.modules)

    @property
    def input_kind(self) -> str:
        """``"text"``, ``"tokens"`` or ``"features"``."""
        return self.modules[0].contract.input

    @property
    def sources(self) -> list[dict[str, Any]]:
        """Where each module came from: label, URI, version, parent's and trunk's digest."""
        return [
            {
                "label": module.label,
                "uri": module.origin.get("uri"),
                "name": module.origin.get("name"),
                "version": module.origin.get("version"),
                "model_id": module.origin.get("model_id"),
                "parent": module.parent.digest,
                "trunk": module.trunk.digest,
            }
            for module in self.modules
        ]

    @cached_property
    def engine(self) -> Engine:
        """What runs the modules; made when first needed."""
        return Engine(self.modules)

    def __getstate__(self) -> dict[str, Any]:
        # Copies make an engine of their own: packed weights can't be copied.
        return {name: value for name, value in vars(self).items() if name != "engine"}

    def scores(self, inputs: Any, engine: str = "auto") -> Tensor:
        """The score of every module for every input, float ``(rows, modules)``.

        Args:
            inputs: a list of texts; of token ids, a list of whole numbers each; or of features,
                an array ``(steps, features)`` each. ``None`` and NaN count as empty text.
            engine: how modules with trunks of their own are run: ``"auto"`` takes what should be
                fastest here; ``"loop"``, ``"sliced"``, ``"threads"``, ``"stacked"`` (see
                :data:`~mlflow_rnnmod.composition.ways.WAYS`). All give the same scores.

        Raises:
            TypeError: if an input is not of the composite's kind, with its position.
            ValueError: if a token id or the size of a step is not the parents'.
        """
        inputs = check_inputs(inputs, self.input_kind, self.modules[0].contract.input_size)
        if len(inputs) == 0:
            return torch.zeros(0, len(self.modules))
        strategy = SCORES[self.score]
        return self.engine.scores(inputs, strategy, self.parameters, engine)

    def parts(self, inputs: Any) -> Tensor:
        """What the scores add up, float ``(rows, modules, parts)``; a single part for most scores.

        Args:
            inputs: as for :meth:`scores`; at least one.
        """
        inputs = check_inputs(inputs, self.input_kind, self.modules[0].contract.input_size)
        strategy = SCORES[self.score]
        count = 1 if strategy.parts is None else 2
        found = []
        for number in range(count):

            def part(outputs: ModuleOutputs, given: Mapping[str, Any], n: int = number) -> Tensor:
                return strategy.split(outputs, given)[n]

            one = changed(strategy, score=part)
            found.append(self.engine.scores(inputs, one, self.parameters))
        return torch.stack(found, dim=-1)

    def predict(
        self,
        inputs: Any,
        reject_below: float | None = None,
        reject_label: str = NONE_OF_THESE,
        engine: str = "auto",
    ) -> list[str]:
        """The label of every input.

        Args:
            inputs: as for :meth:`scores`.
            reject_below: inputs whose best score is below this answer ``reject_label``; ``None``
                rejects nothing - but the composite of a single module, which can only say yes or
                no, answers its label where the margin is at least 0.
            reject_label: the answer of rejected inputs.
            engine: as for :meth:`scores`.

        Raises:
            ValueError: if a module has the label ``reject_label``.
        """
        return self.answers(self.scores(inputs, engine), reject_below, reject_label)

    def answers(
        self,
        scores: Tensor,
        reject_below: float | None = None,
        reject_label: str = NONE_OF_THESE,
    ) -> list[str]:
        """Labels from scores ``(rows, modules)`` that :meth:`scores` returned."""
        if reject_below is None and len(self.modules) == 1 and self.score == "margin":
            reject_below = 0.0
        if reject_below is not None and reject_label in self.labels:
            raise ValueError(
                f"reject_label={reject_label!r} is the label of a module; expected another text."
            )
        if len(scores) == 0:
            return []
        best = scores.argmax(dim=1)
        labels = [self.labels[i] for i in best.tolist()]
        if reject_below is None:
            return labels
        kept = scores.amax(dim=1) >= reject_below
        return [y if k else reject_label for y, k in zip(labels, kept.tolist(), strict=True)]

    def explain(self, inp: Any) -> dict[str, float]:
        """The score of each module for one input, best first."""
        scores = self.scores([inp])[0]
        order = scores.argsort(descending=True, stable=True).tolist()
        return {self.labels[i]: float(scores[i]) for i in order}

    def to(self, device: torch.device | str) -> Composite:
        """The same composite with its parents on ``device``."""
        parents = {}
        for module in self.modules:
            parent = module.parent
            if parent.digest not in parents:
                parents[parent.digest] = parent.to(device)
        modules = tuple(changed(m, parent=parents[m.parent.digest]) for m in self.modules)
        return changed(self, modules=modules)

    def __repr__(self) -> str:
        parents = len({module.parent.digest for module in self.modules})
        return (
            f"Composite({list(self.labels)}, score={self.score!r}, "
            f"{parents} parent{'s' if parents > 1 else ''})"
        )


def compose(
    modules: Iterable[Module],
    score: str | None = None,
    calibrate_on: tuple[Any, Sequence[str]] | None = None,
) -> Composite:
    """Make a model of some modules, without training.

    Args:
        modules: one for each label, of one parent or of many.
        score: how they are compared: ``"margin"`` (the default for one parent), ``"open"`` (for
            several), ``"joint"``, ``"logit"``, ``"probability"``.
        calibrate_on: inputs and their labels, of all the composite's labels; scales and an offset
            are fitted for each module on its score (``"joint"``): one scale for the margin, or one
            each for the open head and the parent's energy.

    Raises:
        IncompatibleModules: with every reason why the modules do not fit together.
        TypeError: if something else than modules is given.
        ValueError: if ``score`` is unknown or asks for ``calibrate_on``, or a label of
            ``calibrate_on`` is none of the modules'.
    """
    if isinstance(modules, Module):
        raise TypeError(f"modules is the single {modules!r}; expected a list of modules.")
    modules = tuple(modules)
    for position, module in enumerate(modules):
        if not isinstance(module, Module):
            raise TypeError(f"modules[{position}] is {module!r:.80}; expected a Module.")
    if not modules:
        raise IncompatibleModules(["there is no module; expected at least one"])
    recipe = ({"verb": "compose", "labels": [module.label for module in modules]},)
    if score == "joint" and calibrate_on is None:
        raise ValueError('score="joint" needs calibrate_on=(inputs, labels); got None.')
    base = default_score(modules) if score in (None, "joint") else str(score)
    composite = Composite(modules, base, {}, recipe)
    return composite if calibrate_on is None else calibrated(composite, *calibrate_on)


def calibrated(composite: Composite, inputs: Any, labels: Sequence[str]) -> Composite:
    """The composite with scales and an offset for each module, fitted on rows of all its labels.

    Raises:
        ValueError: if labels are unknown, or as many as the inputs are expected and are not there.
    """
    unknown = sorted({str(y) for y in labels if y not in composite.labels})
    if unknown:
        raise ValueError(
            f"calibrate_on has the labels {unknown}, which no module answers for; expected some of "
            f"{list(composite.labels)}."
        )
    if len(inputs) != len(labels) or len(labels) == 0:
        raise ValueError(
            f"calibrate_on has {len(inputs)} inputs and {len(labels)} labels; expected as many of "
            "both, and at least one."
        )
    if composite.score == "joint":  # scales are fitted anew, on the score underneath
        parameters = {k: v for k, v in composite.parameters.items() if k not in ("base", "scales")}
        base = composite.parameters["base"]
        composite = changed(composite, score=base, parameters=parameters)
    index = {label: i for i, label in enumerate(composite.labels)}
    targets = torch.tensor([index[label] for label in labels])
    fitted = fit_joint(composite.parts(inputs), targets)
    scales = {label: list(found) for label, found in zip(composite.labels, fitted, strict=True)}
    step = {"verb": "calibrate", "rows": len(labels)}
    return changed(
        composite,
        score="joint",
        parameters={**composite.parameters, "base": composite.score, "scales": scales},
        recipe=(*composite.recipe, step),
    )
