"""Recurrent networks as users write them come apart, to a model that ``mlflow.pyfunc`` loads."""

from __future__ import annotations

import pytest

from benchmarks.architectures import ARCHITECTURES
from benchmarks.architectures.trying import take_apart
from mlflow_rnnmod.networks import UnreadableNetwork, read_network

PLAIN = {
    "LastState", "LastOutput", "PackedState", "PackedBothWays", "LastValid", "LastByNumber",
    "MaskedMean", "MaxPooled", "StepsFirst", "OneHot", "Tagger", "Features", "Single", "Tied",
}  # fmt: skip
REFUSED = {"SelfAttention": "matmul.*each step with each other"}


@pytest.mark.parametrize("name", sorted(set(ARCHITECTURES) - set(REFUSED)))
def test_it_comes_apart_to_pyfunc(name: str) -> None:
    found = take_apart(ARCHITECTURES[name])
    assert found.way == ("recurrent" if name in PLAIN else "graph")
    assert found.same == 1.0
    assert found.kept < 1.0


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_is_refused_is_named_with_its_line(name: str) -> None:
    architecture = ARCHITECTURES[name]
    module, rows = architecture.module(), architecture.rows()
    with pytest.raises(UnreadableNetwork, match=rf"at line \d+ of .*{REFUSED[name]}"):
        read_network(module, rows, lambda: architecture.answers(module, rows), architecture.labels)


def test_nearly_all_do() -> None:
    assert len(ARCHITECTURES) >= 33
    assert len(set(ARCHITECTURES) - set(REFUSED)) / len(ARCHITECTURES) >= 31 / 33
