"""Masks over a parent: which units a module keeps, and what stands in for the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from mlflow_rnnmod.network.digest import digest_tensors


@dataclass(frozen=True, eq=False)
class Trunk:
    """Everything of a parent from its input to its readout, with some units removed.

    A removed unit has its incoming, recurrent and outgoing weights and its bias zeroed, and then a
    guess stands in for what it sent on: ``fold[u] + mix[u] @ h``, a constant and a weighted sum of
    the *kept* units' outputs ``h`` of the same layer, at every step and before the first. That
    folds into the weights and biases behind it, so nothing has to be computed for it. With neither
    (zeros), the unit is simply gone; with the constants alone, its mean is folded into the biases.

    Stored like this it needs no number for the gates of the units behind it, and a trunk stays what
    it is: a mask over its parent.

    Two trunks are equal when their digests are.

    Args:
        keep: for each maskable layer of the parent, a bool tensor of shape ``(units,)``.
        fold: for each maskable layer, a float32 tensor of shape ``(units,)``: the constants of the
            removed units, 0 for kept ones. Layers that are left out have zeros.
        mix: for each maskable layer, a float32 tensor of shape ``(units, units)``: row ``u`` holds
            the weights of a removed unit's guess, 0 where the row's unit is kept or the column's
            removed. Kept as half-precision numbers, which is how it is stored. Layers that are
            left out have zeros.
        variant: ``"rolled"``, one mask for all steps.
        gates: ``"joint"``, a unit leaves all gates together.

    Raises:
        ValueError: if a layer keeps no unit, or ``fold`` does not fit ``keep``.

    Example:
        >>> trunk = Trunk({"recurrent.0.fwd": torch.tensor([True, False, True])})
        >>> trunk.kept, trunk.total, trunk.full
        (2, 3, False)
    """

    keep: Mapping[str, Tensor]
    fold: Mapping[str, Tensor] = field(default_factory=dict)
    mix: Mapping[str, Tensor] = field(default_factory=dict)
    variant: str = "rolled"
    gates: str = "joint"

    def __post_init__(self) -> None:
        problems = []
        for name, mask in self.keep.items():
            if mask.dtype != torch.bool or mask.ndim != 1:
                problems.append(
                    f"keep[{name!r}] is {mask.dtype} of shape {tuple(mask.shape)}, expected a "
                    "bool tensor of one dimension"
                )
            elif not mask.any():
                problems.append(f"keep[{name!r}] keeps none of its {len(mask)} units")
        for name, constants in self.fold.items():
            if name not in self.keep or constants.shape != self.keep[name].shape:
                problems.append(
                    f"fold[{name!r}] has shape {tuple(constants.shape)}, expected a layer of keep "
                    "and its shape"
                )
        for name, weights in self.mix.items():
            units = len(self.keep[name]) if name in self.keep else None
            if weights.shape != (units, units):
                problems.append(
                    f"mix[{name!r}] has shape {tuple(weights.shape)}, expected a layer of keep and "
                    "its units, twice"
                )
        if problems:
            raise ValueError("The trunk does not fit: " + "; ".join(problems) + ".")
        fold, mix = {}, {}
        for name, mask in self.keep.items():
            constants = self.fold.get(name, torch.zeros(len(mask))).to(torch.float32)
            fold[name] = torch.where(mask, 0.0, constants)
            if name in self.mix and not mask.all():
                inside = ~mask[:, None] & mask[None, :]
                weights = self.mix[name]
                weights = torch.where(inside, weights, 0.0).to(torch.float16).to(torch.float32)
                if weights.any():
                    mix[name] = weights
        object.__setattr__(self, "fold", fold)
        object.__setattr__(self, "mix", mix)

    @classmethod
    def whole(cls, units: Mapping[str, int]) -> Trunk:
        """The full trunk, which removes nothing, of a network with these units in its layers."""
        return cls({name: torch.ones(size, dtype=torch.bool) for name, size in units.items()})

    @property
    def kept(self) -> int:
        """Number of units kept, over all layers."""
        return sum(int(mask.sum()) for mask in self.keep.values())

    @property
    def total(self) -> int:
        """Number of units of the parent, over all layers."""
        return sum(len(mask) for mask in self.keep.values())

    @property
    def full(self) -> bool:
        """Whether nothing is removed."""
        return self.kept == self.total

    @cached_property
    def digest(self) -> str:
        """SHA-256 over masks and guesses, hexadecimal: what tells trunks of one parent apart."""
        tensors = {f"keep.{name}": mask for name, mask in self.keep.items()}
        if not self.full:
            tensors.update({f"fold.{name}": constants for name, constants in self.fold.items()})
            tensors.update({f"mix.{name}": weights for name, weights in self.mix.items()})
        return digest_tensors(tensors, {"variant": self.variant, "gates": self.gates})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Trunk) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)


def jaccard(first: Trunk, second: Trunk) -> float:
    """Share of units kept by both among those kept by either (1.0 for equal masks).

    The papers compare sets of weight values instead, which flatters (METHOD.md, fact 2).
    """
    both = sum(int((mask & second.keep[name]).sum()) for name, mask in first.keep.items())
    either = sum(int((mask | second.keep[name]).sum()) for name, mask in first.keep.items())
    return both / either
