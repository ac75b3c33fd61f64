"""Labels of smaller worlds beside those of a larger one: probabilities by hand, and by Bayes."""

from __future__ import annotations

from dataclasses import replace as changed

import pytest
import torch

from mlflow_rnnmod.composition import SCORES, Composite, add, compose, remove, replace
from mlflow_rnnmod.composition.coupling import tied, ties_of
from mlflow_rnnmod.decomposition import Module
from mlflow_rnnmod.decomposition.likelihoods import with_likelihoods
from mlflow_rnnmod.decomposition.module import Calibration, Head
from mlflow_rnnmod.networks import Rows, Trunk
from tests.builders import tiny_inputs, tiny_modules, tiny_parent, tiny_rows

WORLD = ("a", "b", "c", "d")


def of_world(*labels: str, seed: int = 0, **settings) -> dict[str, Module]:
    """Modules that are their parent, which knows these labels."""
    parent = tiny_parent("features", seed=seed, labels=labels, scale=2.0, **settings)
    whole = Trunk.whole(parent.network.units)
    return {m.label: changed(m, head=Head(), trunk=whole) for m in tiny_modules(parent)}


def replaced() -> tuple[Composite, dict[str, Module], dict[str, Module]]:
    large, small = of_world(*WORLD), of_world("c", "d", seed=1)
    return replace(compose(large.values()), "d", small["d"]), large, small


def test_probabilities_of_a_large_world_come_back():
    """A parent that knows what it should of two labels changes nothing."""
    probabilities = torch.rand(50, 4).double().softmax(dim=1)
    margins = probabilities.logit()
    margins[:, 3] = (probabilities[:, 3] / probabilities[:, 1]).log()
    torch.testing.assert_close(tied(margins, {3: [1]}).exp(), probabilities)
    margins[:, 3] = (probabilities[:, 3] / probabilities[:, :2].sum(1)).log()
    torch.testing.assert_close(tied(margins, {3: [0, 1]}).exp(), probabilities)


def test_scores_are_what_the_networks_say():
    composite, large, small = replaced()
    inputs = tiny_inputs(large["a"].parent, 20)
    logits = [compose(m.values(), score="logit").scores(inputs) for m in (large, small)]
    whole, two = (found.double().log_softmax(dim=1) for found in logits)
    expected = whole.clone()
    expected[:, 3] = whole[:, 2] + two[:, 1] - two[:, 0]
    assert composite.score == "coupled_open"
    expected += compose(composite.modules, score="open").scores(inputs)
    torch.testing.assert_close(composite.scores(inputs).double(), expected, rtol=1e-4, atol=1e-4)
    for engine in ("loop", "stacked"):
        torch.testing.assert_close(composite.scores(inputs, engine), composite.scores(inputs))


def test_likelihoods_are_added_where_modules_have_them():
    modules = []
    for seed, labels in enumerate((WORLD, ("c", "e"))):
        own = of_world(*labels, seed=seed)
        rows = own["c"].parent.network.prepare(tiny_rows(own["c"].parent, 60, seed=seed))
        rows = Rows(rows.values, rows.lengths, torch.arange(60) % len(labels))
        modules += with_likelihoods(tuple(own.values()), rows, rows)
    modules = [module for i, module in enumerate(modules) if i != 4]  # c is the first one's
    composite = compose(modules)
    assert composite.score == "coupled"
    inputs = tiny_inputs(modules[0].parent, 20)
    hybrid = compose(modules, score="hybrid").scores(inputs)
    margins = compose(modules, score="margin").scores(inputs)
    expected = hybrid + tied(margins, {4: [2]})
    torch.testing.assert_close(composite.scores(inputs), expected, rtol=1e-4, atol=1e-4)


def test_a_label_is_added_beside_one_that_both_parents_know():
    large, small = of_world(*WORLD), of_world("b", "e", seed=1)
    composite = add(compose(large.values()), small["e"])
    inputs = tiny_inputs(small["e"].parent, 30)
    parts = composite.tied_parts(composite.checked(inputs))
    own = composite.engine.parts(composite.checked(inputs), SCORES["open"], {})[..., 0]
    two = compose(small.values(), score="margin").scores(inputs)[:, 1]
    tied_scores = parts[..., 0] - own
    torch.testing.assert_close(tied_scores[:, 4] - tied_scores[:, 1], two, rtol=1e-4, atol=1e-4)


def test_where_a_part_of_a_smaller_world_is_missing_others_compare():
    composite, _, small = replaced()
    assert remove(composite, "c").score == "open"
    assert replace(composite, "c", small["c"]).score == "open"
    assert remove(composite, "d").score == "margin"
    assert remove(composite, "a", "b").score == "coupled_open"
    with pytest.raises(ValueError, match="expected modules that answer one label.*for the rest of"):
        compose(remove(composite, "c").modules, score="coupled_open")
    with pytest.raises(ValueError, match='expected "margin", "logit" or "probability"'):
        compose(of_world(*WORLD, output="multilabel").values(), score="coupled_open")


def test_the_world_of_most_modules_ties_the_others():
    large, small, other = of_world(*WORLD), of_world("c", "d", seed=1), of_world("a", "x", seed=2)
    modules = [small["d"], large["a"], large["b"], other["x"], large["c"]]
    assert ties_of(modules) == {0: [4], 3: [1]}
    assert ties_of(list(large.values())) is None
    assert ties_of([small["d"], other["x"]]) is None
    assert ties_of([large["a"], large["b"], of_world("d", "y", seed=3)["y"]]) is None
    third = of_world("a", "b", "z", seed=4)["z"]
    assert ties_of([*large.values(), third]) == {4: [0, 1]}


def test_joint_rows_scale_what_is_tied():
    composite, large, _ = replaced()
    inputs = tiny_inputs(large["a"].parent, 120)
    whole = compose(large.values()).predict(inputs)
    loud = changed(composite.modules[3], head=Head(calibration=Calibration(1.0, 30.0)))
    given = compose([*composite.modules[:3], loud])
    assert given.predict(inputs) == ["d"] * len(inputs)
    for score in (None, "coupled_open"):
        fitted = compose(given.modules, score=score, calibrate_on=(inputs, whole))
        assert fitted.score == "joint" and fitted.base in ("coupled_open", score or "open")
        right = [a == b for a, b in zip(fitted.predict(inputs), whole, strict=True)]
        assert sum(right) > 0.6 * len(inputs)
    scales = torch.tensor([fitted.parameters["scales"][m.label] for m in fitted.modules])
    by_hand = (fitted.tied_parts(fitted.checked(inputs)) * scales[:, :2]).sum(-1) + scales[:, 2]
    torch.testing.assert_close(fitted.scores(inputs), by_hand)
