"""A shrunk Gaussian for each label, over fixed bases: a few numbers of the input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Self

import torch
from torch import Tensor

from mlflow_rnnmod.inputs.likelihood import Counts, Density, Likelihood, Stack, space_of

NUMBERS = 64
"""Numbers that are made of an input, at the most."""


@lru_cache(maxsize=32)
def cosines(channels: int, height: int, width: int, count: int = NUMBERS) -> Tensor:
    """The lowest frequencies of the cosine transform (DCT-II, orthonormal) of an image.

    Frequencies are taken in the order of the squares of both, all channels of each.

    Gives float32 ``(channels * height * width, coefficients)``: what a flat image is multiplied by.

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


def like_image(size: int) -> bool:
    """Whether a vector is read as a square image.

    Example:
        >>> like_image(784), like_image(64), like_image(100), like_image(101)
        (True, False, True, False)
    """
    return size > NUMBERS and math.isqrt(size) ** 2 == size


@lru_cache(maxsize=32)
def projection(size: int) -> Tensor:
    """What vectors of ``size`` numbers are multiplied by, float32 ``(size, numbers)``.

    Up to :data:`NUMBERS` numbers stay as they are. As many as a square image has pixels are read as
    one (any orthonormal basis would do, and for images this one is good); others are added up with
    signs (Achlioptas, 2003), which a fixed hash gives.

    Example:
        >>> projection(3).tolist()
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    if size <= NUMBERS:
        return torch.eye(size)
    if like_image(size):
        return cosines(1, math.isqrt(size), math.isqrt(size))
    place = torch.arange(size * NUMBERS).view(size, NUMBERS)
    mixed = ((place + 1) * 0x9E3779B1) & 0xFFFFFFFF
    mixed = ((mixed ^ (mixed >> 15)) * 0x85EBCA77) & 0xFFFFFFFF
    signs = ((mixed ^ (mixed >> 13)) >> 16 & 1) * 2 - 1
    return signs.float() / math.sqrt(size)


SHRINKAGE = 0.05
"""How much of a label's covariance is the parent's pooled one, at the least."""
FLOOR = 1e-3
"""Least variance of a number, as a share of the mean one: what never moves says nothing."""


class Moments(Counts):
    """Numbers, sums and products of each label's inputs, in float64."""

    def __init__(self, labels: int, numbers: int, space: str) -> None:
        self.space = space
        self.count = torch.zeros(labels, dtype=torch.float64)
        self.total = torch.zeros(labels, numbers, dtype=torch.float64)
        self.products = torch.zeros(labels, numbers, numbers, dtype=torch.float64)

    def add(self, seen: Tensor, carried: Tensor) -> None:
        """As :meth:`Counts.add`."""
        values, member = seen.double().cpu(), carried.double().cpu()
        self.count += member.sum(dim=0)
        self.total += member.T @ values
        for label in range(len(self.count)):
            own = values[carried[:, label].cpu()]
            self.products[label] += own.T @ own

    def merge(self, other: Self) -> Self:
        """As :meth:`Counts.merge`."""
        labels, numbers = self.total.shape
        found = type(self)(labels, numbers, self.space)
        found.count = self.count + other.count
        found.total = self.total + other.total
        found.products = self.products + other.products
        return found

    def likelihoods(self) -> list[Likelihood | None]:
        """As :meth:`Counts.likelihoods`."""
        numbers, count = self.total.shape[1], self.count.clamp(min=1.0)
        means = self.total / count[:, None]
        scatter = self.products - means[:, :, None] * self.total[:, None]
        pooled = scatter.sum(dim=0) / self.count.sum().clamp(min=1.0)
        floor = FLOOR * pooled.diagonal().mean().clamp(min=1e-6) * torch.eye(numbers)
        found: list[Likelihood | None] = []
        for label, rows in enumerate(self.count.tolist()):
            if rows < 1:
                found.append(None)
                continue
            # Few rows say little of a covariance: theirs counts as one more row for each number.
            share = max(SHRINKAGE, numbers / (numbers + rows))
            own = (1 - share) * scatter[label] / rows + share * pooled + floor
            whiten = torch.linalg.inv(torch.linalg.cholesky(own))
            low = torch.tril_indices(numbers, numbers)
            tensors = {"mean": means[label].float(), "whiten": whiten[low[0], low[1]].float()}
            found.append(Likelihood(self.space, {"rows": int(rows)}, tensors))
        return found


class GaussianStack(Stack):
    """Gaussians of many modules."""

    def __init__(self, likelihoods: Sequence[Likelihood]) -> None:
        numbers = len(likelihoods[0].tensors["mean"])
        low = torch.tril_indices(numbers, numbers)
        self.whiten = torch.zeros(len(likelihoods), numbers, numbers)
        for table, each in zip(self.whiten, likelihoods, strict=True):
            table[low[0], low[1]] = each.tensors["whiten"]
        means = torch.stack([each.tensors["mean"] for each in likelihoods])
        self.shift = (self.whiten @ means[:, :, None])[:, :, 0]
        scale = self.whiten.diagonal(dim1=1, dim2=2).log().sum(dim=1)
        self.constant = scale - numbers / 2 * math.log(2 * math.pi)

    def __call__(self, seen: Tensor) -> Tensor:
        """As :meth:`Stack.__call__`."""
        modules, numbers = self.shift.shape
        white = (seen.cpu().float() @ self.whiten.flatten(0, 1).T).view(-1, modules, numbers)
        return self.constant - (white - self.shift).square_().sum(dim=2) / 2


