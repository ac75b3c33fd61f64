"""Modules that score: a trunk each, and heads over its readouts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from mlflow_rnnmod._locks import cached_property
from mlflow_rnnmod.answers import Labelled, Sample
from mlflow_rnnmod.decomposition.combinations import Choice, fit_guarded
from mlflow_rnnmod.decomposition.config import DecompositionConfig
from mlflow_rnnmod.decomposition.examples import RowExamples
from mlflow_rnnmod.decomposition.fitting import (
    Fit,
    calibration_table,
    fit_open_heads,
    fit_report,
    report_table,
)
from mlflow_rnnmod.decomposition.folding import LABELS, guarded_trunks
from mlflow_rnnmod.decomposition.likelihoods import report_votes
from mlflow_rnnmod.decomposition.material import Material, prepare_material
from mlflow_rnnmod.decomposition.module import Module, make_contract
from mlflow_rnnmod.decomposition.rules import RULES
from mlflow_rnnmod.decomposition.sizing import SIZING, Job, Made, Progress
from mlflow_rnnmod.decomposition.statistics import ActivationStatistics
from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.networks.parent import Parent


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
        """Trunks and heads of all labels; open heads for the last setting alone."""
        asked = self.config.repairs
        trunks, repairs = guarded_trunks(self.material, self.statistics, removed, asked)
        told = partial(self.told, stage)
        # Trunks without guesses were run already where labels are few; else once, at the end.
        plain = len(trunks) <= LABELS or not stage.startswith(SIZING)
        key = (*(trunk.digest for trunk in trunks), str(plain))
        if key not in self._known:
            self._known[key] = fit_guarded(
                self.material,
                self.statistics,
                removed if plain else None,
                trunks,
                repairs,
                self._fits,
                told,
            )
            fits = {y: h.fit for y, h in enumerate(self._known[key][1])}
            self._fits.update({y: fit for y, fit in fits.items() if fit is not None})
        trunks, heads = self._known[key]
        if last:
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
