"""What likelihoods say of inputs, for all modules of a composite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mlflow_rnnmod._locks import cached_property
from mlflow_rnnmod.decomposition.module import Module
from mlflow_rnnmod.inputs import Likelihood, density_of
from mlflow_rnnmod.inputs.likelihood import LENGTH_POWER
from mlflow_rnnmod.inputs.neighbours import WEIGHT, StepStack, padded

SENTENCE = 0.25
"""What a parent's likelihood of a whole text counts in the vote of each of its steps."""


def _of(module: Module, steps: bool) -> Likelihood | None:
    found = module.likelihood
    return found.step if steps and found is not None else found


def space_of(modules: Sequence[Module], steps: bool = False) -> str | None:
    """The space that all of these modules have a likelihood in; ``None`` where there is none."""
    if steps and any(_of(m, True) is None for m in modules):
        return None
    spaces = {None if m.likelihood is None else m.likelihood.space for m in modules}
    return spaces.pop() if len(spaces) == 1 else None


def why_not(modules: Sequence[Module], steps: bool = False) -> str | None:
    """Why these modules can't be compared by likelihood, in words; ``None`` where they can."""
    missing = [m.label for m in modules if _of(m, steps) is None]
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

        Gives float32 ``(rows, modules)``, in nats, and sizes of the same shape.
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

    @cached_property
    def _step_stacks(self) -> dict[str, StepStack]:
        """The tables of steps of each parent's modules, by its digest."""
        found: dict[str, list[Likelihood]] = {}
        for module in self.modules:
            step = None if module.likelihood is None else module.likelihood.step
            assert step is not None  # asked for where composites are checked
            found.setdefault(module.parent.digest, []).append(step)
        return {digest: StepStack(tables) for digest, tables in found.items()}

    def _seen(self, inputs: Any, module: Module) -> Any:
        if self.density.raw:
            return self.density.of_inputs(inputs)
        return module.parent.seen(module.parent.rows(inputs))

    def votes(self, inputs: Any) -> Tensor:
        """What is added to the modules' log-odds, float32 ``(rows, modules)``."""
        found, sizes = self(inputs)
        return self.density.vote(found, sizes[:, 0])

    @torch.inference_mode()
    def step_votes(self, inputs: Any, steps: int) -> Tensor:
        """The same for each step, ``(rows, steps, modules)``: by its word and its neighbours.

        The whole text speaks for a parent: for that label of it which it fits best.

        ``steps``: how many there are of the longest row; 0 behind a row's last.
        """
        rows, votes = len(inputs), self.votes(inputs)
        found = torch.zeros(rows, steps, len(self.modules))
        parents = [module.parent.digest for module in self.modules]
        for digest, stack in self._step_stacks.items():
            mine = [i for i, other in enumerate(parents) if other == digest]
            seen = self.density.steps_of_inputs(inputs, self.modules[mine[0]].parent)
            told = WEIGHT * padded(stack(seen), seen.lengths, steps)
            found[:, :, mine] = told + SENTENCE * votes[:, mine].amax(dim=1)[:, None, None]
        return found

    def standard(self, inputs: Any) -> Tensor:
        """Log-likelihoods for their length, in deviations from what is usual, ``(rows, modules)``.

        What is usual is that of the best label on rows that the parent was not trained on.
        """
        found, sizes = self(inputs)
        return (found / sizes**LENGTH_POWER - self.mean) / self.deviation
