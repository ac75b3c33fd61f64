"""Repairs: convex fits on frozen readouts that make up for removal, without touching the parent.

Fits of many labels run side by side: each is small, and a step of all of them is a few products.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from mlflow_rnnmod.decomposition.module import Calibration

MIN_SCALE, MAX_SCALE = 1e-3, 20.0
# Decrease of the loss below which a refit is done.
_DONE = 1e-10


def log_losses(margins: Tensor, positive: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean logistic loss of margins (log-odds), float64 ``(fits,)``.

    Args:
        margins: ``(fits, rows)``.
        positive: bool, of the same shape; or soft targets.
        weights: of the same shape, by default 1.
    """
    m, y = margins.double(), positive.double()
    losses = F.binary_cross_entropy_with_logits(m, y, weights, reduction="none").sum(-1)
    total = m.new_full((), m.shape[-1]) if weights is None else weights.double().sum(-1)
    return losses / total.clamp(min=1e-12)


def log_loss(margins: Tensor, positive: Tensor, weights: Tensor | None = None) -> float:
    """Mean logistic loss of margins (log-odds) for bool ``positive``, both ``(rows,)``."""
    return float(log_losses(margins, positive, weights))


def fit_logistics(
    features: Tensor,
    offset: Tensor,
    positive: Tensor,
    weights: Tensor,
    penalty: float,
    start: tuple[Tensor, Tensor] | None = None,
    steps: int = 25,
) -> tuple[Tensor, Tensor]:
    """Logistic regressions added to fixed offsets, each ``offset + features @ w + b``.

    Minimises the weighted mean logistic loss plus ``penalty / 2`` times the squared length of ``w``
    measured in standard deviations of the features, by Newton's method with a line search: convex,
    deterministic, a few matrix solves. Without a line search such a fit was seen to diverge.
    Products are taken in the features' dtype, losses and solves in float64.

    Args:
        features: float ``(fits, rows, size)``.
        offset: float ``(fits, rows)``.
        positive: bool ``(fits, rows)``.
        weights: float ``(fits, rows)``, 0 where a fit has no such row.
        penalty: at least 0.
        start: where to begin, as it is returned; by default at 0. It makes fits that are like
            earlier ones shorter, and changes them by no more than their tolerance.
        steps: Newton steps at the most.

    Returns:
        ``w``, float32 ``(fits, size)``, 0 for constant features, and ``b``, float64 ``(fits,)``.

    Example:
        >>> x = torch.tensor([[-1.0], [-0.5], [0.5], [1.0]])
        >>> one = x[None], torch.zeros(1, 4), x.T > 0, torch.ones(1, 4)
        >>> w, b = fit_logistics(*one, penalty=0.1)
        >>> w.item() > 1, abs(b.item()) < 1e-6
        (True, True)
    """
    there = (weights > 0)[..., None]
    count = there.sum(1).clamp(min=1)
    mean = (features * there).sum(1) / count
    x = (features - mean[:, None]).mul_(there)
    deviation = (x.square().sum(1) / count).sqrt()
    usable = deviation > 1e-6
    x.mul_(torch.where(usable, 1 / deviation, 0.0)[:, None])
    y, base = positive.double(), offset.double()
    weight = weights.double()
    weight = weight / weight.sum(1, keepdim=True)
    mean, deviation = mean.double(), deviation.double()
    theta = base.new_zeros(len(x), x.shape[2] + 1)
    if start is not None:
        w, b = start[0].double().to(theta.device), start[1].double().to(theta.device)
        theta = torch.cat([w * deviation * usable, (b + (w * mean).sum(1))[:, None]], dim=1)
        # A start that is worse than none is none.
        both = [_Fits(x, base, y, weight, penalty).loss(at) for at in (theta, 0 * theta)]
        theta = torch.where((both[0] < both[1])[:, None], theta, 0.0)
    active = torch.arange(len(x), device=x.device)
    fits = _Fits(x, base, y, weight, penalty)
    for _ in range(steps):
        at, done = fits.step(theta[active])
        theta[active] = at
        if bool(done.all()):
            break
        if 2 * int(done.sum()) >= len(done):
            active, fits = active[~done], fits.of(~done)
    w = torch.where(usable, theta[:, :-1] / deviation.clamp(min=1e-300), 0.0).float()
    return w, theta[:, -1] - (w.double() * mean).sum(1)


