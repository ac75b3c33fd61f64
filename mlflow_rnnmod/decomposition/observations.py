"""Observations: what carries a label. A row, or a step where every step is answered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mlflow_rnnmod.networks.protocol import Network
from mlflow_rnnmod.networks.rows import IGNORE, Rows


@dataclass(frozen=True, eq=False)
class Labelled:
    """Rows with their targets, seen as observations, in the order of rows and steps.

    Args:
        rows: with targets.
        network: what answers them.
    """

    rows: Rows
    network: Network

    @cached_property
    def answered(self) -> Tensor:
        """Which steps are answered, bool ``(rows, steps)``, where every step is."""
        found = self.network.answered(self.rows.to(self.network.device))
        assert found is not None
        return found.cpu()

    @cached_property
    def targets(self) -> Tensor:
        """Label indices, int64 ``(observations,)``; or bool ``(rows, labels)``."""
        assert self.rows.targets is not None
        targets = self.rows.targets.cpu()
        return targets[self.answered] if self.network.config.answer.stepwise else targets

    @cached_property
    def known(self) -> Tensor:
        """Which observations have a target, bool ``(observations,)``."""
        if self.targets.dtype == torch.bool:
            return torch.ones(len(self.targets), dtype=torch.bool)
        return self.targets != IGNORE

    def positive(self, label: int) -> Tensor:
        """Which observations carry a label, bool ``(observations,)``."""
        return self.targets[:, label] if self.targets.ndim == 2 else self.targets == label

    def by_row(self, values: Tensor, fill: float) -> Tensor:
        """``(observations, ...)`` as ``(rows, steps, ...)``, where every step is answered."""
        table = values.new_full((*self.answered.shape, *values.shape[1:]), fill)
        table[self.answered] = values
        return table


@torch.inference_mode()
def run_readouts(
    readout: Callable[[Rows], Tensor], rows: Rows, batch_size: int, network: Network
) -> Tensor:
    """Readouts of all ``rows`` in batches, on the CPU: float ``(observations, readout size)``.

    Args:
        readout: of the network, seen through some trunk.
        rows: in any order; those of like length are run together where padding does not count.
        batch_size: rows run at once.
        network: the unmasked one.
    """
    device = network.device
    order = network.order(rows) if len(rows) > batch_size else torch.arange(len(rows))
    found, owners = [], []
    for start in range(0, len(rows), batch_size):
        index = order[start : start + batch_size]
        batch = rows[index]
        batch = network.trimmed(Rows(batch.values, batch.lengths)).to(device)
        values = readout(batch)
        answered = network.answered(batch)
        if answered is not None:
            owners.append(index.repeat_interleave(answered.sum(dim=1).cpu()))
            values = values[answered]
        else:
            owners.append(index)
        found.append(values.cpu())
    return torch.cat(found)[torch.cat(owners).argsort(stable=True)]
