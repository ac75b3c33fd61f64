"""What composites of each kind answer, alone and together, and how they are changed."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor

from mlflow_rnnmod.answers import ANSWERS
from mlflow_rnnmod.answers.joining import output_of, reason_against
from mlflow_rnnmod.composition import (
    NONE_OF_THESE,
    Composite,
    IncompatibleModules,
    add,
    compose,
    remove,
    replace,
    select,
)
from mlflow_rnnmod.composition.joint import parts_of
from mlflow_rnnmod.networks import Parent
from tests.builders import tiny_inputs, tiny_modules, tiny_parent, tiny_texts

nan = math.nan
TEXTS = tiny_texts(9)


def parent_of(kind: str, labels: tuple[str, ...] = ("a", "b", "c"), **config) -> Parent:
    """A parent over text that answers ``kind``; of lists, the last label is the end."""
    if kind == "tags":
        config = {"readout": "all_steps", **config}
    if kind == "list":
        config = {
            "readout": "all_steps",
            "feed": "repeat",
            "steps": 6,
            "output_steps": 4,
            "end_label": labels[-1],
            **config,
        }
    return tiny_parent("text", labels, output=kind, **config)


def everything(kind: str, **config) -> Composite:
    return compose(tiny_modules(parent_of(kind, **config), removal=0.0, repaired=False))


# --- identity ---


# --- answers ---


def test_tags_are_one_for_each_token_that_was_read():
    composite = everything("tags")
    answers = composite.predict(["abc", "", None, "schröder"])
    assert [len(answer) for answer in answers] == [3, 0, 0, 8]
    assert {label for answer in answers for label in answer} <= {"a", "b", "c"}
    assert composite.predict([]) == []
    assert composite.scores([]).shape == (0, 0, 3)


def test_tags_of_cut_texts_are_those_of_what_was_read():
    from mlflow_rnnmod.networks import TextEncoder
    from tests.builders import character_encoder

    encoder = character_encoder()
    tokenizer = encoder.tokenizer
    tokenizer.enable_truncation(5)
    parent = parent_of("tags")
    cut = Parent(parent.network, TextEncoder(tokenizer))
    whole = compose(tiny_modules(parent)).predict(["abcdefgh"])
    assert compose(tiny_modules(cut)).predict(["abcdefgh"]) == [whole[0][:5]]


def test_one_tag_of_one_module_is_yes_or_no_at_each_step():
    module = tiny_modules(parent_of("tags"))[0]
    composite = compose([module])
    scores = composite.scores(TEXTS)
    for row, answer in zip(scores, composite.predict(TEXTS), strict=True):
        margins = row[~row.isnan()].tolist()
        assert answer == ["a" if m >= 0 else NONE_OF_THESE for m in margins]


def test_steps_are_rejected_by_themselves():
    composite = everything("tags")
    scores = composite.scores(TEXTS)
    best = scores[~scores.isnan()].view(-1, 3).amax(1)
    limit = float(best.median())
    answers = composite.predict(TEXTS, reject_below=limit, reject_label="?")
    flat = [label for answer in answers for label in answer]
    assert [label == "?" for label in flat] == (best < limit).tolist()
    with pytest.raises(ValueError, match="reject_label='a'"):
        composite.predict(TEXTS, reject_below=limit, reject_label="a")


def test_several_labels_each_have_a_threshold():
    composite = everything("multilabel")
    scores = composite.scores(TEXTS)
    limit = float(scores[:, 1].median()) + 1e-4
    thresholds = compose(composite.modules, thresholds={"b": limit})
    expected = [
        [y for y, s, t in zip("abc", row, (0.0, limit, 0.0), strict=True) if s >= t]
        for row in scores.tolist()
    ]
    assert thresholds.predict(TEXTS) == expected != composite.predict(TEXTS)
    assert json.loads(json.dumps(dict(thresholds.parameters))) == {"thresholds": {"b": limit}}
    sigmoid = compose(composite.modules, score="probability")
    assert sigmoid.predict(TEXTS) == composite.predict(TEXTS)
    torch.testing.assert_close(sigmoid.scores(TEXTS), scores.sigmoid())
    with pytest.raises(ValueError, match=r"reject_below=0\.0 .* thresholds"):
        composite.predict(TEXTS, reject_below=0.0)


def test_a_label_without_rivals_does_not_mind_who_else_is_there():
    composite = everything("multilabel")
    for label in composite.labels:
        alone = select(composite, label).predict(TEXTS)
        together = [[y for y in answer if y == label] for answer in composite.predict(TEXTS)]
        assert alone == together


@pytest.mark.parametrize(
    ("thresholds", "said"),
    [
        ({"z": 1.0}, "'z' is none of the labels"),
        ({"a": nan}, "'a' has nan, expected a finite number"),
        ({"a": "high"}, "'a' has 'high'"),
        ({"a": True}, "'a' has True"),
    ],
)
def test_thresholds_that_do_not_fit(thresholds, said):
    with pytest.raises(ValueError, match=said):
        compose(everything("multilabel").modules, thresholds=thresholds)


@pytest.mark.parametrize("kind", ["label", "tags", "list"])
def test_rivals_have_no_thresholds(kind):
    with pytest.raises(ValueError, match="where the best label wins"):
        compose(everything(kind).modules, thresholds={"a": 1.0})


def test_lists_with_and_without_the_label_that_ends_them():
    composite = everything("list")
    assert composite.end_label == "c" and composite.rivals
    scores = composite.scores(TEXTS)
    assert scores.shape == (9, 4, 3)
    for row, answer in zip(scores, composite.predict(TEXTS), strict=True):
        best = ["abc"[i] for i in row.argmax(1).tolist()]
        assert answer == (best[: best.index("c")] if "c" in best else best)
    open_end = remove(composite, "c")
    assert open_end.end_label is None and not open_end.rivals
    limited = compose(open_end.modules, thresholds={"b": 2.0})
    none = (1 - open_end.scores(TEXTS).sigmoid()).prod(dim=1)  # the chance of no place at all
    anywhere = torch.logit(1 - none).tolist()
    assert open_end.predict(TEXTS) == [
        [y for y, s in zip("ab", row, strict=True) if s >= 0] for row in anywhere
    ]
    assert limited.predict(TEXTS) == [
        [y for y, s, t in zip("ab", row, (0, 2), strict=True) if s >= t] for row in anywhere
    ]
    # Without all labels there is no reading place by place; the end is no label.
    part = select(composite, "a", "c")
    assert part.end_label == "c" and not part.rivals
    assert part.predict(TEXTS) == select(composite, "a").predict(TEXTS)


def test_probabilities_of_lists_are_those_of_the_best_place():
    composite = compose(remove(everything("list"), "c").modules, score="probability")
    best = composite.scores(TEXTS).amax(1).tolist()
    assert composite.predict(TEXTS) == [
        [y for y, p in zip("ab", row, strict=True) if p >= 0.5] for row in best
    ]


def test_two_labels_that_end_lists():
    first, second = (tiny_modules(parent_of("list", labels)) for labels in ("abc", "xyz"))
    with pytest.raises(IncompatibleModules, match=r"2 modules end lists: c \('c'\), z \('z'\)"):
        compose([*first, *second])
    assert compose([*first, *second[:2]]).end_label == "c"


def test_explain_shows_every_step():
    steps = everything("tags").explain("abcd")
    scores = everything("tags").scores(["abcd"])[0]
    assert len(steps) == 4
    for step, row in zip(steps, scores, strict=True):
        assert list(step.values()) == sorted(row.tolist(), reverse=True)
        assert step == dict(zip("abc", row.tolist(), strict=True))
    assert list(everything("multilabel").explain("abcd")) != []


# --- kinds together ---


@pytest.mark.parametrize("first", ANSWERS)
@pytest.mark.parametrize("second", ANSWERS)
def test_which_kinds_go_together(first, second):
    together = {
        frozenset(("label", "tags")): "label",
        frozenset(("label", "list")): "label",
        frozenset(("multilabel", "list")): "multilabel",
    }
    expected = first if first == second else together.get(frozenset((first, second)))
    assert output_of([first, second]) == expected
    if expected is None:
        assert reason_against([first, second])
        if "translation" not in (first, second):
            modules = [*everything(first).modules[:1]]
            other = parent_of(second, ("x", "y"), cell="gru")
            modules += tiny_modules(other)[:1]
            with pytest.raises(IncompatibleModules, match="differ in their output kind") as caught:
                compose(modules)
            assert reason_against([first, second]) in str(caught.value)


def mixed(kind: str, score: str | None = None) -> tuple[Composite, Composite, Composite]:
    """A composite of a parent that answers each step and one that does not, and both alone."""
    steps = compose(tiny_modules(parent_of(kind, ("a", "b", "c"))), score=score)
    once = "multilabel" if kind == "several" else "label"
    whole = compose(tiny_modules(parent_of(once, ("x", "y"), cell="gru", seed=3)), score=score)
    return compose([*whole.modules, *steps.modules], score=score), whole, steps


def own_and_energy(composite: Composite) -> tuple[Tensor, Tensor]:
    """The open score's two parts."""
    own, both = (
        Composite(composite.modules, "open", {"energy_weight": weight}).scores(TEXTS)
        for weight in (0.0, 1.0)
    )
    return own, both - own


