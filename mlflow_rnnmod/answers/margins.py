"""Margins, log-odds of one label against any other; and how much of what is said so is right."""

from __future__ import annotations

from dataclasses import dataclass

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


BINS = 10


@dataclass(frozen=True)
class Reliability:
    """Answers by how sure they were.

    Args:
        counts: answers in each of ten bins of confidence, from 0 to 1.
        confidence: their mean confidence; NaN where a bin is empty.
        right: the share of them that is right; NaN where a bin is empty.
        error: expected calibration error, the mean distance of the two, by counts (Guo et al., "On
            Calibration of Modern Neural Networks", ICML 2017, equation 3); NaN without answers.
    """

    counts: tuple[int, ...]
    confidence: tuple[float, ...]
    right: tuple[float, ...]
    error: float


def reliability(confidence: Tensor, right: Tensor) -> Reliability:
    """Confidence against what was right.

    Args:
        confidence: of each answer, from 0 to 1, float ``(answers,)``.
        right: whether it is, bool ``(answers,)``.

    Example:
        >>> found = reliability(torch.tensor([0.95, 0.95, 0.55]), torch.tensor([True, False, True]))
        >>> round(found.error, 3), found.counts[5], found.counts[9]
        (0.45, 1, 2)
    """
    sure = confidence.detach().double().cpu()
    hits = right.detach().double().cpu()
    place = (sure * BINS).long().clamp(0, BINS - 1)
    counts, said, found = (
        torch.zeros(BINS, dtype=torch.float64).index_add_(0, place, values)
        for values in (torch.ones_like(sure), sure, hits)
    )
    mean, share = said / counts, found / counts  # NaN where there is nothing
    gaps = torch.where(counts > 0, (mean - share).abs() * counts, 0.0)
    error = float(gaps.sum() / counts.sum())
    return Reliability(
        tuple(int(n) for n in counts), tuple(mean.tolist()), tuple(share.tolist()), error
    )
