"""Modules as the published code makes them: single positions of a network switched off.

Pan and Rajan (ICSE 2022), section III: a label's concern are the positions - one channel at one
place - that are above 0 for at least one of its rows; rows of other labels switch positions on
again (tangling). Weights stay as they are, so such a module is neither smaller nor faster than its
parent: it is here to compare with, and nothing of it is saved.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.networks.graph.network import GraphNetwork
from mlflow_rnnmod.networks.graph.viewing import evaluate

Positions = Mapping[str, Tensor]
"""For each node whose units can be off, which positions are on, bool ``(units, *places)``."""


def positions_on(
    network: GraphNetwork, rows: Rows, sides: Tensor, batch_size: int = 64
) -> list[Positions]:
    """Which positions are on for each label.

    Memory does not grow with the rows.

    Args:
        network: unmasked.
        rows: a sample, on the network's device.
        sides: the label that each row is a positive of, and the one whose tangling it is for, int64
            ``(2, rows)``; -1 for none.
        batch_size: rows run at once.

    Returns:
        one for each label.
    """
    names = [node.name for node in network.config.nodes if node.operation.idles]
    labels = len(network.labels)
    found: dict[str, Tensor] = {}
    size = network.rows_at_once(batch_size)
    with torch.inference_mode():
        for start in range(0, len(rows), size):
            part = slice(start, start + size)
            values = network.states(rows[part])
            for name in names:
                above = values[name] > 0
                on = found.setdefault(name, above.new_zeros(labels, *above.shape[1:]))
                for side in sides[:, part]:
                    for label in side[side >= 0].unique().tolist():
                        on[label] |= above[side == label].any(0)
    return [{name: on[label] for name, on in found.items()} for label in range(labels)]


def readout_through(network: GraphNetwork, rows: Rows, on: Positions) -> Tensor:
    """What the output layer reads where all other positions are switched off.

    Float ``(rows, readout size)``.
    """
    config, values = network.config, dict(network.given(rows))
    for node in config.nodes:
        inputs = {name: values[name] for name in node.inputs}
        value = evaluate([node], inputs, network.weights)[node.name]
        values[node.name] = value * on[node.name] if node.name in on else value
    return values[config.readout]


def share_on(on: Positions) -> float:
    """Share of all positions that are on."""
    return sum(int(mask.sum()) for mask in on.values()) / sum(m.numel() for m in on.values())
