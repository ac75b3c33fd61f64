"""With nothing removed and nothing repaired, a composite of all modules is the parent."""

from __future__ import annotations

from dataclasses import replace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_rnnmod.composition import Composite, compose, whole_parent
from mlflow_rnnmod.decomposition import DecompositionConfig, decompose
from tests.contract.base import Subject, trunk_of
from tests.contract.subjects import drawn, structures, subject, subjects


def check(subject: Subject, composite: Composite) -> None:
    assert composite.labels == subject.parent.labels
    assert composite.output == subject.network.config.output
    subject.suite.check_is_parent(composite, subject.parent)


@subjects
def test_modules_that_were_taken_apart(name):
    mine = subject(name)
    rows = [mine.data(count, seed) for seed, count in enumerate((40, 20, 20))]
    config = DecompositionConfig(rule="none", removal=0.0, repairs="none")
    found = decompose(mine.parent, *rows, config)
    check(mine, compose(found.modules))
    for module in found.modules:
        assert module.trunk.full and module.head.weight is None
    for figure in ("net", f"delta_{found.metric}"):
        assert found.figures[figure] == 0.0
    assert found.figures["units_kept"] == found.figures["mean_jaccard"] == 1.0


@subjects
def test_every_kind_of_trunk_that_removes_nothing(name):
    mine = subject(name)
    whole = whole_parent(mine.parent)
    check(mine, whole)
    for kind in mine.kinds:
        trunk = trunk_of(mine.network, kind, removal=0.0)
        check(mine, compose(replace(module, trunk=trunk) for module in whole.modules))


@structures
@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_structure(suite, data):
    mine = drawn(data, suite)
    check(mine, whole_parent(mine.parent))


@subjects
def test_a_module_alone_says_of_its_label_what_the_parent_does(name):
    mine = subject(name)
    whole, inputs = whole_parent(mine.parent), mine.inputs(9, 5)
    for column, module in enumerate(whole.modules):
        alone = compose([module])
        if not mine.scored:
            assert alone.predict(inputs) == whole.predict(inputs, target=module.label)
        elif alone.output == whole.output:
            found, expected = alone.scores(inputs)[..., 0], whole.scores(inputs)[..., column]
            torch.testing.assert_close(found, expected, equal_nan=True)
