"""Margins: log-odds of one label against any other."""

from __future__ import annotations

import torch
from torch import Tensor

_TINY = 1e-30


def log_odds(logits: Tensor, index: int) -> Tensor:
    """Log-odds of label ``index`` against any other: ``z_c - logsumexp`` of the other logits.

    Unlike a float32 probability it neither saturates nor ties (`docs/method.md`). The papers'
    channeling by the mean of the others orders the labels of one parent in the same way.

    Args:
        logits: ``(..., labels)``.
        index: which label.

    Returns:
        ``(...)``.

    Example:
        >>> log_odds(torch.tensor([[2.0, 0.0, 0.0]]), 0).exp()
        tensor([3.6945])
    """
    others = [i for i in range(logits.shape[-1]) if i != index]
    return logits[..., index] - torch.logsumexp(logits[..., others], dim=-1)


def all_log_odds(logits: Tensor) -> Tensor:
    """:func:`log_odds` of every label at once, ``(..., labels)``, from one sum of exponentials.

    A label's own exponential is taken from the sum, which loses no digits as long as the largest
    stays in; the largest is left out from the start.
    """
    top, place = logits.max(dim=-1, keepdim=True)
    shifted = logits - top
    powers = shifted.exp().scatter(-1, place, 0.0)
    rest = powers.sum(dim=-1, keepdim=True).clamp(min=_TINY)
    others = (1 + rest - powers).scatter(-1, place, rest)
    odds = shifted - others.log()
    if bool((rest == _TINY).any()):  # no float32 can hold the others' sum
        without = logits.scatter(-1, place, -torch.inf)
        best = top - torch.logsumexp(without, dim=-1, keepdim=True)
        odds = odds.scatter(-1, place, torch.where(rest == _TINY, best, odds.gather(-1, place)))
    return odds
