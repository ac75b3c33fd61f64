"""The dial between isolation and speed: which labels share a trunk, and what that costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mlflow_rnnmod.networks.protocol import Network
from mlflow_rnnmod.networks.trunk import Trunk

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
    the engine's own cost model, which is measured, decides how they are run.
    """
    cost = 0.0
    for trunk in dict.fromkeys(trunks):
        if trunk.full or not trunk.sliceable:
            cost += 1.0
        else:
            cost += FIXED_COST + (1 - FIXED_COST) * network.work_kept(trunk)
    return cost
