"""Settings tried on validation rows: how many units to remove, and which labels share a trunk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from mlflow_rnnmod.answers import Answer
from mlflow_rnnmod.decomposition.config import SHARES, DecompositionConfig
from mlflow_rnnmod.decomposition.fitting import (
    FittedHeads,
    Material,
    calibration_table,
    fit_heads,
    pool_calibrations,
    report_table,
    shared_readouts,
)
from mlflow_rnnmod.decomposition.guarded import guarded_trunks
from mlflow_rnnmod.decomposition.rules import RULES, removed_units
from mlflow_rnnmod.decomposition.sharing import FIXED_COST, estimated_cost, group_labels
from mlflow_rnnmod.decomposition.statistics import ActivationStatistics
from mlflow_rnnmod.networks.trunk import Trunk

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Job:
    """What every setting that a decomposition tries has in common."""

    material: Material
    statistics: ActivationStatistics
    config: DecompositionConfig
    told: Progress

    def removed(self, share: float, groups: Sequence[Sequence[int]]) -> list[dict[str, Tensor]]:
        """For each label, the units of each layer that its module leaves out, alike in a group."""
        rule, seed = RULES[self.config.rule], self.config.seed
        found: dict[int, dict[str, Tensor]] = {}
        for group in groups:
            units = removed_units(rule, self.statistics, group, share, seed)
            found.update(dict.fromkeys(group, units))
        return [found[label] for label in range(len(found))]

    def fit(
        self, removed: Sequence[Mapping[str, Tensor]], stage: str, open_head: bool
    ) -> tuple[list[Trunk], list[FittedHeads]]:
        """Trunks and heads of all labels."""
        trunks, repairs = guarded_trunks(
            self.material, self.statistics, removed, self.config.repairs
        )
        heads: dict[int, FittedHeads] = {}
        for trunk in dict.fromkeys(trunks):
            mine = [label for label, other in enumerate(trunks) if other == trunk]
            shared = shared_readouts(self.material, trunk) if len(mine) > 1 else None
            for label in mine:
                heads[label] = fit_heads(self.material, trunk, label, repairs, open_head, shared)
                self.told(stage, len(heads), len(trunks))
        return trunks, pool_calibrations([heads[y] for y in range(len(trunks))], repairs)

    @property
    def answer(self) -> Answer:
        """What goes out of the network."""
        return self.material.parent.network.config.answer

    @property
    def metric(self) -> str:
        """What answers are measured by."""
        return self.answer.metric

    def measure(self, heads: list[FittedHeads]) -> float:
        """How good all modules together are, on the report rows."""
        return self.answer.measure(report_table(heads), self.material.reported_on)[self.metric]

    @cached_property
    def parent_score(self) -> float:
        """How good the parent is by itself, on the calibration rows."""
        parent = self.material.parent
        logits = parent.network.logits(self.material.whole.calibration.to(parent.device))
        return self.answer.measure(logits.cpu(), self.material.calibrated_on)[self.metric]

    def choose(self) -> tuple[float, list[list[int]], tuple[dict[str, float], ...]]:
        """The share to remove, which labels share a trunk, and what was tried."""
        labels = len(self.material.parent.labels)
        config = self.config
        if config.trunks != "auto":
            count = labels if config.trunks == "label" else min(int(config.trunks), labels)
            share, groups, tried, _ = self.size(count)
            return share, groups, tuple(tried)
        all_tried: list[dict[str, float]] = []
        # The most that could be affordable, if every trunk left out as much as is ever tried.
        cheapest = FIXED_COST + (1 - FIXED_COST) * (1 - max(SHARES)) ** 2
        for count in range(min(labels, max(int(config.max_cost / cheapest), 1)), 0, -1):
            share, groups, tried, cost = self.size(count)
            all_tried += tried
            # Nothing removed is no isolation: fewer trunks that leave something out come first.
            if count == 1 or (cost <= config.max_cost + 1e-9 and share > 0):
                break
        return share, groups, tuple(all_tried)

    def size(self, count: int) -> tuple[float, list[list[int]], list[dict[str, float]], float]:
        """With ``count`` trunks, the largest share that costs at most the tolerance.

        Measured on calibration rows against nothing removed with the same repairs; with a number of
        trunks that is chosen, also against the parent, which a composite must not fall behind.

        Returns:
            the share, groups of labels, what was tried, and the estimated cost.
        """
        config, network = self.config, self.material.parent.network

        def measured(heads: list[FittedHeads]) -> float:
            table = calibration_table(heads)
            return self.answer.measure(table, self.material.calibrated_on)[self.metric]

        labels = len(network.labels)
        alone = [[label] for label in range(labels)]
        auto = config.removal == "auto"
        shares = sorted(SHARES, reverse=True) if auto else [float(config.removal)]
        if config.rule == "none":
            shares = [0.0]
        control = None
        tried: list[dict[str, float]] = []
        for share in shares:
            groups = alone
            if count < labels:
                groups = group_labels(self.removed(share, alone), count)
            if not auto and config.trunks != "auto":
                return share, groups, [], 0.0
            if control is None:
                control = measured(self._try(0.0, alone)[1])
            trunks, heads = self._try(share, groups)
            found = measured(heads)
            kept = [network.shares_kept(trunk)["weights_kept"] for trunk in trunks]
            cost = estimated_cost(network, trunks)
            tried.append(
                {
                    "removal": share,
                    "trunks": float(len(set(trunks))),
                    self.metric: found,
                    f"control_{self.metric}": control,
                    "weights_kept": sum(kept) / len(kept),
                    "cost": cost,
                }
            )
            enough = config.trunks != "auto" or found >= self.parent_score - 1e-9
            if enough and 100 * (control - found) <= config.tolerance + 1e-9:
                break
        return share, groups, tried, cost

    def _try(
        self, share: float, groups: Sequence[Sequence[int]]
    ) -> tuple[list[Trunk], list[FittedHeads]]:
        removed = self.removed(share, groups)
        return self.fit(removed, f"sizing: {len(groups)} trunks, {share:.0%}", open_head=False)
