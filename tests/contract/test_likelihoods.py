"""Likelihoods over every input: what a report says of them is what a composite votes by."""

from __future__ import annotations

import pytest
import torch

from mlflow_rnnmod.composition import whole_parent
from mlflow_rnnmod.composition.evidence import Evidence
from mlflow_rnnmod.decomposition.likelihoods import report_votes, with_likelihoods
from tests.contract.subjects import subject, subjects


@subjects
def test_votes_of_rows_are_those_of_the_inputs_that_they_were_made_of(name):
    mine = subject(name)
    parent = mine.parent
    if not mine.scored or parent.density is None:
        pytest.skip("its inputs have no likelihoods")
    inputs = mine.suite.inputs(parent, 40, 7)
    train = mine.suite.data(parent, 40, 7)
    modules = with_likelihoods(whole_parent(parent).modules, train, train)
    if any(module.likelihood is None for module in modules):
        pytest.skip("its inputs have no likelihoods")
    found = report_votes(modules, train)
    assert found is not None and bool((found.std(dim=0) > 0).all())
    votes = Evidence(modules).votes(parent.input.check(inputs, parent.input_size))
    torch.testing.assert_close(found, votes, rtol=1e-4, atol=1e-4)
