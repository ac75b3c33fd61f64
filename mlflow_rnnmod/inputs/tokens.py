"""Token ids: rows of whole numbers, each a row of the network's embedding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor

from mlflow_rnnmod.inputs.base import ColumnType, Reader, is_missing, numbers
from mlflow_rnnmod.inputs.likelihood import Density
from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.inputs.steps import Steps, pad
from mlflow_rnnmod.inputs.wording import Ids

UNKNOWN_SHARE = 0.3
"""Mean share of tokens in made-up rows that become unknown."""


class Tokens(Steps):
    """Token ids, a sequence of whole numbers each.

    Example:
        >>> Tokens().check([[3, 1], []], 5)
        [tensor([3, 1]), tensor([], dtype=torch.int64)]
    """

    name = column = "tokens"
    column_type: ClassVar[ColumnType] = ("array", "long")
    ids = True

    def read(self, value: Any, where: str, size: int, expected: str | None = None) -> Any:
        """Int64 ``(steps,)``."""
        wanted = expected or f"whole numbers ({self.name})"
        found = numbers(value, where, wanted)
        if found.numel() == 0:
            return torch.zeros(0, dtype=torch.int64)
        if found.is_floating_point() or found.dtype == torch.bool or found.ndim != 1:
            raise TypeError(
                f"{where} is {found.dtype} of shape {tuple(found.shape)}; expected {wanted}."
            )
        found = found.to(torch.int64)
        _check_range(found, where, size, expected)
        return found

    def read_cell(self, cell: Any, row: int, size: int) -> list[Any]:
        """Lists of ids; a missing cell is a sequence without a step."""
        if is_missing(cell):
            return [[]]
        if hasattr(cell, "tolist"):
            cell = cell.tolist()
        if isinstance(cell, list | tuple) and cell:
            cell = [item.tolist() if hasattr(item, "tolist") else item for item in cell]
            if all(isinstance(item, list | tuple) for item in cell):
                return [ids for item in cell for ids in self.read_cell(item, row, size)]
        expected = f"a list of token ids from 0 to {size - 1}"
        return [self.read(cell, f"{self.column} in row {row}", size, expected).tolist()]

    def check_rows(self, rows: Rows, size: int) -> None:
        """Int64 ``(rows, steps)``."""
        values = rows.values
        if values.is_floating_point() or values.ndim != 2:
            raise TypeError(
                f"values is {values.dtype} of shape {tuple(values.shape)}; expected whole numbers "
                "of shape (rows, steps)."
            )
        _check_range(values, "values", size)

    def of_batch(self, values: Tensor) -> Tensor | None:
        """Whole numbers ``(rows, steps)``, as int64."""
        return values.long() if values.ndim == 2 and not values.is_floating_point() else None

    def padded(self, inputs: Sequence[Any], network: Reader, tokenizer: Any) -> Rows:
        """The network looks for padding itself: what was left at the end of a row is some, too."""
        config = network.config
        values, lengths = pad(inputs, config.pad_index or 0, config.side)
        return Rows(values, lengths if config.pad_index is None else None)

    def without_step(self, rows: Rows, pad_index: int | None) -> Tensor:
        """As :meth:`Steps.without_step`; padding tokens tell, where lengths do not."""
        if rows.lengths is None and pad_index is not None:
            return (rows.values == pad_index).all(dim=1)
        return super().without_step(rows, pad_index)

    def estranged(
        self, mixed: Tensor, valid: Tensor, config: Any, generator: Generator, unknown: int | None
    ) -> Tensor:
        """Some tokens become the unknown one, or a random one where there is none."""
        # From a few to most of a row's tokens, so that all degrees of strangeness are seen.
        share = torch.rand(len(mixed), 1, generator=generator) * 2 * UNKNOWN_SHARE
        strange = (torch.rand(mixed.shape, generator=generator) < share) & valid
        if unknown is not None:
            return mixed.masked_fill(strange, unknown)
        return torch.where(strange, _any_token(mixed.shape, config, generator), mixed)

    def density(self, config: Any, tokenizer: Any = None) -> Density | None:
        """N-grams of ids."""
        return Ids(config.input_size)

    def common_size(self, parents: int) -> str | None:
        """Without a tokenizer nobody can tell whether one id means the same to two parents."""
        return "vocabulary size" if parents > 1 else None

    def read_words(self, size: int) -> str:
        """One row, in words."""
        return f"token ids from 0 to {size - 1}"

    def example(self, size: int) -> str:
        """A list with one made-up input, as Python."""
        return f"[[{', '.join(str(min(i, size - 1)) for i in (4, 7, 2))}]]"


def _check_range(ids: Tensor, where: str, size: int, expected: str | None = None) -> None:
    if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < size:
        raise ValueError(
            f"{where} has token ids from {int(ids.min())} to {int(ids.max())}; expected "
            f"{expected or f'ids from 0 to {size - 1}'}."
        )


def _any_token(shape: torch.Size, config: Any, generator: Generator) -> Tensor:
    """Random tokens of the vocabulary, but never padding."""
    if config.pad_index is None or config.input_size == 1:
        return torch.randint(config.input_size, shape, generator=generator)
    other = torch.randint(config.input_size - 1, shape, generator=generator)
    return other + (other >= config.pad_index)
