"""Composites at work: batches, odd inputs, several parents, single modules, none of these."""

from __future__ import annotations

import math
from dataclasses import replace as changed

import numpy as np
import pandas as pd
import pytest
import torch

from mlflow_rnnmod.composition import NONE_OF_THESE, Composite, compose
from mlflow_rnnmod.networks import Rows
from tests.builders import (
    ODD_LABELS,
    character_encoder,
    tiny_inputs,
    tiny_module,
    tiny_modules,
    tiny_parent,
    tiny_rows,
    tiny_texts,
)

KINDS = ("text", "tokens", "features")


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def two_parents() -> Composite:
    """Of two parents with vocabularies, cells and widths of their own."""
    from mlflow_rnnmod.networks import NetworkConfig, Parent, RecurrentNetwork

    one = tiny_parent("text", ("a", "b", "c"), seed=1)
    encoder = character_encoder(extra="0123456789äé ")
    torch.manual_seed(5)
    config = NetworkConfig(
        "tokens",
        encoder.tokenizer.get_vocab_size(),
        4,
        "gru",
        ((5, 5),),
        ("d", "e"),
        pad_index=0,
        packed=True,
        readout="final_state",
    )
    other = Parent(RecurrentNetwork(config), encoder)
    return compose([*tiny_modules(one), *tiny_modules(other)])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("score", ["margin", "open"])
@pytest.mark.parametrize(
    "config",
    [
        {},
        {"packed": True, "recurrent": ((6, 6), (5, 5)), "readout": "final_state"},
        {"packed": True, "recurrent": ((6, 5),), "readout": "max_valid"},
        {"cell": "gru", "readout": "mean_valid"},
        {"cell": "rnn_tanh", "readout": "last_step", "steps": 9},
        {"side": "left", "readout": "mean_steps", "steps": 9},
    ],
)
def test_neither_batch_nor_order_matters(kind, score, config):
    parent = tiny_parent(kind, **config)
    composite = compose(tiny_modules(parent), score=score)
    inputs = tiny_inputs(parent, 14)
    whole = composite.scores(inputs)
    alone = torch.cat([composite.scores([item]) for item in inputs])
    close(whole, alone)
    order = torch.randperm(14, generator=torch.Generator().manual_seed(1)).tolist()
    close(composite.scores([inputs[i] for i in order]), whole[order])
    close(torch.cat([composite.scores(inputs[:5]), composite.scores(inputs[5:])]), whole)


def test_more_rows_than_a_batch_holds():
    parent = tiny_parent("text")
    composite = compose(tiny_modules(parent))
    texts = [tiny_texts(1, seed)[0] for seed in range(40)] * 30
    found = composite.scores(texts)
    close(found, composite.scores(texts[:40]).repeat(30, 1))


def test_a_long_text_among_short_ones():
    composite = compose(tiny_modules(tiny_parent("text")))
    texts = [*tiny_texts(20), "ab" * 20_000, *tiny_texts(20, 1)]
    found = composite.scores(texts)
    short = composite.scores(texts[:20] + texts[21:])
    close(torch.cat([found[:20], found[21:]]), short)
    close(found[20:21], composite.scores(texts[20:21]))


def test_several_parents_each_read_text_their_own_way():
    composite = two_parents()
    assert composite.score == "open" and composite.input_kind == "text"
    texts = ["Schröder", "4711", "éa", "", "ó'x y"]
    found = composite.scores(texts)
    for column, module in enumerate(composite.modules):
        alone = Composite((module,), "open").scores(texts)
        close(found[:, [column]], alone)
    answers = composite.predict(texts)
    assert answers == [composite.labels[i] for i in found.argmax(1).tolist()]


@pytest.mark.parametrize("kind", KINDS)
def test_no_inputs(kind):
    composite = compose(tiny_modules(tiny_parent(kind)))
    assert composite.scores([]).shape == (0, 3)
    assert composite.predict([]) == [] == composite.predict([], reject_below=0.0)


def test_empty_none_and_nan_are_empty_text():
    composite = two_parents()
    found = composite.scores(["", None, float("nan"), np.nan, "a"])
    for row in range(1, 4):
        assert torch.equal(found[row], found[0])
    assert found.isfinite().all() and not torch.equal(found[4], found[0])
    assert composite.predict([None]) == composite.predict([""])
    series = pd.Series(["a", None, "ß", np.nan])
    close(composite.scores(series), composite.scores(["a", "", "ß", ""]))
    assert composite.scores(["\u2603\U0001f600 never seen"]).isfinite().all()


@pytest.mark.parametrize("kind", ["tokens", "features"])
def test_inputs_without_a_step(kind):
    parent = tiny_parent(kind)
    composite = compose(tiny_modules(parent))
    inputs = tiny_inputs(parent, 3)
    empty = [] if kind == "tokens" else np.zeros((0, 5), dtype=np.float32)
    found = composite.scores([inputs[0], empty, inputs[1]])
    close(found[[0, 2]], composite.scores(inputs[:2]))
    assert found.isfinite().all()
    close(found[1:2], composite.scores([empty]))
    close(found[1:2], composite.scores([[]]))


