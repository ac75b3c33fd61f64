"""Faults while a decomposition is logged: a seeded slice always, more by ``make test-faults``."""

from __future__ import annotations

import pytest

from tests.faults import attempts


@pytest.mark.slow
def test_a_slice_of_faults_at_requests() -> None:
    found = attempts.in_process(24, seed=0)
    assert found["bad"] == []
    assert found["counts"]["next attempts that succeeded"] == 2


@pytest.mark.slow
def test_a_slice_of_kills() -> None:
    found = attempts.kills(6, seed=0)
    assert found["bad"] == []
    assert found["counts"]["killed"] >= 3


@pytest.mark.faults
def test_faults_at_requests() -> None:
    found = attempts.in_process(100, seed=1)
    assert found["bad"] == []
    assert found["faults"] == 100


@pytest.mark.faults
def test_kills() -> None:
    found = attempts.kills(40, seed=1)
    assert found["bad"] == []
