"""One parent under study: masks of any rule, and how good what is composed of them is."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from benchmarks.positions import positions_on, readout_through, share_on
from mlflow_rnnmod.answers import draw_sample
from mlflow_rnnmod.decomposition.config import REPAIRS, DecompositionConfig
from mlflow_rnnmod.decomposition.fitting import (
    FittedHeads,
    fit_all,
    fit_open_heads,
    fit_report,
    report_table,
)
from mlflow_rnnmod.decomposition.folding import guarded_trunks, make_trunk
from mlflow_rnnmod.decomposition.head_job import Choice, fit_guarded
from mlflow_rnnmod.decomposition.likelihoods import with_likelihoods
from mlflow_rnnmod.decomposition.material import Material, prepare_material
from mlflow_rnnmod.decomposition.module import Module, make_contract
from mlflow_rnnmod.decomposition.rules import RULES, random_like
from mlflow_rnnmod.decomposition.sharing import group_labels, units_worth
from mlflow_rnnmod.decomposition.statistics import ActivationStatistics
from mlflow_rnnmod.decomposition.watching import collect
from mlflow_rnnmod.networks import Parent, Rows
from mlflow_rnnmod.networks.trunk import Trunk

Removed = list[dict[str, Tensor]]
Told = Callable[[int, int], None]
# All repairs, but a removed unit's mean is folded in the place of its best guess from kept units.
MEANS_FOLDED = "means"
# Whether the right label is among so many, beside how often it is the first.
TOP = 5


@dataclass(frozen=True, eq=False)
class Study:
    """One parent with its statistics and rows; the test split gives every figure."""

    parent: Parent
    statistics: ActivationStatistics
    material: Material
    seconds: float
    train: Rows
    variant: str
    gates: str
    share_of: str = "units"
    trunks: int | None = None

    @classmethod
    def start(
        cls,
        parent: Parent,
        train: Rows,
        validation: Rows,
        test: Rows,
        seed: int,
        variant: str = "rolled",
        gates: str = "joint",
        share_of: str = "units",
        trunks: int | None = None,
    ) -> Study:
        """Watch the parent's units. Validation rows calibrate, as in ``decompose(report=test)``.

        ``trunks`` is how many the labels share; each has its own where it is not given.
        """
        started = time.perf_counter()
        config, network = DecompositionConfig(seed=seed), parent.network
        train, validation, test = (network.prepare(rows) for rows in (train, validation, test))
        output = network.config.output
        sample = draw_sample(train, len(parent.labels), config.rows_per_label, seed, output)
        statistics = collect(network, sample, variant=variant, gates=gates)
        material = prepare_material(parent, sample, validation, test, config)
        seconds = time.perf_counter() - started
        return cls(parent, statistics, material, seconds, train, variant, gates, share_of, trunks)

    @cached_property
    def published(self) -> ActivationStatistics:
        """What the rule that follows the papers' code goes by."""
        network, seed = self.parent.network, DecompositionConfig().seed
        per_label, labels = DecompositionConfig().rows_per_label, len(self.parent.labels)
        output = network.config.output
        sample = draw_sample(self.train, labels, per_label, seed, output, True)
        return collect(
            network,
            sample,
            gradients=False,
            variant=self.variant,
            gates=self.gates,
            exact=True,
            last_step=True,
        )

    def positions(self) -> tuple[dict[str, float], float]:
        """How good modules of positions are (ICSE 2022), in points; the share that is on.

        Nothing is repaired: the label's log-odds compare.
        """
        network: Any = self.parent.network
        per_label, labels = DecompositionConfig().rows_per_label, len(self.parent.labels)
        output = network.config.output
        sample = draw_sample(
            self.train, labels, per_label, DecompositionConfig().seed, output, True
        )
        found = positions_on(network, sample.rows, torch.stack(sample.sides))
        scores, answer = [], network.config.answer
        with torch.inference_mode():
            for label, on in enumerate(found):
                readouts = torch.cat(
                    [
                        readout_through(network, rows, on)
                        for rows in self.material.report.batches(network.rows_at_once(512))
                    ]
                )
                scores.append(answer.margins(network.logits(readouts), label))
        shares = [share_on(on) for on in found]
        return self.points(torch.stack(scores, dim=1)), sum(shares) / labels

    @property
    def metric(self) -> str:
        """What the kind of output is measured by."""
        return self.parent.network.config.answer.metric

    @property
    def parent_scores(self) -> dict[str, float]:
        """Of the unmasked parent on the test split, in points."""
        readouts = self.material.readouts(self.material.full, "report")
        return self.points(self.parent.network.logits(readouts))

    def points(self, scores: Tensor) -> dict[str, float]:
        """How good scores of the test split are, in points: the metric, and what stands beside."""
        found = self.parent.network.config.answer.measure(scores, self.material.reported_on)
        _, right = self.parent.network.config.answer.said(scores, self.material.reported_on)
        whole = scores.ndim == 2 and len(right) == len(scores)  # not of single steps
        if self.metric == "accuracy" and scores.shape[-1] > TOP and whole:
            among = right.gather(1, scores.topk(TOP).indices).any(dim=1)
            found = {**found, f"top{TOP}": float(among.double().mean())}
        return {name: 100 * value for name, value in found.items()}

    def removed(self, rule: str, share: float) -> Removed:
        """Units that ``rule`` removes, for each label."""
        labels = range(len(self.parent.labels))
        alone = [self._left_out(rule, share, [label]) for label in labels]
        if self.trunks is None or self.trunks >= len(labels):
            return alone
        found: dict[int, dict[str, Tensor]] = {}
        for group in group_labels(alone, self.trunks):
            found.update(dict.fromkeys(group, self._left_out(rule, share, group)))
        return [found[label] for label in labels]

    def _left_out(self, rule: str, share: float, labels: Sequence[int]) -> dict[str, Tensor]:
        """Units that labels with one trunk leave out."""
        statistics = self.published if RULES[rule].published else self.statistics
        given = self.parent.network, RULES[rule], statistics, labels
        return units_worth(*given, share, self.share_of)

    def random(self, removed: Removed, seed: int = 0) -> Removed:
        """As many units at random, for each label; alike where trunks are shared."""
        drawn = {id(u): random_like(u, seed + label) for label, u in enumerate(removed)}
        return [drawn[id(units)] for units in removed]

    def removed_or_random(self, rule: str, share: float) -> Removed:
        """The same for ``"random"`` too: as many units as ``"sensitivity"`` removes."""
        if rule != "random":
            return self.removed(rule, share)
        return self.random(self.removed("sensitivity", share))

    def measured(
        self, removed: Removed, wanted: Sequence[str], told: Told
    ) -> tuple[dict[str, dict[str, float]], list[Trunk]]:
        """How good the composite is under each of the wanted repairs, in points; the trunks."""
        found: dict[str, dict[str, float]] = {}
        plain = [make_trunk(units, self.statistics, fold=False) for units in removed]
        if "none" in wanted or "calibrate" in wanted:
            heads = self._heads(plain, ("calibrate",), told)
            found["none"] = self.points(torch.stack([h.report_margins for h in heads], dim=1))
            found["calibrate"] = self.points(report_table(heads))
        if "all" in wanted:
            trunks, heads = self._repaired(removed, told)
            reported = fit_report(self.material, dict(enumerate(trunks)), dict(enumerate(heads)))
            found["all"] = self.points(report_table(list(reported.values())))
        if MEANS_FOLDED in wanted:
            trunks = [make_trunk(units, self.statistics, fold=True) for units in removed]
            if trunks[0].sliceable:
                means = {k: v.mean.float() for k, v in self.statistics.layers.items()}
                trunks = [Trunk(trunk.keep, means) for trunk in trunks]
            found[MEANS_FOLDED] = self.points(report_table(self._heads(trunks, REPAIRS, told)))
        return {name: found[name] for name in wanted}, plain

    def modules(self, removed: Removed) -> tuple[Module, ...]:
        """A module for each label, with all repairs and open heads, as ``decompose`` makes them."""
        trunks, heads = self._repaired(removed)
        by_label = dict(enumerate(trunks))
        opened = fit_open_heads(self.material, by_label, dict(enumerate(heads)))
        found = []
        for label, trunk, fitted in zip(self.parent.labels, trunks, opened.values(), strict=True):
            contract = replace(make_contract(self.parent, label), mask_steps=trunk.steps)
            energy = self.material.energy
            found.append(
                Module(self.parent, trunk, fitted.head, fitted.open_head, energy, contract)
            )
        return with_likelihoods(found, self.train, self.material.calibration)

    def _repaired(self, removed: Removed, told: Told | None = None) -> Choice:
        """Trunks and heads with all repairs, as ``decompose`` makes them."""
        given = guarded_trunks(self.material, self.statistics, removed, REPAIRS)
        return fit_guarded(self.material, self.statistics, removed, *given, told=told)

    def _heads(
        self, trunks: list[Trunk], repairs: tuple[str, ...], told: Told
    ) -> list[FittedHeads]:
        by_label = dict(enumerate(trunks))
        found = fit_all(self.material, by_label, repairs, told=told)
        found = fit_report(self.material, by_label, found)
        return [found[label] for label in by_label]
