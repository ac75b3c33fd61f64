"""Labels of smaller worlds beside those of a larger one: probabilities by hand, and by Bayes."""

from __future__ import annotations

from dataclasses import replace as changed

import pytest
import torch

from mlflow_rnnmod.composition import SCORES, Composite, add, compose, remove, replace
from mlflow_rnnmod.composition.coupling import Coupling, Tie
from mlflow_rnnmod.decomposition import Module
from mlflow_rnnmod.decomposition.likelihoods import with_likelihoods
from mlflow_rnnmod.decomposition.module import Calibration, Head
from mlflow_rnnmod.networks import Rows, Trunk
from mlflow_rnnmod.pages.card import joined
from mlflow_rnnmod.storage import read_composite, write_composite
from tests.builders import tiny_inputs, tiny_modules, tiny_parent, tiny_rows

WORLD = ("a", "b", "c", "d")


def of_world(*labels: str, seed: int = 0, kind: str = "features", **settings) -> dict[str, Module]:
    """Modules that are their parent, which knows these labels."""
    parent = tiny_parent(kind, seed=seed, labels=labels, scale=2.0, **settings)
    whole = Trunk.whole(parent.network.units)
    return {m.label: changed(m, head=Head(), trunk=whole) for m in tiny_modules(parent)}


def replaced() -> tuple[Composite, dict[str, Module], dict[str, Module]]:
    large, small = of_world(*WORLD), of_world("c", "d", seed=1)
    return replace(compose(large.values()), "d", small["d"]), large, small


@pytest.mark.parametrize("others", [(1,), (0, 1)])
def test_probabilities_of_a_large_world_come_back(others):
    """A parent that knows what it should of two labels changes nothing."""
    probabilities = torch.rand(50, 4).double().softmax(dim=1)
    rest = probabilities[:, list(others)].sum(1)
    margins = probabilities.logit()
    margins[:, 3] = (probabilities[:, 3] / rest).log()
    replaced_one = Coupling((0, 1, 2), {3: Tie(others, missing=True, inside=True)})
    torch.testing.assert_close(replaced_one.tied(margins).exp(), probabilities)
    three = probabilities[:, :3] / probabilities[:, :3].sum(1, keepdim=True)
    margins[:, :3] = three.logit()  # of a parent that never met the fourth
    found = Coupling((0, 1, 2), {3: Tie(others, missing=False, inside=False)}).tied(margins)
    torch.testing.assert_close(found.softmax(dim=1), probabilities)


def test_two_labels_of_another_parent_share_out_what_the_others_leave():
    probabilities = torch.rand(50, 4).double().softmax(dim=1)
    margins = probabilities.logit()
    odds = (probabilities[:, 2] / probabilities[:, 3]).log()
    margins[:, 2], margins[:, 3] = odds, -odds
    tie = Tie((), missing=True, inside=True)
    found = Coupling((0, 1), {2: tie, 3: tie}).tied(margins)
    torch.testing.assert_close(found.exp(), probabilities)


def test_scores_are_what_the_networks_say():
    composite, large, small = replaced()
    inputs = tiny_inputs(large["a"].parent, 20)
    logits = [compose(m.values(), score="logit").scores(inputs) for m in (large, small)]
    whole, two = (found.double().softmax(dim=1) for found in logits)
    expected = torch.cat([whole[:, :3], (whole[:, 2:].sum(1) * two[:, 1])[:, None]], dim=1).log()
    assert composite.score == "coupled_open" and composite.coupled and not composite.likely
    assert "are tied to these" in joined(composite)
    expected += compose(composite.modules, score="open").scores(inputs) / 10
    torch.testing.assert_close(composite.scores(inputs).double(), expected, rtol=1e-4, atol=1e-4)
    for engine in ("loop", "stacked"):
        torch.testing.assert_close(composite.scores(inputs, engine), composite.scores(inputs))


