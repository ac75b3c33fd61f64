"""Sources with a right translation each, as a decoder is told it (teacher forcing)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mlflow_rnnmod.networks.rows import Rows
from mlflow_rnnmod.networks.translator.config import TranslatorConfig


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


def forced_tokens(
    config: TranslatorConfig, starts: Tensor, rows: Rows
) -> tuple[Tensor, Tensor, Tensor]:
    """What a decoder is told and should answer, where it is told the right translation.

    Args:
        config: the translator's structure.
        starts: the token that each row's translation starts with, int64 ``(rows,)``.
        rows: the translations, without start and end.

    Returns:
        tokens that are read, the start first; tokens that should follow them, the end last; both
        int64 ``(rows, steps)``; and which steps count, bool ``(rows, steps)``: none of rows
        without a translation.
    """
    assert rows.lengths is not None
    lengths = rows.lengths.to(rows.values.device)
    longest = max(int(lengths.max()), 0) if len(lengths) else 0
    values = rows.values[:, :longest]
    start = starts[:, None].to(values)
    position = torch.arange(longest + 1, device=values.device)
    given = torch.cat([start, values], dim=1)
    given = given.masked_fill(position > lengths[:, None], config.pad_index)
    wanted = torch.cat([values, start], dim=1)
    wanted = wanted.masked_fill(position == lengths[:, None], config.end)
    valid = (position <= lengths[:, None]) & (lengths[:, None] > 0)
    return given, wanted.masked_fill(~valid, config.pad_index), valid
