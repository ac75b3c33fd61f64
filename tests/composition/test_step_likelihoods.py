"""Votes of single steps: by the word, its neighbours, and the whole text for a parent."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from mlflow_rnnmod.composition import compose
from mlflow_rnnmod.composition.joint import parts_of
from mlflow_rnnmod.decomposition.likelihoods import with_likelihoods
from mlflow_rnnmod.decomposition.module import Module
from mlflow_rnnmod.inputs import neighbours
from mlflow_rnnmod.inputs.neighbours import StepCounts, StepStack, read_steps, spelled
from mlflow_rnnmod.networks import Rows
from mlflow_rnnmod.storage import read_composite, write_composite
from tests.builders import tiny_inputs, tiny_modules, tiny_parent, tiny_rows

FIRST, SECOND = ("a", "b", "c"), ("d", "e")


def tagging(kind: str, labels: tuple[str, ...], seed: int, side: str = "right") -> list[Module]:
    config = {"output": "tags", "readout": "all_steps", "side": side}
    parent = tiny_parent(kind, labels=labels, seed=seed, **config)
    rows = parent.network.prepare(tiny_rows(parent, 60, seed=seed))
    draw = torch.Generator().manual_seed(seed)
    targets = torch.randint(len(labels), rows.values.shape[:2], generator=draw)
    answered = parent.network.answered(rows)
    rows = Rows(rows.values, rows.lengths, targets.masked_fill(~answered, -1))
    return list(with_likelihoods(tiny_modules(parent), rows, rows))


def two(kind: str = "text", side: str = "right") -> list[Module]:
    return [*tagging(kind, FIRST, 0, side), *tagging(kind, SECOND, 1, side)]


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("kind", ["text", "tokens"])
def test_a_step_gets_the_votes_of_its_word(kind, side):
    modules = two(kind, side)
    composite = compose(modules)
    assert composite.score == "hybrid" and composite.output == "tags"
    inputs = tiny_inputs(modules[0].parent, 6, seed=4)
    parts = parts_of(compose(modules), inputs).values
    found = composite.scores(inputs)
    right = parts[..., 0] + 0.25 * parts[..., 1] + parts[..., 2]
    valid = ~found.isnan()
    assert torch.equal(valid, ~right.isnan())
    assert torch.allclose(found[valid], right[valid], atol=1e-4)
    # A row alone has the same votes as among others: padding says nothing.
    alone = composite.votes(composite.checked(inputs[2:3]), found[2:3])
    assert torch.allclose(parts[2, ..., 2], alone[0], atol=1e-4)


def test_a_word_is_counted_with_its_neighbours():
    rows = [["the", "cat", "sat"], ["the", "dog", "sat"], ["a", "cat", "ran"]] * 4
    labels = torch.tensor([0, 1, 2] * 12)
    counts = StepCounts(3)
    counts.add(read_steps(rows), labels)
    tables = counts.likelihoods()
    found = StepStack(tables)(read_steps([["the", "cat", "sat"]]))

    def share(seen: int, of: int, types: int, kinds: int) -> float:
        return math.log((seen + types / kinds) / (of + types))

    # Of twelve nouns eight were "cat"; eight stood behind "the", four behind "a"; before "sat" 8.
    right = share(8, 12, 2, 50_000) + neighbours.NEIGHBOUR * 2 * share(8, 12, 2, 50_000)
    assert float(found[1, 1]) == pytest.approx(right, abs=0.15)
    assert found.argmax(dim=1).tolist() == [0, 1, 2]


def test_strange_words_go_by_their_endings():
    rows = [[f"{stem}ing", f"{stem}ly"] for stem in ("walk", "talk", "runn", "jump")] * 2
    counts = StepCounts(2)
    counts.add(read_steps(rows), torch.tensor([0, 1] * 8))
    found = StepStack(counts.likelihoods())(read_steps([["zapping"], ["zaply"]]))
    assert found.argmax(dim=1).tolist() == [0, 1]


def test_parts_that_are_merged_are_as_one_pass():
    rows = [["the", "cat"], ["a", "dog", "ran"], [], ["the", "dog"]] * 2
    labels = torch.tensor([0, 1, 0, 1, -1, 0, 1] * 2)
    whole, first, second = (StepCounts(2) for _ in range(3))
    whole.add(read_steps(rows), labels)
    first.add(read_steps(rows[:2]), labels[:5])
    second.add(read_steps(rows[2:]), labels[5:])
    for a, b in zip(whole.likelihoods(), first.merge(second).likelihoods(), strict=True):
        assert a.facts == b.facts and torch.equal(a.tensors["keys"], b.tensors["keys"])
        assert torch.equal(a.tensors["values"], b.tensors["values"])


def test_files_hold_them(tmp_path):
    composite = compose(two())
    write_composite(composite, tmp_path)
    found = read_composite(tmp_path)
    texts = ["größe", "", "o'neill"]
    assert torch.equal(found.scores(texts).nan_to_num(9), composite.scores(texts).nan_to_num(9))
    assert found.modules[0].likelihood.step.space == "neighbours-1"


def test_tags_without_them_compose_as_before():
    old = [replace(m, likelihood=replace(m.likelihood, step=None)) for m in two()]
    assert compose(old).score == "open"
    with pytest.raises(ValueError, match="have no likelihood"):
        compose(old, score="hybrid")


def test_steps_are_rejected_by_themselves():
    composite = compose(two())
    inputs = tiny_inputs(composite.modules[0].parent, 4)
    limit = float(composite.scores(inputs).amax(dim=-1).nanmedian())
    answers = composite.predict(inputs, reject_below=limit)
    assert any("none of these" in row for row in answers)
    assert [len(row) for row in answers] == [len(row) for row in composite.predict(inputs)]


def test_likelihoods_alone_and_joint_rows():
    modules = two()
    inputs = tiny_inputs(modules[0].parent, 8, seed=2)
    alone = compose(modules, score="likelihood").scores(inputs)
    assert torch.equal(alone.isnan(), compose(modules).scores(inputs).isnan())
    labels = [[(*FIRST, *SECOND)[i % 5] for i in range(len(text))] for text in inputs]
    joint = compose(modules, calibrate_on=(inputs, labels))
    assert joint.score == "joint" and len(joint.parameters["scales"]["a"]) == 4
    assert torch.equal(joint.scores(inputs).isnan(), alone.isnan())


@pytest.mark.parametrize(
    ("token", "right"),
    [("Running", ("running", "ing")), ("12,5", ("0,0", "0,0")), ("", ("", ""))],
)
def test_spelling(token, right):
    assert spelled(token) == right
