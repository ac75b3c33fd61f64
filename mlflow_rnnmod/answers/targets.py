"""Targets seen as observations, samples of these, and margins: log-odds of a label."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor

Shown: TypeAlias = Callable[[], "tuple[Tensor | None, str]"]
IGNORE = -1
"""Target of a step that has no label: padding, or what lies behind the end of a list."""


class Targeted(Protocol):
    """What answers ask of rows (see :class:`~mlflow_rnnmod.networks.Rows`)."""

    @property
    def targets(self) -> Tensor | None:
        """What is right, where known."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Tensor | slice) -> Any: ...

    def to(self, device: torch.device | str) -> Any:
        """The same rows on ``device``."""


def whole_numbers(targets: Tensor, labels: int, steps: bool) -> Tensor:
    """Label indices, int64 on the CPU, of each row or (``IGNORE`` where there is none) step."""
    if targets.ndim != 1 + steps or targets.is_floating_point() or targets.dtype == torch.bool:
        wanted = "(rows, steps)" if steps else "(rows,)"
        raise ValueError(
            f"targets is {targets.dtype} of shape {tuple(targets.shape)}; expected whole numbers "
            f"of shape {wanted}."
        )
    low, high = int(targets.min()), int(targets.max())
    if low < (IGNORE if steps else 0) or high >= labels:
        extra = f", or {IGNORE} where a step has none" if steps else ""
        raise ValueError(
            f"targets go from {low} to {high}; expected the index of one of {labels} labels, "
            f"0 to {labels - 1}{extra}."
        )
    if high < 0:
        raise ValueError(f"targets are all {IGNORE}; expected some steps with a label.")
    return targets.to("cpu", torch.int64)


def carried(targets: Tensor, labels: int) -> Tensor:
    """Which labels each row carries, at any of its steps, bool ``(rows, labels)``.

    Example:
        >>> carried(torch.tensor([[1, IGNORE], [0, 1]]), 2).tolist()
        [[False, True], [True, True]]
    """
    if targets.dtype == torch.bool:
        return targets.cpu()
    places = targets.cpu().reshape(len(targets), -1)
    places = torch.where(places < 0, labels, places)
    found = torch.zeros(len(targets), labels + 1, dtype=torch.bool)
    return found.scatter_(1, places, True)[:, :labels]


def check_range(targets: Tensor, labels: int, source: str, steps: bool) -> Tensor:
    """A user's targets, if they are label indices, or negative where a step has none."""
    low, high = int(targets.min()), int(targets.max())
    if (low < 0 and not steps) or high >= labels:
        rest = " or, where a step has no label, a negative number" if steps else ""
        raise ValueError(
            f"The {source} has targets from {low} to {high}; expected the index of one of "
            f"{labels} labels, 0 to {labels - 1}{rest}. Check labels=, and in a batch of three "
            "that the order is (inputs, lengths, targets)."
        )
    return targets


@dataclass(frozen=True, eq=False)
class Labelled:
    """Rows with their targets, seen as observations, in the order of rows and steps.

    Args:
        rows: with targets.
        network: what answers them; asked for its ``config``, its ``device`` and what it has
            ``answered``.
    """

    rows: Targeted
    network: Any

    @cached_property
    def answered(self) -> Tensor:
        """Which steps are answered, bool ``(rows, steps)``, where every step is."""
        return self.network.answered(self.rows.to(self.network.device)).cpu()

    @cached_property
    def targets(self) -> Tensor:
        """Label indices, int64 ``(observations,)``; or bool ``(rows, labels)``."""
        assert self.rows.targets is not None
        targets = self.rows.targets.cpu()
        return targets[self.answered] if self.network.config.answer.stepwise else targets

    @cached_property
    def known(self) -> Tensor:
        """Which observations have a target, bool ``(observations,)``."""
        return self.network.config.answer.known(self.targets)

    def positive(self, label: int) -> Tensor:
        """Which observations carry a label, bool ``(observations,)``."""
        return self.network.config.answer.positive(self.targets, label)

    def by_row(self, values: Tensor, fill: float) -> Tensor:
        """``(observations, ...)`` as ``(rows, steps, ...)``, where every step is answered."""
        table = values.new_full((*self.answered.shape, *values.shape[1:]), fill)
        table[self.answered] = values
        return table


@dataclass(frozen=True, eq=False)
class Sample:
    """Training rows, balanced over labels.

    Args:
        rows: rows with targets, at most so many of each label.
        rivals: for each observation one *other* label, for which it stands as a negative. Every
            label gets about as many negatives as positives, drawn evenly from every other label
            (RNN-D, section III; its code takes the first rows of the data instead). Shaped as the
            targets, ``IGNORE`` where an observation stands for none; for several labels a row, or
            where a row stands for several, bool ``(rows, labels)``: which labels it is a negative
            of.
        weights: how many training observations each stands for, so that fits see the labels as
            often as they really occur; mean 1. Float32 ``(rows,)``, or ``(rows, steps)`` where
            every step has a label.
        chosen: the label that each observation stands for as a positive, shaped as ``rivals``;
            ``None`` for the targets themselves.
    """

    rows: Any
    rivals: Tensor
    weights: Tensor
    chosen: Tensor | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, part: slice | Tensor) -> Sample:
        """Some of the rows."""
        chosen = None if self.chosen is None else self.chosen[part]
        return Sample(self.rows[part], self.rivals[part], self.weights[part], chosen)

    @property
    def sides(self) -> tuple[Tensor, Tensor]:
        """What observations are positives of, and what negatives of."""
        assert self.rows.targets is not None
        return (self.rows.targets if self.chosen is None else self.chosen), self.rivals


class Draw(NamedTuple):
    """How a sample is drawn: see :meth:`~mlflow_rnnmod.answers.Answer.draw`."""

    labels: int
    per_label: int
    generator: torch.Generator
    in_order: bool


def drawn_rivals(label: int, labels: int, count: int, generator: torch.Generator) -> Tensor:
    """So many labels other than ``label``, evenly."""
    others = torch.cat([torch.arange(label), torch.arange(label + 1, labels)])
    others = others[torch.randperm(len(others), generator=generator)]
    return others[torch.arange(count) % len(others)]


_TINY = 1e-30


def log_odds(logits: Tensor, index: int) -> Tensor:
    """Log-odds of label ``index`` against any other: ``z_c - logsumexp`` of the other logits.

    Unlike a float32 probability it neither saturates nor ties (`docs/method.md`). The papers'
    channeling by the mean of the others orders the labels of one parent in the same way.

    ``logits``: ``(..., labels)``; gives ``(...)``.

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


def margin_of(margins: Tensor, label: Tensor) -> Tensor:
    """The margin of one label of each row or step; 0 where that is none.

    Args:
        margins: ``(..., labels)``.
        label: int64 ``(...)``; ``IGNORE`` or the number of labels for none.

    Returns:
        ``(...)``.

    Example:
        >>> margin_of(torch.tensor([[2.0, 0.5], [2.0, 0.5]]), torch.tensor([1, 2]))
        tensor([0.5000, 0.0000])
    """
    last = margins.shape[-1] - 1
    found = margins.gather(-1, label.clamp(0, last)[..., None])[..., 0]
    return torch.where((label >= 0) & (label <= last), found, 0.0)


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

    ``confidence``: of each answer, from 0 to 1, float ``(answers,)``; ``right``: whether it is,
    bool ``(answers,)``.

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
