"""The same faults over PostgreSQL and an S3 stand-in; skipped where one of them is absent."""

from __future__ import annotations

from functools import partial

import pytest

from benchmarks import stores
from tests.faults import attempts, network

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(bool(stores.missing()), reason=f"absent: {stores.missing()}"),
]
BUCKET = partial(stores.served, direct=True)


def test_faults_at_requests() -> None:
    assert attempts.in_process(12, seed=2, served=BUCKET)["bad"] == []


def test_kills() -> None:
    assert attempts.kills(10, seed=2, served=BUCKET)["bad"] == []


def test_faults_on_the_way() -> None:
    assert network.over_network(9, seed=2, served=stores.served)["bad"] == []
