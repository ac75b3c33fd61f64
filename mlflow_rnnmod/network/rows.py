"""Rows of input: what a network reads, with what is needed to tell padding from content."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Rows:
    """A batch, or a whole sample, of inputs with their targets.

    Args:
        values: int64 token ids of shape ``(rows, steps)`` or float features of shape
            ``(rows, steps, features)``.
        lengths: int64 valid steps of each row, shape ``(rows,)``; ``None`` leaves it to the
            network (for tokens it looks for its padding index, for features all steps count).
        targets: int64 label index of each row, shape ``(rows,)``, where known.

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
        for name in ("lengths", "targets"):
            other = getattr(self, name)
            if other is not None and len(other) != len(self.values):
                raise ValueError(
                    f"{name} has {len(other)} rows, values has {len(self.values)}; "
                    "expected as many in both."
                )

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Tensor | slice) -> Rows:
        return Rows(
            self.values[index],
            None if self.lengths is None else self.lengths[index],
            None if self.targets is None else self.targets[index],
        )

    def to(self, device: torch.device | str) -> Rows:
        """The same rows on ``device``."""
        return Rows(
            self.values.to(device),
            None if self.lengths is None else self.lengths.to(device),
            None if self.targets is None else self.targets.to(device),
        )

    def batches(self, size: int) -> Iterator[Rows]:
        """The rows in order, ``size`` at a time (the last batch may be smaller)."""
        for start in range(0, len(self), size):
            yield self[slice(start, start + size)]


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
    values = []
    for part in parts:
        missing = steps - part.values.shape[1]
        if missing:
            shape = (len(part), missing, *part.values.shape[2:])
            filler = part.values.new_full(shape, pad_value)
            order = [part.values, filler] if side == "right" else [filler, part.values]
            values.append(torch.cat(order, dim=1))
        else:
            values.append(part.values)

    def joined(name: str) -> Tensor | None:
        found = [getattr(part, name) for part in parts]
        return None if any(item is None for item in found) else torch.cat(found)

    return Rows(torch.cat(values), joined("lengths"), joined("targets"))