@pytest.mark.parametrize("kind", ["tags", "list"])
@pytest.mark.parametrize("score", ["open", "margin", "logit"])
def test_steps_answer_for_the_whole_input_by_the_surest(kind, score):
    both, whole, steps = mixed(kind, score)
    assert both.output == "label"
    found = both.scores(TEXTS)
    tables, energies = steps.scores(TEXTS), torch.zeros(9, 8, 3)
    once = whole.scores(TEXTS)
    if score == "open":  # the energy of the whole input, which counts more across kinds
        tables, energies = own_and_energy(steps)
        once = sum(own_and_energy(whole))
    torch.testing.assert_close(found[:, :2], once, rtol=1e-4, atol=1e-5)
    for row, table in enumerate(tables):
        table = table[~table[:, 0].isnan()]
        for column, label in enumerate(steps.labels):
            best = float(table[:, column].max()) - math.log(len(table))
            if kind == "list" and label == "c":
                best = float(table[0, column])  # does the list end at once?
            best += float(energies[row, : len(table), column].mean())
            assert float(found[row, 2 + column]) == pytest.approx(best, abs=1e-4)
    answers = both.predict(TEXTS)
    assert answers == [both.labels[i] for i in found.argmax(1).tolist()]
    assert compose(both.modules).score == "open"
    both.engine.batch_size = 2
    torch.testing.assert_close(both.scores(TEXTS), found, rtol=1e-4, atol=1e-5)
    if score == "open":
        lighter = Composite(both.modules, "open", {"energy_weight": 0.5}).scores(TEXTS)
        assert not torch.allclose(lighter, found)