@pytest.mark.parametrize("convert", [list, np.asarray, torch.tensor])
def test_kinds_of_numbers(convert):
    for kind in ("tokens", "features"):
        parent = tiny_parent(kind)
        composite = compose(tiny_modules(parent))
        inputs = tiny_inputs(parent, 4)
        given = [convert(x.tolist() if kind == "features" else x) for x in inputs]
        close(composite.scores(given), composite.scores(inputs))


def test_a_table_of_ids_is_a_row_each():
    composite = compose(tiny_modules(tiny_parent("tokens")))
    table = np.arange(1, 13).reshape(3, 4)
    close(composite.scores(table), composite.scores(table.tolist()))
    close(composite.scores(Rows(torch.tensor(table))), composite.scores(table.tolist()))


def test_padding_left_at_the_end_of_ids_is_padding():
    composite = compose(tiny_modules(tiny_parent("tokens")))
    close(composite.scores([[3, 4, 0, 0], [5, 6, 7, 8]]), composite.scores([[3, 4], [5, 6, 7, 8]]))


@pytest.mark.parametrize(
    ("kind", "inputs", "error", "said"),
    [
        ("text", "one text", TypeError, "single text 'one text'; expected a list"),
        ("text", ["a", 5], TypeError, r"texts\[1\] is the int 5"),
        ("text", ["a", [3]], TypeError, r"texts\[1\] is the list"),
        ("tokens", "abc", TypeError, "inputs is the text 'abc'; expected a list of tokens"),
        ("tokens", [[1, 2], "abc"], TypeError, r"inputs\[1\] is 'abc'; expected whole numbers"),
        ("tokens", [[1, 2], None], TypeError, r"inputs\[1\] is None"),
        ("tokens", [[1], [1.5]], TypeError, r"inputs\[1\] is torch.float32"),
        ("tokens", [[[1, 2]]], TypeError, r"inputs\[0\] .*shape \(1, 2\)"),
        ("tokens", [[1], [3, 20]], ValueError, r"inputs\[1\] .*3 to 20; expected .* 0 to 19"),
        ("tokens", [[-1]], ValueError, "-1 to -1"),
        ("features", [[[1.0] * 5], [[1.0] * 4]], ValueError, r"inputs\[1\] has shape \(1, 4\)"),
        ("features", [[1.0] * 5], ValueError, r"inputs\[0\] has shape \(5,\)"),
        ("features", ["abc"], TypeError, r"inputs\[0\] is 'abc'"),
        ("features", [[[1.0] * 5], [[1.0] * 5, [1, 2, math.nan, 4, 5]]], ValueError,
         r"inputs\[1\] holds nan at \[1, 2\]; expected finite"),
        ("features", [[[1, -math.inf, 3, 4, 5]]], ValueError, r"inputs\[0\] holds -inf at "),
    ],
)  # fmt: skip
def test_inputs_of_the_wrong_kind(kind, inputs, error, said):
    composite = compose(tiny_modules(tiny_parent(kind)))
    with pytest.raises(error, match=said):
        composite.predict(inputs)


@pytest.mark.parametrize(
    ("kind", "values", "error", "said"),
    [
        ("tokens", torch.tensor([[3, 20]]), ValueError, "ids from 3 to 20; expected .* 0 to 19"),
        ("tokens", torch.ones(1, 2, 5), TypeError, r"float32 of shape \(1, 2, 5\)"),
        ("features", torch.ones(1, 2, 4), ValueError, r"\(1, 2, 4\); expected .*, 5\)"),
        ("features", torch.full((1, 2, 5), math.nan), ValueError, r"nan at \[0, 0, 0\]"),
        ("text", torch.tensor([[3]]), TypeError, "expected text"),
    ],
)
def test_rows_of_the_wrong_kind(kind, values, error, said):
    with pytest.raises(error, match=said):
        compose(tiny_modules(tiny_parent(kind))).predict(Rows(values))


def test_only_modules_are_composed():
    module = tiny_module(tiny_parent())
    with pytest.raises(TypeError, match="single Module.*expected a list"):
        compose(module)
    with pytest.raises(TypeError, match=r"modules\[1\] is 'models:/x/1'; expected a Module"):
        compose([module, "models:/x/1"])


def test_halves_of_characters_are_unknown_ones():
    composite = compose(tiny_modules(tiny_parent("text")))
    close(composite.scores(["a\ud800b", "\udfff"]), composite.scores(["a\ufffdb", "\ufffd"]))


