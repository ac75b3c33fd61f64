"""Rules: which units a label can do without, and in which order they leave."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mlflow_rnnmod.decomposition.statistics import RIDGE, ActivationStatistics
from mlflow_rnnmod.networks.parts import split_name

# A group's name, and the number of a unit.
Unit = tuple[str, int]


# What removing a unit costs depends on those that are gone already: they were to guess it, and it
# was to guess them. To first order a label's log-odds change by what is left of a unit's output
# when its guess is taken off, times a weight of the unit's own; squared, what removal costs is
# the weight times the variance that the kept units can't guess. Each step removes the unit that
# adds least to the costs of all that are gone.
def order_of_removal(
    statistics: ActivationStatistics,
    labels: Sequence[int],
    whole: Collection[str] = (),
    prices: Mapping[str, float] | None = None,
) -> list[Unit]:
    """All units but one of each group, in the order in which they leave.

    ``labels``: one, or those that share a trunk, which count alike; ``prices``: of a unit of each
    group, where what removal costs is counted for what it saves.
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


@dataclass(frozen=True)
class Rule:
    """A way to decide which units of a layer a label's module leaves out.

    Args:
        name: as users write it.
        rank: from statistics, layer name, label index and a seeded generator to each unit's score
            ``(units,)`` - the lowest leave first - and whether it may leave at all, bool
            ``(units,)``.
        histograms, gradients: which statistics it needs.
        published: whether it goes by the papers' code: the first rows of the data, exact medians,
            and the last step alone where one label answers for a row.
        together: whether units of all groups are ranked at once, where a network is ranked so.
        overrun: units with a score below 0 whose lowest is no more than so many times it leave
            beyond the share; ``None`` for none.
    """

    name: str
    rank: Callable[[ActivationStatistics, str, int, torch.Generator], tuple[Tensor, Tensor]]
    histograms: bool = False
    gradients: bool = False
    published: bool = False
    overrun: float | None = None
    together: bool = False


def _sensitivity(
    statistics: ActivationStatistics, layer: str, label: int, _: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Units whose output moves the label's log-odds least (ours)."""
    found = statistics.layers[layer]
    score = statistics.harm(layer, label)
    if not score.any():  # a label that was never seen at this step: what matters to the others
        others = range(found.observed.shape[1])
        score = torch.stack([statistics.harm(layer, other) for other in others]).sum(0)
    # As a share of the layer's, so that labels which share a trunk count alike.
    score = score / score.sum().clamp(min=1e-300)
    return score, torch.ones(len(score), dtype=torch.bool)


def _paper(
    statistics: ActivationStatistics, layer: str, label: int, _: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The paper's rule for logistic cells (RNN-D, Algorithm 4) and ReLU (Algorithm 5)."""
    if statistics.group(layer).idles:
        found = statistics.layers[layer]
        idle = found.active_rate(0, label) == 0
        restored = found.active_rate(1, label) > 0
        # Algorithm 5 fills its cap with idle units in their order, and restores afterwards: a
        # restored unit has used up its place.
        order = torch.arange(len(idle), dtype=torch.float64)
        free = idle & ~restored & bool(found.observed[:, label].any())
        return torch.where(idle, order, torch.inf), free
    difference = statistics.tendency(layer, 0, label) - statistics.tendency(layer, 1, label)
    return difference, difference < 0


def _reference(
    statistics: ActivationStatistics, layer: str, label: int, _: torch.Generator
) -> tuple[Tensor, Tensor]:
    """What the papers' published code does (the table in `docs/method.md`)."""
    if statistics.group(layer).idles:
        found = statistics.layers[layer]
        difference = found.active_rate(0, label) - found.active_rate(1, label)
        # From 0 up, since the share is not overrun here.
        return difference + 1, difference <= -0.5
    return _paper(statistics, layer, label, _)


def _random(
    statistics: ActivationStatistics, layer: str, _: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    units = statistics.layers[layer].active.shape[-1]
    score = torch.rand(units, generator=generator, dtype=torch.float64)
    return score, torch.ones(units, dtype=torch.bool)


def _none(
    statistics: ActivationStatistics, layer: str, _: int, __: torch.Generator
) -> tuple[Tensor, Tensor]:
    units = statistics.layers[layer].active.shape[-1]
    return torch.zeros(units, dtype=torch.float64), torch.zeros(units, dtype=torch.bool)


RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule("sensitivity", _sensitivity, gradients=True, together=True),
        Rule("paper", _paper, histograms=True),
        Rule("reference", _reference, histograms=True, published=True, overrun=1.1),
        Rule("random", _random),
        Rule("none", _none),
    )
}


def removed_units(
    rule: Rule,
    statistics: ActivationStatistics,
    labels: int | Sequence[int],
    share: float,
    seed: int = 0,
    whole: Collection[str] = (),
    prices: Mapping[str, float] | None = None,
) -> dict[str, Tensor]:
    """Which units of each layer ``rule`` removes for a label, or for labels that share a trunk.

    At most ``share`` of a layer's units leave it (but see :attr:`Rule.overrun`), or ``share`` of
    all where layers are ranked together, and at least one of each stays. What several labels share
    is ranked by their mean score, and leaves only if every one of them lets it go.

    ``labels``: one, or those that share a trunk; ``share``: from 0 to below 1; gives bool
    ``(units,)`` by layer, True where a unit is removed.
    """
    group = [labels] if isinstance(labels, int) else list(labels)
    if rule.together and statistics.ranks_together:
        return _removed_together(statistics, group, share, whole, prices)
    generator = torch.Generator().manual_seed(seed * 100_003 + group[0])
    removed = {}
    for name, layer in statistics.layers.items():
        units = layer.active.shape[-1]
        most = min(int(share * units + 1e-9), units - 1)
        ranked = [rule.rank(statistics, name, label, generator) for label in group]
        score = torch.stack([score for score, _ in ranked]).mean(dim=0)
        free = torch.stack([free for _, free in ranked]).all(dim=0)
        if rule.overrun and most and "#" not in name:
            like = (score < 0) & (score.min() / score < rule.overrun)
            most = min(max(most, int(like.sum())), units - 1)
        removed[name] = _lowest(score, 0 if split_name(name)[0] in whole else most) & free
    return removed


def _removed_together(
    statistics: ActivationStatistics,
    labels: Sequence[int],
    share: float,
    whole: Collection[str],
    prices: Mapping[str, float] | None,
) -> dict[str, Tensor]:
    """The units of all groups that labels can do without best."""
    asked = tuple(labels), frozenset(whole), prices is not None
    if asked not in statistics.orders:
        statistics.orders[asked] = order_of_removal(statistics, labels, whole, prices)
    removed = {
        name: torch.zeros(layer.active.shape[-1], dtype=torch.bool)
        for name, layer in statistics.layers.items()
    }
    total = sum(len(mask) for name, mask in removed.items() if name not in whole)
    for name, unit in statistics.orders[asked][: int(share * total + 1e-9)]:
        removed[name][unit] = True
    return removed


def random_like(removed: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """The control: as many units as ``removed`` takes from each layer, but drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: _lowest(torch.rand(len(mask), generator=generator), int(mask.sum()))
        for name, mask in removed.items()
    }


def _lowest(scores: Tensor, most: int) -> Tensor:
    """The ``most`` units with the lowest scores; ties go to the lowest index."""
    removed = torch.zeros(len(scores), dtype=torch.bool)
    removed[scores.argsort(stable=True)[:most]] = True
    return removed
