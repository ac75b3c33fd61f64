"""Readouts of all observations of some rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.networks.protocol import Network


@dataclass(frozen=True, eq=False)
class Batches:
    """Rows made ready to be run, through one trunk after the other.

    Args:
        parts: without needless steps, where the network is.
        answered: which of their steps are answered, or None where rows are.
        places: what puts the observations of all parts into the order of rows and steps.
    """

    parts: list[Rows]
    answered: list[Tensor | None]
    places: Tensor

    @classmethod
    def of(cls, rows: Rows, batch_size: int, network: Network) -> Batches:
        """All ``rows``; those of like length are run together where padding does not count.

        Args:
            rows: in any order.
            batch_size: rows run at once, at the most.
            network: the unmasked one.
        """
        batch_size = network.rows_at_once(batch_size)
        order = network.order(rows) if len(rows) > batch_size else torch.arange(len(rows))
        parts, known, owners = [], [], []
        for start in range(0, len(rows), batch_size):
            index = order[start : start + batch_size]
            batch = rows[index]
            batch = network.trimmed(Rows(batch.values, batch.lengths)).to(network.device)
            answered = network.answered(batch)
            if answered is not None:
                index = index.repeat_interleave(answered.sum(dim=1).cpu())
            parts.append(batch)
            known.append(answered)
            owners.append(index)
        return cls(parts, known, torch.cat(owners).argsort(stable=True))

    @torch.inference_mode()
    def run(self, readout: Callable[[Rows], Tensor]) -> Tensor:
        """Readouts through some trunk, on the CPU: float ``(observations, readout size)``."""
        found = []
        for batch, answered in zip(self.parts, self.answered, strict=True):
            values = readout(batch)
            found.append((values if answered is None else values[answered]).cpu())
        return torch.cat(found)[self.places]
