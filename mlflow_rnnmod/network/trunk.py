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

    A removed unit has its incoming, recurrent and outgoing weights and its bias zeroed. With
    ``fold`` a constant stands in for what it sent on: the constant times the outgoing weights goes
    into the biases behind it. That is the same as a unit whose output is that constant, at every
    step and before the first, which is how :attr:`fold` stores it: one number a removed unit, where
    bias offsets would need one for every gate of every unit behind it.

    Two trunks are equal when their digests are.

    Args:
        keep: for each maskable layer of the parent, a bool tensor of shape ``(units,)``.
        fold: for each maskable layer, a float32 tensor of shape ``(units,)``: the constants of the
            removed units, 0 for kept ones. ``None`` is the same as zeros.
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
        if problems:
            raise ValueError("The trunk does not fit: " + "; ".join(problems) + ".")
        fold = {
            name: torch.where(
                mask, 0.0, self.fold[name].to(torch.float32) if name in self.fold else 0.0
            )
            for name, mask in self.keep.items()
        }
        object.__setattr__(self, "fold", fold)

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
        """SHA-256 over masks and constants, hexadecimal; trunks of one parent are told apart by it."""
        tensors = {f"keep.{name}": mask for name, mask in self.keep.items()}
        if not self.full:
            tensors.update({f"fold.{name}": constants for name, constants in self.fold.items()})
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
