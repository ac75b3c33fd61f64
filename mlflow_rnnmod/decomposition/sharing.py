"""What trunks are worth and cost: units worth a share, and which labels share a trunk."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

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


# A cut trunk's pass is not cheaper in proportion to its weights: steps, gates and readout remain.
# Measured by benchmarks.speed; see docs/decisions.md.
FIXED_COST = 0.3


def group_labels(removed: Sequence[Mapping[str, Tensor]], groups: int) -> list[list[int]]:
    """Labels in ``groups`` groups, so that those whose concerns overlap most share one.

    Starts with every label by itself and joins the two groups whose mean masks agree best, until
    there are as many as asked for.

    Args:
        removed: for each label the units that its own module would leave out, bool by layer.
        groups: how many groups, from 1 to the number of labels.

    Returns:
        lists of label numbers, each ascending, in the order of their first label.

    Example:
        >>> masks = [{"a": torch.tensor(m)} for m in ([True, False], [False, True], [True, False])]
        >>> group_labels(masks, 2)
        [[0, 2], [1]]
    """
    means = torch.stack([torch.cat(list(units.values())) for units in removed]).double()
    members = {label: [label] for label in range(len(means))}
    sizes = torch.ones(len(means), dtype=torch.float64)

    def added(a: int | slice) -> Tensor:
        """What joining groups with others adds to the distance from their means (Ward)."""
        distance = torch.cdist(means[a].view(-1, means.shape[1]), means) ** 2
        own = sizes[a].view(-1, 1)
        return distance * own * sizes / (own + sizes)

    costs = added(slice(None)).fill_diagonal_(torch.inf)
    while len(members) > groups:
        a, b = sorted(divmod(int(costs.argmin()), len(costs)))
        total = sizes[a] + sizes[b]
        means[a] = (means[a] * sizes[a] + means[b] * sizes[b]) / total
        sizes[a] = total
        members[a] = sorted(members[a] + members.pop(b))
        gone = costs[a] == torch.inf
        row = added(a)[0].masked_fill(gone, torch.inf)
        costs[a] = costs[:, a] = row
        costs[b] = costs[:, b] = torch.inf
    return sorted(members.values())


def estimated_cost(network: Network, trunks: Sequence[Trunk]) -> float:
    """Passes of the parent that running these trunks, each distinct one once, takes: an estimate.

    It depends on nothing but the masks, so that a decomposition comes out the same on any machine;
    the engine decides by what batches take how they are run.
    """
    cost = 0.0
    for trunk in dict.fromkeys(trunks):
        if trunk.full or not trunk.sliceable:
            cost += 1.0
        else:
            cost += FIXED_COST + (1 - FIXED_COST) * network.work_kept(trunk)
    return cost
