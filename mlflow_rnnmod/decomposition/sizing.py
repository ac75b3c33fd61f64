"""Settings tried on validation rows: how many units to remove, and which labels share a trunk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mlflow_rnnmod._locks import cached_property
from mlflow_rnnmod.answers import Answer
from mlflow_rnnmod.decomposition.config import SHARES, DecompositionConfig
from mlflow_rnnmod.decomposition.folding import make_trunks
from mlflow_rnnmod.decomposition.module import Module
from mlflow_rnnmod.decomposition.rules import RULES
from mlflow_rnnmod.decomposition.sharing import (
    FIXED_COST,
    estimated_cost,
    group_labels,
    units_worth,
)
from mlflow_rnnmod.decomposition.statistics import ActivationStatistics
from mlflow_rnnmod.networks.parent import Parent
from mlflow_rnnmod.networks.trunk import Trunk

Progress = Callable[[str, int, int], None]
SIZING = "sizing"
"""What stages are called in which settings are tried."""

# Passes of the parent above which isolated modules surprise, and that shared trunks take instead.
ISOLATED_COST, SHARED_COST = 8.0, 1.5
# What a trunk costs that leaves out as much as is ever tried.
_CHEAPEST = FIXED_COST + (1 - FIXED_COST) * (1 - max(SHARES)) ** 2


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
        """Trunks, and what else modules need, of all labels."""
        raise NotImplementedError

    def sized(self, made: Made) -> float:
        """How good all modules together are, on the rows that sizes are tried on."""
        raise NotImplementedError

    def error(self, made: Made, other: Made) -> float:
        """Standard error of the difference of what :meth:`sized` says of both, row by row."""
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
        """The modules, with their figures."""
        raise NotImplementedError

    def likely(self, made: Made, modules: tuple[Module, ...]) -> dict[str, float]:
        """How good the modules are with their likelihoods, and these alone, where they can vote."""
        return {}

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
        found: dict[int, dict[str, Tensor]] = {}
        for group in groups:
            found.update(dict.fromkeys(group, self._removed(share, group)))
        return [found[label] for label in range(len(found))]

    def _removed(self, share: float, labels: Sequence[int]) -> dict[str, Tensor]:
        """What labels that share a trunk leave out."""
        config, network = self.config, self.parent.network
        whole = {name for layer in network.layers[: config.from_layer] for name in layer}
        rule, how = RULES[config.rule], (config.share_of, config.seed, whole)
        return units_worth(network, rule, self.statistics, labels, share, *how)

    def cost(self, trunks: Sequence[Trunk]) -> dict[str, float]:
        """The estimated passes of the parent, where trunks are run in passes."""
        return {"cost": estimated_cost(self.parent.network, trunks)} if self.answer.scored else {}

    def isolated_cost(self, share: float) -> dict[str, float]:
        """What every label's own trunk would cost with this share removed."""
        alone = self.removed(share, [[label] for label in range(len(self.parent.labels))])
        return {f"isolated_{k}": v for k, v in self.cost(self._plain(alone)).items()}

    def choose(
        self, late: Callable[[], bool] = lambda: False
    ) -> tuple[float, list[list[int]], tuple[dict[str, float], ...]]:
        """The share to remove, which labels share a trunk, and what was tried."""
        labels, config = len(self.parent.labels), self.config
        if not self.shares:
            count = labels if isinstance(config.trunks, str) else min(config.trunks, labels)
            share, groups, tried, _ = self.size(count, None, late)
            return share, groups, tuple(tried)
        most = SHARED_COST if config.max_cost is None else config.max_cost
        all_tried: list[dict[str, float]] = []
        for count in range(min(labels, max(int(most / _CHEAPEST), 1)), 0, -1):
            share, groups, tried, fits = self.size(count, most, late)
            all_tried += tried
            if fits:
                break
        return share, groups, tuple(all_tried)

    @cached_property
    def shares(self) -> bool:
        """Whether as many trunks are looked for as may be shared at some cost.

        With ``trunks="auto"`` and no ``max_cost``, where isolated modules would take more than
        eight passes even if they left out as much as is ever tried.
        """
        config = self.config
        if config.trunks != "auto" or not self.answer.scored:
            return False
        return config.max_cost is not None or self._cheapest_isolated > ISOLATED_COST

    @property
    def _cheapest_isolated(self) -> float:
        network = self.parent.network
        half = {name: torch.arange(units) % 2 == 0 for name, units in network.units.items()}
        half = {name: keep | (len(keep) == 1) for name, keep in half.items()}
        return len(network.labels) * estimated_cost(network, [Trunk(half)])

    def size(
        self, count: int, most: float | None, late: Callable[[], bool]
    ) -> tuple[float, list[list[int]], list[dict[str, float]], bool]:
        """With ``count`` trunks, the largest share that costs at most the tolerance.

        What it costs is known up to the standard error of the difference, which is added: few rows
        remove less. Measured against nothing removed with the same repairs; with a number of trunks
        that is chosen, also against the parent, which a composite must not fall behind. It is found
        by bisection: where a share is too much, larger ones are not tried.

        Args:
            count: of trunks.
            most: passes that they may take; None for any.
            late: whether no more is to be tried: what was not tried is too much.

        Returns:
            the share, groups of labels, what was tried, and whether it will do: something is
            removed, or there can't be fewer trunks.
        """
        config, labels = self.config, len(self.parent.labels)
        alone = [[label] for label in range(labels)]
        least = float(config.removal) if config.removal != "auto" else 0.0
        shares: tuple[float, ...] = SHARES if config.removal == "auto" else (least,)
        if config.rule == "none":
            least, shares = 0.0, ()

        def grouped(share: float) -> list[list[int]]:
            return alone if count >= labels else group_labels(self.removed(share, alone), count)

        if config.removal != "auto" and most is None:
            return least, grouped(least), [], True
        tried: list[dict[str, float]] = []

        def good(share: float) -> bool:
            if late():
                return False
            row = self._tried(share, grouped(share))
            tried.append(row)
            lost = row[f"control_{self.metric}"] - row[self.metric] + row["error"]
            enough = most is None or row[self.metric] >= self.parent_sized - 1e-9
            return enough and 100 * lost <= config.tolerance + 1e-9

        last = most is None or count == 1
        # Masks alone tell what a setting costs.
        some = [s for s in shares if s > 0 and (last or self._affordable(grouped(s), s, most))]
        low, high, middle = -1, len(some), max(len(some) - 2, 0)
        while high - low > 1:  # some[low] is good, some[high] is not
            low, high = (middle, high) if good(some[middle]) else (low, middle)
            middle = (low + high) // 2
        if low >= 0:
            return some[low], grouped(some[low]), tried, True
        if last:
            good(least)
        return least, grouped(least), tried, last

    def _affordable(
        self, groups: Sequence[Sequence[int]], share: float, most: float | None
    ) -> bool:
        trunks = self._plain(self.removed(share, groups))
        return most is None or estimated_cost(self.parent.network, trunks) <= most + 1e-9

    def _plain(self, removed: Sequence[Mapping[str, Tensor]]) -> list[Trunk]:
        """Trunks without guesses, to count what they keep."""
        return make_trunks(removed, self.statistics, fold=False)

    @cached_property
    def _control(self) -> Made:
        """Modules of which nothing is removed, with the same repairs."""
        alone = [[label] for label in range(len(self.parent.labels))]
        return self.make(self.removed(0.0, alone), f"{SIZING}: modules of all units")

    def _tried(self, share: float, groups: Sequence[Sequence[int]]) -> dict[str, float]:
        """A setting carried out, as a row of what was tried."""
        control = self._control
        stage = f"{SIZING}: {len(groups)} trunks, {share:.0%}"
        made = self.make(self.removed(share, groups), stage)
        network = self.parent.network
        shares = {t: network.shares_kept(t)["weights_kept"] for t in dict.fromkeys(made.trunks)}
        return {
            "removal": share,
            "trunks": float(len(shares)),
            self.metric: self.sized(made),
            f"control_{self.metric}": self.sized(control),
            "error": self.error(made, control) if share > 0 else 0.0,
            "weights_kept": sum(shares[trunk] for trunk in made.trunks) / len(made.trunks),
            **self.cost(made.trunks),
        }
