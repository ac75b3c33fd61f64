"""Readouts of all observations of some rows."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mlflow_rnnmod.networks.protocol import Network
from mlflow_rnnmod.networks.rows import Rows


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
    device, batch_size = network.device, network.rows_at_once(batch_size)
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
