"""How much of what is said with some confidence is right: calibration, in bins."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

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
