"""Products with a fixed matrix, by whichever routine of PyTorch is faster, and of many inputs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Protocol

import torch
from torch import Tensor

from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.networks.recurrent.layers import RecurrentLayers, side_by_side

# Below as many rows, packing does not pay: the packed routine takes longer to get going.
MIN_ROWS = 16


class Product:
    """``x @ weight.T``, again and again with the same weight.

    PyTorch's ordinary product is MKL's, which on some processors runs at half the speed of
    oneDNN's with a weight that was packed beforehand: what PyTorch's own compiler uses. The
    operator is not public, so it is tried once, and done without where it is missing or wrong.

    Args:
        weight: float ``(outputs, inputs)``.

    Example:
        >>> product = Product(torch.eye(3))
        >>> product(torch.ones(2, 3)).tolist()
        [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """

    def __init__(self, weight: Tensor) -> None:
        self.turned = weight.t().contiguous()
        packs = weight.device.type == "cpu" and weight.dtype == torch.float32 and packing_works()
        self.packed = _pack(weight.contiguous()) if packs else None

    def __call__(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Float ``(rows, outputs)`` from ``(rows, inputs)``; ``bias`` is ``(outputs,)``."""
        if self.packed is not None and len(x) >= MIN_ROWS:
            return _product(x, self.packed, bias, "none")
        if bias is None:
            return torch.mm(x, self.turned)
        return torch.addmm(bias, x, self.turned)

    def sigmoid(self, x: Tensor, bias: Tensor) -> Tensor:
        """The sigmoid of the product, in one go."""
        if self.packed is not None and len(x) >= MIN_ROWS:
            return _product(x, self.packed, bias, "sigmoid")
        return torch.addmm(bias, x, self.turned).sigmoid_()


def _pack(weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight, None)


def _product(x: Tensor, packed: Tensor, bias: Tensor | None, after: str) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, packed, bias, after, [], "")


@cache
def packing_works() -> bool:
    """Whether products with packed weights are there, and right."""
    draw = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(size, generator=draw) for size in ((33, 21), (18, 21), (18,)))
    try:
        with torch.inference_mode():
            found = _product(x, _pack(weight), bias, "sigmoid")
            return torch.allclose(found, torch.sigmoid(x @ weight.T + bias), atol=1e-5)
    except (AttributeError, RuntimeError, NotImplementedError, TypeError):
        return False


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

    ``below``: outputs of the layer below, by direction, ``(trunks, rows, steps, units)``;
    ``lengths``: valid steps, ``(rows,)``.
    """
    x = side_by_side(below)
    count, rows, steps, size = x.shape
    found = []
    for d, layer in enumerate(layers):
        moved = x
        if d:
            moved = network.reverse(x.flatten(0, 1), lengths.repeat(count)).view_as(x)
        moved = moved.permute(2, 0, 1, 3).reshape(-1, size)
        found.append(layer.project(moved, layer.bias).view(steps, count, rows, -1))
    return found
