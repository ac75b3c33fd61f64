"""Modules that score: a trunk each, heads over its readouts, and which repairs go together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from mlflow_rnnmod._locks import cached_property
from mlflow_rnnmod.answers import Answer, Labelled, Sample
from mlflow_rnnmod.decomposition.config import DecompositionConfig
from mlflow_rnnmod.decomposition.fitting import (
    Fit,
    FittedHeads,
    Told,
    calibration_table,
    fit_all,
    fit_open_heads,
    fit_report,
    report_table,
)
from mlflow_rnnmod.decomposition.folding import guarded_trunks, make_trunks
from mlflow_rnnmod.decomposition.likelihoods import report_votes
from mlflow_rnnmod.decomposition.material import Material, prepare_material
from mlflow_rnnmod.decomposition.module import Module, make_contract
from mlflow_rnnmod.decomposition.rules import RULES
from mlflow_rnnmod.decomposition.sizing import Job, Made, Progress
from mlflow_rnnmod.decomposition.splitting import RowExamples
from mlflow_rnnmod.decomposition.statistics import ActivationStatistics
from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.networks.parent import Parent
from mlflow_rnnmod.networks.trunk import Trunk

Heads = Sequence[FittedHeads]
Choice = tuple[list[Trunk], list[FittedHeads]]


# Repairs are guarded by a loss. That does not say that the composite of all labels answers better:
# a lower loss can turn more right answers into wrong ones than the other way round. So what was
# chosen is compared with less, by the composite's own metric, on rows that nothing was fitted on:
# heads are fitted on training rows, and each calibration row is judged by calibrations that were
# fitted without it.
def held_out_table(heads: Heads) -> Tensor:
    """Margins of all labels on calibration rows, ``(observations, labels)``."""
    return torch.stack([found.held_out for found in heads], dim=1)


def clearly_better(answer: Answer, one: Heads, other: Heads, truth: Labelled) -> bool:
    """Whether ``other`` answers more rows right than ``one``, by more than chance.

    By more than the standard error of the difference, row by row.
    """
    tables = held_out_table(one), held_out_table(other)
    scores = [answer.measure(table, truth)[answer.metric] for table in tables]
    change = _right(answer, tables[1], truth) - _right(answer, tables[0], truth)
    error = float(change.std(correction=0)) / max(len(change), 1) ** 0.5
    return scores[1] - scores[0] > max(error, 1e-9)


def _right(answer: Answer, table: Tensor, truth: Labelled) -> Tensor:
    """1 for each answer that is right, float64."""
    answers, right = answer.said(table, truth)
    return (answers == right).all(dim=1).double()


def fit_guarded(
    material: Material,
    statistics: ActivationStatistics,
    removed: Sequence[Mapping[str, Tensor]] | None,
    trunks: list[Trunk],
    repairs: tuple[str, ...],
    start: Mapping[int, Fit] | None = None,
    told: Told | None = None,
) -> Choice:
    """Trunks and heads with all repairs that help, or with fewer where that is clearly better.

    Args:
        material: the rows.
        statistics: what guesses are made from.
        removed: for each label what its trunk leaves out, to try trunks without guesses too;
            ``None`` leaves guesses as they are.
        trunks: of each label, as :func:`~mlflow_rnnmod.decomposition.folding.guarded_trunks` gives
            them, with their ``repairs``.
        repairs: which to try.
        start: earlier refits of the labels, from which these begin.
        told: called with labels done and labels in all.

    Returns:
        the trunks and the heads that are taken.
    """
    heads, truth = _fitted(material, trunks, repairs, start, told), material.calibrated_on
    answer = material.parent.network.config.answer
    if any("refit" in fitted.kept for fitted in heads) and bool(truth.known.any()):
        fewer = _fitted(material, trunks, tuple(name for name in repairs if name != "refit"))
        heads = fewer if clearly_better(answer, heads, fewer, truth) else heads
    found = trunks, heads
    return found if removed is None else unguessed(material, statistics, removed, found, repairs)


def unguessed(
    material: Material,
    statistics: ActivationStatistics,
    removed: Sequence[Mapping[str, Tensor]],
    found: Choice,
    repairs: tuple[str, ...],
) -> Choice:
    """What was ``found``, or calibrated trunks without guesses where they are clearly better."""
    truth, answer = material.calibrated_on, material.parent.network.config.answer
    guessed = "fold" in repairs and not all(trunk.full for trunk in found[0])
    if not (guessed and bool(truth.known.any())):
        return found
    plain = make_trunks(removed, statistics, fold=False)
    heads = _fitted(material, plain, tuple(name for name in repairs if name == "calibrate"))
    return (plain, heads) if clearly_better(answer, found[1], heads, truth) else found


def _fitted(
    material: Material,
    trunks: Sequence[Trunk],
    repairs: tuple[str, ...],
    start: Mapping[int, Fit] | None = None,
    told: Told | None = None,
) -> list[FittedHeads]:
    found = fit_all(material, dict(enumerate(trunks)), repairs, start, told)
    return [found[label] for label in range(len(trunks))]


@dataclass(frozen=True, eq=False)
class HeadJob(Job):
    """Modules with heads.

    Args:
        material: the rows that heads are fitted on and measured on.
    """

    material: Material

    examples = RowExamples()
    """What such networks are decomposed with."""

    @classmethod
    def start(
        cls,
        parent: Parent,
        statistics: ActivationStatistics,
        config: DecompositionConfig,
        told: Progress,
        sample: Sample,
        calibration: Rows,
        report: Rows,
    ) -> HeadJob:
        """The job, with its material."""
        material = prepare_material(parent, sample, calibration, report, config)
        return cls(parent, statistics, config, told, material)

    @staticmethod
    def sample(parent: Parent, train: Rows, config: DecompositionConfig) -> Sample:
        """The rows to watch, balanced over labels."""
        published = RULES[config.rule].published
        answer, labels = parent.network.config.answer, len(parent.labels)
        found: Sample = answer.draw(train, labels, config.rows_per_label, config.seed, published)
        return found

    @staticmethod
    def warnings(parent: Parent, train: Rows, sample: Sample, rule: str) -> list[str]:
        """What the user should be told of the training rows."""
        seen = Labelled(sample.rows, parent.network)
        missing = [label for i, label in enumerate(parent.labels) if not seen.positive(i).any()]
        told = f"no training rows for {missing}: their modules know nothing of their label"
        return [told] if missing else []

    def make(self, removed: Sequence[Mapping[str, Tensor]], stage: str, last: bool = False) -> Made:
        """Trunks and heads of all labels.

        Open heads, and trunks without guesses beside the others, for the last setting alone.
        """
        asked = self.config.repairs
        trunks, repairs = guarded_trunks(self.material, self.statistics, removed, asked)
        told = partial(self.told, stage)
        key = tuple(trunk.digest for trunk in trunks)
        if key not in self._known:
            more = self._fits, told
            found = fit_guarded(self.material, self.statistics, None, trunks, repairs, *more)
            self._known[key] = found
            fits = {y: h.fit for y, h in enumerate(found[1])}
            self._fits.update({y: fit for y, fit in fits.items() if fit is not None})
        trunks, heads = self._known[key]
        if last:
            given = self.material, self.statistics, removed
            trunks, heads = unguessed(*given, self._known[key], repairs)
            by_label = dict(enumerate(trunks))
            opened = fit_open_heads(self.material, by_label, dict(enumerate(heads)), told)
            heads = [opened[label] for label in by_label]
        return Made(trunks, heads, removed)

    def sized(self, made: Made) -> float:
        """How good all modules together are, on the calibration rows."""
        table, truth = calibration_table(made.rest), self.material.calibrated_on
        return self.answer.measure(table, truth)[self.metric]

    def error(self, made: Made, other: Made) -> float:
        """Of the answers to calibration rows."""
        truth = self.material.calibrated_on
        one, two = (
            self.answer.shares(calibration_table(each.rest), truth) for each in (made, other)
        )
        return float((one - two).std(correction=0)) / max(len(one), 1) ** 0.5

    def reported(self, made: Made) -> dict[str, float]:
        """How good they are on the report rows."""
        return self.answer.measure(self._table(made), self.material.reported_on)

    def _table(self, made: Made) -> Tensor:
        """Calibrated margins on the report rows, which are run when they are asked for."""
        key = tuple((t.digest, h.kept) for t, h in zip(made.trunks, made.rest, strict=True))
        if key not in self._tables:
            trunks = dict(enumerate(made.trunks))
            found = fit_report(self.material, trunks, dict(enumerate(made.rest)))
            self._tables[key] = report_table(list(found.values()))
        return self._tables[key]

    @cached_property
    def _known(self) -> dict[tuple[str, ...], Choice]:
        """Settings that were tried, by their trunks' digests."""
        return {}

    @cached_property
    def _tables(self) -> dict[tuple[tuple[str, tuple[str, ...]], ...], Tensor]:
        return {}

    @cached_property
    def _fits(self) -> dict[int, Fit]:
        """The last refit of each label."""
        return {}

    @cached_property
    def parent_sized(self) -> float:
        """How good the parent is by itself, on the calibration rows."""
        logits = self._logits("calibration")
        return self.answer.measure(logits, self.material.calibrated_on)[self.metric]

    @cached_property
    def parent_reported(self) -> dict[str, float]:
        """How good the parent is by itself, on the report rows."""
        logits = self._logits("report")
        return self.answer.measure(logits, self.material.reported_on)

    def _logits(self, kind: str) -> Tensor:
        """The parent's own logits on rows of a kind, ``(observations, labels)``, on the CPU."""
        readouts = self.material.readouts(self.material.full, kind)
        return self.parent.network.logits(readouts.to(self.parent.device)).cpu()

    def likely(self, made: Made, modules: tuple[Module, ...]) -> dict[str, float]:
        """As :meth:`Job.likely`, on the report rows: for one label a row."""
        if self.answer.stepwise or not self.answer.rivals:
            return {}
        votes = report_votes(modules, self.material.report)
        if votes is None:
            return {}
        own = torch.nn.functional.logsigmoid(self._table(made))
        truth, metric = self.material.reported_on, self.metric
        return {
            f"bayes_{metric}": self.answer.measure(own + votes, truth)[metric],
            f"likelihood_{metric}": self.answer.measure(votes, truth)[metric],
        }

    @property
    def rows(self) -> int:
        """Number of report rows."""
        return len(self.material.report)

    def modules(
        self, made: Made, share: float, words: Mapping[str, str], overlap: Tensor
    ) -> tuple[Module, ...]:
        """The modules, with their figures on the report rows."""
        parent, truth, config = self.parent, self.material.reported_on, self.config
        answers, right = self.answer.said(self._table(made), truth)
        parents, _ = self.answer.said(self._logits("report"), truth)
        how = {"rule": config.rule, "removal": share, "seed": config.seed, "rows": dict(words)}
        modules = []
        for index, (trunk, fitted) in enumerate(zip(made.trunks, made.rest, strict=True)):
            label = parent.labels[index]
            others = torch.cat([overlap[index, :index], overlap[index, index + 1 :]])
            figures = {
                **label_figures(answers[:, index], right[:, index]),
                **of_parent(label_figures(parents[:, index], right[:, index])),
                "agreement": float((answers[:, index] == parents[:, index]).double().mean()),
                **parent.network.shares_kept(trunk),
                "jaccard": float(others.mean()),
            }
            modules.append(
                Module(
                    parent=parent,
                    trunk=trunk,
                    head=fitted.head,
                    open_head=fitted.open_head,
                    energy=self.material.energy,
                    contract=replace(make_contract(parent, label), mask_steps=trunk.steps),
                    figures=figures,
                    made={**how, "repairs": list(fitted.kept)},
                )
            )
        return tuple(modules)


def label_figures(answered: Tensor, truth: Tensor) -> dict[str, float]:
    """Precision, recall, F1, accuracy and support of yes-or-no answers, bool ``(rows,)``.

    Precision is 0 where nothing was answered, recall where there is nothing to find.
    """
    hits = float((answered & truth).sum())
    precision = hits / max(float(answered.sum()), 1.0)
    recall = hits / max(float(truth.sum()), 1.0)
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / max(precision + recall, 1e-12),
        "accuracy": float((answered == truth).double().mean()),
        "support": float(truth.sum()),
    }


def of_parent(figures: Mapping[str, float]) -> dict[str, float]:
    """Figures of the parent's own answers, to stand beside a module's."""
    return {f"parent_{name}": figures[name] for name in ("precision", "recall", "f1")}
