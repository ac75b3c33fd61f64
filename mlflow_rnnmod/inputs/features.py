"""Features: steps of numbers, a vector each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from mlflow_rnnmod.inputs.base import Reader, check_finite, numbers
from mlflow_rnnmod.inputs.gaussian import StepDensity
from mlflow_rnnmod.inputs.likelihood import Density
from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.inputs.steps import Steps, pad


class Features(Steps):
    """Features, an array ``(steps, size)`` each.

    Example:
        >>> Features().check([[[0.5, 1.0]]], 2)
        [tensor([[0.5000, 1.0000]], dtype=torch.float64)]
    """

    name = column = "features"
    column_type = ("array", ("array", "double"))

    def read(self, value: Any, where: str, size: int, expected: str | None = None) -> Any:
        """Float64 ``(steps, size)``: numbers keep their digits until it is known who reads them."""
        expected = expected or f"a list of steps, each a list of {size} numbers"
        found = numbers(value, where, expected, torch.float64)
        if found.numel() == 0:
            return torch.zeros(0, size, dtype=torch.float64)
        if found.ndim != 2 or found.shape[1] != size:
            raise ValueError(f"{where} has shape {tuple(found.shape)}; expected {expected}.")
        check_finite(found, where)
        return found

    def check_rows(self, rows: Rows, size: int) -> None:
        """Float ``(rows, steps, size)``."""
        values = rows.values
        if values.ndim != 3 or values.shape[2] != size:
            raise ValueError(
                f"values has shape {tuple(values.shape)}; expected (rows, steps, {size})."
            )
        check_finite(values, "values")

    def of_batch(self, values: Tensor) -> Tensor | None:
        """Numbers ``(rows, steps, size)``, or floats ``(rows, steps)``, one a step."""
        if values.ndim == 3:
            return values if values.is_floating_point() else values.float()
        return values[..., None] if values.ndim == 2 and values.is_floating_point() else None

    def padded(self, inputs: Sequence[Any], network: Reader, tokenizer: Any) -> Rows:
        """Padded with zeros; lengths say where."""
        return Rows(*pad([item.to(network.dtype) for item in inputs], 0, network.config.side))

    def estranged(
        self, mixed: Tensor, valid: Tensor, config: Any, generator: Generator, unknown: int | None
    ) -> Tensor:
        """Steps in a random order."""
        # Valid steps get random keys below 1, padding stays behind them in its own order.
        keys = torch.rand(valid.shape, generator=generator)
        order = torch.where(valid, keys, 1 + torch.arange(valid.shape[1])).argsort(dim=1)
        return mixed.gather(1, order[..., None].expand_as(mixed))

    def density(self, config: Any, tokenizer: Any = None) -> Density | None:
        """A Gaussian over summaries of the steps."""
        return StepDensity(config.input_size)

    def common_size(self, parents: int) -> str | None:
        """Whatever the parents."""
        return "features a step"

    def read_words(self, size: int) -> str:
        """One row, in words."""
        return f"steps of {size} numbers"

    def example(self, size: int) -> str:
        """A list with one made-up input, as Python."""
        return f"[[[0.5] * {size}] * 4]"