def test_replaced_by_modules_that_know_as_much_nothing_is_lost():
    """Two labels taken from a parent of these two, whose answers are the large one's."""
    composite, large, small = replaced()
    both = replace(composite, "c", small["c"])
    inputs = tiny_inputs(large["a"].parent, 40)
    logits = compose(large.values(), score="logit").scores(inputs)
    parts = both.tied_parts(both.checked(inputs))[..., 0]
    own = both.engine.parts(both.checked(inputs), SCORES["open"], {})[..., 0]
    found = (parts - own / 10).double().softmax(dim=1)
    torch.testing.assert_close(
        found[:, 2:].sum(1), logits.double().softmax(1)[:, 2:].sum(1), rtol=1e-4, atol=1e-4
    )


def likely(kind: str = "features", **settings) -> list[Module]:
    """Modules of one parent, and one of another, with likelihoods."""
    modules: list[Module] = []
    for seed, labels in enumerate((WORLD, ("c", "e"))):
        own = of_world(*labels, seed=seed, kind=kind, **settings)
        rows = own["c"].parent.network.prepare(tiny_rows(own["c"].parent, 60, seed=seed))
        rows = Rows(rows.values, rows.lengths, torch.arange(60) % len(labels))
        modules += with_likelihoods(tuple(own.values()), rows, rows)
    return [module for i, module in enumerate(modules) if i != 4]  # c is the first one's


@pytest.mark.parametrize(("kind", "part"), [("features", 0.1), ("text", 0.5)])
def test_likelihoods_are_added_where_modules_have_them(kind, part):
    """Those of texts count more: they say what networks do not."""
    modules = likely(kind)
    composite = compose(modules)
    assert composite.score == "coupled"
    inputs = tiny_inputs(modules[0].parent, 20)
    hybrid = compose(modules, score="hybrid").scores(inputs)
    margins = compose(modules, score="margin").scores(inputs)
    expected = part * hybrid + Coupling(tuple(range(4)), {4: Tie((2,), False, False)}).tied(margins)
    torch.testing.assert_close(composite.scores(inputs), expected, rtol=1e-4, atol=1e-4)


def test_a_label_is_added_beside_one_that_both_parents_know():
    large, small = of_world(*WORLD), of_world("b", "e", seed=1)
    composite = add(compose(large.values()), small["e"])
    inputs = tiny_inputs(small["e"].parent, 30)
    parts = composite.tied_parts(composite.checked(inputs))
    own = composite.engine.parts(composite.checked(inputs), SCORES["open"], {})[..., 0]
    two = compose(small.values(), score="margin").scores(inputs)[:, 1]
    tied_scores = parts[..., 0] - own / 10
    torch.testing.assert_close(tied_scores[:, 4] - tied_scores[:, 1], two, rtol=1e-4, atol=1e-4)


def test_where_a_part_of_a_smaller_world_is_missing_others_compare():
    composite, _, small = replaced()
    assert replace(composite, "c", small["c"]).score == "coupled_open"
    assert remove(composite, "d").score == "margin"
    assert remove(composite, "a", "b").score == "coupled_open"
    large, other = of_world(*WORLD), of_world("d", "y", seed=3)
    assert add(remove(compose(large.values()), "d"), other["d"]).score == "open"
    with pytest.raises(ValueError, match="expected modules that answer one label.*for the rest of"):
        compose([*large.values(), other["y"], of_world("p", "q")["p"]], score="coupled_open")
    with pytest.raises(ValueError, match='expected "margin", "logit" or "probability"'):
        compose(of_world(*WORLD, output="multilabel").values(), score="coupled_open")


