"""Made-up rows, each a "none of these": what a parent never saw, from its own training rows."""

from __future__ import annotations

import torch
from torch import Tensor

from mlflow_rnnmod.networks.recurrent.config import NetworkConfig
from mlflow_rnnmod.networks.rows import Rows

UNKNOWN_SHARE = 0.3


def make_background(
    rows: Rows, config: NetworkConfig, count: int, seed: int, unknown: int | None = None
) -> Rows:
    """Mix pairs of rows into ones that carry no label.

    Tokens: each step is taken from one of two rows at random, then some become the unknown token,
    or a random one where there is no unknown. Features: steps are mixed in the same way and put in
    a random order. A head fitted with such rows among its negatives learns where the parent's
    knowledge ends, without any other parent's data.

    Args:
        rows: training rows, with lengths.
        config: the parent's structure.
        count: rows to make.
        seed: for the drawing.
        unknown: id of the tokenizer's unknown token, where it has one.

    Returns:
        ``count`` rows of the same shape, without targets.
    """
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
    mixed = _where(swap, values[second], values[first])
    new_lengths = lengths[first]
    valid = position < new_lengths[:, None]
    if config.input == "tokens":
        # From a few to most of a row's tokens, so that all degrees of strangeness are seen.
        share = torch.rand(count, 1, generator=generator) * 2 * UNKNOWN_SHARE
        strange = (torch.rand(count, steps, generator=generator) < share) & valid
        if unknown is None:
            other = _any_token(mixed.shape, config, generator)
        else:
            other = torch.full_like(mixed, unknown)
        mixed = torch.where(strange, other, mixed)
    else:
        # Valid steps get random keys below 1, padding stays behind them in its own order.
        keys = torch.rand(count, steps, generator=generator)
        order = torch.where(valid, keys, 1 + position).argsort(dim=1)
        mixed = mixed.gather(1, order[..., None].expand_as(mixed))
    return Rows(mixed.flip(1) if left else mixed, new_lengths)


def _any_token(shape: torch.Size, config: NetworkConfig, generator: torch.Generator) -> Tensor:
    """Random tokens of the vocabulary, but never padding."""
    if config.pad_index is None or config.input_size == 1:
        return torch.randint(config.input_size, shape, generator=generator)
    other = torch.randint(config.input_size - 1, shape, generator=generator)
    return other + (other >= config.pad_index)


def _where(mask: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(mask.reshape(mask.shape + (1,) * (a.ndim - 2)), a, b)
