"""What likelihoods say of inputs, for all modules of a composite."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from mlflow_rnnmod.decomposition.module import Module
from mlflow_rnnmod.inputs import density_of
from mlflow_rnnmod.inputs.likelihood import LENGTH_POWER


def space_of(modules: Sequence[Module]) -> str | None:
    """The space that all of these modules have a likelihood in; ``None`` where there is none."""
    spaces = {None if m.likelihood is None else m.likelihood.space for m in modules}
    return spaces.pop() if len(spaces) == 1 else None


def why_not(modules: Sequence[Module]) -> str | None:
    """Why these modules can't be compared by likelihood, in words; ``None`` where they can."""
    missing = [m.label for m in modules if m.likelihood is None]
    if missing:
        return f"{len(missing)} of {len(modules)} modules have no likelihood ({_some(missing)})"
    spaces: dict[str, list[str]] = {}
    for m in modules:
        assert m.likelihood is not None
        spaces.setdefault(m.likelihood.space, []).append(m.label)
    if len(spaces) > 1:
        shown = "; ".join(f"{space}: {_some(labels)}" for space, labels in spaces.items())
        return f"their likelihoods are of different things ({shown})"
    return None


def _some(labels: Sequence[str]) -> str:
    return ", ".join(labels[:5]) + (", ..." if len(labels) > 5 else "")


class Evidence:
    """The likelihoods of a composite's modules.

    Args:
        modules: all with one in the same space, in the order of the composite.
    """

    def __init__(self, modules: Sequence[Module]) -> None:
        self.modules = tuple(modules)
        space = space_of(self.modules)
        if space is None:
            raise ValueError(f"{why_not(self.modules)}; expected one of each, in one space.")
        self.density = density_of(space)
        groups: dict[str, list[int]] = {}
        for place, module in enumerate(self.modules):
            # Raw inputs are the same for all; rows are as a parent cuts and pads them.
            key = "" if self.density.raw else module.parent.digest
            groups.setdefault(key, []).append(place)
        self.groups = list(groups.values())
        likelihoods = [m.likelihood for m in self.modules if m.likelihood is not None]
        self.stacks = [self.density.stack([likelihoods[i] for i in g]) for g in self.groups]
        usual = [each.facts.get("usual", (0.0, 1.0)) for each in likelihoods]
        self.mean, self.deviation = torch.tensor(usual, dtype=torch.float32).T

    @torch.inference_mode()
    def __call__(self, inputs: Any) -> tuple[Tensor, Tensor]:
        """Log-likelihoods of checked inputs, and how many steps or numbers each is.

        Returns:
            float32 ``(rows, modules)``, in nats, and sizes of the same shape.
        """
        found, sizes = [], []
        for group, stack in zip(self.groups, self.stacks, strict=True):
            seen = self._seen(inputs, self.modules[group[0]])
            found.append(stack(seen))
            sizes.append(self.density.sizes(seen)[:, None].expand_as(found[-1]))
        return torch.cat(found, dim=1)[:, self._order], torch.cat(sizes, dim=1)[:, self._order]

    @cached_property
    def _order(self) -> Tensor:
        return torch.tensor([place for group in self.groups for place in group]).argsort()

    def _seen(self, inputs: Any, module: Module) -> Any:
        if self.density.raw:
            return self.density.of_inputs(inputs)
        parent = module.parent
        rows = parent.network.content(parent.rows(inputs))
        return self.density.of_rows(rows, parent.encoder, parent.network.side)

    def votes(self, inputs: Any) -> Tensor:
        """What is added to the modules' log-odds, float32 ``(rows, modules)``."""
        found, sizes = self(inputs)
        return self.density.vote(found, sizes[:, 0])

    def standard(self, inputs: Any) -> Tensor:
        """Log-likelihoods for their length, in deviations from what is usual, ``(rows, modules)``.

        What is usual is that of the best label on rows that the parent was not trained on.
        """
        found, sizes = self(inputs)
        return (found / sizes**LENGTH_POWER - self.mean) / self.deviation