def test_a_list_beside_labels_without_rivals_says_what_it_says_alone():
    lists = remove(compose(tiny_modules(parent_of("list"))), "c")
    several = compose(tiny_modules(parent_of("multilabel", ("x", "y"), seed=4)))
    both = compose([*lists.modules, *several.modules])
    assert both.output == "multilabel" and both.score == "margin"
    expected = [
        [*one, *two] for one, two in zip(lists.predict(TEXTS), several.predict(TEXTS), strict=True)
    ]
    assert both.predict(TEXTS) == expected
    assert any(lists.predict(TEXTS)) and any(several.predict(TEXTS))


# --- verbs ---


@pytest.mark.parametrize("kind", ["tags", "list", "multilabel"])
def test_reuse_and_replacement(kind):
    one, other = everything(kind), compose(tiny_modules(parent_of(kind, cell="gru", seed=5)))
    assert one.score == "margin"
    swapped = replace(one, "b", other.modules[1])
    assert swapped.score == "margin"  # parents of the same labels
    assert swapped.scores(TEXTS).shape == one.scores(TEXTS).shape
    pair = select(one, "b", "a")
    torch.testing.assert_close(
        pair.scores(TEXTS), one.scores(TEXTS)[..., [1, 0]], equal_nan=True, rtol=1e-4, atol=1e-5
    )
    if kind == "multilabel":
        expected = [
            [y for y in "abc" if y in (two if y == "b" else one)]
            for one, two in zip(one.predict(TEXTS), other.predict(TEXTS), strict=True)
        ]
        assert swapped.predict(TEXTS) == expected
    back = replace(swapped, "b", one.modules[1])
    assert back.score == "margin" and back.predict(TEXTS) == one.predict(TEXTS)


