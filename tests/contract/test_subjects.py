"""Whether nothing is left out of the suite."""

from __future__ import annotations

from mlflow_rnnmod.answers import ANSWERS
from mlflow_rnnmod.inputs import INPUTS
from mlflow_rnnmod.networks.architectures import ARCHITECTURES
from tests.contract.subjects import NAMES, SUITES, subject


def test_every_architecture_answer_and_input_is_in_the_suite():
    assert {suite.name for suite in SUITES} == set(ARCHITECTURES)
    found = [subject(name) for name in NAMES]
    assert {s.network.architecture for s in found} == set(ARCHITECTURES)
    assert {s.network.config.output for s in found} == set(ANSWERS)
    assert {s.parent.input_kind for s in found} == set(INPUTS)
