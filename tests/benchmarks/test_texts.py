"""Texts with labels of every shape, and the tokenizers learned from them."""

from __future__ import annotations

import pytest

from benchmarks.data import (
    TextData,
    number_tokenizer,
    subword_tokenizer,
    token_tokenizer,
    word_tokenizer,
)
from mlflow_rnnmod.networks import TextEncoder


def texts_of(output: str, labels: list, names: tuple[str, ...], **other) -> TextData:
    return TextData(
        "some", {"train": ["a b", "b", "c a b"]}, {"train": labels}, names, output, **other
    )


def encoder() -> TextEncoder:
    return TextEncoder(token_tokenizer(["a b c"]))


def test_one_label_a_text() -> None:
    data = texts_of("label", ["x", "z", "x"], ("x", "y", "z"))
    rows = data.rows("train", encoder())
    assert rows.targets is not None and rows.targets.tolist() == [0, 2, 0]
    part = data.only(["z", "x"])
    assert part.names == ("z", "x")
    assert part.rows("train", encoder()).targets.tolist() == [1, 0, 1]
    assert data.only(["x"]).texts == {"train": ["a b", "c a b"]}


def test_several_labels_a_text() -> None:
    data = texts_of("multilabel", [["x", "z"], [], ["y"]], ("x", "y", "z"))
    expected = [[True, False, True], [False] * 3, [False, True, False]]
    assert data.targets("train", 9).tolist() == expected
    part = data.only(["z", "y"])
    assert part.texts == data.texts
    assert part.targets("train", 9).tolist() == [[True, False], [False, False], [False, True]]


def test_lists_end_once_and_are_padded() -> None:
    data = texts_of(
        "list",
        [["x", "z"], [], ["x", "y", "z"]],
        ("none", "x", "y", "z"),
        output_steps=4,
        end_label="none",
    )
    assert data.targets("train", 9).tolist() == [[1, 3, 0, -1], [0, -1, -1, -1], [1, 2, 3, 0]]
    part = data.only(["z", "x"])
    assert part.names == ("none", "z", "x")
    assert part.targets("train", 9).tolist() == [[2, 1, 0], [0, -1, -1], [2, 1, 0]]
    assert data.only(["none", "x"]).names == ("none", "x")


def test_tags_stand_at_their_words() -> None:
    data = texts_of("tags", [["x", "y"], ["y"], ["x", "x", "z"]], ("x", "y", "z"))
    rows = data.rows("train", encoder())
    assert rows.values.shape == rows.targets.shape
    assert rows.targets.tolist() == [[0, 1, -1], [1, -1, -1], [0, 0, 2]]
    part = data.only(["z", "y"])
    assert part.texts["train"] == data.texts["train"]
    assert part.targets("train", 3).tolist() == [[-1, 1, -1], [1, -1, -1], [-1, -1, 0]]
    assert data.only(["z"]).texts["train"] == ["c a b"]


def test_a_part_of_the_rows() -> None:
    data = texts_of("label", ["x", "z", "x"], ("x", "y", "z"))
    part = data.first(2)
    assert part.texts == {"train": ["a b", "c a b"]}
    assert part.labels == {"train": ["x", "x"]}
    assert part.name != data.name
    assert data.first(3).texts == data.texts


def test_one_id_a_word_between_spaces() -> None:
    tokenizer = token_tokenizer(["The end's e.g. 3.14 !", "The"])
    found = tokenizer.encode("The end's e.g. Unseen's 3.14 !")
    assert found.tokens == ["The", "end's", "e.g.", "[UNK]", "3.14", "!"]


def test_numbers_are_one_word() -> None:
    tokenizer = number_tokenizer(["a is 14,400 and b2 is 3.5 ."])
    assert tokenizer.encode("A is 7 and b2 is 1,000.25 .").tokens == [
        *("a", "is", "0", "and", "b0", "is", "0", ".")
    ]


def test_words_are_cut() -> None:
    tokenizer = word_tokenizer(["one two three"], steps=2)
    assert tokenizer.encode("Three two one").tokens == ["three", "two"]


@pytest.mark.parametrize("text", ["Wie geht's dir?", "L’île, c'est bien !", "Ciao"])
def test_subwords_give_the_text_back(text: str) -> None:
    tokenizer = subword_tokenizer(["Wie geht's dir? Ciao", "L’île, c'est bien !"], 80, ["[de]"])
    encoded = tokenizer.encode(text)
    assert tokenizer.decode(encoded.ids) == text
    assert [tokenizer.id_to_token(i) for i in range(4)] == ["[PAD]", "[UNK]", "[EOS]", "[de]"]