class GaussianDensity(Density):
    """Gaussians over ``numbers`` numbers of an input."""

    weight = 0.1
    """What a nat counts in a vote: the numbers of an input say the same thing many times."""
    about = ""

    def __init__(self, *shape: int) -> None:
        self.shape = shape

    @property
    def space(self) -> str:
        """As :attr:`Density.space`."""
        return space_of(self, *self.shape)

    @property
    def numbers(self) -> int:
        """How many numbers an input is."""
        raise NotImplementedError

    def counts(self, labels: int, room: float = 1.0) -> Moments:
        """As :meth:`Density.counts`."""
        return Moments(labels, self.numbers, self.space)

    def stack(self, likelihoods: Sequence[Likelihood]) -> GaussianStack:
        """As :meth:`Density.stack`."""
        return GaussianStack(likelihoods)

    def sizes(self, seen: Tensor) -> Tensor:
        """As :meth:`Density.sizes`."""
        return torch.full((len(seen),), float(self.numbers))

    def vote(self, log_likelihoods: Tensor, sizes: Tensor) -> Tensor:
        """As :meth:`Density.vote`."""
        return self.weight * log_likelihoods

    def check(self, likelihood: Likelihood) -> None:
        """As :meth:`Density.check`."""
        expected = {"mean": (self.numbers,), "whiten": (self.numbers * (self.numbers + 1) // 2,)}
        shapes = {name: tuple(tensor.shape) for name, tensor in likelihood.tensors.items()}
        if shapes != expected:
            raise ValueError(f"its likelihood has tables of {shapes}; expected {expected}.")

    def words(self, likelihood: Likelihood) -> str:
        """As :meth:`Density.words`."""
        return (
            f"mean and covariance of {self.numbers} numbers of an input ({self.about}), of "
            f"{likelihood.facts['rows']} training rows"
        )

    @classmethod
    def parsed(cls, rest: str) -> GaussianDensity:
        """As :meth:`Density.parsed`."""
        return cls(*(int(part) for part in rest.split("x")))


class VectorDensity(GaussianDensity):
    """Of vectors: a fixed projection of them.

    Example:
        >>> VectorDensity(784).numbers, VectorDensity(5).space
        (64, 'vectors-1:5')
    """

    kind = "vectors"
    about = "the vector itself, or its projection on a fixed basis"

    @property
    def numbers(self) -> int:
        """As :attr:`GaussianDensity.numbers`."""
        return min(self.shape[0], NUMBERS)

    def of_rows(self, rows: Any, tokenizer: Any = None, side: str = "right") -> Tensor:
        """Float32 ``(rows, numbers)``."""
        values = rows.values.detach().cpu().float()
        values = rooted(values) if like_image(self.shape[0]) else values
        return values @ projection(self.shape[0])


class ImageDensity(GaussianDensity):
    """Of images ``(channels, height, width)``: their lowest cosine coefficients.

    Example:
        >>> ImageDensity(3, 32, 32).numbers
        63
    """

    kind = "images"
    weight = 0.03
    about = "the lowest cosine coefficients of the roots of its pixels"

    @property
    def numbers(self) -> int:
        """As :attr:`GaussianDensity.numbers`."""
        return cosines(*self.shape).shape[1]

    def of_rows(self, rows: Any, tokenizer: Any = None, side: str = "right") -> Tensor:
        """Float32 ``(rows, numbers)``."""
        values = rows.values.detach().cpu().float().view(-1, *self.shape)
        if tokenizer is not None:  # each parent prepares in its own way: back to what came in
            values = tokenizer.pixels(values).float() / 255
        return rooted(values).flatten(1) @ cosines(*self.shape)


class StepDensity(GaussianDensity):
    """Of steps of numbers: mean, deviation, first, last and mean change of each, and the length.

    Example:
        >>> StepDensity(2).numbers
        11
    """

    kind = "steps"
    about = "means, deviations, first and last steps, changes, and the logarithm of the length"

    @property
    def numbers(self) -> int:
        """As :attr:`GaussianDensity.numbers`."""
        return min(5 * self.shape[0] + 1, NUMBERS)

    def of_rows(self, rows: Any, tokenizer: Any = None, side: str = "right") -> Tensor:
        """Float32 ``(rows, numbers)``."""
        values = rows.values.detach().cpu().float()
        steps = values.shape[1]
        lengths = torch.full((len(values),), steps) if rows.lengths is None else rows.lengths.cpu()
        lengths = lengths.clamp(min=1, max=steps)
        place, left = torch.arange(steps), side == "left"
        valid = place >= (steps - lengths)[:, None] if left else place < lengths[:, None]
        weight = valid[..., None].float() / lengths[:, None, None]
        mean = (values * weight).sum(dim=1)
        deviation = ((values - mean[:, None]).square() * weight).sum(dim=1).sqrt()
        row = torch.arange(len(values))
        first = steps - lengths if left else torch.zeros_like(lengths)
        ends = values[row, first], values[row, first + lengths - 1]
        change = values[:, 1:] - values[:, :-1]
        both = (valid[:, 1:] & valid[:, :-1])[..., None].float()
        change = (change.abs() * both).sum(dim=1) / (lengths[:, None] - 1).clamp(min=1)
        found = torch.cat([mean, deviation, *ends, change, lengths.float().log()[:, None]], dim=1)
        return found @ projection(5 * self.shape[0] + 1)
