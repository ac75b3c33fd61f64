"""Vectors: one row of numbers an input, with no steps in it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mlflow_rnnmod.inputs.base import (
    Input,
    Reader,
    check_finite,
    check_floats,
    check_numbers,
    numbers,
)
from mlflow_rnnmod.inputs.gaussian import VectorDensity
from mlflow_rnnmod.inputs.likelihood import Density
from mlflow_rnnmod.inputs.rows import Rows


class Vectors(Input):
    """Vectors, ``size`` numbers each; their rows have no lengths.

    Example:
        >>> Vectors().check([[0.5, 1.0]], 2)
        [tensor([0.5000, 1.0000], dtype=torch.float64)]
    """

    name = "vectors"
    column = "features"
    column_type = ("array", "double")
    whole = True

    def read(self, value: Any, where: str, size: int, expected: str | None = None) -> Any:
        """Float64 ``(size,)``: numbers keep their digits until it is known who reads them."""
        expected = expected or f"a list of {size} numbers"
        found = numbers(value, where, expected, torch.float64)
        if found.shape != (size,):
            raise ValueError(f"{where} has shape {tuple(found.shape)}; expected {expected}.")
        check_finite(found, where)
        return found

    def check_rows(self, rows: Rows, size: int) -> None:
        """Float ``(rows, size)``."""
        check_floats(rows, (size,), f"(rows, {size})")

    def of_batch(self, values: Tensor) -> Tensor | None:
        """Floats ``(rows, size)``."""
        return values if values.ndim == 2 and values.is_floating_point() else None

    def rows(self, inputs: Any, network: Reader, tokenizer: Any = None) -> Rows:
        """Float ``(rows, size)``, of the network's dtype, without lengths."""
        if not isinstance(inputs, Rows):
            inputs = Rows(torch.stack(list(inputs)).to(network.dtype))
        return check_numbers(network.prepare(inputs))

    def background(
        self, rows: Rows, config: Any, count: int, seed: int, unknown: int | None = None
    ) -> Rows:
        """As :meth:`Input.background`; each number is taken from one of two rows at random."""
        generator = torch.Generator().manual_seed(seed)
        first, second = (torch.randint(len(rows), (count,), generator=generator) for _ in range(2))
        swap = torch.rand(count, rows.values.shape[1], generator=generator) < 0.5
        return Rows(torch.where(swap, rows.values[second], rows.values[first]))

    def density(self, config: Any, tokenizer: Any = None) -> Density | None:
        """A Gaussian over a fixed projection."""
        return VectorDensity(config.input_size)

    def common_size(self, parents: int) -> str | None:
        """Whatever the parents."""
        return "number of features"

    def words(self, size: int, steps: int | None = None) -> str:
        """As :meth:`Input.words`."""
        return f"vectors of {size} numbers"

    def example(self, size: int) -> str:
        """A list with one made-up input, as Python."""
        return f"[[0.5] * {size}]"
