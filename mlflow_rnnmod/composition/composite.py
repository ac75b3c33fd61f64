"""Composites: models made of modules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from dataclasses import replace as changed
from typing import Any

import torch
from torch import Tensor

from mlflow_rnnmod._locks import cached_property
from mlflow_rnnmod.answers import NONE_OF_THESE, Answer, Columns
from mlflow_rnnmod.answers.base import REJECT, check_limit, check_thresholds
from mlflow_rnnmod.answers.joining import joined
from mlflow_rnnmod.composition.contracts import IncompatibleModules, find_problems
from mlflow_rnnmod.composition.coupling import Coupling
from mlflow_rnnmod.composition.engine import Engine
from mlflow_rnnmod.composition.evidence import Evidence
from mlflow_rnnmod.composition.scores import (
    BESIDE_TIES,
    ENERGY_WEIGHTS,
    SCORES,
    ScoreStrategy,
    check_score,
    check_scores,
    part_weights,
)
from mlflow_rnnmod.decomposition.module import Module
from mlflow_rnnmod.inputs import Input


@dataclass(frozen=True, eq=False)
class Composite:
    """A model made of modules. What it answers depends on theirs (:attr:`output`).

    One label for an input (``"label"``): the label whose module scores highest wins. A label for
    each step (``"tags"``): the same at each step. Several labels (``"multilabel"``): each that
    reaches its own threshold. A ``"list"`` of labels: the best one at each place up to the first
    that ends the list, where modules answer for all labels of their parents; else each label that
    reaches its threshold, by the chance that it is anywhere in the list.

    It is never changed: :func:`replace`, :func:`add`, :func:`remove` and :func:`select` return new
    ones. Use :func:`~mlflow_rnnmod.composition.compose` to make one.

    Args:
        modules: one for each label; ties go to the first.
        score: name of the score strategy that compares them (a key of ``SCORES``).
        parameters: what the strategy needs, as JSON types; ``"thresholds"`` by label, 0 where
            there is none; and ``"reject_below"``, the best score from which on an answer counts.
        recipe: what was done to get here, as JSON types.

    Raises:
        IncompatibleModules: if the modules do not fit together, with every reason.
        ValueError: if there is no such score strategy, rivals have thresholds, or the limit does
            not fit.
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
        self.check_settings()

    def check_settings(self) -> None:
        """Whether score and thresholds fit the modules.

        Raises:
            ValueError: if they do not.
        """
        check_score(self.score, self.base, self.answer, self.modules)
        thresholds = self.parameters.get("thresholds", {})
        check_thresholds(thresholds, self.labels, self.rivals)
        check_limit(self.parameters.get(REJECT), self.answer.rejects)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels it can answer, in the order of the columns of :meth:`scores`."""
        return tuple(module.label for module in self.modules)

    @cached_property
    def answer(self) -> Answer:
        """What the modules answer together.

        Modules of one kind answer as they do alone. Beside modules that answer one label for the
        whole input, those that answer each step do so too, by the step where they score highest
        (see :func:`~mlflow_rnnmod.answers.lists.whole_input`).
        """
        found = joined(module.contract for module in self.modules)
        assert found is not None  # as the contracts have no problems
        return found

    @property
    def output(self) -> str:
        """Name of the kind of answer: ``"label"``, ``"multilabel"``, ``"tags"`` or ``"list"``."""
        return self.answer.name

    @property
    def end_label(self) -> str | None:
        """The label that ends a list, where a module answers for it."""
        ends = (m.label for m in self.modules if m.label == m.contract.end_label)
        return next(ends, None) if self.answer.ends else None

    @property
    def rivals(self) -> bool:
        """Whether labels compete; else each is compared with a threshold of its own."""
        return self.answer.rivals

    @property
    def base(self) -> str:
        """Name of the score strategy, or of the one underneath scales fitted on joint rows."""
        return self.parameters["base"] if self.score == "joint" else self.score

    @property
    def likely(self) -> bool:
        """Whether its scores have likelihoods in them."""
        return self.base in SCORES and SCORES[self.base].likelihood

    @property
    def coupled(self) -> bool:
        """Whether labels of parents that knew fewer are tied to the others."""
        return self.base in SCORES and SCORES[self.base].tied

    @property
    def input(self) -> Input:
        """What it reads."""
        return self.modules[0].contract.reads

    @property
    def input_kind(self) -> str:
        """The input's name: a key of ``INPUTS``."""
        return self.input.name

    @property
    def input_size(self) -> Any:
        """Size of its vocabulary, of one vector, or of images, as all of its modules read them."""
        return self.input.joint_size([m.contract.input_size for m in self.modules])

    def checked(self, inputs: Any) -> Any:
        """``inputs`` as the parents read them; see :meth:`Input.check`."""
        return self.input.check(inputs, self.input_size)

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
                "tracking_uri": module.origin.get("tracking_uri"),
                "parent": module.parent.digest,
                "trunk": module.trunk.digest,
            }
            for module in self.modules
        ]

    @cached_property
    def engine(self) -> Engine:
        """What runs the modules; made when first needed."""
        return Engine(self.modules, output=self.output)

    @cached_property
    def evidence(self) -> Evidence:
        """What the modules' likelihoods say of inputs; made when first needed."""
        return Evidence(self.modules)

    def __getstate__(self) -> dict[str, Any]:
        # Copies make an engine of their own: packed weights can't be copied.
        made = ("engine", "evidence")
        return {name: value for name, value in vars(self).items() if name not in made}

    def scores(self, inputs: Any, engine: str = "auto") -> Tensor:
        """The score of every module for every input.

        Args:
            inputs: a list of texts; of token ids, a list of whole numbers each; or of features,
                an array ``(steps, features)`` each. ``None`` and NaN count as empty text. A text
                that is split into words already is a list of them.
            engine: how modules with trunks of their own are run: ``"auto"`` takes what should be
                fastest here; ``"loop"``, ``"sliced"``, ``"threads"``, ``"stacked"`` (see
                :data:`~mlflow_rnnmod.networks.many.WAYS`). All give the same scores.

        Returns:
            float ``(rows, modules)``; for tags and lists ``(rows, steps, modules)``, with steps
            counted from a row's first and NaN behind its last.

        Raises:
            TypeError: if an input is not of the composite's kind, with its position.
            ValueError: if a token id or the size of a step is not the parents', or a score is NaN.
        """
        inputs = self.checked(inputs)
        if len(inputs) == 0:
            steps = (0,) if self.answer.stepwise else ()
            return torch.zeros(0, *steps, len(self.modules))
        strategy, found = self._strategy(), None
        if strategy.tied:
            found = self._added_up(self.tied_parts(inputs, engine))
        elif strategy.network or self.answer.stepwise:
            found = self.engine.scores(inputs, strategy, self.settings, engine)
        if strategy.likelihood:
            votes = self.votes(inputs, found)
            if self.score == "joint":
                scales = [self.parameters["scales"][label][-2] for label in self.labels]
                votes = votes * votes.new_tensor(scales)
            found = votes if found is None else found + votes
        assert found is not None
        offsets = self.parameters.get("offsets")
        if offsets:
            found = found + found.new_tensor([offsets[label] for label in self.labels])
        check_scores(found, self.answer.stepwise)
        return found

    def tied_parts(self, inputs: Any, engine: str = "auto") -> Tensor:
        """What scores of tied labels add up, but likelihoods: ``(rows, modules, parts)``."""
        assert self._coupling is not None  # as the score was checked
        margins, own, energy = self.engine.parts(inputs, SCORES[self.base], {}, engine).unbind(-1)
        tied, part = self._coupling.tied(margins), self._beside_ties
        return torch.stack([tied + part * own, part * energy], dim=-1)

    @cached_property
    def _beside_ties(self) -> float:
        """What votes count beside what labels that are tied say of one another."""
        return self.evidence.density.beside_ties if self.likely else BESIDE_TIES

    @cached_property
    def _coupling(self) -> Coupling | None:
        return Coupling.of(self.modules)

    def _added_up(self, parts: Tensor) -> Tensor:
        """Scores from their parts, but likelihoods: ``(rows, modules)``."""
        count = parts.shape[-1]
        if self.score == "joint":
            fitted = parts.new_tensor([self.parameters["scales"][label] for label in self.labels])
            return (parts * fitted[:, :count]).sum(-1) + fitted[:, -1]
        return (parts * part_weights(parts, self.score, self.settings)).sum(-1)

    def votes(self, inputs: Any, scores: Tensor | None = None) -> Tensor:
        """What likelihoods add to scores, of their shape.

        Args:
            inputs: checked.
            scores: where each step is answered, ``(rows, steps, modules)``.
        """
        if not self.answer.stepwise:
            votes = self.evidence.votes(inputs)
            return self._beside_ties * votes if self.coupled else votes
        assert scores is not None
        return self.evidence.step_votes(inputs, scores.shape[1])

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """The parameters, with what depends on the kinds of modules where it is not given."""
        kinds = {module.contract.output for module in self.modules}
        if len(kinds) == 1 or self.base not in ENERGY_WEIGHTS:
            return self.parameters
        return {"energy_weight": ENERGY_WEIGHTS[self.base][1], **self.parameters}

    def _strategy(self) -> ScoreStrategy:
        strategy, base = SCORES[self.score], SCORES[self.base]
        if self.score != "joint" or base.tied:  # these are scaled when they are tied
            return base
        return changed(strategy, energy=base.energy, likelihood=base.likelihood)

    def predict(
        self,
        inputs: Any,
        reject_below: float | None = None,
        reject_label: str = NONE_OF_THESE,
        engine: str = "auto",
    ) -> list[Any]:
        """The answer to every input: a label, or a list of labels (see :attr:`output`).

        Args:
            inputs: as for :meth:`scores`.
            reject_below: inputs, or steps, whose best score - or, where likelihoods are compared,
                whose :meth:`familiarity` - is below this answer ``reject_label``; ``None`` for the
                limit that the composite carries (:attr:`parameters`). Without one nothing is
                rejected, but the composite of a single module, which can only say yes or no,
                answers its label where the margin is at least 0. ``-inf`` rejects nothing.
            reject_label: the answer of rejected inputs.
            engine: as for :meth:`scores`.

        Returns:
            a label for each input, or a list of labels: for tags one for each step that was read (a
            token of the tokenizer; none for what it cut off), for lists and several labels as many
            as there are, perhaps none.

        Raises:
            ValueError: if a module has the label ``reject_label``, or ``reject_below`` is given
                where labels have thresholds.
        """
        scores = self.scores(inputs, engine)
        limited = self.limit(reject_below) is not None
        known = self.known(inputs) if limited else None
        return self.answers(scores, reject_below, reject_label, known)

    def limit(self, reject_below: float | None = None) -> float | None:
        """From where on an answer counts: what is said, or else what the composite carries."""
        own: float | None = self.parameters.get(REJECT)
        return own if reject_below is None else reject_below

    def known(self, inputs: Any) -> Tensor | None:
        """:meth:`familiarity`, where it is something else than the best score."""
        return self.familiarity(inputs) if self.likely and not self.answer.stepwise else None

    def familiarity(self, inputs: Any) -> Tensor:
        """How usual inputs are: what ``reject_below`` is compared with.

        The best score, but where likelihoods are compared: there it adds up half the
        log-probability of the open head, the energy of the parent and the log-likelihood for the
        input's length, the last two in deviations from what is usual for rows like those that the
        parent was trained on, for the most familiar of the labels.

        Args:
            inputs: as for :meth:`scores`.

        Returns:
            float ``(rows,)``; ``(rows, steps)`` for answers that have one for each step.
        """
        if not self.likely or self.answer.stepwise:
            return self.scores(inputs).amax(dim=-1)
        inputs = self.checked(inputs)
        if len(inputs) == 0:
            return torch.zeros(0)
        found = self.evidence.standard(inputs)
        if SCORES[self.base].network:
            both = {"energy_weight": 2.0}
            found = found + self.engine.scores(inputs, SCORES["open"], both) / 2
        return found.amax(dim=1)

    def answers(
        self,
        scores: Tensor,
        reject_below: float | None = None,
        reject_label: str = NONE_OF_THESE,
        familiarity: Tensor | None = None,
    ) -> list[Any]:
        """Answers from what :meth:`scores` returned.

        Args:
            scores: see there.
            reject_below: see :meth:`predict`.
            reject_label: see :meth:`predict`.
            familiarity: what :meth:`familiarity` returned, to compare ``reject_below`` with; by
                default the best score.
        """
        columns = Columns(
            labels=self.labels,
            end_label=self.end_label,
            thresholds=self.parameters.get("thresholds", {}),
            threshold=0.5 if self.score == "probability" else 0.0,
            single=len(self.modules) == 1 and self.score == "margin",
            odds=SCORES[self.score].odds,
            reject_below=self.limit(reject_below),
            reject_label=reject_label,
            familiarity=familiarity,
        )
        return self.answer.answers(scores, columns)

    def explain(self, inp: Any) -> Any:
        """The score of each module for one input, best first: a dict, or one for each step."""
        scores = self.scores([inp])[0]
        if scores.ndim == 1:
            return self._sorted(scores)
        return [self._sorted(step) for step in scores if not bool(step.isnan().all())]

    def _sorted(self, scores: Tensor) -> dict[str, float]:
        order = scores.argsort(descending=True, stable=True).tolist()
        return {self.labels[i]: float(scores[i]) for i in order}

    def to(self, device: torch.device | str) -> Composite:
        """The same composite with its parents on ``device``."""
        parents = {}
        for module in self.modules:
            parent = module.parent
            if parent.digest not in parents:
                parents[parent.digest] = moved = parent.to(device)
                vars(moved)["digest"] = parent.digest  # weights are the same wherever they are
        modules = tuple(changed(m, parent=parents[m.parent.digest]) for m in self.modules)
        return changed(self, modules=modules)

    def __repr__(self) -> str:
        parents = len({module.parent.digest for module in self.modules})
        return (
            f"Composite({list(self.labels)}, score={self.score!r}, "
            f"{parents} parent{'s' if parents > 1 else ''})"
        )
