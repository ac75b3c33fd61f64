"""Units of all groups, one after the other in the order in which labels can do without them.

What removing a unit costs depends on those that are gone already: they were to guess it, and it was
to guess them. To first order a label's log-odds change by what is left of a unit's output when its
guess is taken off, times a weight of the unit's own; squared, what removal costs is the weight
times the variance that the kept units can't guess. Each step removes the unit that adds least to
the costs of all that are gone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mlflow_rnnmod.decomposition.statistics import RIDGE, ActivationStatistics

# A group's name, and the number of a unit.
Unit = tuple[str, int]


def order_of_removal(
    statistics: ActivationStatistics,
    labels: Sequence[int],
    whole: Collection[str] = (),
    prices: Mapping[str, float] | None = None,
) -> list[Unit]:
    """All units but one of each group, in the order in which they leave.

    Args:
        statistics: of a network whose groups are ranked together.
        labels: one, or those that share a trunk, which count alike.
        whole: names of groups that nothing leaves.
        prices: of a unit of each group, where what removal costs is counted for what it saves.
    """
    names = [name for name in statistics.layers if name not in whole]
    total: dict[str, Tensor] = {}
    for label in labels:
        harm = {name: statistics.harm(name, label) for name in names}
        scale = max(sum(float(of.sum()) for of in harm.values()), 1e-300)
        for name, of in harm.items():
            total[name] = total.get(name, 0.0) + of / scale
    left = {
        name: _Left.of(statistics.layers[name].covariance, total[name])
        for name in names
        if len(total[name]) > 1
    }
    price = {name: 1.0 if prices is None else max(prices[name], 1e-12) for name in left}
    found: list[Unit] = []
    cheapest = {name: group.cheapest(price[name]) for name, group in left.items()}
    while cheapest:
        name = min(cheapest, key=lambda group: cheapest[group][0])
        group, at = left[name], cheapest[name][1]
        found.append((name, group.kept[at]))
        left[name] = group.without(at)
        if len(left[name].kept) > 1:
            cheapest[name] = left[name].cheapest(price[name])
        else:
            del cheapest[name]
    return found


@dataclass(frozen=True, eq=False)
class _Left:
    """A group on its way: which units are kept, and what they guess of those that are gone.

    Args:
        inverse: of the kept units' covariance.
        weights: what a variance that is not guessed costs, of each unit.
        kept: numbers of units.
        guesses: weights of the kept units in the guesses of those gone, ``(kept, gone)``.
        gone: numbers of units.
    """

    inverse: Tensor
    weights: Tensor
    kept: list[int]
    guesses: Tensor
    gone: list[int]

    @classmethod
    def of(cls, covariance: Tensor, harm: Tensor) -> _Left:
        """A whole group; ``harm`` is what removing each unit alone costs."""
        units = len(covariance)
        ridge = RIDGE * covariance.diagonal().mean().clamp(min=1e-12)
        inverse = torch.linalg.inv(covariance + ridge * torch.eye(units).double())
        weights = harm * inverse.diagonal()
        return cls(inverse, weights, list(range(units)), covariance.new_zeros(units, 0), [])

    def cheapest(self, price: float) -> tuple[float, int]:
        """What the unit costs that can be done without best, and its place among the kept."""
        costs = self.weights[self.kept]
        if self.gone:  # what those gone lose with it
            costs = costs + self.guesses**2 @ self.weights[self.gone]
        costs = costs / self.inverse.diagonal() / price
        at = int(costs.argmin())
        return float(costs[at]), at

    def without(self, at: int) -> _Left:
        """The group without one more of the kept units."""
        rest = [i for i in range(len(self.kept)) if i != at]
        column, pivot = self.inverse[rest, at], self.inverse[at, at]
        inverse = self.inverse[rest][:, rest] - torch.outer(column, column) / pivot
        guess = -column / pivot
        guesses = self.guesses[rest] + torch.outer(guess, self.guesses[at])
        return _Left(
            inverse,
            self.weights,
            [self.kept[i] for i in rest],
            torch.cat([guesses, guess[:, None]], dim=1),
            [*self.gone, self.kept[at]],
        )
