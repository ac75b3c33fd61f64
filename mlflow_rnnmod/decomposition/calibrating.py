"""Calibrations of all labels together: each as far from the common one as its rows can tell.

A scale and an offset for a label come from as few as a dozen rows that have it. By themselves such
fits lower the loss of each label's own rows and make the labels together answer worse than before;
pulled toward the calibration that all labels share they do not. How far they are let go, and how
much of a refit is taken, is one choice for all labels, by the loss on rows that nothing was fitted
on: choices for one label at a time would each rest on its dozen rows again.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mlflow_rnnmod.decomposition.repairs import MAX_SCALE, MIN_SCALE, log_losses

# Standard deviation of labels' scales about the common one, as a share of it; 0 for the common one.
SPREADS = (0.0, 0.03, 0.1, 0.3, 1.0)
# Offsets, in log-odds, may be so many times as far apart as scales.
_OFFSETS = 3.0
# The spread by which shares of a refit are compared.
_MIDDLE = 0.1
# Shares of a refit.
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
# Positives of all labels together, below which nothing is calibrated.
FEW_POSITIVES = 10
# Numbers that choices are made by, that the common calibration is, that are fitted at once.
_CHOSEN_BY, _COMMON_BY, _AT_ONCE = 2**18, 2**17, 2**20
# Rows of each label that choices need at the least.
_ROWS = 4096
# A spread that holds nothing back.
_WIDE = 100.0
_STEPS = 20
_DONE = 1e-7
# What a sum of losses may seem to grow by, as a share of it.
_ROUNDING = 1e-13

# Scales and offsets, float64 ``(labels,)``.
Calibrations = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Calibrated:
    """What suits all labels.

    Args:
        share: of the refits, from 0 to 1.
        calibrations: scales and offsets, float64 ``(labels,)``; ``None`` where none help.
        held_out: margins ``(labels, rows)`` with that share, each calibrated by a fit that did not
            see it.
    """

    share: float
    calibrations: Calibrations | None
    held_out: Tensor


def calibrate_together(
    margins: Tensor, refitted: Tensor | None, positive: Tensor, calibrate: bool = True
) -> Calibrated:
    """The share of labels' refits and the calibrations that suit rows they were not fitted on.

    Platt scaling with a normal prior about the calibration that suits all labels at once, whose
    width is chosen by cross-fitting (empirical Bayes); the papers calibrate nothing.

    Args:
        margins: float ``(labels, rows)``, not calibrated.
        refitted: the same with labels' refits; ``None`` without any.
        positive: bool ``(labels, rows)``, which rows have the label.
        calibrate: whether calibrations are wanted; the share is chosen in their light anyway.

    Example:
        >>> draw = torch.Generator().manual_seed(0)
        >>> right = torch.randn(4, 200, generator=draw)
        >>> positive = torch.rand(4, 200, generator=draw) < right.sigmoid()
        >>> found = calibrate_together(5 * right - 2, None, positive)
        >>> [round(float(a.mean()), 1) for a in found.calibrations]
        [0.2, 0.4]
    """
    few = int(positive.sum()) < FEW_POSITIVES or int((~positive).sum()) < FEW_POSITIVES
    if few or not margins.numel():
        return Calibrated(0.0, None, margins)
    some, share = _part(*margins.shape), 0.0
    if refitted is None:
        choice = _Choice(margins[some], positive[some])
    else:
        choices = [
            _Choice(torch.lerp(margins[some], refitted[some], s), positive[some]) for s in SHARES
        ]
        choice = min(choices, key=lambda each: each.loss(_MIDDLE))
        share = SHARES[choices.index(choice)]
        margins = torch.lerp(margins, refitted, share)
    spread = choice.spread() if calibrate else None
    if spread is None:
        return Calibrated(share, None, margins)
    found = fit_toward(common_calibration(margins, positive), spread, margins, positive)
    whole = choice if choice.margins.shape == margins.shape else _Choice(margins, positive)
    return Calibrated(share, found, whole.held_out(spread))


def calibrated_by(calibrations: Calibrations, margins: Tensor) -> Tensor:
    """Margins ``(labels, rows)`` through scales and offsets, in the margins' dtype."""
    scales, offsets = (each[:, None].to(margins) for each in calibrations)
    return margins * scales + offsets


