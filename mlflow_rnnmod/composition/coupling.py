"""Labels of a smaller world, tied to a larger one by the labels that both know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mlflow_rnnmod.decomposition.module import Module

# The least that modules of the larger world leave to labels that none of them answers for.
_LEAST = 1e-6


@dataclass(frozen=True)
class Tie:
    """How much of the larger world one label of another world shares out.

    Args:
        others: positions of the modules of the larger world for labels of this one.
        missing: whether what no module of the larger world answers for is this world's, too.
        inside: whether the label itself is part of it.
    """

    others: tuple[int, ...]
    missing: bool
    inside: bool


@dataclass(frozen=True)
class Coupling:
    """What ties the modules of a composite.

    A module's world are the labels of its parent. A margin says how much likelier a label is than
    the rest of its world, and nothing of labels that its parent never met. How likely its world is
    among all, the modules of the larger world say: by the labels of it that they answer for, and by
    what all of them together leave, where it is the rest of this world that is left. So a label
    that was replaced by one of a smaller world has the probability that its old parent still leaves
    to it. That is pairwise coupling (Hastie and Tibshirani, Annals of Statistics 26(2), 1998), with
    one pair a label.

    Args:
        hosts: positions of the modules of the larger world, which most modules are of.
        ties: of each other module.

    Example:
        >>> probabilities = torch.tensor([0.5, 0.2, 0.3])  # of a, b and c; d is half as likely as b
        >>> margins = torch.cat([probabilities.logit(), torch.tensor([0.5]).log()])
        >>> Coupling((0, 1, 2), {3: Tie((1,), False, False)}).tied(margins).exp()
        tensor([0.5000, 0.2000, 0.3000, 0.1000])
    """

    hosts: tuple[int, ...]
    ties: Mapping[int, Tie]

    @classmethod
    def of(cls, modules: Sequence[Module]) -> Coupling | None:
        """What ties these modules.

        ``None`` where there is no other world, where a part of one is not answered for, and where
        modules answer each step.
        """
        if any(module.contract.answer.stepwise for module in modules):
            return None
        of_parent = {module.parent.digest: module.contract.labels for module in modules}
        known = {digest: frozenset(labels) for digest, labels in of_parent.items()}
        worlds = [known[module.parent.digest] for module in modules]
        for host, _ in Counter(worlds).most_common():
            at = {m.label: i for i, m in enumerate(modules) if worlds[i] == host}
            ties = {
                i: _tie(modules[i].label, world, host, at)
                for i, world in enumerate(worlds)
                if world != host
            }
            found = {i: tie for i, tie in ties.items() if tie is not None}
            if found and len(found) == len(ties):
                return cls(tuple(at.values()), found)
        return None

    def tied(self, margins: Tensor) -> Tensor:
        """Log-probabilities in the larger world, up to what all of them have in common.

        ``margins``: ``(..., modules)``.
        """
        found, likely = F.logsigmoid(margins), torch.sigmoid(margins)
        left = (1 - likely[..., list(self.hosts)].sum(-1)).clamp(min=_LEAST)
        for i, tie in self.ties.items():
            share = likely[..., list(tie.others)].sum(-1) + (left if tie.missing else 0.0)
            own = found[..., i] if tie.inside else margins[..., i]
            found[..., i] = own + share.clamp(min=torch.finfo(share.dtype).tiny).log()
        return found


def _tie(
    label: str, world: frozenset[str], host: frozenset[str], at: Mapping[str, int]
) -> Tie | None:
    """The tie of a label; ``None`` where a part of its world is not answered for."""
    gone = host - at.keys()
    missing = bool(gone) and gone <= world
    rest = world - {label} - (gone if missing else frozenset())
    if not rest <= at.keys() or not (rest or missing):
        return None
    return Tie(tuple(at[name] for name in sorted(rest)), missing, missing and label in host)
