"""Research question 1: a parent taken apart and put together again, against the parent itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mlflow_rnnmod.decomposition.config import DecompositionConfig
from mlflow_rnnmod.decomposition.fitting import (
    FittedHeads,
    Material,
    fit_heads,
    pool_calibrations,
    prepare_material,
    report_table,
)
from mlflow_rnnmod.decomposition.folding import make_trunk
from mlflow_rnnmod.decomposition.rules import RULES, random_like, removed_units
from mlflow_rnnmod.decomposition.sample import draw_sample
from mlflow_rnnmod.decomposition.sizes import overlap_matrix, shares_kept
from mlflow_rnnmod.decomposition.statistics import ActivationStatistics
from mlflow_rnnmod.decomposition.watching import collect
from mlflow_rnnmod.network import Parent, Rows
from mlflow_rnnmod.network.trunk import Trunk

Removed = list[dict[str, Tensor]]
DRAWS = 3
REPAIRS = ("none", "calibrate", "all")
# All repairs, but a removed unit's mean is folded in the place of its best guess from kept units.
MEANS_FOLDED = "means"
# METHOD.md, Table II: composite minus parent on CLINC's intents, rolled, one layer, 5 % cap.
PAPER_DELTA = {"lstm": -0.13, "gru": -0.20, "rnn": -1.58}


@dataclass(frozen=True, eq=False)
class Study:
    """One parent with its statistics and rows; the test split gives every figure."""

    parent: Parent
    statistics: ActivationStatistics
    material: Material
    targets: Tensor
    seconds: float

    @classmethod
    def start(cls, parent: Parent, train: Rows, validation: Rows, test: Rows, seed: int) -> Study:
        """Watch the parent's units. Validation rows calibrate, as in ``decompose(report=test)``."""
        started = time.perf_counter()
        config = DecompositionConfig(seed=seed)
        sample = draw_sample(train, len(parent.labels), config.rows_per_label, seed)
        statistics = collect(parent.network, sample)
        material = prepare_material(parent, sample, validation, test, config)
        assert test.targets is not None
        seconds = time.perf_counter() - started
        return cls(parent, statistics, material, test.targets, seconds)

    @property
    def parent_accuracy(self) -> float:
        """Of the unmasked parent on the test split, in points."""
        return self.points(self.parent.network.logits(self.material.whole.report))

    def points(self, scores: Tensor) -> float:
        """Accuracy of the highest scores on the test split, in points."""
        return 100 * float((scores.argmax(dim=1) == self.targets).double().mean())

    def removed(self, rule: str, share: float) -> Removed:
        """Units that ``rule`` removes, for each label."""
        labels = range(len(self.parent.labels))
        return [removed_units(RULES[rule], self.statistics, y, share) for y in labels]

    def accuracies(
        self, removed: Removed, wanted: Sequence[str], told: Callable[[int, int], None]
    ) -> tuple[dict[str, float], list[Trunk]]:
        """Accuracy of the composite under each of the wanted repairs, and the trunks."""
        found: dict[str, float] = {}
        plain = [make_trunk(units, self.statistics, fold=False) for units in removed]
        if "none" in wanted or "calibrate" in wanted:
            heads = self._heads(plain, ("calibrate",), told)
            found["none"] = self.points(torch.stack([h.report_margins for h in heads], dim=1))
            found["calibrate"] = self.points(report_table(heads))
        for name in {"all", MEANS_FOLDED} & set(wanted):
            folded = [make_trunk(units, self.statistics, fold=True) for units in removed]
            if name == MEANS_FOLDED:
                means = {k: v.mean.float() for k, v in self.statistics.layers.items()}
                folded = [Trunk(trunk.keep, means) for trunk in folded]
            heads = self._heads(folded, ("fold", "refit", "calibrate"), told)
            found[name] = self.points(report_table(heads))
        return {name: found[name] for name in wanted}, plain

    def _heads(
        self, trunks: list[Trunk], repairs: tuple[str, ...], told: Callable[[int, int], None]
    ) -> list[FittedHeads]:
        heads = []
        for label, trunk in enumerate(trunks):
            heads.append(fit_heads(self.material, trunk, label, repairs, open_head=False))
            told(label + 1, len(trunks))
        return pool_calibrations(heads, repairs)