def _part(labels: int, rows: int) -> tuple[slice, slice]:
    """Some of many labels, and of very many rows, are enough to choose by."""
    every = -(-labels * rows // _CHOSEN_BY)
    every_row = min(every, -(-rows // _ROWS))
    return slice(None, None, -(-every // every_row)), slice(None, None, every_row)


class _Choice:
    """How well calibrations of some margins do on rows that they were not fitted on.

    Each half of the rows, of a label's positives and of its negatives, goes through what suits the
    other half.
    """

    def __init__(self, margins: Tensor, positive: Tensor) -> None:
        self.margins, self.positive = margins, positive
        first = torch.where(positive, positive.cumsum(1), (~positive).cumsum(1)) % 2 == 0
        self.halves = [
            (half, weights, common_calibration(margins, positive, weights))
            for half, weights in ((first, (~first).double()), (~first, first.double()))
        ]
        self.losses: dict[float, float] = {}

    def held_out(self, spread: float) -> Tensor:
        """The margins, each calibrated by a fit that did not see it."""
        found = self.margins
        for half, weights, centre in self.halves:
            fitted = fit_toward(centre, spread, self.margins, self.positive, weights)
            found = torch.where(half, calibrated_by(fitted, self.margins), found)
        return found

    def loss(self, spread: float) -> float:
        """With that spread; each is tried once."""
        if spread not in self.losses:
            losses = log_losses(self.held_out(spread), self.positive)
            self.losses[spread] = float(losses.mean())
        return self.losses[spread]

    def spread(self) -> float | None:
        """The best one, searched from the middle outwards; ``None`` where no calibration helps."""
        at = SPREADS.index(_MIDDLE)
        for step in (-1, 1):
            while 0 <= at + step < len(SPREADS) and (
                self.loss(SPREADS[at + step]) < self.loss(SPREADS[at])
            ):
                at += step
        none = float(log_losses(self.margins, self.positive).mean())
        return SPREADS[at] if self.loss(SPREADS[at]) < none else None


def common_calibration(
    margins: Tensor, positive: Tensor, weights: Tensor | None = None
) -> tuple[float, float]:
    """The scale and offset that suit all labels at once; by a part of very many rows.

    Targets are Platt's smoothed ones: labels that separate perfectly ask for no endless scale.
    """
    every = -(-margins.numel() // _COMMON_BY)
    m, y = (each.flatten()[None, ::every] for each in (margins, positive))
    among = torch.ones_like(m) if weights is None else weights.flatten()[None, ::every]
    own, other = float(among[y].sum()), float(among[~y].sum())
    smooth = torch.where(y, (own + 1) / (own + 2), 1 / (other + 2))
    scale, offset = _newton((1.0, 0.0), _WIDE, m, smooth, among)
    return float(scale), float(offset)


def fit_toward(
    centre: tuple[float, float],
    spread: float,
    margins: Tensor,
    positive: Tensor,
    weights: Tensor | None = None,
) -> Calibrations:
    """Each label's scale and offset, the most likely ones given its rows and the common ones.

    Minimises the logistic losses of its rows, plus half the squared distances from ``centre`` in
    standard deviations: ``spread`` times the common scale for scales, three times ``spread`` for
    offsets. A label that none or all of the rows have gets the common ones.

    Args:
        centre: the common scale and offset.
        spread: 0 gives every label the common ones.
        margins: float ``(labels, rows)``.
        positive: bool ``(labels, rows)``.
        weights: float ``(labels, rows)``, 0 for rows to leave out; by default 1.

    Returns:
        scales, from 0.001 to 20, and offsets, float64 ``(labels,)``.
    """
    if not spread:
        return tuple(torch.full((len(margins),), c, dtype=torch.float64) for c in centre)  # type: ignore[return-value]
    weights = torch.ones_like(margins, dtype=torch.float64) if weights is None else weights
    size = max(_AT_ONCE // margins.shape[1], 1)
    parts = (each.split(size) for each in (margins, positive, weights))
    found = [_newton(centre, spread, *part) for part in zip(*parts, strict=True)]
    there = weights > 0
    both = (positive & there).any(1) & (~positive & there).any(1)
    scales, offsets = (torch.cat(each) for each in zip(*found, strict=True))
    return torch.where(both, scales, centre[0]), torch.where(both, offsets, centre[1])


def _newton(
    centre: tuple[float, float],
    spread: float,
    margins: Tensor,
    positive: Tensor,
    weights: Tensor,
) -> Calibrations:
    """One step after the other, for labels side by side; ``positive`` may be soft targets."""
    m, y = margins.double(), positive.double()
    narrow = 1 / (spread * centre[0]) ** 2, 1 / (_OFFSETS * spread) ** 2
    scale, offset = (m.new_full((len(m),), value) for value in centre)

    def through(scale: Tensor, offset: Tensor) -> Tensor:
        return torch.addcmul(offset[:, None], scale[:, None], m)

    def loss(scale: Tensor, offset: Tensor) -> Tensor:
        value = through(scale, offset)
        losses = F.softplus(value, threshold=40).sub_(y * value).mul_(weights)
        away = (scale - centre[0]) ** 2 * narrow[0] + (offset - centre[1]) ** 2 * narrow[1]
        return losses.sum(1) + away / 2

    current = loss(scale, offset)
    for _ in range(_STEPS):
        p = through(scale, offset).sigmoid_()
        slope, curve = (p - y).mul_(weights), (p * (1 - p)).mul_(weights)
        by_scale = (slope * m).sum(1) + (scale - centre[0]) * narrow[0]
        by_offset = slope.sum(1) + (offset - centre[1]) * narrow[1]
        curved = curve * m
        a, b = (curved * m).sum(1) + narrow[0], curved.sum(1)
        c = curve.sum(1) + narrow[1]
        area = (a * c - b * b).clamp(min=1e-300)
        turn = (c * by_scale - b * by_offset) / area
        turn = scale - (scale - turn).clamp(MIN_SCALE, MAX_SCALE)
        move = (by_offset - b * turn) / c  # the best offset for the scale there, at a bound or not
        if float((by_scale * turn + by_offset * move).max()) < _DONE:
            break
        size = torch.ones_like(scale)
        while True:
            taken = scale - size * turn, offset - size * move
            value = loss(*taken)
            worse = value > current + _ROUNDING * (1 + current)
            if not bool(worse.any()):
                break
            size = torch.where(worse, size / 2 * (size > 1e-6), size)
        scale, offset = taken
        current = value
    return scale, offset
