"""Labels of a smaller world, tied to a larger one by the labels that both know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from torch import Tensor
from torch.nn import functional as F

from mlflow_rnnmod.decomposition.module import Module


def ties_of(modules: Sequence[Module]) -> dict[int, list[int]] | None:
    """Of each module from a smaller world, the modules that answer for the rest of its world.

    A module's world are the labels of its parent; those of the world that most modules are of tie
    the others. Gives positions; ``None`` where there is no other world, where a part of one is not
    answered for, and where modules answer each step.
    """
    if any(module.contract.answer.stepwise for module in modules):
        return None
    worlds = [frozenset(module.contract.labels) for module in modules]
    for host, _ in Counter(worlds).most_common():
        at = {m.label: i for i, m in enumerate(modules) if worlds[i] == host}
        rest = {i: world - {modules[i].label} for i, world in enumerate(worlds) if world != host}
        if rest and all(labels and labels <= at.keys() for labels in rest.values()):
            return {i: [at[label] for label in sorted(labels)] for i, labels in rest.items()}
    return None


def tied(margins: Tensor, ties: Mapping[int, Sequence[int]]) -> Tensor:
    """Log-probabilities in the larger world, up to what all of them have in common.

    A margin says how much likelier a label is than the rest of its parent's labels, and nothing of
    labels that its parent never met; how likely that rest is, the others know:
    ``log p(g) = margin(g) + log p(rest of g's world)``. That is pairwise coupling (Hastie and
    Tibshirani, Annals of Statistics 26(2), 1998) with one pair a label.

    Args:
        margins: ``(..., modules)``.
        ties: as :func:`ties_of` gives them.

    Example:
        >>> probabilities = torch.tensor([0.5, 0.2])  # of a and b; c is half as likely as b
        >>> margins = torch.cat([probabilities.logit(), torch.tensor([0.5]).log()])
        >>> tied(margins, {2: [1]}).exp()
        tensor([0.5000, 0.2000, 0.1000])
    """
    found = F.logsigmoid(margins)
    for i, others in ties.items():
        found[..., i] = margins[..., i] + found[..., list(others)].logsumexp(dim=-1)
    return found
