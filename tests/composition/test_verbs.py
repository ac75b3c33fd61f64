"""Reuse and replacement: new composites, old ones as they were, and a recipe of it all."""

from __future__ import annotations

import json
from dataclasses import replace as changed

import pytest
import torch

from mlflow_rnnmod.composition import (
    Composite,
    IncompatibleModules,
    add,
    compose,
    remove,
    replace,
    select,
)
from mlflow_rnnmod.decomposition.module import Module
from tests.builders import tiny_module, tiny_modules, tiny_parent, tiny_texts

ONE = tiny_parent("text", ("a", "b", "c"), seed=1)
OTHER = tiny_parent("text", ("b", "d"), "gru", seed=2)
TEXTS = tiny_texts(15)


def look(composite: Composite) -> tuple:
    """All that a composite shows of itself."""
    return (
        composite.modules,
        composite.labels,
        composite.score,
        json.dumps(dict(composite.parameters)),
        json.dumps([dict(step) for step in composite.recipe]),
        composite.scores(TEXTS).tolist(),
    )


def found_at(module: Module, uri: str) -> Module:
    return changed(module, origin={"uri": uri, "version": "3", "name": uri.split("/")[1]})


@pytest.fixture
def composite() -> Composite:
    return compose(tiny_modules(ONE))


def test_verbs_leave_the_old_composite_as_it_was(composite):
    before = look(composite)
    module = tiny_module(OTHER, "b")
    replace(composite, "b", module)
    add(composite, tiny_module(OTHER, "d"))
    remove(composite, "a")
    select(composite, "c", "a")
    compose(composite.modules, calibrate_on=(TEXTS, ["a", "b", "c"] * 5))
    composite.to("cpu")
    assert look(composite) == before


