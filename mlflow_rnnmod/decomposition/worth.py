"""Units that are worth a share: of all units, or of the multiply-adds of a pass."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from mlflow_rnnmod.decomposition.rules import Rule, removed_units
from mlflow_rnnmod.decomposition.statistics import ActivationStatistics
from mlflow_rnnmod.networks.protocol import Network
from mlflow_rnnmod.networks.trunk import Trunk

# So often the part of the units is halved that makes up a share of the multiply-adds.
HALVINGS = 12


def units_worth(
    network: Network,
    rule: Rule,
    statistics: ActivationStatistics,
    labels: int | Sequence[int],
    share: float,
    share_of: str = "units",
    seed: int = 0,
    whole: Collection[str] = (),
) -> dict[str, Tensor]:
    """Which units a rule removes for a label, or for labels that share a trunk.

    Args:
        network: unmasked.
        rule: what ranks.
        statistics: of what its units did.
        labels: one, or those that share a trunk.
        share: from 0 to below 1.
        share_of: ``"units"``, or ``"multiply_adds"``: then as many units as it takes leave. Where
            all groups are ranked together, what removal costs is divided by what it saves.
        seed: of what is drawn.
        whole: names of groups that nothing leaves.

    Returns:
        bool ``(units,)`` by part, True where a unit is removed.
    """
    if share_of == "units" or share == 0.0:
        return removed_units(rule, statistics, labels, share, seed, whole)
    prices = None
    if rule.together and statistics.ranks_together:
        prices = {name: _price(network, name) for name in network.groups}

    def of_units(part: float) -> dict[str, Tensor]:
        return removed_units(rule, statistics, labels, part, seed, whole, prices)

    def kept(part: float) -> float:
        masks = of_units(part)
        told_apart = any(name not in network.groups for name in masks)
        if told_apart:  # steps and gates: their units by themselves
            gone = sum(int(mask.sum()) for mask in masks.values())
            return 1 - gone / sum(mask.numel() for mask in masks.values())
        return network.work_kept(Trunk({name: ~mask for name, mask in masks.items()}))

    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if kept(middle) <= 1 - share else (middle, high)
    return of_units(high)


def _price(network: Network, name: str) -> float:
    """Share of the multiply-adds that one unit of a group is worth, where all else is there."""
    units = network.units[name]
    if units == 1:  # which can't leave
        return 0.0
    keep = dict(Trunk.whole(network.units).keep)
    keep[name] = torch.arange(units) > 0
    return 1 - network.work_kept(Trunk(keep))