def test_thresholds_stay_with_their_labels():
    composite = compose(everything("multilabel").modules, thresholds={"a": 1.0, "b": -1.0})
    other = tiny_modules(parent_of("multilabel", cell="gru"))[1]
    assert replace(composite, "b", other).parameters == composite.parameters
    assert remove(composite, "b").parameters == {"thresholds": {"a": 1.0}}
    assert remove(composite, "a", "b").parameters == {}
    lists = compose(remove(everything("list"), "c").modules, thresholds={"a": 1.0})
    ended = add(lists, everything("list").modules[2])
    assert ended.rivals and ended.parameters == {} and "thresholds" in ended.recipe[-1]["note"]


def test_an_open_list_whose_end_is_removed_is_no_longer_compared():
    first = tiny_modules(parent_of("list"))
    second = tiny_modules(parent_of("list", ("x", "y", "c"), cell="gru"))
    composite = compose([*first, *second[:2]])
    assert composite.score == "open"
    assert remove(composite, "c").score == "margin"
    chosen = compose([*first, *second[:2]], score="open")
    truth = [["a"], [], ["x", "b"], ["b"], ["a", "x"], ["x"], [], ["a"], ["b"]]
    joint = compose(chosen.modules, calibrate_on=(TEXTS, truth))
    assert joint.score == "joint" and joint.base == "open"
    assert remove(joint, "c").score == "margin"
    with pytest.raises(ValueError, match='score="open" says which label is best'):
        compose([first[0], second[0]], score="open")


# --- joint rows ---


def calibrated_loss(composite: Composite, rows: list, truth: list) -> float:
    """Cross-entropy of a softmax over scores, over all steps with a truth."""
    scores = composite.scores(rows)
    total, count = 0.0, 0
    for row, wanted in enumerate(truth):
        for step, label in enumerate(wanted):
            if label in composite.labels:
                z = scores[row, step]
                total += float(torch.logsumexp(z, 0) - z[composite.labels.index(label)])
                count += 1
    return total / count


def test_joint_rows_of_tags():
    composite = everything("tags")
    texts = tiny_texts(60)
    truth = [[("a", "b", "c", None, "other")[ord(c) % 5] for c in text] for text in texts]
    joint = compose(composite.modules, calibrate_on=(texts, truth))
    assert joint.score == "joint" and joint.base == "margin"
    assert calibrated_loss(joint, texts, truth) < calibrated_loss(composite, texts, truth)
    with pytest.raises(ValueError, match="row 0 has 1 labels and 5 steps"):
        compose(composite.modules, calibrate_on=(["abcde"], [["a"]]))
    with pytest.raises(ValueError, match="no step with one of the labels"):
        compose(composite.modules, calibrate_on=(["ab"], [["q", None]]))


