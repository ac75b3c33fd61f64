"""Calibrations of all labels together, beside a slow optimiser and margins whose truth is known."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from mlflow_rnnmod.decomposition import calibrating
from mlflow_rnnmod.decomposition.calibrating import (
    SHARES,
    calibrate_together,
    common_calibration,
    fit_toward,
)
from mlflow_rnnmod.decomposition.repairs import log_losses


def rows_of(
    labels: int, rows: int, seed: int = 0, apart: float = 0.0, rate: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Margins whose right scales lie about 0.5 and offsets about -1, ``apart`` from each other.

    Returns:
        margins, which rows have the label, and the right log-odds.
    """
    draw = torch.Generator().manual_seed(seed)
    right = 2 * torch.randn(labels, rows, generator=draw) + rate
    scales = 0.5 + 0.25 * apart * torch.randn(labels, 1, generator=draw).clamp(-1.5, 1.5)
    offsets = -1 + apart * torch.randn(labels, 1, generator=draw)
    positive = torch.rand(labels, rows, generator=draw) < right.sigmoid()
    return (right - offsets) / scales, positive, right


def loss_by(parameters: Tensor, centre: tuple[float, float], spread: float, m, y, weights):
    """What is minimised, as the docstring has it."""
    scale, offset = parameters
    rows = F.binary_cross_entropy_with_logits(scale * m + offset, y, weights, reduction="sum")
    far = ((scale / centre[0] - 1) / spread) ** 2 + ((offset - centre[1]) / (3 * spread)) ** 2
    return rows + far / 2


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    spread=st.sampled_from([0.03, 0.3, 1.0]),
    rate=st.sampled_from([0.0, -3.0, 8.0]),
    part=st.booleans(),
)
def test_a_calibration_is_the_most_likely_one(seed, spread, rate, part):
    m, positive, _ = rows_of(3, 50, seed, 1.0, rate)
    m, centre = m.double(), (0.7, -0.5)
    weights = (torch.arange(50) % 3 > 0).double().expand(3, 50) if part else None
    scales, offsets = fit_toward(centre, spread, m, positive, weights)
    assert scales.dtype == offsets.dtype == torch.float64
    for i in range(3):
        among = None if weights is None else weights[i]
        seen = positive[i] if among is None else positive[i, among > 0]
        if seen.all() or not seen.any():
            assert (float(scales[i]), float(offsets[i])) == centre
            continue
        given_ = centre, spread, m[i], positive[i].double(), among
        at = torch.tensor([*centre], dtype=torch.float64, requires_grad=True)
        slow = torch.optim.LBFGS(
            [at], max_iter=300, tolerance_grad=1e-10, line_search_fn="strong_wolfe"
        )

        def step(at=at, slow=slow, given_=given_):
            slow.zero_grad()
            value = loss_by(at, *given_)
            value.backward()
            return value

        slow.step(step)
        if not 1e-3 < float(at.detach()[0]) < 20:
            continue
        found = torch.stack([scales[i], offsets[i]])
        assert float(loss_by(found, *given_)) <= float(loss_by(at.detach(), *given_)) + 1e-5


@pytest.mark.parametrize("value", [True, False])
def test_labels_that_nothing_is_known_of_have_the_common_one(value):
    m, positive, _ = rows_of(2, 400)
    positive[1] = value
    scales, offsets = fit_toward((0.5, -1.0), 0.1, m, positive)
    assert (float(scales[1]), float(offsets[1])) == (0.5, -1.0) != (scales[0], offsets[0])
    seen = torch.ones(2, 400, dtype=torch.float64)
    seen[0, positive[0] != value] = 0.0
    scales, offsets = fit_toward((0.5, -1.0), 0.1, m, positive, seen)
    assert (float(scales[0]), float(offsets[0])) == (0.5, -1.0)
    common = fit_toward((0.5, -1.0), 0.0, m, positive)
    assert [t.tolist() for t in common] == [[0.5, 0.5], [-1.0, -1.0]]


@pytest.mark.parametrize("few", [1, 3, 7])
def test_labels_of_few_rows_stay_near_the_common_one(few):
    """Nearer than the fits of their rows alone."""
    m, positive, _ = rows_of(2, 400)
    positive[1] &= positive[1].cumsum(0) <= few
    m[1, ~positive[1]] -= 5.0  # its rows could be told apart, by any scale
    centre = 0.5, -1.0
    near, far = (fit_toward(centre, spread, m, positive) for spread in (0.1, 1.0))
    assert abs(near[0][1] - centre[0]) < abs(far[0][1] - centre[0])
    assert abs(near[0][1] - centre[0]) < 0.2


def test_the_common_one_is_found():
    m, positive, _ = rows_of(4, 5000)
    assert common_calibration(m, positive) == pytest.approx((0.5, -1.0), abs=0.05)


