"""Convex fits against PyTorch's L-BFGS and against plain searches."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from mlflow_rnnmod.decomposition.repairs import (
    MAX_SCALE,
    fit_calibration,
    fit_logistics,
    log_loss,
)


@settings(max_examples=30, deadline=None)
@given(
    margins=st.lists(st.floats(-80, 80), min_size=1, max_size=20),
    seed=st.integers(0, 1000),
)
def test_log_loss_is_the_formula(margins, seed):
    draw = torch.Generator().manual_seed(seed)
    positive = torch.rand(len(margins), generator=draw) < 0.4
    weights = torch.rand(len(margins), generator=draw).double() + 0.1
    losses = [
        max(m, 0) - m * y + math.log1p(math.exp(-abs(m)))
        for m, y in zip(margins, positive.tolist(), strict=True)
    ]
    found = torch.tensor(margins, dtype=torch.float64)
    assert log_loss(found, positive) == pytest.approx(sum(losses) / len(losses), rel=1e-9)
    mean = sum(w * x for w, x in zip(weights.tolist(), losses, strict=True)) / float(weights.sum())
    assert log_loss(found, positive, weights) == pytest.approx(mean, rel=1e-9)


def fit_logistic(x: Tensor, offset: Tensor, y: Tensor, weights: Tensor, penalty: float, **how):
    """One fit by itself."""
    w, b = fit_logistics(x[None], offset[None], y[None], weights[None], penalty, **how)
    return w[0], float(b[0])


def objective(x: Tensor, offset: Tensor, y: Tensor, weights: Tensor, penalty: float, w, b):
    """What ``fit_logistic`` says it minimises."""
    losses = F.binary_cross_entropy_with_logits(offset + x @ w + b, y.double(), reduction="none")
    size = ((w * x.std(0, correction=0)) ** 2).sum()
    return (weights * losses).sum() / weights.sum() + penalty / 2 * size


def by_lbfgs(x: Tensor, offset: Tensor, y: Tensor, weights: Tensor, penalty: float):
    w = torch.zeros(x.shape[1], dtype=torch.float64, requires_grad=True)
    b = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [w, b], max_iter=400, tolerance_grad=1e-10, tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def loss():
        optimizer.zero_grad()
        value = objective(x, offset, y, weights, penalty, w, b)
        value.backward()
        return value

    optimizer.step(loss)
    return w.detach(), b.detach()


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    size=st.integers(1, 6),
    penalty=st.sampled_from([1e-3, 1e-2, 0.3]),
    scale=st.sampled_from([0.01, 1.0, 30.0]),
)
def test_a_refit_is_the_optimum(seed, size, penalty, scale):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(60, size, generator=draw).double() * scale + 1
    offset = 3 * torch.randn(60, generator=draw).double()
    y = torch.rand(60, generator=draw) < torch.sigmoid(x[:, 0] / scale - 0.3 * offset)
    y[:2] = torch.tensor([True, False])
    weights = torch.rand(60, generator=draw).double() + 0.1
    w, b = fit_logistic(x, offset, y, weights, penalty)
    assert w.dtype == torch.float32
    best = objective(x, offset, y, weights, penalty, *by_lbfgs(x, offset, y, weights, penalty))
    found = objective(x, offset, y, weights, penalty, w.double(), b)
    assert float(best) - 1e-9 <= float(found) <= float(best) + 1e-6


def test_a_refit_starts_from_its_offset():
    """With an offset that is right, and no more to say, little is added to it."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 3, generator=draw)
    offset = 2 * x[:, 0] - 1
    y = torch.rand(4000, generator=draw) < torch.sigmoid(offset)
    w, b = fit_logistic(x, offset, y, torch.ones(4000), 1e-3)
    assert w.abs().max() < 0.2 and abs(b) < 0.2


@pytest.mark.parametrize("offset", [0.0, 60.0, -60.0])
def test_a_refit_ends_where_data_separates_or_starts_far_off(offset):
    x = torch.linspace(-1, 1, 40)[:, None]
    y = x[:, 0] > 0
    start = torch.full((40,), offset)
    w, b = fit_logistic(x, start, y, torch.ones(40), 1e-3)
    assert math.isfinite(b) and w.isfinite().all() and float(w) > 0
    assert log_loss(start + x @ w + b, y) < 0.1