def test_a_single_module_says_yes_or_no():
    parent = tiny_parent("text")
    texts = tiny_texts(40)
    for label in parent.labels:
        composite = compose([tiny_module(parent, label, seed=2)])
        margins = composite.scores(texts)[:, 0].tolist()
        expected = [label if margin >= 0 else NONE_OF_THESE for margin in margins]
        assert composite.predict(texts) == expected
        assert composite.predict(texts, reject_label="no") == [
            y if y == label else "no" for y in expected
        ]
        low = min(margins) - 1
        assert set(composite.predict(texts, reject_below=low)) == {label}
        assert set(composite.predict(texts, reject_below=max(margins) + 1)) == {NONE_OF_THESE}
    module = tiny_module(parent, removal=0.0, repaired=False)
    answers = compose([module]).predict(tiny_texts(200))
    with torch.no_grad():
        logits = parent.network(parent.tokenizer(tiny_texts(200)))
    more_than_others = logits[:, 0] >= torch.logsumexp(logits[:, 1:], 1)
    assert [answer == "german" for answer in answers] == more_than_others.tolist()
    assert set(answers) == {"german", NONE_OF_THESE}


def test_rejection_compares_scores():
    composite = compose(tiny_modules(tiny_parent("text")))
    texts = tiny_texts(30)
    scores = composite.scores(texts)
    best = scores.amax(1)
    plain = composite.predict(texts)
    assert NONE_OF_THESE not in plain
    threshold = float(best.median())
    found = composite.predict(texts, reject_below=threshold, reject_label="?")
    for row, answer in enumerate(found):
        assert answer == (plain[row] if float(best[row]) >= threshold else "?")
    assert "?" in found and set(found) - {"?"}
    assert composite.answers(scores, threshold, "?") == found


def test_a_reject_label_that_a_module_has():
    composite = compose(tiny_modules(tiny_parent("text", ("a", NONE_OF_THESE))))
    assert set(composite.predict(tiny_texts(5))) <= {"a", NONE_OF_THESE}
    with pytest.raises(ValueError, match="'none of these' is the label of a module"):
        composite.predict(["x"], reject_below=0.0)
    assert composite.predict(["x"], reject_below=math.inf, reject_label="?") == ["?"]
    with pytest.raises(ValueError, match="reject_label='a'"):
        composite.predict(["x"], reject_below=0.0, reject_label="a")


def test_ties_go_to_the_first_module():
    parent = tiny_parent("tokens")
    module = tiny_module(parent, "german")
    twin = changed(module, contract=changed(module.contract, label="twin"))
    composite = compose([module, twin])
    assert set(composite.predict(tiny_inputs(parent))) == {"german"}
    assert list(composite.explain(tiny_inputs(parent)[0])) == ["german", "twin"]


def test_odd_labels_come_back_as_they_are():
    parent = tiny_parent("text", ODD_LABELS)
    composite = compose(tiny_modules(parent))
    assert composite.labels == ODD_LABELS
    texts = tiny_texts(60)
    expected = [ODD_LABELS[i] for i in composite.scores(texts).argmax(1).tolist()]
    assert composite.predict(texts) == expected
    assert set(composite.explain("x")) == set(ODD_LABELS)


@pytest.mark.parametrize("kind", KINDS)
def test_explain_is_a_sorted_row_of_scores(kind):
    parent = tiny_parent(kind)
    composite = compose(tiny_modules(parent))
    item = tiny_inputs(parent, 1)[0]
    found = composite.explain(item)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    expected = dict(zip(composite.labels, composite.scores([item])[0].tolist(), strict=True))
    assert found == pytest.approx(expected)
    assert next(iter(found)) == composite.predict([item])[0]


def test_moving_to_a_device():
    composite = two_parents()
    texts = tiny_texts(4)
    moved = composite.to("cpu")
    assert isinstance(moved, Composite) and moved.labels == composite.labels
    assert (moved.score, moved.recipe) == (composite.score, composite.recipe)
    assert torch.equal(moved.scores(texts), composite.scores(texts))
    assert len({id(module.parent) for module in moved.modules}) == 2


def test_rows_of_targets_are_read_without_them():
    parent = tiny_parent("tokens")
    composite = compose(tiny_modules(parent))
    rows = tiny_rows(parent)
    close(composite.scores(rows), composite.scores(Rows(rows.values, rows.lengths)))
    close(composite.scores(rows), composite.scores(Rows(rows.values)))


def test_the_parents_stay_as_they_were():
    composite = two_parents()
    digests = [module.parent.digest for module in composite.modules]
    composite.predict(tiny_texts(5))
    again = [type(m.parent)(m.parent.network, m.parent.tokenizer) for m in composite.modules]
    assert [parent.digest for parent in again] == digests


def test_it_shows_what_it_is():
    shown = repr(two_parents())
    assert "'a'" in shown and "'open'" in shown and "2 parents" in shown
    assert "1 parent)" in repr(compose(tiny_modules(tiny_parent())))
