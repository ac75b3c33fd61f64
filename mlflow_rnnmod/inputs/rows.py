"""Rows of input: what a network reads, and what of it is padding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor

from mlflow_rnnmod.answers.targets import IGNORE


@dataclass(frozen=True, eq=False)
class Rows:
    """A batch, or a whole sample, of inputs with their targets.

    Args:
        values: int64 token ids of shape ``(rows, steps)`` or float features of shape
            ``(rows, steps, features)``.
        lengths: int64 valid steps of each row, shape ``(rows,)``; ``None`` leaves it to the
            network (for tokens it looks for its padding index, for features all steps count).
        targets: what is right, where known: the index of each row's label, int64 ``(rows,)``; for
            several labels a row, bool ``(rows, labels)``; for a label a step, int64
            ``(rows, output steps)`` with ``IGNORE`` (-1) where there is none.

    Raises:
        ValueError: if the three do not have the same number of rows.

    Example:
        >>> rows = Rows(torch.tensor([[3, 4, 0], [5, 0, 0]]), torch.tensor([2, 1]))
        >>> len(rows), rows[torch.tensor([1])].values.tolist()
        (2, [[5, 0, 0]])
    """

    values: Tensor
    lengths: Tensor | None = None
    targets: Tensor | None = None

    def __post_init__(self) -> None:
        for name, other in self._tensors().items():
            if len(other) != len(self.values):
                raise ValueError(
                    f"{name} has {len(other)} rows, values has {len(self.values)}; "
                    "expected as many in both."
                )

    def _tensors(self) -> dict[str, Tensor]:
        """What it has a row of for each row, by name."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: tensor for name, tensor in found.items() if tensor is not None}

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Tensor | slice) -> Self:
        return type(self)(**{name: tensor[index] for name, tensor in self._tensors().items()})

    def to(self, device: torch.device | str) -> Self:
        """The same rows on ``device``."""
        return type(self)(**{name: tensor.to(device) for name, tensor in self._tensors().items()})

    def batches(self, size: int) -> Iterator[Self]:
        """The rows in order, ``size`` at a time (the last batch may be smaller)."""
        for start in range(0, len(self), size):
            yield self[slice(start, start + size)]


@dataclass(frozen=True, eq=False)
class ForcedRows(Rows):
    """Sources, each with a translation; targets are the numbers of the languages.

    Args:
        tokens: int64 ``(rows, steps)``: the translations, without start and end.
        token_lengths: int64 ``(rows,)``: tokens of each.

    Example:
        >>> one = torch.tensor([1])
        >>> rows = ForcedRows(torch.tensor([[5]]), one, one - 1, torch.tensor([[7, 8]]), one + 1)
        >>> rows[slice(0, 1)].tokens.tolist()
        [[7, 8]]
    """

    tokens: Tensor | None = None
    token_lengths: Tensor | None = None


def concatenate(parts: list[Rows], pad_value: int = 0, side: str = "right") -> Rows:
    """All rows of ``parts`` in one, padded on ``side`` to the longest.

    Args:
        parts: at least one; either all or none with lengths, and with targets.
        pad_value: what the added steps hold.
        side: where they are added, ``"right"`` or ``"left"``.

    Raises:
        ValueError: if there are no parts.
    """
    if not parts:
        raise ValueError("parts is empty; expected at least one Rows to concatenate.")
    steps = max(part.values.shape[1] for part in parts)
    values = [fitted(part.values, steps, pad_value, side) for part in parts]

    def joined(found: list[Tensor | None]) -> Tensor | None:
        present = [item for item in found if item is not None]
        return torch.cat(present) if len(present) == len(parts) else None

    targets = [part.targets for part in parts]
    widths = {t.shape[1] for t in targets if t is not None and t.ndim == 2}
    if len(widths) > 1:
        widest = max(widths)
        targets = [None if t is None else fitted(t, widest, IGNORE, side) for t in targets]
    return Rows(torch.cat(values), joined([part.lengths for part in parts]), joined(targets))