@pytest.mark.parametrize("positive", [True, False])
def test_a_refit_of_one_class_is_finite(positive):
    x = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    y = torch.full((30,), positive)
    w, b = fit_logistic(x, torch.zeros(30), y, torch.ones(30), 1e-3)
    assert w.isfinite().all() and math.isfinite(b)
    assert log_loss(x @ w + b, y) < 0.01


def test_features_that_never_change_weigh_nothing():
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    x[:, 1] = 0.25
    w, b = fit_logistic(x, torch.zeros(50), x[:, 0] > 0, torch.ones(50), 1e-2)
    assert w[1] == 0 and w[0] > 0
    again = fit_logistic(x, torch.zeros(50), x[:, 0] > 0, torch.ones(50), 1e-2)
    assert torch.equal(w, again[0]) and b == again[1]


def smoothed_loss(margins: Tensor, y: Tensor, scale: float, offset: float) -> float:
    """The loss with Platt's targets, (n+1)/(n+2) and 1/(n+2)."""
    n, m = int(y.sum()), int((~y).sum())
    targets = torch.tensor([(n + 1) / (n + 2) if p else 1 / (m + 2) for p in y.tolist()]).double()
    return float(F.binary_cross_entropy_with_logits(scale * margins + offset, targets))


def by_search(margins: Tensor, y: Tensor) -> float:
    """The least such loss over scales in [0.001, 20]: bisection inside of a ternary search."""
    n, m = int(y.sum()), int((~y).sum())
    wanted = (n * (n + 1) / (n + 2) + m / (m + 2)) / len(y)

    def best(scale: float) -> float:
        low, high = -3000.0, 3000.0
        for _ in range(60):
            middle = (low + high) / 2
            if float(torch.sigmoid(scale * margins + middle).mean()) > wanted:
                high = middle
            else:
                low = middle
        return smoothed_loss(margins, y, scale, low)

    low, high = math.log(1e-3), math.log(MAX_SCALE)
    for _ in range(36):
        third = (high - low) / 3
        if best(math.exp(low + third)) < best(math.exp(high - third)):
            high -= third
        else:
            low += third
    return best(math.exp((low + high) / 2))


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    slope=st.sampled_from([-1.0, 0.0, 0.3, 1.0, 4.0, 60.0]),
    spread=st.sampled_from([0.02, 1.0, 15.0]),
    shift=st.sampled_from([-20.0, -1.0, 0.0, 6.0]),
)
def test_a_calibration_is_the_optimum_within_its_bounds(seed, slope, spread, shift):
    draw = torch.Generator().manual_seed(seed)
    margins = spread * torch.randn(50, generator=draw).double()
    y = torch.rand(50, generator=draw) < torch.sigmoid(slope / spread * margins - 0.5)
    y[:2] = torch.tensor([True, False])
    margins = margins + shift
    found = fit_calibration(margins, y)
    assert 0 < found.scale <= MAX_SCALE
    loss = smoothed_loss(margins, y, found.scale, found.offset)
    assert loss <= smoothed_loss(margins, y, 1.0, 0.0) + 1e-12
    assert loss <= by_search(margins, y) + 1e-5


@pytest.mark.parametrize(("scale", "offset"), [(0.4, 1.0), (1.0, 0.0), (2.5, -2.0)])
def test_a_calibration_recovers_what_was_done_to_the_margins(scale, offset):
    draw = torch.Generator().manual_seed(1)
    margins = 2 * torch.randn(40_000, generator=draw)
    y = torch.rand(40_000, generator=draw) < torch.sigmoid(scale * margins + offset)
    found = fit_calibration(margins, y)
    assert found.scale == pytest.approx(scale, rel=0.06)
    assert found.offset == pytest.approx(offset, abs=0.08)


def test_labels_that_separate_get_no_endless_scale():
    y = torch.arange(40) < 8
    for far in (1e-3, 0.1, 10.0, 1e4):
        margins = torch.where(y, far, -far)
        found = fit_calibration(margins, y)
        assert 0 < found.scale <= MAX_SCALE and math.isfinite(found.offset)
        before = smoothed_loss(margins, y, 1.0, 0.0)
        assert smoothed_loss(margins, y, found.scale, found.offset) <= before
        assert (found(margins)[y].min() > found(margins)[~y].max()) and found.scale > 0


@pytest.mark.parametrize("positive", [True, False])
def test_one_class_leaves_margins_alone(positive):
    found = fit_calibration(torch.randn(9), torch.full((9,), positive))
    assert (found.scale, found.offset) == (1.0, 0.0)
