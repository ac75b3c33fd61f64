from __future__ import annotations

import torch
from hypothesis import example, given
from hypothesis import strategies as st

from mlflow_rnnmod.answers.targets import log_odds
from mlflow_rnnmod.composition.heads import quick_log_odds


@example(1, 40, 300.0)  # two labels close to one another, and others far beyond float64
@given(st.integers(1, 40), st.integers(2, 40), st.sampled_from([0.1, 3.0, 30.0, 300.0]))
def test_quick_log_odds_are_log_odds(rows, labels, spread):
    """Few and many, unsure and so sure that no float32 holds the probability."""
    torch.manual_seed(rows * labels)
    logits = spread * torch.randn(rows, labels)
    before = logits.clone()
    exact = torch.stack([log_odds(logits.double(), i) for i in range(labels)], dim=1)
    for given_ in (logits, logits.double()):
        found = quick_log_odds(given_)
        assert found.dtype == given_.dtype
        torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)
    assert torch.equal(logits, before)


def test_labels_alike_stay_alike():
    few, many = (quick_log_odds(torch.tensor([[1.25, -3.0, 1.25]] * n)) for n in (1, 300))
    assert torch.equal(few[:, 0], few[:, 2])
    torch.testing.assert_close(many[:, 0], many[:, 2], rtol=0, atol=1e-6)
