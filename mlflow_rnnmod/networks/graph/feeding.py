"""What goes into a graph, for each kind of input: shapes, and tensors of a batch.

A new kind of input is a row of :data:`FEEDS`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, ClassVar

import torch
from torch import Tensor

from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.networks.graph.operations.base import MAX_SIZE, Shape, is_count

INPUT, LENGTHS, MASK = "input", "lengths", "mask"
"""Names of what goes in: values, and over steps how many are valid, and which."""


class Feed:
    """Rows of one kind of input, as the nodes of a graph read them."""

    axes: ClassVar[tuple[str, ...]]
    """What the dimensions of a row's shape are."""
    stepped: ClassVar[bool] = False
    """Whether rows have steps, of which some may be padding."""

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

    def size(self, shape: Shape, known: Sequence[int] = ()) -> Any:
        """What contracts call the input's size: numbers in a row."""
        return prod(size or 1 for size in shape)

    def given(self, rows: Rows, shape: Shape, dtype: torch.dtype) -> dict[str, Tensor]:
        """Tensors ``(rows, units, *places)`` of a batch, by name."""
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

    def size(self, shape: Shape, known: Sequence[int] = ()) -> Any:
        """Channels, height and width."""
        return shape


class Stepwise(Feed):
    """Steps, with the length of each row and a mask of valid steps.

    How many steps there are may not be fixed: then that is ``None`` in a row's shape.
    """

    stepped = True

    def problems(self, shape: Shape) -> list[str]:
        """What does not fit in the shape of one row."""
        if isinstance(shape, tuple) and len(shape) == 2:
            units, steps = shape
            if is_count(units) and (steps is None or is_count(steps)):
                return []
        return [f"input_shape={shape!r:.100}, expected ({', '.join(self.axes)})"]

    def shapes(self, shape: Shape) -> dict[str, Shape]:
        """Values, lengths and the mask."""
        return {INPUT: shape, LENGTHS: (1,), MASK: (1, shape[1])}

    def over_steps(
        self, rows: Rows, shape: Shape, dtype: torch.dtype, valid: Tensor
    ) -> dict[str, Tensor]:
        """Tensors ``(rows, units, *places)`` of a batch, by name.

        ``valid``: bool ``(rows, steps)``.
        """
        assert rows.lengths is not None
        values = self.values(rows.values, shape)
        lengths = rows.lengths.to(values.device)
        return {
            INPUT: values.to(dtype),
            LENGTHS: lengths[:, None].to(dtype),
            MASK: valid[:, None].to(dtype),
        }

    def values(self, values: Tensor, shape: Shape) -> Tensor:
        """``(rows, units, steps)``."""
        raise NotImplementedError


class _Tokens(Stepwise):
    """Token ids ``(rows, steps)``."""

    axes = ("1", "steps")

    def size(self, shape: Shape, known: Sequence[int] = ()) -> Any:
        """How many tokens there are for every node that looks them up."""
        return min(known) if known else super().size(shape)

    def problems(self, shape: Shape) -> list[str]:
        found = super().problems(shape)
        return found or ([] if shape[0] == 1 else [f"input_shape={shape}, expected one id a step"])

    def values(self, values: Tensor, shape: Shape) -> Tensor:
        if values.ndim != 2 or values.shape[1] == 0:
            raise ValueError(
                f"values has shape {tuple(values.shape)}; expected token ids (rows, steps) of at "
                "least one step."
            )
        return values[:, None]


class _Features(Stepwise):
    """Floats ``(rows, steps, features)``."""

    axes = ("features", "steps")

    def size(self, shape: Shape, known: Sequence[int] = ()) -> int:
        return shape[0] or 1

    def values(self, values: Tensor, shape: Shape) -> Tensor:
        if values.ndim != 3 or values.shape[1] == 0 or values.shape[2] != shape[0]:
            raise ValueError(
                f"values has shape {tuple(values.shape)}; expected (rows, steps, {shape[0]}) "
                "floats of at least one step."
            )
        return values.transpose(1, 2)


FEEDS: Mapping[str, Feed] = {
    "vectors": _Vectors(),
    "pixels": _Pixels(),
    "tokens": _Tokens(),
    "features": _Features(),
}
"""Kinds of input by name."""
