"""Observations: what carries a label. A row, or a step where every step is answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mlflow_rnnmod._locks import cached_property
from mlflow_rnnmod.answers.targets import Targeted


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
