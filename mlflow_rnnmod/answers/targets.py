"""Targets: what is asked of rows that have some, and rows with them seen as observations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

Shown: TypeAlias = Callable[[], "tuple[Tensor | None, str]"]
IGNORE = -1
"""Target of a step that has no label: padding, or what lies behind the end of a list."""


class Targeted(Protocol):
    """What answers ask of rows (see :class:`~mlflow_rnnmod.networks.Rows`)."""

    @property
    def targets(self) -> Tensor | None:
        """What is right, where known."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Tensor | slice) -> Any: ...

    def to(self, device: torch.device | str) -> Any:
        """The same rows on ``device``."""


def whole_numbers(targets: Tensor, labels: int, steps: bool) -> Tensor:
    """Label indices, int64 on the CPU, of each row or (``IGNORE`` where there is none) each step.

    Raises:
        ValueError: if they have another shape or type, or are no labels.
    """
    if targets.ndim != 1 + steps or targets.is_floating_point() or targets.dtype == torch.bool:
        wanted = "(rows, steps)" if steps else "(rows,)"
        raise ValueError(
            f"targets is {targets.dtype} of shape {tuple(targets.shape)}; expected whole numbers "
            f"of shape {wanted}."
        )
    low, high = int(targets.min()), int(targets.max())
    if low < (IGNORE if steps else 0) or high >= labels:
        extra = f", or {IGNORE} where a step has none" if steps else ""
        raise ValueError(
            f"targets go from {low} to {high}; expected the index of one of {labels} labels, "
            f"0 to {labels - 1}{extra}."
        )
    if high < 0:
        raise ValueError(f"targets are all {IGNORE}; expected some steps with a label.")
    return targets.to("cpu", torch.int64)


def carried(targets: Tensor, labels: int) -> Tensor:
    """Which labels each row carries, at any of its steps, bool ``(rows, labels)``.

    Args:
        targets: of any kind of answer.
        labels: how many there are.

    Example:
        >>> carried(torch.tensor([[1, IGNORE], [0, 1]]), 2).tolist()
        [[False, True], [True, True]]
    """
    if targets.dtype == torch.bool:
        return targets.cpu()
    places = targets.cpu().reshape(len(targets), -1)
    places = torch.where(places < 0, labels, places)
    found = torch.zeros(len(targets), labels + 1, dtype=torch.bool)
    return found.scatter_(1, places, True)[:, :labels]


def check_range(targets: Tensor, labels: int, source: str, steps: bool) -> Tensor:
    """A user's targets, if they are label indices, or negative where a step has none.

    Raises:
        ValueError: if they are not.
    """
    low, high = int(targets.min()), int(targets.max())
    if (low < 0 and not steps) or high >= labels:
        rest = " or, where a step has no label, a negative number" if steps else ""
        raise ValueError(
            f"The {source} has targets from {low} to {high}; expected the index of one of "
            f"{labels} labels, 0 to {labels - 1}{rest}. Check labels=, and in a batch of three "
            "that the order is (inputs, lengths, targets)."
        )
    return targets


@dataclass(frozen=True, eq=False)
class Labelled:
    """Rows with their targets, seen as observations, in the order of rows and steps.

    Args:
        rows: with targets.
        network: what answers them; asked for its ``config``, its ``device`` and what it has
            ``answered``.
    """

    rows: Targeted
    network: Any

    @cached_property
    def answered(self) -> Tensor:
        """Which steps are answered, bool ``(rows, steps)``, where every step is."""
        return self.network.answered(self.rows.to(self.network.device)).cpu()

    @cached_property
    def targets(self) -> Tensor:
        """Label indices, int64 ``(observations,)``; or bool ``(rows, labels)``."""
        assert self.rows.targets is not None
        targets = self.rows.targets.cpu()
        return targets[self.answered] if self.network.config.answer.stepwise else targets

    @cached_property
    def known(self) -> Tensor:
        """Which observations have a target, bool ``(observations,)``."""
        return self.network.config.answer.known(self.targets)

    def positive(self, label: int) -> Tensor:
        """Which observations carry a label, bool ``(observations,)``."""
        return self.network.config.answer.positive(self.targets, label)

    def by_row(self, values: Tensor, fill: float) -> Tensor:
        """``(observations, ...)`` as ``(rows, steps, ...)``, where every step is answered."""
        table = values.new_full((*self.answered.shape, *values.shape[1:]), fill)
        table[self.answered] = values
        return table
