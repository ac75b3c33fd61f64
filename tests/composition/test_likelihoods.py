"""Votes with likelihoods: formulas by hand, what falls back to what, offsets, rejection."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from mlflow_rnnmod import composition
from mlflow_rnnmod.composition import compose
from mlflow_rnnmod.composition.joint import parts_of
from mlflow_rnnmod.composition.plan import entry_of, make_plan
from mlflow_rnnmod.composition.unlabelled import shifted
from mlflow_rnnmod.decomposition import DecompositionConfig, decompose
from mlflow_rnnmod.decomposition.likelihoods import with_likelihoods
from mlflow_rnnmod.decomposition.module import Module
from mlflow_rnnmod.inputs import density_of
from mlflow_rnnmod.networks import Rows
from tests.builders import tiny_inputs, tiny_modules, tiny_parent, tiny_rows

FIRST, SECOND = ("a", "b", "c"), ("d", "e")


def likely(kind: str, labels: tuple[str, ...], seed: int = 0) -> list[Module]:
    """Modules of a random parent, with likelihoods of random rows."""
    parent = tiny_parent(kind, labels=labels, seed=seed)
    rows = parent.network.prepare(tiny_rows(parent, 60, seed=seed))
    rows = Rows(rows.values, rows.lengths, torch.arange(60) % len(labels))
    return list(with_likelihoods(tiny_modules(parent), rows, rows))


def two(kind: str = "text") -> list[Module]:
    return [*likely(kind, FIRST), *likely(kind, SECOND, seed=1)]


@pytest.mark.parametrize("kind", ["text", "tokens", "features"])
def test_scores_are_those_of_formulas(kind):
    modules = two(kind)
    inputs = tiny_inputs(modules[0].parent, 9, seed=4)
    open_, energy = parts_of(compose(modules, score="open"), inputs).values.unbind(-1)
    margin = compose(modules, score="margin").scores(inputs)
    votes = []
    for module in modules:
        density, parent = density_of(module.likelihood.space), module.parent
        checked = parent.input.check(inputs, parent.network.config.input_size)
        rows = parent.network.content(parent.rows(checked))
        seen = density.of_inputs(inputs) if density.raw else density.of_rows(rows)
        found = density.stack([module.likelihood])(seen)
        votes.append(density.vote(found, density.sizes(seen))[:, 0])
    votes = torch.stack(votes, dim=1)
    expected = {
        "hybrid": open_ + 0.25 * energy + votes,
        "bayes": F.logsigmoid(margin) + votes,
        "likelihood": votes,
    }
    for score, right in expected.items():
        found = compose(modules, score=score).scores(inputs)
        assert torch.allclose(found, right, atol=1e-4), score


def test_parents_of_different_labels_are_compared_with_likelihoods():
    modules = two()
    assert compose(modules).score == "hybrid"
    assert compose(modules[:3]).score == "margin"
    assert "note" not in compose(modules).recipe[0]


@pytest.mark.slow
def test_the_score_that_joint_rows_prefer_is_taken():
    modules = two()
    inputs = tiny_inputs(modules[0].parent, 80, seed=5)
    best, usual = compose(modules, score="bayes"), compose(modules)
    right = best.predict(inputs)
    differ = sum(a != b for a, b in zip(usual.predict(inputs), right, strict=True))
    assert differ > 3
    found = compose(modules, calibrate_on=(inputs, right))
    assert found.base == "bayes" and found.predict(inputs) == right
    # Without rows of a label nothing is fitted for it, and the better score is taken all the same.
    gone = min(set(right), key=right.count)
    some = [i for i, label in enumerate(right) if label != gone]
    given = [inputs[i] for i in some], [right[i] for i in some]
    with pytest.warns(UserWarning, match=rf"has \['{gone}'.*\]: nothing was fitted"):
        found = compose(modules, calibrate_on=given)
    assert found.base == "bayes" and found.predict(inputs) == right
    # With other modules what these rows chose says nothing.
    other = composition.replace(found, "c", likely("text", FIRST, seed=7)[2])
    assert other.score == compose(other.modules).score == "hybrid"
    # What was asked for by name stays.
    named = compose(modules, score="hybrid", calibrate_on=(inputs, right))
    assert named.base == "hybrid"
    named = compose(modules, score="bayes", calibrate_on=(inputs, right))
    assert composition.replace(named, "c", other.modules[2]).score == "bayes"


def test_old_modules_compose_as_before():
    old = [replace(module, likelihood=None) for module in two()]
    composite = compose(old)
    assert composite.score == "open" and "note" not in composite.recipe[0]
    inputs = tiny_inputs(old[0].parent, 5)
    assert torch.equal(composite.scores(inputs), compose(two(), score="open").scores(inputs))


def test_a_mix_says_what_it_did():
    modules = two()
    mixed = [*modules[:-1], replace(modules[-1], likelihood=None)]
    composite = compose(mixed)
    assert composite.score == "open"
    assert "1 of 5 modules have no likelihood (e)" in composite.recipe[0]["note"]
    replaced = composition.replace(compose(modules), "e", mixed[-1])
    assert replaced.score == "open" and "no likelihood" in replaced.recipe[-1]["note"]
    again = composition.replace(replaced, "e", modules[-1])
    assert again.score == "hybrid"


def test_likelihoods_that_are_of_different_things():
    modules = two()
    other = replace(modules[-1].likelihood, space="words-1")
    mixed = [*modules[:-1], replace(modules[-1], likelihood=other)]
    assert compose(mixed).score == "open"
    assert "of different things" in compose(mixed).recipe[0]["note"]
    with pytest.raises(ValueError, match="of different things"):
        compose(mixed, score="hybrid")


@pytest.mark.parametrize("score", ["hybrid", "bayes", "likelihood"])
def test_likelihoods_that_are_asked_for_and_not_there(score):
    old = [replace(module, likelihood=None) for module in two()]
    with pytest.raises(ValueError, match=r"5 of 5 modules have no likelihood"):
        compose(old, score=score)


def test_a_module_of_one_parent_without_keeps_its_default():
    modules = likely("text", FIRST)
    composite = composition.replace(
        compose(modules, score="bayes"), "c", replace(modules[2], likelihood=None)
    )
    assert composite.score == "margin"


def test_joint_rows_fit_a_scale_for_the_likelihood_too():
    modules = two()
    inputs = tiny_inputs(modules[0].parent, 40, seed=2)
    labels = [(*FIRST, *SECOND)[i % 5] for i in range(40)]
    for base, count in (("hybrid", 4), ("bayes", 3), ("likelihood", 2)):
        composite = composition.joint.calibrated(compose(modules, score=base), inputs, labels)
        assert composite.score == "joint" and composite.base == base
        scales = [composite.parameters["scales"][label] for label in composite.labels]
        assert {len(each) for each in scales} == {count}
        parts = parts_of(compose(modules, score=base), inputs).values
        if base == "likelihood":
            assert parts.shape[-1] == 1
        fitted = torch.tensor(scales)
        right = (parts * fitted[:, :-1]).sum(-1) + fitted[:, -1]
        assert torch.allclose(composite.scores(inputs), right, atol=1e-3)


def test_an_offset_for_each_parent_from_unlabelled_rows():
    modules = two()
    plain = compose(modules)
    inputs = tiny_inputs(modules[0].parent, 50, seed=3)
    offset = compose(modules, unlabelled=inputs)
    found = offset.parameters["offsets"]
    assert len({found[y] for y in FIRST}) == 1 and len({found[y] for y in SECOND}) == 1
    shift = torch.tensor([found[y] for y in plain.labels])
    assert torch.allclose(offset.scores(inputs), plain.scores(inputs) + shift, atol=1e-5)
    # A mixture of the shares that were found is at least as likely as one of equal labels.
    scores = plain.scores(inputs).double()
    assert (scores + shift - shift.exp().mean().log()).logsumexp(1).sum() >= scores.logsumexp(
        1
    ).sum()
    assert offset.recipe[-1]["verb"] == "shift" and sum(offset.recipe[-1]["shares"].values()) > 0.99
    assert shifted(offset, inputs).parameters == offset.parameters
    assert "offsets" not in composition.remove(offset, "a").parameters


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"unlabelled": []}, "is empty"),
        ({"unlabelled": ["x"], "score": "open"}, "no likelihoods"),
    ],
)
def test_offsets_that_nothing_can_be_found_for(change, words):
    with pytest.raises(ValueError, match=words):
        compose(two(), **change)


def test_offsets_of_one_parent():
    with pytest.raises(ValueError, match="several parents"):
        compose(likely("text", FIRST), score="bayes", unlabelled=["x"])


def test_rejection_goes_by_familiarity():
    modules = two()
    composite = compose(modules)
    inputs = tiny_inputs(modules[0].parent, 30, seed=5)
    known = composite.familiarity(inputs)
    own, energy = parts_of(compose(modules, score="open"), inputs).values.unbind(-1)
    right = (own / 2 + energy + composite.evidence.standard(inputs)).amax(dim=1)
    assert torch.allclose(known, right, atol=1e-4)
    limit = float(known.median())
    answers = composite.predict(inputs, reject_below=limit)
    assert [y == "none of these" for y in answers] == (known < limit).tolist()
    assert composite.familiarity([]).shape == (0,) and composite.predict([], 0.0) == []


def test_a_composite_without_likelihoods_rejects_by_its_best_score():
    composite = compose(two(), score="open")
    inputs = tiny_inputs(composite.modules[0].parent, 6)
    assert torch.equal(composite.familiarity(inputs), composite.scores(inputs).amax(dim=1))


def test_nothing_is_stored_where_nothing_is_wanted():
    parent = tiny_parent("text", labels=FIRST)
    rows = tiny_rows(parent, 60)
    rows = Rows(rows.values, rows.lengths, torch.arange(60) % 3)
    for wanted in (True, False):
        config = DecompositionConfig(removal=0.2, likelihood=wanted)
        found = decompose(parent, rows, rows, rows, config)
        assert all((m.likelihood is not None) is wanted for m in found.modules)
    with pytest.raises(ValueError, match="likelihood='yes', expected True or False"):
        DecompositionConfig(likelihood="yes")


def test_a_label_without_rows_has_none():
    parent = tiny_parent("text", labels=FIRST)
    rows = tiny_rows(parent, 20)
    rows = Rows(rows.values, rows.lengths, torch.arange(20) % 2)
    found = with_likelihoods(tiny_modules(parent), rows, rows)
    assert [m.likelihood is not None for m in found] == [True, True, False]


def test_a_plan_says_that_likelihoods_do_not_vote():
    modules = two()
    mixed = [*modules[:-1], replace(modules[-1], likelihood=None)]
    words = "compared without likelihoods: 1 of 5 modules have none"
    assert words in make_plan(entry_of(module) for module in mixed).notes
    for same in (modules, mixed[:3], [replace(m, likelihood=None) for m in modules]):
        assert not any("likelihoods" in n for n in make_plan(map(entry_of, same)).notes)
