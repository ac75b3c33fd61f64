"""What does not fit together, and that everything is said at once."""

from __future__ import annotations

import pytest

from mlflow_rnnmod.composition import IncompatibleModules, compose, find_problems, replace
from mlflow_rnnmod.decomposition.module import Contract
from mlflow_rnnmod.networks import Parent, TextEncoder
from tests.builders import character_encoder, tiny_module, tiny_modules, tiny_parent


def contract(label: str = "a", **changes) -> Contract:
    fields = {
        "label": label,
        "index": 0,
        "input": "text",
        "input_size": 30,
        "tokenizer": "t" * 64,
        "output": "label",
        "steps": None,
        "labels": ("a", "b"),
    }
    return Contract(**{**fields, **changes})


def test_what_fits():
    assert find_problems([("x", contract(), "p1")]) == []
    both = [("x", contract("a"), "p1"), ("y", contract("b"), "p1")]
    assert find_problems(both) == []
    # Several parents over text: each reads it with its own tokenizer and vocabulary.
    apart = contract("b", tokenizer="u" * 64, input_size=9, steps=7)
    assert find_problems([("x", contract("a"), "p1"), ("y", apart, "p2")]) == []
    case = [("x", contract("Case"), "p1"), ("y", contract("case"), "p1")]
    assert find_problems(case) == []


def test_no_module():
    assert find_problems([]) == ["there is no module; expected at least one"]
    for nothing in ([], (), iter([])):
        with pytest.raises(IncompatibleModules, match="there is no module"):
            compose(nothing)


def test_everything_is_said_at_once():
    features = {"input": "features", "tokenizer": None}
    problems = find_problems(
        [
            ("models:/one.a/1", contract("a"), "p1"),
            ("models:/two.a/1", contract("a", tokenizer="u" * 64), "p1"),
            ("models:/three.b/1", contract("b", **features, input_size=5), "p2"),
            ("models:/four.c/1", contract("c", output="translation"), "p3"),
        ]
    )
    assert len(problems) == 4
    text = "; ".join(problems)
    assert "2 modules answer for label 'a' (models:/one.a/1, models:/two.a/1)" in text
    assert "replace()" in text
    assert "differ in their input kind (text: models:/one.a/1, models:/two.a/1" in text
    assert "features: models:/three.b/1" in text
    assert "output kind" in text and "translation: models:/four.c/1" in text
    assert "parent p1 comes with 2 tokenizers" in text and "tttttttttttt" in text
    error = IncompatibleModules(problems)
    assert error.problems == tuple(problems) and isinstance(error, ValueError)
    assert all(problem in str(error) for problem in problems)


@pytest.mark.parametrize(
    ("kind", "parents", "said"),
    [
        ("features", ("p1", "p2"), "features a step (5: x; 6: y)"),
        ("tokens", ("p1", "p2"), "vocabulary size (5: x; 6: y)"),
        ("text", ("p1", "p2"), None),
    ],
)
def test_sizes_matter_where_inputs_are_numbers(kind, parents, said):
    tokenizer = "t" * 64 if kind == "text" else None
    problems = find_problems(
        (name, contract(label, input=kind, input_size=size, tokenizer=tokenizer), parent)
        for name, label, size, parent in zip("xy", "ab", (5, 6), parents, strict=True)
    )
    assert (problems == []) == (said is None)
    assert said is None or said in problems[0]


def test_modules_say_it_too():
    text, features = tiny_parent("text"), tiny_parent("features", ("x", "y"))
    twice = tiny_module(tiny_parent("text", ("german", "welsh"), seed=9), "german")
    modules = (*tiny_modules(text), *tiny_modules(features), twice)
    with pytest.raises(IncompatibleModules) as error:
        compose(modules)
    assert len(error.value.problems) == 2
    assert "german" in str(error.value) and "input kind" in str(error.value)
    with pytest.raises(IncompatibleModules, match="input kind"):
        composite = compose(tiny_modules(text))
        replace(composite, "irish", tiny_module(tiny_parent("features"), "irish"))


def test_one_parent_with_two_tokenizers():
    parent = tiny_parent("text")
    other = Parent(parent.network, character_encoder(extra="äöüßéó'-"))
    assert isinstance(other.tokenizer, TextEncoder)
    assert other.tokenizer.digest != parent.tokenizer.digest
    with pytest.raises(IncompatibleModules, match="comes with 2 tokenizers"):
        compose([tiny_module(parent, "german"), tiny_module(other, "irish")])
