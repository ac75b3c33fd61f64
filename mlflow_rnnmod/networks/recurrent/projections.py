"""What layers read, projected for all trunks of a network at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.networks.products import Product
from mlflow_rnnmod.networks.recurrent.layers import RecurrentLayers


class Projecting(Protocol):
    """One direction of a layer, with the product that its input goes through."""

    @property
    def project(self) -> Product:
        """With the weights that its input goes through."""

    @property
    def bias(self) -> Tensor:
        """What is added to that."""


def project_rows(
    network: RecurrentLayers, layers: Sequence[Projecting], rows: Rows
) -> list[Tensor]:
    """What the first layer's directions read, ``(steps, rows, gates)``, for all trunks."""
    lengths, _ = network.spans(rows)
    x = network.feed(rows)
    found = []
    for d, layer in enumerate(layers):
        moved = (network.reverse(x, lengths) if d else x).transpose(0, 1)
        flat = layer.project(moved.reshape(-1, moved.shape[2]), layer.bias)
        found.append(flat.view(*moved.shape[:2], -1))
    return found


def project_outputs(
    network: RecurrentLayers, layers: Sequence[Projecting], below: list[Tensor], lengths: Tensor
) -> list[Tensor]:
    """What a higher layer's directions read: ``(steps, trunks, rows, gates)``.

    Args:
        network: whose layers.
        layers: by direction.
        below: outputs of the layer below, by direction, ``(trunks, rows, steps, units)``.
        lengths: valid steps, ``(rows,)``.
    """
    x = below[0] if len(below) == 1 else torch.cat(below, dim=-1)
    count, rows, steps, size = x.shape
    found = []
    for d, layer in enumerate(layers):
        moved = x
        if d:
            moved = network.reverse(x.flatten(0, 1), lengths.repeat(count)).view_as(x)
        moved = moved.permute(2, 0, 1, 3).reshape(-1, size)
        found.append(layer.project(moved, layer.bias).view(steps, count, rows, -1))
    return found
