"""How sure it is what removal costs, and that it is told where rows are too few to tell."""

from types import SimpleNamespace

import pytest
import torch

from mlflow_rnnmod.answers import answer_of
from mlflow_rnnmod.decomposition import DecompositionConfig
from mlflow_rnnmod.decomposition.decompose import too_few_rows

WORDS = {"calibrated": "138 validation rows"}


def drawn(kind, rows=300):
    """Scores of two composites that mostly agree, and what is right."""
    draw = torch.Generator().manual_seed(0)
    one = torch.randn(rows, 3, generator=draw)
    two = one + 0.6 * torch.randn(rows, 3, generator=draw)
    if kind == "multilabel":
        targets = one + torch.randn(rows, 3, generator=draw) > 0.3
    else:
        targets = (one + torch.randn(rows, 3, generator=draw)).argmax(1)
    return one, two, targets


def truth_of(targets):
    known = torch.ones(len(targets), dtype=torch.bool)
    return SimpleNamespace(targets=targets, known=known)


@pytest.mark.parametrize("kind", ["label", "multilabel"])
def test_the_error_of_a_difference_is_that_of_drawing_rows_again(kind):
    answer, (one, two, targets) = answer_of(kind), drawn(kind)
    truth = truth_of(targets)
    shares = [answer.shares(scores, truth) for scores in (one, two)]
    for scores, each in zip((one, two), shares, strict=True):
        assert float(each.mean()) == pytest.approx(answer.measure(scores, truth)[answer.metric])
    error = float((shares[0] - shares[1]).std(correction=0)) / len(targets) ** 0.5
    draw, found = torch.Generator().manual_seed(1), []
    for _ in range(1000):
        rows = torch.randint(len(targets), (len(targets),), generator=draw)
        again = truth_of(targets[rows])
        values = [answer.measure(scores[rows], again)[answer.metric] for scores in (one, two)]
        found.append(values[0] - values[1])
    assert error == pytest.approx(float(torch.tensor(found).std()), rel=0.1)


def tried(removal, lost, error):
    return {"removal": removal, "accuracy": 0.9 - lost, "control_accuracy": 0.9, "error": error}


def test_rows_that_can_not_tell_are_told_of():
    config = DecompositionConfig()
    sizing = [tried(0.35, 0.002, 0.015), tried(0.1, 0.004, 0.012), tried(0.05, 0.0, 0.001)]
    (told,) = too_few_rows(sizing, 0.05, config, "accuracy", WORDS)
    assert told.startswith(
        "removing 10 % of the units cost 0.4 points on 138 validation rows, give"
    )
    assert "give or take 1.2" in told and "so 5 % were removed" in told
    # What costs too much by itself is no matter of rows.
    assert too_few_rows([tried(0.35, 0.02, 0.015)], 0.2, config, "accuracy", WORDS) == []
    asked = DecompositionConfig(removal=0.05)
    assert too_few_rows(sizing, 0.05, asked, "accuracy", WORDS) == []
