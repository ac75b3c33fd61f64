"""The table of what the suite runs over. A new architecture is a file beside, and a row here."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st

from mlflow_rnnmod.networks import Parent
from tests.contract.base import Subject, Suite
from tests.contract.graphs import GraphSuite
from tests.contract.recurrent import RecurrentSuite
from tests.contract.sequences import SequenceSuite
from tests.contract.translation import TranslatorSuite

SUITES: tuple[Suite, ...] = (RecurrentSuite(), TranslatorSuite(), GraphSuite(), SequenceSuite())

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
_FAST = {f"{suite.name}: {name}" for suite in SUITES for name in list(suite.parents())[:2]}
"""What `make test-fast` runs over: the first two of each architecture."""

subjects = pytest.mark.parametrize(
    "name",
    [name if name in _FAST else pytest.param(name, marks=pytest.mark.slow) for name in NAMES],
)
structures = pytest.mark.parametrize(
    "suite",
    [
        pytest.param(suite, marks=pytest.mark.slow, id=suite.name)
        for suite in SUITES
        if suite.strategy is not None
    ],
)


def drawn(data: st.DataObject, suite: Suite) -> Subject:
    """A subject of any structure, of an architecture that has too many to name."""
    assert suite.strategy is not None
    return Subject(suite, Parent(data.draw(suite.strategy)))
