"""Scores for whole inputs from those of their steps."""

from __future__ import annotations

import math
from math import nan

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mlflow_rnnmod.answers.lists import whole_input


@given(steps=st.integers(1, 6), seed=st.integers(0, 99), competing=st.booleans(), end=st.booleans())
def test_whole_inputs_from_steps(steps, seed, competing, end):
    draw = torch.Generator().manual_seed(seed)
    scores = torch.randn(2, 3, steps, generator=draw, dtype=torch.float64)
    counts = torch.randint(1, steps + 1, (3,), generator=draw).tolist()
    for row, count in enumerate(counts):
        scores[:, row, count:] = nan
    ending = torch.tensor([False, end])
    found = whole_input(scores, competing, ending)
    for m in range(2):
        for row, count in enumerate(counts):
            places = scores[m, row, :count]
            best = float(places.max()) - math.log(count)
            if not competing:
                best = float(torch.logit(1 - (1 - places.sigmoid()).prod()))
            expected = float(scores[m, row, 0]) if ending[m] else best
            assert float(found[m, row]) == pytest.approx(expected, abs=1e-9)


def test_the_number_of_steps_is_no_advantage():
    """Steps that say nothing at all: as likely a winner as a module that is asked once."""
    draw = torch.Generator().manual_seed(0)

    def wins(steps: int, corrected: bool) -> float:
        # Log-odds of what is right one time in ten, calibrated, but independent of the truth.
        once = torch.logit(torch.rand(4000, generator=draw) * 0.2)
        table = torch.logit(torch.rand(1, 4000, steps, generator=draw) * 0.2)
        return float((whole_input(table, corrected)[0] > once).double().mean())

    assert wins(30, False) > 0.9
    assert wins(30, True) < 0.6