def fitted(values: Tensor, steps: int, fill: int, side: str = "right") -> Tensor:
    """``values`` ``(rows, any steps, ...)`` cut or filled up on ``side`` to ``steps``.

    Example:
        >>> row = torch.tensor([[1, 2]])
        >>> fitted(row, 3, 0).tolist(), fitted(row, 1, 0, "left").tolist()
        ([[1, 2, 0]], [[2]])
    """
    present, right = values.shape[1], side == "right"
    if present == steps:
        return values
    if present > steps:
        return values[:, :steps] if right else values[:, present - steps :]
    filler = values.new_full((len(values), steps - present, *values.shape[2:]), fill)
    return torch.cat([values, filler] if right else [filler, values], dim=1)


def lengths_of(config: Any, rows: Rows) -> Tensor:
    """Valid steps of each row, int64 ``(rows,)``, at least 1: an empty row is one padding step.

    Where the rows do not say, the last (padding on the left: first) token that is not padding
    decides; for features every step is valid.
    """
    values, steps = rows.values, rows.values.shape[1]
    if rows.lengths is not None:
        lengths = rows.lengths.to(values.device)
    elif config.pad_index is None or values.is_floating_point():
        lengths = torch.full((len(rows),), steps, device=values.device)
    else:
        content = values != config.pad_index
        if config.side == "left":
            content = content.flip(1)
        position = torch.arange(1, steps + 1, device=content.device)
        lengths = (content * position).amax(dim=1)
    return lengths.clamp(min=1, max=steps)


def valid_of(config: Any, lengths: Tensor, steps: int) -> Tensor:
    """Bool ``(rows, steps)``: which steps are not padding."""
    position = torch.arange(steps, device=lengths.device)
    if config.side == "left":
        position = steps - 1 - position
    return position < lengths[:, None]


def resized(config: Any, rows: Rows, steps: int, answered: bool) -> Rows:
    """Rows cut or padded to so many steps; targets, too, where each step is ``answered``."""
    if steps == rows.values.shape[1]:
        return rows
    lengths = lengths_of(config, rows).clamp(max=steps)
    targets = rows.targets
    if targets is not None and answered:
        targets = fitted(targets, steps, IGNORE, config.side)
    values = fitted(rows.values, steps, config.pad_index or 0, config.side)
    return Rows(values, lengths, targets)


def prepared(config: Any, rows: Rows) -> Rows:
    """Rows cut or padded to ``config.steps``, or to as many as there must be at least."""
    present = rows.values.shape[1]
    steps = max(present, config.least_steps) if config.steps is None else config.steps
    return resized(config, rows, steps, config.answer.stepwise)


def trimmed(config: Any, rows: Rows) -> Rows:
    """The rows without steps that are padding in all of them, where those change no answer."""
    if config.steps is not None or config.side == "left" or len(rows) == 0:
        return rows
    steps = max(int(lengths_of(config, rows).max()), config.least_steps)
    if steps >= rows.values.shape[1]:
        return rows
    targets = rows.targets
    if targets is not None and config.answer.stepwise:
        targets = targets[:, :steps]
    return Rows(rows.values[:, :steps], rows.lengths, targets)


MAX_STEPS = 65_536
"""Steps times rows that are run at once: one very long text must not pad a whole batch."""


def bucket(lengths: Tensor, batch_size: int) -> list[Tensor]:
    """Row numbers in batches of like length, the shortest first.

    Batches hold at most ``batch_size`` rows, and fewer where the rows are very long.

    Example:
        >>> [index.tolist() for index in bucket(torch.tensor([5, 2, 5, 2]), 3)]
        [[1, 3, 0], [2]]
    """
    order = lengths.argsort(stable=True)
    chunks, start = [], 0
    while start < len(order):
        end = min(start + batch_size, len(order))
        while end > start + 1 and int(lengths[order[end - 1]]) * (end - start) > MAX_STEPS:
            end = start + (end - start) // 2
        chunks.append(order[start:end])
        start = end
    return chunks
