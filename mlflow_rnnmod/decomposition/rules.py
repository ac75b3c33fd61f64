"""Rules: which units a label can do without (concern identification, tangling identification)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mlflow_rnnmod.decomposition.statistics import ActivationStatistics


@dataclass(frozen=True)
class Rule:
    """A way to decide which units of a layer a label's module leaves out.

    Args:
        name: as users write it.
        decide: from statistics, layer name, label index, and the most units to remove, to the
            removed ones: bool ``(units,)``, at most that many.
        histograms, gradients: which statistics it needs.
    """

    name: str
    decide: Callable[[ActivationStatistics, str, int, int, torch.Generator], Tensor]
    histograms: bool = False
    gradients: bool = False


def _lowest(scores: Tensor, most: int) -> Tensor:
    """The ``most`` units with the lowest scores; ties go to the lowest index."""
    removed = torch.zeros(len(scores), dtype=torch.bool)
    removed[scores.argsort(stable=True)[:most]] = True
    return removed


def _sensitivity(
    statistics: ActivationStatistics, layer: str, label: int, most: int, _: torch.Generator
) -> Tensor:
    """Units whose output moves the label's log-odds least (ours)."""
    return _lowest(statistics.layers[layer].sensitivity(label), most)


def _paper(
    statistics: ActivationStatistics, layer: str, label: int, most: int, _: torch.Generator
) -> Tensor:
    """The paper's rule for logistic cells (RNN-D, Algorithm 4) and ReLU (Algorithm 5)."""
    if not statistics.bounded and layer.startswith("recurrent"):
        found = statistics.layers[layer]
        idle = (found.active_rate(0, label) == 0).nonzero()[:, 0][:most]
        removed = torch.zeros(found.active.shape[-1], dtype=torch.bool)
        removed[idle] = True
        return removed & ~(found.active_rate(1, label) > 0)
    difference = statistics.tendency(layer, 0, label) - statistics.tendency(layer, 1, label)
    return _lowest(difference, most) & (difference < 0)


def _random(
    statistics: ActivationStatistics, layer: str, _: int, most: int, generator: torch.Generator
) -> Tensor:
    units = statistics.layers[layer].active.shape[-1]
    return _lowest(torch.rand(units, generator=generator), most)


def _none(
    statistics: ActivationStatistics, layer: str, _: int, most: int, __: torch.Generator
) -> Tensor:
    return torch.zeros(statistics.layers[layer].active.shape[-1], dtype=torch.bool)


RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule("sensitivity", _sensitivity, gradients=True),
        Rule("paper", _paper, histograms=True),
        Rule("random", _random),
        Rule("none", _none),
    )
}


def removed_units(
    rule: Rule, statistics: ActivationStatistics, label: int, share: float, seed: int = 0
) -> dict[str, Tensor]:
    """Which units of each layer ``rule`` removes for ``label``: bool ``(units,)`` by layer.

    At most ``share`` of a layer's units leave it, and at least one stays.
    """
    generator = torch.Generator().manual_seed(seed * 100_003 + label)
    removed = {}
    for name, layer in statistics.layers.items():
        units = layer.active.shape[-1]
        most = min(int(share * units + 1e-9), units - 1)
        removed[name] = rule.decide(statistics, name, label, most, generator)
    return removed


def random_like(removed: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """The control: as many units as ``removed`` takes from each layer, but drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: _lowest(torch.rand(len(mask), generator=generator), int(mask.sum()))
        for name, mask in removed.items()
    }
