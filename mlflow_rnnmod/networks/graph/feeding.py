"""What goes into a graph, for each kind of input: shapes, and tensors of a batch.

A new kind of input is a row of :data:`FEEDS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any, ClassVar

import torch
from torch import Tensor

from mlflow_rnnmod.networks.graph.operations.base import MAX_SIZE, Shape, is_count
from mlflow_rnnmod.networks.rows import Rows

INPUT = "input"


class Feed:
    """Rows of one kind of input, as the nodes of a graph read them."""

    axes: ClassVar[tuple[str, ...]]
    """What the dimensions of a row's shape are."""

    def problems(self, shape: Shape) -> list[str]:
        """What does not fit in the shape of one row."""
        sizes = isinstance(shape, tuple) and bool(shape) and all(map(is_count, shape))
        fits = sizes and len(shape) == len(self.axes)
        if fits and prod(size or 1 for size in shape) <= MAX_SIZE:
            return []
        expected = f"({', '.join(self.axes)}), 1 to {MAX_SIZE} numbers"
        given = shape[0] if isinstance(shape, tuple) and len(shape) == 1 else shape
        return [f"input_size={given!r:.100}, expected {expected}"]

    def shapes(self, shape: Shape) -> dict[str, Shape]:
        """Of all that goes in, for one row, by name: the input, and what else is known of it."""
        return {INPUT: shape}

    def size(self, shape: Shape) -> Any:
        """What contracts call the input's size: numbers in a row."""
        return prod(size or 1 for size in shape)

    def given(self, rows: Rows, shape: Shape, dtype: torch.dtype) -> dict[str, Tensor]:
        """Tensors ``(rows, units, *places)`` of a batch, by name.

        Raises:
            ValueError: if rows are not of this shape.
        """
        values = rows.values
        if tuple(values.shape[1:]) != shape:
            expected = ", ".join(map(str, shape))
            raise ValueError(
                f"values has shape {tuple(values.shape)}; expected (rows, {expected}) floats."
            )
        return {INPUT: values.to(dtype)}


class _Vectors(Feed):
    """Floats ``(rows, numbers)``; images of as many are flattened."""

    axes = ("numbers",)

    def given(self, rows: Rows, shape: Shape, dtype: torch.dtype) -> dict[str, Tensor]:
        values = rows.values
        if prod(values.shape[1:]) != shape[0] or values.ndim < 2:
            raise ValueError(
                f"values has shape {tuple(values.shape)}; expected (rows, {shape[0]}) floats."
            )
        return {INPUT: values.flatten(1).to(dtype)}


class _Pixels(Feed):
    """Floats ``(rows, channels, height, width)``."""

    axes = ("channels", "height", "width")

    def size(self, shape: Shape) -> Any:
        """Channels, height and width."""
        return shape


FEEDS: Mapping[str, Feed] = {"vectors": _Vectors(), "pixels": _Pixels()}
"""Kinds of input by name."""
