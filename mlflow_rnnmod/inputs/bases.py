"""Fixed bases, which belong to the format: the same numbers of an input for every parent."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

NUMBERS = 64
"""Numbers that are made of an input, at the most."""


@lru_cache(maxsize=32)
def cosines(channels: int, height: int, width: int, count: int = NUMBERS) -> Tensor:
    """The lowest frequencies of the cosine transform (DCT-II, orthonormal) of an image.

    Frequencies are taken in the order of the squares of both, all channels of each.

    Args:
        channels: of the image.
        height: of the image.
        width: of the image.
        count: of coefficients, at the most.

    Returns:
        float32 ``(channels * height * width, coefficients)``: what a flat image is multiplied by.

    Example:
        >>> basis = cosines(1, 28, 28)
        >>> basis.shape, bool(torch.allclose(basis.T @ basis, torch.eye(64), atol=1e-5))
        (torch.Size([784, 64]), True)
    """
    pairs = [(u, v) for u in range(height) for v in range(width)]
    pairs.sort(key=lambda pair: (pair[0] ** 2 / height**2 + pair[1] ** 2 / width**2, pair))
    chosen = pairs[: max(count // channels, 1)]
    rows, columns = _transform(height), _transform(width)
    flat = torch.stack([torch.outer(rows[u], columns[v]).flatten() for u, v in chosen], dim=1)
    found = torch.zeros(channels * height * width, len(chosen) * channels, dtype=torch.float64)
    for channel in range(channels):
        part = slice(channel * height * width, (channel + 1) * height * width)
        found[part, channel::channels] = flat
    return found[:, :count].float()


def _transform(size: int) -> Tensor:
    """Rows of the DCT-II, float64 ``(size, size)``."""
    place = torch.arange(size, dtype=torch.float64)
    found = torch.cos(math.pi / size * (place + 0.5)[None] * place[:, None])
    found[0] /= math.sqrt(2)
    return found * math.sqrt(2 / size)


def rooted(images: Tensor) -> Tensor:
    """Square roots of brightness, signs kept: what is faint says where an image is from, too.

    Example:
        >>> rooted(torch.tensor([4.0, -0.25])).tolist()
        [2.0, -0.5]
    """
    return images.sign() * images.abs().sqrt()


def like_image(size: int, count: int = NUMBERS) -> bool:
    """Whether a vector is read as a square image.

    Example:
        >>> like_image(784), like_image(64), like_image(100), like_image(101)
        (True, False, True, False)
    """
    return size > count and math.isqrt(size) ** 2 == size


@lru_cache(maxsize=32)
def projection(size: int, count: int = NUMBERS) -> Tensor:
    """What vectors of ``size`` numbers are multiplied by, float32 ``(size, numbers)``.

    Up to ``count`` numbers stay as they are. As many as a square image has pixels are read as one
    (any orthonormal basis would do, and for images this one is good); others are added up with
    signs (Achlioptas, 2003), which a fixed hash gives.

    Example:
        >>> projection(3).tolist()
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    if size <= count:
        return torch.eye(size)
    if like_image(size, count):
        return cosines(1, math.isqrt(size), math.isqrt(size), count)
    place = torch.arange(size * count).view(size, count)
    mixed = ((place + 1) * 0x9E3779B1) & 0xFFFFFFFF
    mixed = ((mixed ^ (mixed >> 15)) * 0x85EBCA77) & 0xFFFFFFFF
    signs = ((mixed ^ (mixed >> 13)) >> 16 & 1) * 2 - 1
    return signs.float() / math.sqrt(size)
