"""One body of tests over every kind of answer."""

from __future__ import annotations

import ast
import copy
import pickle
from pathlib import Path

import pytest
import torch

import mlflow_rnnmod.answers
from mlflow_rnnmod.answers import (
    ANSWERS,
    IGNORE,
    Columns,
    Labelled,
    answer_of,
    draw_sample,
)
from mlflow_rnnmod.answers.joining import joined, output_of, reason_against
from mlflow_rnnmod.decomposition.module import Contract
from mlflow_rnnmod.networks import NetworkConfig, RecurrentNetwork, Rows

LABELS = ("a", "b", "end")
LABELLED = [name for name, answer in ANSWERS.items() if answer.scored]
kinds = pytest.mark.parametrize("kind", LABELLED)


def network_of(kind: str) -> RecurrentNetwork:
    answer = answer_of(kind)
    readout = "all_steps" if answer.stepwise else "last_valid"
    end = "end" if answer.ends else None
    return RecurrentNetwork(
        NetworkConfig(
            "features", 2, None, "gru", ((3,),), LABELS, readout=readout, output=kind, end_label=end
        )
    )


def rows_of(kind: str, count: int = 40) -> Rows:
    """Rows of 1 to 4 steps, with targets of every label, as people train with them."""
    draw = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 5, (count,), generator=draw)
    lengths[0] = 4
    shape = {"label": (count,), "multilabel": (count, 3)}.get(kind, (count, 4))
    targets = torch.randint(0, 2 if kind == "multilabel" else 3, shape, generator=draw)
    return Rows(torch.randn(count, 4, 2, generator=draw), lengths, targets)


def conformed(kind: str) -> tuple[Rows, RecurrentNetwork]:
    rows, network = rows_of(kind), network_of(kind)
    config = network.config
    assert rows.targets is not None
    targets = config.answer.conform(
        rows.targets, config, "data", lambda: (network.answered(rows), "right")
    )
    return Rows(rows.values, rows.lengths, targets), network


def margins_of(truth: Labelled) -> torch.Tensor:
    """Scores that say what is right, and something where nothing is known."""
    positive = torch.stack([truth.positive(label) for label in range(3)], dim=1)
    return torch.where(positive, 1.0, -1.0)


def test_answers_know_nobody():
    """Networks, inputs and all floors above ask answers, which ask nothing of them."""
    folder = Path(mlflow_rnnmod.answers.__file__).parent
    for path in folder.glob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text("utf-8")))
        names = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
        ours = [name for name in names if name.startswith("mlflow_rnnmod")]
        assert all(name.startswith("mlflow_rnnmod.answers") for name in ours), path


@pytest.mark.parametrize("kind", ANSWERS)
def test_there_is_one_of_each_and_copies_are_the_same(kind):
    answer = answer_of(kind)
    assert answer is ANSWERS[kind] and answer.name == kind
    for again in (copy.deepcopy(answer), pickle.loads(pickle.dumps(answer))):
        assert again == answer and hash(again) == hash(answer)
    assert [other for other in ANSWERS.values() if other == answer] == [answer]


def test_an_unknown_kind():
    with pytest.raises(ValueError, match="output='image', expected one of .'label', 'multil"):
        answer_of("image")


@pytest.mark.parametrize("kind", ANSWERS)
def test_what_people_read(kind):
    answer = answer_of(kind)
    given = {"label": "x", "labels": 3, "others": 2, "languages": "languages"}
    assert "**x**" in answer.question.format(**given) and "**x**" in answer.task.format(**given)
    assert ("**x**" in answer.end_question.format(**given)) == answer.ends
    how = answer.joins.format(score="(s)", mixed="", until="", limits="none")
    assert ("(s)" in how) == answer.scored
    assert (answer.words == "") == (kind == "label")


@kinds
def test_conformed_targets_are_checked_and_found_again(kind):
    rows, network = conformed(kind)
    answer = network.config.answer
    assert torch.equal(answer.checked(rows, 3), rows.targets)
    with pytest.raises(ValueError, match="rows has no targets"):
        answer.checked(Rows(rows.values), 3)
    with pytest.raises(ValueError, match="targets"):
        answer.checked(Rows(rows.values, None, torch.rand(len(rows))), 3)
    truth = Labelled(rows, network)
    count = int(network.answered(rows).sum()) if answer.stepwise else len(rows)
    assert len(truth.known) == count
    carried = sum(int(truth.positive(label).sum()) for label in range(3))
    assert carried == int((rows.targets > 0).sum() if kind == "multilabel" else truth.known.sum())


