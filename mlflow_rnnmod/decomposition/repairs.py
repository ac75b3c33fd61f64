"""Repairs: convex fits on frozen readouts that make up for removal, without touching the parent."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from mlflow_rnnmod.decomposition.module import Calibration

MIN_SCALE, MAX_SCALE = 1e-3, 20.0


def log_loss(margins: Tensor, positive: Tensor, weights: Tensor | None = None) -> float:
    """Mean logistic loss of margins (log-odds) for bool ``positive``, both ``(rows,)``."""
    losses = F.binary_cross_entropy_with_logits(
        margins.double(), positive.double(), weights, reduction="sum"
    )
    total = len(margins) if weights is None else float(weights.sum())
    return float(losses) / max(total, 1e-12)


def fit_logistic(
    features: Tensor,
    offset: Tensor,
    positive: Tensor,
    weights: Tensor,
    penalty: float,
    steps: int = 25,
) -> tuple[Tensor, float]:
    """Logistic regression added to a fixed offset: ``offset + features @ w + b``.

    Minimises the weighted mean logistic loss plus ``penalty / 2`` times the squared length of ``w``
    measured in standard deviations of the features, by Newton's method with a line search: convex,
    deterministic, a few matrix solves. Without a line search such a fit was seen to diverge.

    Args:
        features: float ``(rows, size)``.
        offset: float ``(rows,)``.
        positive: bool ``(rows,)``.
        weights: float ``(rows,)``.
        penalty: at least 0.
        steps: Newton steps at the most.

    Returns:
        ``w``, float32 ``(size,)``, 0 for constant features, and ``b``.

    Example:
        >>> x = torch.tensor([[-1.0], [-0.5], [0.5], [1.0]])
        >>> w, b = fit_logistic(x, torch.zeros(4), x[:, 0] > 0, torch.ones(4), penalty=0.1)
        >>> w.item() > 1, abs(b) < 1e-6
        (True, True)
    """
    x = features.double()
    mean, deviation = x.mean(0), x.std(0, correction=0)
    usable = deviation > 1e-6
    x = (x[:, usable] - mean[usable]) / deviation[usable]
    x = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype, device=x.device)], dim=1)
    y, weight = positive.double(), weights.double() / weights.double().sum()
    start = offset.double()
    ridge = torch.full((x.shape[1],), penalty, dtype=x.dtype, device=x.device)
    ridge[-1] = 1e-8

    def loss(at: Tensor) -> Tensor:
        losses = F.binary_cross_entropy_with_logits(start + x @ at, y, weight, reduction="sum")
        return losses + (ridge * at * at).sum() / 2

    theta = x.new_zeros(x.shape[1])
    current = loss(theta)
    for _ in range(steps):
        p = torch.sigmoid(start + x @ theta)
        gradient = x.T @ (weight * (p - y)) + ridge * theta
        curvature = weight * p * (1 - p)
        hessian = (x * curvature[:, None]).T @ x + torch.diag(ridge + 1e-9)
        direction = torch.linalg.solve(hessian, gradient)
        slope, size = float(gradient @ direction), 1.0
        while size > 1e-12:  # where all rows are far off, curvature is next to none
            candidate = theta - size * direction
            value = loss(candidate)
            if value <= current - 1e-4 * size * slope:
                break
            size /= 2
        else:
            break
        theta, decrease, current = candidate, float(current - value), value
        if decrease < 1e-10:
            break
    w = theta.new_zeros(features.shape[1])
    w[usable] = theta[:-1] / deviation[usable]
    return w.float(), float(theta[-1] - w @ mean)


def fit_calibration(
    margins: Tensor, positive: Tensor, weights: Tensor | None = None
) -> Calibration:
    """A scale (0.001 to 20) and an offset on margins that lower the logistic loss (Platt scaling).

    Targets are Platt's smoothed ones, so that a label which separates perfectly does not ask for an
    endless scale.

    Returns:
        the identity where there are not both positives and negatives.
    """
    count = int(positive.sum())
    if count == 0 or count == len(positive):
        return Calibration()
    y = torch.where(positive, (count + 1) / (count + 2), 1 / (len(positive) - count + 2)).double()
    m = margins.double()
    weight = torch.ones_like(m) if weights is None else weights.double()
    weight = weight / weight.sum()

    def loss(scale: float, offset: float) -> float:
        value = scale * m + offset
        return float(F.binary_cross_entropy_with_logits(value, y, weight, reduction="sum"))

    scale, offset, current = 1.0, 0.0, loss(1.0, 0.0)
    for _ in range(50):
        p = torch.sigmoid(scale * m + offset)
        slope, curvature = weight * (p - y), weight * p * (1 - p) + 1e-12 * weight
        # About this centre scale and offset do not interact: a bound on one leaves the other free.
        centre = float((curvature * m).sum() / curvature.sum())
        far = m - centre
        turn = float((slope * far).sum() / (curvature * far * far).sum().clamp(min=1e-12))
        move = float(slope.sum() / curvature.sum())
        best, size = (current, scale, offset), 1.0
        while size > 1e-15:
            turned = min(max(scale - size * turn, MIN_SCALE), MAX_SCALE)
            moved = offset + (scale - turned) * centre - size * move
            value = loss(turned, moved)
            if value < best[0]:
                best = (value, turned, moved)
            elif best[0] < current:  # the lowest on the way has been passed
                break
            size /= 2
        decrease = current - best[0]
        current, scale, offset = best
        if decrease < 1e-12:
            break
    return Calibration(scale, offset)


def cross_fitted_loss(margins: Tensor, positive: Tensor) -> float:
    """Log-loss of a calibration on rows it was not fitted on (two folds, positives in both)."""
    fold = torch.zeros(len(margins), dtype=torch.bool)
    for side in (positive, ~positive):
        index = side.nonzero()[:, 0]
        fold[index[::2]] = True
    total = 0.0
    for held_out in (fold, ~fold):
        fitted = fit_calibration(margins[~held_out], positive[~held_out])
        total += log_loss(fitted(margins[held_out]), positive[held_out]) * int(held_out.sum())
    return total / len(margins)