def test_joint_rows_of_lists_are_fitted_by_the_chance_anywhere():
    composite = remove(everything("list"), "c")
    truth = [[y for y in "ab" if ord(text[0]) % 2 == ord(y) % 2] for text in TEXTS]
    joint = compose(composite.modules, calibrate_on=(TEXTS, truth))

    def loss(found: Composite) -> float:
        total = 0.0
        for column, label in enumerate(found.labels):
            none = (1 - found.scores(TEXTS)[..., column].double().sigmoid()).prod(1)
            for chance, wanted in zip(none.tolist(), truth, strict=True):
                total -= math.log(1 - chance if label in wanted else chance)
        return total

    assert joint.score == "joint" and loss(joint) < loss(composite)


def test_joint_rows_of_several_labels_are_fitted_label_by_label():
    composite = everything("multilabel")
    truth = [[y for y in "ab" if ord(text[0]) % 2 == ord(y) % 2] for text in TEXTS]
    joint = compose(composite.modules, calibrate_on=(TEXTS, truth))
    pair = compose(
        composite.modules[:1], calibrate_on=(TEXTS, [[y for y in t if y == "a"] for t in truth])
    )
    assert joint.parameters["scales"]["a"] == pair.parameters["scales"]["a"]
    assert joint.parameters["scales"]["c"] == [1.0, 0.0]  # nothing to learn from
    scores = composite.scores(TEXTS)
    scale, offset = joint.parameters["scales"]["a"]
    torch.testing.assert_close(joint.scores(TEXTS)[:, 0], scores[:, 0] * scale + offset)
    with pytest.raises(ValueError, match=r"labels \['q'\], which no module"):
        compose(composite.modules, calibrate_on=(["ab"], [["q"]]))


@pytest.mark.parametrize("kind", ["tags", "list"])
@pytest.mark.parametrize("score", ["open", "margin"])
def test_joint_rows_across_kinds(kind, score):
    both, _, _ = mixed(kind, score)
    texts = tiny_texts(90)
    truth = [both.labels[ord(text[0]) % 5] for text in texts]
    index = torch.tensor([both.labels.index(y) for y in truth])

    def loss(composite: Composite) -> float:
        return float(torch.nn.functional.cross_entropy(composite.scores(texts), index))

    joint = compose(both.modules, score=score, calibrate_on=(texts, truth))
    assert joint.output == "label" and loss(joint) < loss(both)
    found = joint.scores(TEXTS)
    parts = parts_of(compose(both.modules, score=score), TEXTS)
    fitted = torch.tensor([joint.parameters["scales"][label] for label in joint.labels])
    expected = (parts.values * fitted[:, :-1]).sum(-1) + fitted[:, -1] + parts.fixed
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_tags_of_parents_that_split_differently_are_refused():
    from mlflow_rnnmod.networks import TextEncoder
    from tests.builders import character_encoder

    tokenizer = character_encoder().tokenizer
    tokenizer.enable_truncation(5)
    one = tiny_modules(parent_of("tags"))
    other = parent_of("tags", ("x", "y"), cell="gru")
    two = tiny_modules(Parent(other.network, TextEncoder(tokenizer)))
    composite = compose([*one, *two])
    assert len(composite.predict(["abc"])[0]) == 3
    with pytest.raises(ValueError, match=r"inputs\[1\] has 8 steps for parent .* and 5 for"):
        composite.predict(["abc", "abcdefgh"])
    fixed = tiny_modules(parent_of("tags", ("x", "y"), cell="gru", steps=5))
    with pytest.raises(IncompatibleModules, match=r"number of steps \(None: a; 5: x\)"):
        compose([one[0], fixed[0]])


@pytest.mark.parametrize("kind", ["tokens", "features"])
def test_numbers_have_tags_too(kind):
    parent = tiny_parent(kind, output="tags", readout="all_steps", side="left")
    inputs = tiny_inputs(parent, 6)
    answers = compose(tiny_modules(parent)).predict(inputs)
    assert [len(answer) for answer in answers] == [len(item) for item in inputs]