def test_the_world_of_most_modules_ties_the_others():
    large, small, other = of_world(*WORLD), of_world("c", "d", seed=1), of_world("a", "x", seed=2)
    modules = [small["d"], large["a"], large["b"], other["x"], large["c"]]
    plain = Tie((1,), False, False)
    expected = {0: Tie((4,), True, True), 3: plain}
    assert Coupling.of(modules) == Coupling((1, 2, 4), expected)
    assert Coupling.of(list(large.values())) is None
    assert Coupling.of([small["d"], other["x"]]) is None
    assert Coupling.of([large["a"], large["b"], of_world("d", "y", seed=3)["y"]]) is None
    third = of_world("a", "b", "z", seed=4)["z"]
    whole = Coupling.of([*large.values(), third])
    assert whole == Coupling((0, 1, 2, 3), {4: Tie((0, 1), False, False)})
    # Two labels are gone, one of them of no matter to the smaller world: what is left says nothing.
    assert Coupling.of([large["a"], large["c"], small["d"]]) == Coupling(
        (0, 1), {2: Tie((1,), False, False)}
    )


def test_a_replaced_label_can_not_claim_more_than_its_world_has():
    composite, large, _ = replaced()
    loud = changed(composite.modules[3], head=Head(calibration=Calibration(1.0, 30.0)))
    given = compose([*composite.modules[:3], loud])
    inputs = tiny_inputs(large["a"].parent, 40)
    parts = given.tied_parts(given.checked(inputs))[..., 0]
    own = given.engine.parts(given.checked(inputs), SCORES["open"], {})[..., 0]
    chances = compose(large.values(), score="logit").scores(inputs).double().softmax(dim=1)
    found = (parts - own / 10)[:, 3].double().exp()
    torch.testing.assert_close(found, chances[:, 2:].sum(1), rtol=1e-4, atol=1e-5)


def test_joint_rows_scale_what_is_tied():
    large = of_world(*WORLD)
    shy = of_world("c", "e", seed=1)["e"]
    loud = changed(shy, head=Head(calibration=Calibration(1.0, 30.0)))
    given = compose([*large.values(), loud])
    inputs = tiny_inputs(large["a"].parent, 120)
    truth = compose(large.values()).predict(inputs)
    truth[::6] = ["e"] * 20
    assert given.predict(inputs) == ["e"] * len(inputs)
    for score in (None, "coupled_open"):
        fitted = compose(given.modules, score=score, calibrate_on=(inputs, truth))
        assert fitted.score == "joint" and fitted.base in ("coupled_open", score or "open")
        right = [a == b for a, b in zip(fitted.predict(inputs), truth, strict=True)]
        assert sum(right) > 0.6 * len(inputs)
    scales = torch.tensor([fitted.parameters["scales"][m.label] for m in fitted.modules])
    by_hand = (fitted.tied_parts(fitted.checked(inputs)) * scales[:, :2]).sum(-1) + scales[:, 2]
    torch.testing.assert_close(fitted.scores(inputs), by_hand)


def test_a_score_that_was_chosen_gives_way_where_nothing_is_tied_any_more():
    composite, large, _ = replaced()
    inputs = tiny_inputs(large["a"].parent, 120)
    truth = compose(large.values()).predict(inputs)
    chosen = compose(composite.modules, score="coupled_open", calibrate_on=(inputs, truth))
    less = remove(chosen, "a", "c")
    assert chosen.score == "joint" and less.score == "open" and "scales" not in less.parameters
    assert "scales fitted on joint rows were dropped" in less.recipe[-1]["note"]
    assert less.scores(inputs).isfinite().all()
    modules = likely()
    named = compose(modules, score="coupled_open")
    assert remove(named, "a", "c").score == "hybrid"


def test_it_is_told_where_some_have_no_likelihoods():
    modules = likely()
    modules[0] = changed(modules[0], likelihood=None)
    found = compose(modules)
    assert found.score == "coupled_open"
    assert 'compared by "coupled_open", without likelihoods' in found.recipe[0]["note"]


def test_files_keep_what_is_tied(tmp_path):
    composite = compose([changed(m, origin={"uri": f"models:/{m.label}/1"}) for m in likely()])
    write_composite(composite, tmp_path)
    found = read_composite(tmp_path)
    inputs = tiny_inputs(found.modules[0].parent, 20)
    assert found.score == "coupled"
    assert torch.equal(found.scores(inputs), composite.scores(inputs))
