"""Faults while a decomposition is logged: a seeded slice always, more by ``make test-faults``."""

from __future__ import annotations

import os
from collections.abc import Iterator

import mlflow
import pytest

from tests.faults import attempts, network, serving


@pytest.fixture(autouse=True)
def _store_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = mlflow.get_tracking_uri()
    monkeypatch.setenv("RNNMOD_CACHE", "")
    yield
    mlflow.set_tracking_uri(before)
    os.environ.pop("MLFLOW_EXPERIMENT_ID", None)


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


@pytest.mark.faults
def test_faults_on_the_way_to_a_server() -> None:
    found = network.over_network(45, seed=1)
    assert found["bad"] == []
    assert found["faults"] == 45


@pytest.mark.slow
def test_clients_side_by_side_and_forked_workers() -> None:
    assert set(serving.served(8, seconds=3)) == {"as before"}
    assert set(serving.forked_server(4, 3)) == {"as before"}


@pytest.mark.faults
def test_a_minute_of_clients() -> None:
    assert set(serving.served(8, seconds=60)) == {"as before"}
    assert set(serving.forked_server(20, 5)) == {"as before"}
