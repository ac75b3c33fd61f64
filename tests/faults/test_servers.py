"""Faults on the way to a server, and servers under fire: more of both by ``make test-faults``."""

from __future__ import annotations

import pytest

from tests.faults import network, serving


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