@kinds
def test_a_sample_stands_for_labels_and_against_others(kind):
    rows, network = conformed(kind)
    sample = draw_sample(rows, 3, 5, 0, kind)
    again = network.config.answer.draw(rows, 3, 5, 0)
    assert torch.equal(sample.rows.values, again.rows.values)
    positives, negatives = sample.sides
    if positives.dtype == torch.bool:
        assert not (positives & negatives).any()
    else:
        assert not ((positives == negatives) & (positives != IGNORE)).any()
        counts = torch.bincount(positives[positives != IGNORE], minlength=3)
        assert counts.max() <= 5 and counts.min() >= 1
    assert float(sample.weights[sample.weights > 0].mean()) == pytest.approx(1.0, rel=1e-5)
    assert len(sample[:2]) == 2
    with pytest.raises(ValueError, match="at least two: a label needs a rival"):
        draw_sample(rows, 1, 5, 0, kind)


@kinds
def test_what_is_right_measures_one_and_the_opposite_less(kind):
    rows, network = conformed(kind)
    answer, truth = network.config.answer, Labelled(rows, network)
    right = answer.measure(margins_of(truth), truth)
    assert next(iter(right)) == answer.metric
    assert set(right.values()) == {1.0}
    wrong = answer.measure(-margins_of(truth), truth)
    assert wrong[answer.metric] < right[answer.metric]


@kinds
def test_margins_are_log_odds_or_a_logit_without_rivals(kind):
    answer, logits = answer_of(kind), torch.randn(4, 2, 3, dtype=torch.float64)
    table = answer.all_margins(logits)
    odds = torch.logit(logits.softmax(-1) if answer.rivals else logits.sigmoid())
    torch.testing.assert_close(table, odds)
    for label in range(3):
        torch.testing.assert_close(answer.margins(logits, label), table[..., label])


@kinds
def test_from_scores_to_answers(kind):
    answer = answer_of(kind)
    scores = torch.tensor([[1.0, -1.0, -2.0], [-3.0, 2.0, 0.5]])
    scores = scores[None] if answer.stepwise else scores
    columns = Columns(LABELS, end_label="end" if answer.ends else None)
    expected = {
        "label": ["a", "b"],
        "multilabel": [["a"], ["b", "end"]],
        "tags": [["a", "b"]],
        "list": [["a", "b"]],
    }
    assert answer.answers(scores, columns) == expected[kind]
    assert answer.answers(scores[:0], columns) == []
    rejecting = Columns(LABELS, reject_below=1.5)
    if answer.rejects:
        found = answer.answers(scores, rejecting)
        assert (found[0] if answer.stepwise else found) == ["none of these", "b"]
        with pytest.raises(ValueError, match="reject_label='a' is the label of a module"):
            answer.answers(scores, Columns(LABELS, reject_below=0.0, reject_label="a"))
    else:
        with pytest.raises(ValueError, match=f"kind {kind!r}, which can be no label"):
            answer.answers(scores, rejecting)


def test_a_list_of_ends_is_empty_and_one_without_end_is_full():
    scores = torch.tensor([[[0.0, 1.0], [1.0, 0.0]], [[1.0, 0.0], [1.0, 0.0]]])
    columns = Columns(("x", "end"), end_label="end")
    assert answer_of("list").answers(scores, columns) == [[], ["x", "x"]]


def test_forms():
    forms = {kind: tuple(answer.form(("x", "y"))) for kind, answer in ANSWERS.items()}
    assert forms.pop("label") == ("text", None)
    assert forms.pop("translation") == ("text", ("x", "y"))
    assert set(forms.values()) == {("texts", ("prediction",))}
    assert tuple(answer_of("translation").form(("x",))) == ("text", None)
    assert tuple(answer_of("translation").form(("x",), "tokens")) == ("ids", ("prediction",))


# --- together ---


def contract(label: str, output: str, labels: tuple[str, ...] = LABELS) -> Contract:
    return Contract(label, 0, "text", 9, None, output, None, labels)


@pytest.mark.parametrize("kind", ANSWERS)
def test_modules_of_one_kind_answer_as_they_do_alone(kind):
    everything = [contract(label, kind) for label in LABELS]
    assert joined(everything) is answer_of(kind)
    some = joined(everything[:2])
    assert some is not None and some.name == kind
    assert some.rivals == (answer_of(kind).rivals and not answer_of(kind).ends)


def test_all_three_answer_one_label():
    assert output_of(["tags", "list", "label"]) == "label"
    assert output_of(["tags", "list", "multilabel"]) is None
    assert joined([contract("a", "tags"), contract("b", "multilabel")]) is None
    assert "one of several does not" in reason_against(["tags", "list", "multilabel"])
