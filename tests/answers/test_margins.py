"""Log-odds against the formula in 50 decimal digits."""

from __future__ import annotations

from decimal import Decimal, localcontext

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mlflow_rnnmod.answers.targets import all_log_odds, log_odds
from mlflow_rnnmod.networks import tolerance

logits = st.lists(st.floats(-60, 60, width=32), min_size=2, max_size=7)
EXTREME = [
    [1e4, 0.0, -1e4],
    [1e4, 1e4, 0.0],
    [-1e4, -1e4 + 1, -1e4 - 1],
    [88.0, -88.0, 87.0],
    [200.0, 0.0],
    [0.0, 0.0, 0.0],
    [3e4, -3e4],
]


def by_hand(values: list[float], label: int) -> float:
    with localcontext() as context:
        context.prec = 50
        context.Emin, context.Emax = -999_999, 999_999
        exact = [Decimal(value) for value in values]
        others = [z for i, z in enumerate(exact) if i != label]
        top = max(others)
        return float(exact[label] - top - sum((z - top).exp() for z in others).ln())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(values=logits)
def test_both_agree_with_the_formula(dtype, values):
    rows = torch.tensor([values, values[::-1]], dtype=dtype)
    expected = torch.tensor([by_hand(values, i) for i in range(len(values))], dtype=dtype)
    limit = tolerance(dtype, expected)
    found = all_log_odds(rows)
    assert ((found[0] - expected).abs() <= limit).all()
    assert ((found[1].flip(0) - expected).abs() <= limit).all()
    for i in range(len(values)):
        assert ((log_odds(rows, i)[0] - expected[i]).abs() <= limit[i]).all()


@pytest.mark.parametrize("values", EXTREME)
def test_nothing_saturates_and_gradients_are_finite(values):
    row = torch.tensor(values, requires_grad=True)
    expected = torch.tensor([by_hand(values, i) for i in range(len(values))])
    for found in (all_log_odds(row), torch.stack([log_odds(row, i) for i in range(len(values))])):
        # Float32 has 7 digits: of the logits, where these are larger than their differences.
        limit = tolerance(torch.float32, expected).clamp(min=2e-7 * max(map(abs, values)))
        assert ((found - expected).abs() <= limit).all()
        for i in range(len(values)):
            (slope,) = torch.autograd.grad(found[i], row, retain_graph=True)
            assert slope.isfinite().all()
            assert slope[i] == pytest.approx(1.0, abs=1e-4)


@given(values=st.lists(st.floats(-15, 15), min_size=2, max_size=6))
def test_gradients_are_those_of_the_formula(values):
    row = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    slopes = torch.autograd.functional.jacobian(all_log_odds, row)
    for i in range(len(values)):
        others = [j for j in range(len(values)) if j != i]
        expected = torch.zeros(len(values), dtype=torch.float64)
        expected[i] = 1.0
        expected[others] = -torch.softmax(row.detach()[others], 0)
        torch.testing.assert_close(slopes[i], expected, rtol=1e-7, atol=1e-9)


@given(values=logits)
def test_the_largest_logit_has_the_largest_log_odds(values):
    row = torch.tensor(values)
    best = all_log_odds(row).argmax()
    assert row[best] >= row.max() - tolerance(torch.float32, row.abs().max())


def test_any_leading_dimensions():
    found = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    table = all_log_odds(found)
    assert table.shape == found.shape
    for i in range(5):
        torch.testing.assert_close(log_odds(found, i), table[..., i], rtol=0, atol=1e-10)
