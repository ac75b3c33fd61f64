"""The table of what the suite runs over. A new architecture is a file beside, and a row here."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st

from mlflow_rnnmod.networks import Parent
from tests.contract.base import Subject, Suite
from tests.contract.graphs import GraphSuite
from tests.contract.recurrent import RecurrentSuite
from tests.contract.translation import TranslatorSuite

SUITES: tuple[Suite, ...] = (RecurrentSuite(), TranslatorSuite(), GraphSuite())

_MADE = {
    f"{suite.name}: {name}": (suite, make)
    for suite in SUITES
    for name, make in suite.parents().items()
}


def subject(name: str) -> Subject:
    """The subject of a name."""
    suite, make = _MADE[name]
    return Subject(suite, make())


NAMES = tuple(_MADE)
subjects = pytest.mark.parametrize("name", NAMES)


def drawn() -> st.SearchStrategy[Subject]:
    """Subjects of any structure, of the architectures that have too many to name."""
    found = [
        suite.strategy.map(lambda network, suite=suite: Subject(suite, Parent(network)))
        for suite in SUITES
        if suite.strategy is not None
    ]
    return st.one_of(found)
