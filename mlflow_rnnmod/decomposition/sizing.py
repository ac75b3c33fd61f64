"""Settings tried on validation rows: how many units to remove, and which labels share a trunk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mlflow_rnnmod._locks import cached_property
from mlflow_rnnmod.answers import Answer
from mlflow_rnnmod.decomposition.config import SHARES, DecompositionConfig
from mlflow_rnnmod.decomposition.module import Module
from mlflow_rnnmod.decomposition.rules import RULES, removed_units
from mlflow_rnnmod.decomposition.sharing import FIXED_COST, estimated_cost, group_labels
from mlflow_rnnmod.decomposition.statistics import ActivationStatistics
from mlflow_rnnmod.networks.parent import Parent
from mlflow_rnnmod.networks.trunk import Trunk

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Made:
    """One setting, carried out.

    Args:
        trunks: of each label.
        rest: what else there is of each label's module: fitted heads, or nothing.
        removed: what each label's trunk leaves out, by part.
    """

    trunks: list[Trunk]
    rest: Any
    removed: Sequence[Mapping[str, Tensor]]


@dataclass(frozen=True, eq=False)
class Job:
    """What every setting that a decomposition tries has in common.

    What modules are made of depends on the answer: its jobs say how they are made and measured.

    Args:
        parent: whose modules are made.
        statistics: of what its units did.
        config: the settings.
        told: of progress.
    """

    parent: Parent
    statistics: ActivationStatistics
    config: DecompositionConfig
    told: Progress

    def make(self, removed: Sequence[Mapping[str, Tensor]], stage: str, last: bool = False) -> Made:
        """Trunks, and what else modules need, of all labels.

        Args:
            removed: for each label, what its trunk leaves out.
            stage: to tell progress by.
            last: whether modules are made of it.
        """
        raise NotImplementedError

    def sized(self, made: Made) -> float:
        """How good all modules together are, on the rows that sizes are tried on."""
        raise NotImplementedError

    def reported(self, made: Made) -> dict[str, float]:
        """How good they are on the report rows, the answer's metric first."""
        raise NotImplementedError

    @cached_property
    def parent_sized(self) -> float:
        """How good the parent is by itself, on the rows that sizes are tried on."""
        raise NotImplementedError

    @cached_property
    def parent_reported(self) -> dict[str, float]:
        """How good the parent is by itself, on the report rows."""
        raise NotImplementedError

    def modules(
        self, made: Made, share: float, words: Mapping[str, str], overlap: Tensor
    ) -> tuple[Module, ...]:
        """The modules, with their figures.

        Args:
            made: the last setting.
            share: of units removed.
            words: which rows were used for what.
            overlap: of every two trunks.
        """
        raise NotImplementedError

    @property
    def rows(self) -> int:
        """Number of report rows."""
        raise NotImplementedError

    @property
    def answer(self) -> Answer:
        """What goes out of the network."""
        found: Answer = self.parent.network.config.answer
        return found

    @property
    def metric(self) -> str:
        """What answers are measured by."""
        return self.answer.metric

    def removed(self, share: float, groups: Sequence[Sequence[int]]) -> list[dict[str, Tensor]]:
        """For each label, the units of each group that its module leaves out, alike in a group."""
        rule, seed = RULES[self.config.rule], self.config.seed
        found: dict[int, dict[str, Tensor]] = {}
        for group in groups:
            units = removed_units(rule, self.statistics, group, share, seed)
            found.update(dict.fromkeys(group, units))
        return [found[label] for label in range(len(found))]

    def cost(self, trunks: Sequence[Trunk]) -> dict[str, float]:
        """The estimated passes of the parent, where trunks are run in passes."""
        return {"cost": estimated_cost(self.parent.network, trunks)} if self.answer.scored else {}

    def choose(self) -> tuple[float, list[list[int]], tuple[dict[str, float], ...]]:
        """The share to remove, which labels share a trunk, and what was tried."""
        labels = len(self.parent.labels)
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

        Measured against nothing removed with the same repairs; with a number of trunks that is
        chosen, also against the parent, which a composite must not fall behind.

        Returns:
            the share, groups of labels, what was tried, and the estimated cost.
        """
        config, network = self.config, self.parent.network
        labels = len(network.labels)
        alone = [[label] for label in range(labels)]
        auto = config.removal == "auto"
        shares = sorted(SHARES, reverse=True) if auto else [float(config.removal)]
        if config.rule == "none":
            shares = [0.0]
        control = None
        tried: list[dict[str, float]] = []
        cost = 0.0
        for share in shares:
            groups = alone
            if count < labels:
                groups = group_labels(self.removed(share, alone), count)
            if not auto and config.trunks != "auto":
                return share, groups, [], 0.0
            if control is None:
                control = self.sized(self._try(0.0, alone))
            made = self._try(share, groups)
            found = self.sized(made)
            kept = [network.shares_kept(trunk)["weights_kept"] for trunk in made.trunks]
            row = {
                "removal": share,
                "trunks": float(len(set(made.trunks))),
                self.metric: found,
                f"control_{self.metric}": control,
                "weights_kept": sum(kept) / len(kept),
                **self.cost(made.trunks),
            }
            tried.append(row)
            cost = row.get("cost", 0.0)
            enough = config.trunks != "auto" or found >= self.parent_sized - 1e-9
            if enough and 100 * (control - found) <= config.tolerance + 1e-9:
                break
        return share, groups, tried, cost

    def _try(self, share: float, groups: Sequence[Sequence[int]]) -> Made:
        return self.make(self.removed(share, groups), f"sizing: {len(groups)} trunks, {share:.0%}")