class _Fits:
    """Logistic regressions side by side, on features of mean 0 and deviation 1."""

    def __init__(self, x: Tensor, base: Tensor, y: Tensor, weight: Tensor, penalty: float) -> None:
        self.x, self.base, self.y, self.weight, self.penalty = x, base, y, weight, penalty
        self.ridge = base.new_full((x.shape[2] + 1,), penalty)
        self.ridge[-1] = 1e-8
        # What a loss may seem to grow by where its margins are rounded.
        self.noise = 0.0 if x.dtype == torch.float64 else 1e-7

    def of(self, some: Tensor) -> _Fits:
        """Some of the fits."""
        return _Fits(self.x[some], self.base[some], self.y[some], self.weight[some], self.penalty)

    def margins(self, theta: Tensor) -> Tensor:
        products = torch.bmm(self.x, theta[:, :-1, None].to(self.x.dtype))[:, :, 0]
        return (self.base + products).add_(theta[:, -1:])

    def loss(self, theta: Tensor) -> Tensor:
        """Of each fit, float64 ``(fits,)``."""
        return self._loss(theta, self.margins(theta))

    def _loss(self, theta: Tensor, margins: Tensor) -> Tensor:
        losses = F.softplus(margins * (1 - 2 * self.y), threshold=40)
        return (self.weight * losses).sum(1) + (self.ridge * theta * theta).sum(1) / 2

    def step(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """One Newton step with a line search, and which fits are done with it."""
        margins = self.margins(theta)
        current = self._loss(theta, margins)
        p = margins.sigmoid()
        slopes, curvature = self.weight * (p - self.y), self.weight * p * (1 - p)
        gradient = self._turned(slopes) + self.ridge * theta
        direction = torch.linalg.solve(self._hessian(curvature), gradient)
        slope = (gradient * direction).sum(1)
        done = slope / 2 < _DONE
        size = torch.ones_like(slope)
        taken = theta - direction
        if bool(done.all()):  # so close that a full step is sure to be right
            return taken, done
        waiting = ~done
        accepted = done.clone()
        while True:
            value = self.loss(taken)
            # Where all rows are far off, curvature is next to none, and a full step goes too far.
            good = value <= current - 1e-4 * size * slope + self.noise * current
            accepted |= good
            waiting = ~accepted & (size > 1e-12)
            if not bool(waiting.any()):
                break
            size = torch.where(waiting, size / 2, size)
            taken = torch.where(waiting[:, None], theta - size[:, None] * direction, taken)
        taken = torch.where(accepted[:, None], taken, theta)
        return taken, done | ~accepted | (current - value < _DONE)

    def _turned(self, slopes: Tensor) -> Tensor:
        """By the parameters, from those by the margins."""
        by_weight = torch.bmm(slopes[:, None].to(self.x.dtype), self.x)[:, 0]
        return torch.cat([by_weight.double(), slopes.sum(1, keepdim=True)], dim=1)

    def _hessian(self, curvature: Tensor) -> Tensor:
        size, c = self.x.shape[2], curvature.to(self.x.dtype)
        weighted = self.x * c[..., None]
        found = curvature.new_zeros(len(c), size + 1, size + 1)
        found[:, :-1, :-1] = torch.bmm(weighted.transpose(1, 2), self.x)
        found[:, -1, :-1] = found[:, :-1, -1] = weighted.sum(1)
        found[:, -1, -1] = curvature.sum(1)
        found.diagonal(dim1=1, dim2=2).add_(self.ridge + 1e-9)
        return found


def fit_calibration(margins: Tensor, positive: Tensor) -> Calibration:
    """A scale (0.001 to 20) and an offset on margins that lower the logistic loss (Platt scaling).

    Targets are Platt's smoothed ones, so that a label which separates perfectly does not ask for an
    endless scale.

    Returns:
        the identity where there are not both positives and negatives.
    """
    scale, offset = fit_calibrations(margins[None], positive[None])
    return Calibration(float(scale), float(offset))


def fit_calibrations(margins: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
    """Several of :func:`fit_calibration` at once.

    Args:
        margins: float ``(fits, rows)``.
        positive: bool ``(fits, rows)``.

    Returns:
        scales and offsets, float64 ``(fits,)``.
    """
    m = margins.double()
    count, total = positive.sum(1, keepdim=True), m.shape[1]
    y = torch.where(positive, (count + 1) / (count + 2), 1 / (total - count + 2)).double()
    scale, offset = m.new_ones(len(m)), m.new_zeros(len(m))
    active = ((count > 0) & (count < total))[:, 0].nonzero()[:, 0]
    for _ in range(50):
        if len(active) == 0:
            break
        part = (m, y) if len(active) == len(m) else (m[active], y[active])
        scale[active], offset[active], decrease = _platt(*part, scale[active], offset[active])
        active = active[decrease >= 1e-12]
    return scale, offset


# Share of what a Newton step promises by which a loss must fall for no shorter one to be tried.
_KEPT_PROMISE = 0.4


def _platt(m: Tensor, y: Tensor, scale: Tensor, offset: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One step of each calibration: scales, offsets, and by how much the losses fell."""
    weight = 1 / m.shape[1]

    def losses(margins: Tensor, some: Tensor | slice) -> Tensor:
        found = F.softplus(margins, threshold=40).addcmul_(y[some], margins, value=-1.0)
        return found.mul_(weight).sum(1)

    margins = torch.addcmul(offset[:, None], scale[:, None], m)
    current, p = losses(margins, slice(None)), margins.sigmoid_()
    slope, curvature = weight * (p - y), (1 - p).mul_(p).add_(1e-12).mul_(weight)
    # About this centre scale and offset do not interact: a bound on one leaves the other free.
    total = curvature.sum(1)
    centre = (curvature * m).sum(1) / total
    far = m - centre[:, None]
    bend = curvature.mul_(far).mul_(far).sum(1)
    turn = slope.mul(far).sum(1) / bend.clamp(min=1e-12)
    turn = scale - (scale - turn).clamp(MIN_SCALE, MAX_SCALE)
    move = slope.sum(1) / total
    promised = turn * turn * bend + move * move * total
    best, taken = current.clone(), torch.zeros_like(current)
    going, size = (promised > 1e-13).nonzero()[:, 0], 1.0
    while size > 1e-15 and len(going):
        some = slice(None) if len(going) == len(m) else going
        turned = scale[some] - size * turn[some]
        moved = offset[some] + size * (turn * centre - move)[some]
        value = losses(torch.addcmul(moved[:, None], turned[:, None], m[some]), some)
        better = value < best[going]
        best[going[better]], taken[going[better]] = value[better], size
        fell = current[going] - best[going]
        passed = ~better & (fell > 0)  # the lowest on the way
        if size == 1.0:
            passed |= fell >= _KEPT_PROMISE * promised[going]
        going, size = going[~passed], size / 2
    return scale - taken * turn, offset + taken * (turn * centre - move), current - best


def calibrated_losses(margins: Tensor, positive: Tensor) -> Tensor:
    """Logistic losses of margins through the scales and offsets that suit them best.

    ``margins``, ``positive`` and what is given: ``(fits, rows)``, the last float64.
    """
    scale, offset = fit_calibrations(margins, positive)
    calibrated = torch.addcmul(offset[:, None], scale[:, None], margins.double())
    return F.binary_cross_entropy_with_logits(calibrated, positive.double(), reduction="none")
