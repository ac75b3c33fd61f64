"""Rows of steps, some longer than others: what token ids and features have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from mlflow_rnnmod.inputs.base import Input, Reader, check_numbers
from mlflow_rnnmod.inputs.rows import Rows


class Steps(Input):
    """Inputs with any number of steps, padded to the longest."""

    def rows(self, inputs: Any, network: Reader, tokenizer: Any = None) -> Rows:
        """As :meth:`Input.rows`.

        Rows without a single step get one step of padding; their length is 1, or stays 0 where the
        parent answers each step.
        """
        config = network.config
        rows = inputs if isinstance(inputs, Rows) else self.padded(inputs, network, tokenizer)
        prepared = check_numbers(network.prepare(rows))
        lengths = network.lengths(prepared).cpu()
        if config.stepwise:
            lengths[self.without_step(rows, config.pad_index).cpu()] = 0
        return Rows(prepared.values, lengths, prepared.targets)

    @abstractmethod
    def padded(self, inputs: Sequence[Any], network: Reader, tokenizer: Any) -> Rows:
        """Checked inputs of different lengths as rows."""

    def is_blank(self, value: Any) -> bool:
        """No step."""
        return len(value) == 0

    def length(self, value: Any, tokenizer: Any = None) -> int:
        """Its steps."""
        return len(value)

    def cut(self, value: Any, steps: int, tokenizer: Any = None) -> Any:
        """Its first steps."""
        return value[:steps]

    def without_step(self, rows: Rows, pad_index: int | None) -> Tensor:
        """Bool ``(rows,)``: those that hold nothing but padding."""
        if rows.lengths is None:
            return torch.zeros(len(rows), dtype=torch.bool)
        return rows.lengths == 0

    def background(
        self, rows: Rows, config: Any, count: int, seed: int, unknown: int | None = None
    ) -> Rows:
        """As :meth:`Input.background`; each step is taken from one of two rows at random."""
        generator = torch.Generator().manual_seed(seed)
        first, second = (torch.randint(len(rows), (count,), generator=generator) for _ in range(2))
        steps = rows.values.shape[1]
        lengths = rows.lengths if rows.lengths is not None else torch.full((len(rows),), steps)
        left = config.side == "left"
        values = rows.values.flip(1) if left else rows.values
        # A step of the second row is taken where that row has one, or padding would get mixed in.
        position = torch.arange(steps)
        swap = torch.rand(count, steps, generator=generator) < 0.5
        swap &= position < lengths[second][:, None].clamp(max=steps)
        swap &= position < lengths[first][:, None]
        swap = swap.reshape(swap.shape + (1,) * (values.ndim - 2))
        mixed = torch.where(swap, values[second], values[first])
        valid = position < lengths[first][:, None]
        mixed = self.estranged(mixed, valid, config, generator, unknown)
        return Rows(mixed.flip(1) if left else mixed, lengths[first])

    @abstractmethod
    def estranged(
        self, mixed: Tensor, valid: Tensor, config: Any, generator: Generator, unknown: int | None
    ) -> Tensor:
        """Mixed rows, padding behind their valid steps, made stranger still."""

    def words(self, size: int, steps: int | None = None) -> str:
        """As :meth:`Input.words`."""
        return self.read_words(size) + (f"; {steps} steps, padded or cut" if steps else "")

    @abstractmethod
    def read_words(self, size: int) -> str:
        """One row, in words."""


def pad(items: Sequence[Tensor], filler: int, side: str) -> tuple[Tensor, Tensor]:
    """Items of different lengths in one tensor of at least one step, and their lengths.

    Example:
        >>> pad([torch.tensor([4, 5]), torch.tensor([6])], 0, "left")
        (tensor([[4, 5],
                [0, 6]]), tensor([2, 1]))
    """
    lengths = torch.tensor([len(item) for item in items], dtype=torch.int64)
    steps = max(1, int(lengths.max()))
    values = torch.full((len(items), steps, *items[0].shape[1:]), filler, dtype=items[0].dtype)
    for row, item in enumerate(items):
        start = 0 if side == "right" else steps - len(item)
        values[row, start : start + len(item)] = item
    return values, lengths