def rq1_rows(
    study: Study,
    fixed: dict[str, Any],
    rules: Sequence[str],
    removals: Sequence[float],
    wanted: Sequence[str],
    done: set[tuple],
    told: Callable[[str, int, int], None],
) -> Iterator[dict[str, Any]]:
    """One row for each rule, removal and repairs, with its controls; rows in ``done`` are skipped.

    Args:
        study: the parent and its rows.
        fixed: what all rows have in common (data set, cell, seed ...).
        rules: names of rules; ``"random"`` rows stand beside each of them anyway.
        removals: shares of the units.
        wanted: names of repairs.
        done: keys ``(rule, removal, repairs, matched)`` of rows that exist already.
        told: called with a stage, steps done and steps in all.
    """
    parent_accuracy = study.parent_accuracy
    nothing = study.removed("none", 0.0)
    started = time.perf_counter()
    control, trunks = study.accuracies(nothing, wanted, partial(told, "nothing removed"))
    seconds = time.perf_counter() - started

    def rows(
        rule: str,
        removal: float,
        matched: str | None,
        accuracies: dict[str, float],
        sizes: dict[str, float],
        seconds: float,
    ) -> Iterator[dict[str, Any]]:
        for repairs, accuracy in accuracies.items():
            yield {
                **fixed,
                "rule": rule,
                "removal": removal,
                "matched": matched,
                "actual_removal": 1 - sizes["units_kept"],
                "repairs": repairs,
                "variant": "rolled",
                "gates": "joint",
                "metric": "accuracy",
                "parent_accuracy": parent_accuracy,
                "accuracy": accuracy,
                "delta": accuracy - parent_accuracy,
                "control_delta": control[repairs] - parent_accuracy,
                "net": accuracy - control[repairs],
                "units_kept": sizes["units_kept"],
                "recurrent_weights_kept": sizes["recurrent_weights_kept"],
                "jaccard": sizes["jaccard"],
                "seconds": seconds,
            }

    if any(("none", 0.0, name, None) not in done for name in wanted):
        yield from rows("none", 0.0, None, control, sizes_of(study, trunks), seconds)
    # Rules that remove as many units of each layer and label share their random controls.
    drawn: dict[tuple, tuple[dict[str, float], dict[str, float], float]] = {}
    for rule in rules:
        for share in removals:
            stage = f"{rule} {share:.0%}"
            removed = study.removed(rule, share)
            if any((rule, share, name, None) not in done for name in wanted):
                started = time.perf_counter()
                found, trunks = study.accuracies(removed, wanted, partial(told, stage))
                seconds = time.perf_counter() - started
                yield from rows(rule, share, None, found, sizes_of(study, trunks), seconds)
            if all(("random", share, name, rule) in done for name in wanted):
                continue
            counts = tuple(int(mask.sum()) for units in removed for mask in units.values())
            if counts not in drawn:
                started = time.perf_counter()
                parts = []
                for draw in range(DRAWS):
                    seeds = [1000 * draw + label for label in range(len(removed))]
                    like = [random_like(u, s) for u, s in zip(removed, seeds, strict=True)]
                    parts.append(
                        study.accuracies(like, wanted, partial(told, f"random {share:.0%}"))
                    )
                means = {name: sum(p[0][name] for p in parts) / DRAWS for name in wanted}
                seconds = (time.perf_counter() - started) / DRAWS
                drawn[counts] = (means, sizes_of(study, parts[0][1]), seconds)
            yield from rows("random", share, rule, *drawn[counts])


def sizes_of(study: Study, trunks: list[Trunk]) -> dict[str, float]:
    """Mean shares kept, and mean Jaccard index between modules."""
    config = study.parent.network.config
    shares = [shares_kept(config, trunk) for trunk in trunks]
    found = {name: sum(s[name] for s in shares) / len(shares) for name in shares[0]}
    overlap = overlap_matrix(trunks)
    count = len(trunks)
    off_diagonal = float(overlap.sum() - overlap.diagonal().sum())
    return {**found, "jaccard": off_diagonal / max(count * (count - 1), 1)}