def test_replace_swaps_one_module_and_nothing_else(composite):
    module = tiny_module(ONE, "b", seed=77)
    swapped = replace(composite, "b", module)
    assert swapped.modules == (composite.modules[0], module, composite.modules[2])
    before, after = composite.scores(TEXTS), swapped.scores(TEXTS)
    torch.testing.assert_close(after[:, [0, 2]], before[:, [0, 2]], rtol=1e-5, atol=1e-5)
    alone = Composite((module,)).scores(TEXTS)
    torch.testing.assert_close(after[:, [1]], alone, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(after[:, 1], before[:, 1])


def test_select_takes_them_in_the_order_asked_for(composite):
    found = select(composite, "c", "a")
    assert found.labels == ("c", "a")
    expected = composite.scores(TEXTS)[:, [2, 0]]
    torch.testing.assert_close(found.scores(TEXTS), expected, rtol=1e-5, atol=1e-5)
    assert set(found.predict(TEXTS)) <= {"a", "c"}


def test_remove_and_add(composite):
    less = remove(composite, "a", "c")
    assert less.labels == ("b",)
    more = add(less, composite.modules[2], composite.modules[0])
    assert more.labels == ("b", "c", "a")
    expected = composite.scores(TEXTS)[:, [1, 2, 0]]
    torch.testing.assert_close(more.scores(TEXTS), expected, rtol=1e-5, atol=1e-5)


def test_the_recipe_tells_how_it_came_about(composite):
    module = found_at(tiny_module(OTHER, "b"), "models:/celtic.b/3")
    found = select(replace(add(remove(composite, "a"), tiny_module(OTHER, "d")), "b", module), "b")
    assert [step["verb"] for step in found.recipe] == [
        "compose",
        "remove",
        "add",
        "replace",
        "select",
    ]
    assert found.recipe[0]["labels"] == ["a", "b", "c"]
    assert found.recipe[1]["labels"] == ["a"]
    assert [m["label"] for m in found.recipe[2]["modules"]] == ["d"]
    assert found.recipe[3]["label"] == "b"
    assert found.recipe[3]["uri"] == "models:/celtic.b/3"
    assert found.recipe[3]["parent"] == OTHER.digest
    assert found.recipe[4]["labels"] == ["b"]
    assert json.loads(json.dumps([dict(step) for step in found.recipe])) == list(found.recipe)


def test_sources_tell_where_modules_came_from():
    module = found_at(tiny_module(OTHER, "b"), "models:/celtic.b/3")
    found = compose([tiny_module(ONE, "a"), module]).sources
    assert [source["label"] for source in found] == ["a", "b"]
    assert found[1]["uri"] == "models:/celtic.b/3" and found[1]["version"] == "3"
    assert (found[0]["uri"], found[0]["parent"]) == (None, ONE.digest)
    assert found[1]["parent"] == OTHER.digest and found[1]["trunk"] == module.trunk.digest


def test_the_score_follows_the_number_of_parents(composite):
    assert composite.score == "margin"
    wider = add(composite, tiny_module(OTHER, "d"))
    assert wider.score == "coupled_open"
    assert remove(wider, "d").score == "margin"
    assert remove(wider, "b").score == "coupled_open"  # what a and c leave is b's
    assert remove(wider, "a", "b").score == "open"
    assert select(wider, "d").score == "margin"
    assert replace(composite, "b", tiny_module(OTHER, "b")).score == "open"


def test_a_score_that_was_chosen_stays():
    found = compose(tiny_modules(ONE), score="logit")
    assert add(found, tiny_module(OTHER, "d")).score == "logit"
    found = compose(tiny_modules(ONE), score="open")
    assert remove(found, "a").score == "open"


def joint() -> Composite:
    modules = (*tiny_modules(ONE), tiny_module(OTHER, "d"))
    truth = [("a", "b", "c", "d")[i % 4] for i in range(15)]
    return compose(modules, calibrate_on=(TEXTS, truth))


def test_modules_that_stay_keep_their_joint_scales():
    found = joint()
    scales = found.parameters["scales"]
    for less in (remove(found, "b"), select(found, "d", "a")):
        assert less.score == "joint"
        assert less.parameters["scales"] == {label: scales[label] for label in less.labels}
        columns = [found.labels.index(label) for label in less.labels]
        expected = found.scores(TEXTS)[:, columns]
        torch.testing.assert_close(less.scores(TEXTS), expected, rtol=1e-5, atol=1e-5)


def test_a_module_without_joint_scales_drops_those_of_all():
    found = joint()
    for more, score in (
        (replace(found, "b", tiny_module(ONE, "b", seed=5)), "coupled_open"),
        (add(found, tiny_module(tiny_parent("text", ("x", "y"), seed=3), "x")), "open"),
    ):
        assert more.score == score and "scales" not in more.parameters
        assert "base" not in more.parameters
        assert "dropped" in more.recipe[-1]["note"]
        more.scores(TEXTS)
    assert found.score == "joint" and "scales" in found.parameters


@pytest.mark.parametrize(
    "act",
    [
        lambda composite: remove(composite, "zebra"),
        lambda composite: select(composite, "a", "zebra"),
        lambda composite: replace(composite, "zebra", tiny_module(OTHER, "d")),
    ],
)
def test_a_label_that_is_not_there(composite, act):
    with pytest.raises(ValueError, match=r"label='zebra' is none of .*\['a', 'b', 'c'\]"):
        act(composite)


def test_replace_wants_a_module_for_the_same_label(composite):
    with pytest.raises(ValueError, match="label='a' would be replaced by a module for 'd'"):
        replace(composite, "a", tiny_module(OTHER, "d"))


def test_nothing_is_added_or_left(composite):
    with pytest.raises(ValueError, match="modules is empty"):
        add(composite)
    for act in (lambda: remove(composite, "a", "b", "c"), lambda: select(composite)):
        with pytest.raises(IncompatibleModules, match="there is no module"):
            act()
        assert composite.labels == ("a", "b", "c")


def test_nothing_twice(composite):
    with pytest.raises(IncompatibleModules, match="2 modules answer for label 'b'"):
        add(composite, tiny_module(OTHER, "b"))
    with pytest.raises(IncompatibleModules, match="2 modules answer for label 'a'"):
        select(composite, "a", "a")
