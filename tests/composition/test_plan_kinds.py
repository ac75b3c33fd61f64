"""Plans of composites that answer more than a label."""

from __future__ import annotations

from dataclasses import replace as changed

import pytest
import torch

from mlflow_rnnmod.composition import compose
from mlflow_rnnmod.composition.plan import entry_of, make_plan
from mlflow_rnnmod.decomposition.module import make_contract
from mlflow_rnnmod.networks import Trunk
from mlflow_rnnmod.networks.trunk import shapes
from mlflow_rnnmod.tracking.figures import set_figures
from tests.builders import tiny_modules
from tests.composition.test_kinds import TEXTS, mixed, parent_of


def plan_of(modules):
    return make_plan([entry_of(module) for module in modules])


@pytest.mark.parametrize("kind", ["tags", "list", "multilabel"])
def test_what_is_answered(kind):
    plan = plan_of(tiny_modules(parent_of(kind)))
    assert plan.fits and plan.output == kind
    assert plan.passes > 0 and plan.milliseconds > 0 and plan.parameters > 0
    assert (plan.accuracy is None) == (kind != "tags") and (plan.f1 is None) == (kind == "tags")
    shown = dict(plan.rows())
    assert shown["answer"] and ("F1 to expect" in shown) == (kind != "tags")
    assert plan.to_dict()["output"] == kind


def test_a_label_is_not_worth_a_line():
    plan = plan_of(tiny_modules(parent_of("label")))
    assert "answer" not in dict(plan.rows()) and plan.output == "label"


def test_expected_f1_is_the_micro_average_of_what_was_measured():
    parent = parent_of("list")
    answers = compose(tiny_modules(parent)).predict(TEXTS)
    truth = [["a"], [], ["a", "b"], ["b"], [], ["a"], ["b"], ["a", "b"], []]
    overall, table = set_figures(truth, answers, ("a", "b"))
    rows = {row.label: row._asdict() for row in table.itertuples()}
    modules = [
        changed(module, figures=rows.get(module.label, {"f1": 0.1}))
        for module in tiny_modules(parent)
    ]
    assert plan_of(modules).f1 == pytest.approx(overall["f1"])
    assert plan_of([changed(modules[0], figures={})]).f1 is None


def test_lists_without_an_end_and_kinds_together_are_told():
    lists = tiny_modules(parent_of("list"))
    assert plan_of(lists).notes == ()
    (note,) = plan_of(lists[:2]).notes
    assert "not all labels of a list are there" in note
    both, _, _ = mixed("tags")
    notes = plan_of(both.modules).notes
    assert any("logarithm of the number of steps" in note for note in notes)
    refused = plan_of([*lists[:1], *tiny_modules(parent_of("tags", ("x", "y")))])
    assert not refused.fits and refused.output is None


def test_masks_for_single_steps_are_told():
    parent = parent_of("tags")
    sizes = shapes(parent.network.units, "unrolled", "joint", 8, 4)
    trunk = Trunk(
        {name: torch.ones(size, dtype=torch.bool) for name, size in sizes.items()},
        variant="unrolled",
    )
    module = tiny_modules(parent)[0]
    contract = make_contract(parent, "a", trunk)
    assert contract.mask_steps == 8
    plan = plan_of([changed(module, trunk=trunk, contract=contract)])
    assert "8 steps have a mask of their own; later ones have the last one's" in plan.notes