def test_many_labels_are_fitted_in_parts_alike(monkeypatch):
    m, positive, _ = rows_of(7, 60, apart=1.0)
    whole = fit_toward((0.5, -1.0), 0.3, m, positive)
    monkeypatch.setattr(calibrating, "_AT_ONCE", 130)
    for one, two in zip(whole, fit_toward((0.5, -1.0), 0.3, m, positive), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("apart", "rows"), [(0.0, 100), (0.0, 2000), (1.0, 2000), (0.3, 300)])
def test_calibrated_margins_are_nearer_to_the_truth(apart, rows):
    """Than uncalibrated ones, and than calibrations of single labels, on rows of their own."""
    m, positive, _ = rows_of(30, rows, 1, apart, rate=-3.0)
    new, there, _ = rows_of(30, rows, 1, apart, rate=-3.0)
    draw = torch.Generator().manual_seed(9)
    order = torch.randperm(rows, generator=draw)
    half, rest = order[: rows // 2], order[rows // 2 :]
    found = calibrate_together(m[:, half], None, positive[:, half])
    assert found.calibrations is not None
    scales, offsets = (each[:, None] for each in found.calibrations)
    here = log_losses(scales * new[:, rest] + offsets, there[:, rest]).mean()
    alone = fit_toward((1.0, 0.0), 100.0, m[:, half], positive[:, half])
    assert here < log_losses(new[:, rest], there[:, rest]).mean()
    by_itself = log_losses(alone[0][:, None] * new[:, rest] + alone[1][:, None], there[:, rest])
    assert here < by_itself.mean() * 1.002


@pytest.mark.parametrize("rows", [40, 400])
def test_labels_that_separate_perfectly_are_no_surer_than_their_rows(rows):
    """One wrong answer in all of them is the least that can be told."""
    positive = torch.arange(3 * rows).view(3, rows) % 4 == 0
    draw = torch.Generator().manual_seed(0)
    m = torch.where(positive, 5.0, -5.0) + torch.randn(3, rows, generator=draw)
    found = calibrate_together(m, None, positive)
    scales, offsets = found.calibrations or (torch.ones(3), torch.zeros(3))
    scores = scales[:, None] * m + offsets[:, None]
    assert float(scores.abs().mean()) < 1.5 * math.log(3 * rows)


def test_margins_that_are_right_stay():
    """As nearly as their rows can tell."""
    _, positive, right = rows_of(10, 400, 3)
    found = calibrate_together(right, None, positive)
    if found.calibrations is not None:
        scales, offsets = found.calibrations
        assert (scales - 1).abs().max() < 0.15 and offsets.abs().max() < 0.2
    else:
        assert found.held_out is right


def test_no_row_is_judged_by_a_calibration_that_was_fitted_on_it():
    """Another truth of a row leaves its own held-out margin, and changes those of others."""
    m, positive, _ = rows_of(3, 90, 4, 1.0)
    before = calibrating._Choice(m, positive)
    margins = m.clone()
    margins[0, 7] = 40.0  # in one label alone: it stays in its half
    after = calibrating._Choice(margins, positive)
    mine = next(half for half, _, _ in before.halves if half[0, 7])
    one, two = before.held_out(0.3), after.held_out(0.3)
    for label in range(3):
        same = mine[label].clone()
        if label == 0:
            same[7] = False
        assert torch.equal(one[label][same], two[label][same])
    assert not torch.allclose(one[0][~mine[0]], two[0][~mine[0]])


@pytest.mark.parametrize("good", [0.0, 0.5, 1.0])
def test_as_much_of_a_refit_is_taken_as_helps(good):
    """Between margins and refits the right ones lie at a known share."""
    _, positive, right = rows_of(6, 1500, 5)
    noise = 3 * torch.randn(6, 1500, generator=torch.Generator().manual_seed(6))
    margins, refitted = right - good * noise, right + (1 - good) * noise
    assert calibrate_together(margins, refitted, positive).share == good
    alone = calibrate_together(margins, refitted, positive, calibrate=False)
    assert alone.share == good and alone.calibrations is None
    torch.testing.assert_close(alone.held_out, torch.lerp(margins, refitted, good))
    assert good in SHARES


@pytest.mark.parametrize("count", [0, 9, 60 * 4])
def test_with_too_few_of_either_kind_nothing_is_done(count):
    m, positive, _ = rows_of(4, 60)
    positive = (torch.arange(240) < count).view(4, 60)
    found = calibrate_together(m, m + 1, positive)
    assert (found.share, found.calibrations) == (0.0, None)
    assert found.held_out is m


def test_part_of_many_numbers_is_chosen_by():
    for labels, rows in ((3, 50), (150, 3000), (10, 10**6), (1000, 20_000), (1, 10**7)):
        some, each = calibrating._part(labels, rows)
        taken = len(range(labels)[some]), len(range(rows)[each])
        assert taken[0] * taken[1] <= 2 * calibrating._CHOSEN_BY
        assert taken[1] >= min(rows, calibrating._ROWS // 2)
