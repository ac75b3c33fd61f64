"""Raw text to token ids, and what is done about everything that is not quite text."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from mlflow_rnnmod.inputs.text import plain_texts
from mlflow_rnnmod.networks import Parent, TextEncoder
from tests.builders import character_encoder, tiny_parent

VOCABULARY = {"[PAD]": 0, "[UNK]": 1, "ja": 2, "nein": 3, "so": 4}


def words() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.normalizer = normalizers.Lowercase()
    return tokenizer


def test_texts_become_padded_ids():
    rows = TextEncoder(words())(["ja NEIN so", "so", "vielleicht ja"])
    assert rows.values.tolist() == [[2, 3, 4], [4, 0, 0], [1, 2, 0]]
    assert rows.lengths.tolist() == [3, 1, 2]
    assert (rows.values.dtype, rows.lengths.dtype, rows.targets) == (torch.int64, torch.int64, None)


def test_padding_on_the_left_with_another_token():
    rows = TextEncoder(words(), pad_index=9, side="left")(["ja nein", "so"])
    assert rows.values.tolist() == [[2, 3], [9, 4]]
    assert rows.lengths.tolist() == [2, 1]


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_tokenizers_own_padding_and_truncation_count(side):
    tokenizer = words()
    tokenizer.enable_padding(direction=side, pad_id=0, pad_token="[PAD]", length=4)
    tokenizer.enable_truncation(3)
    rows = TextEncoder(tokenizer, side=side)(["ja", "ja nein so so so"])
    padded = [[2, 0, 0, 0], [2, 3, 4, 0]] if side == "right" else [[0, 0, 0, 2], [0, 2, 3, 4]]
    assert rows.values.tolist() == padded
    assert rows.lengths.tolist() == [1, 3]


@pytest.mark.parametrize("nothing", [None, "", float("nan"), np.nan, np.float64("nan")])
def test_nothing_is_an_empty_text(nothing):
    rows = TextEncoder(words())(["ja so", nothing])
    assert rows.values.tolist() == [[2, 4], [0, 0]]
    assert rows.lengths.tolist() == [2, 0]


@pytest.mark.parametrize("texts", [[""], [None, ""], ["  \t\n"]])
def test_empty_texts_have_one_step(texts):
    rows = TextEncoder(words())(texts)
    assert rows.values.tolist() == [[0]] * len(texts)
    assert rows.lengths.tolist() == [0] * len(texts)


def test_no_texts_are_no_rows():
    rows = TextEncoder(words())([])
    assert rows.values.shape == (0, 1) and len(rows) == 0


def test_characters_never_seen():
    rows = character_encoder()(["aЖ漢😀a"])
    assert rows.values.tolist() == [[2, 1, 1, 1, 2]]


def test_a_text_of_100_000_characters():
    rows = character_encoder()(["ab" * 50_000, "b"])
    assert rows.values.shape == (2, 100_000)
    assert rows.lengths.tolist() == [100_000, 1]
    assert rows.values[0].unique().tolist() == [2, 3] and rows.values[1, 1:].sum() == 0


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["ja", 5], r"texts\[1\] is the int 5; expected text"),
        ([b"ja"], r"texts\[0\] is the bytes b'ja'; expected text"),
        (["ja", "so", ["ja", 5]], r"texts\[2\] is the list \['ja', 5\]"),
        ([1.5], r"texts\[0\] is the float 1.5"),
        ([True], r"texts\[0\] is the bool True"),
        ("ja", "is the single text 'ja'; expected a list of texts"),
        (b"ja", "is the single text b'ja'; expected a list of texts"),
    ],
)
def test_what_is_not_text(texts, expected):
    with pytest.raises(TypeError, match=expected):
        TextEncoder(words())(texts)


def test_strings_of_numpy_are_text():
    assert plain_texts(np.array(["ja", "so"])) == ["ja", "so"]
    assert plain_texts(np.array(["ja", None], dtype=object)) == ["ja", ""]


def test_a_function_is_refused_with_the_remedy():
    with pytest.raises(TypeError, match="is a function; expected a tokenizers.Tokenizer") as error:
        TextEncoder(lambda text: text.split())
    assert "build the same rule with the tokenizers library" in str(error.value)
    with pytest.raises(TypeError, match="is a type"):
        TextEncoder(str)


@pytest.mark.parametrize("text", ["", "ja", "[1, 2]", "null", '{"a": '])
def test_other_text_than_a_tokenizers(text):
    with pytest.raises(ValueError, match="tokenizer is not a tokenizer's JSON"):
        TextEncoder(text)


def test_json_that_the_library_does_not_read():
    encoder = TextEncoder('{"model": {"type": "NoSuchModel"}}')
    with pytest.raises(ValueError, match="can't be read by the tokenizers library"):
        encoder(["ja"])


def test_the_digest_is_that_of_what_it_does():
    first = TextEncoder(words())
    spaced = json.dumps(json.loads(words().to_str()), indent=4, sort_keys=False)
    assert TextEncoder(spaced).digest == first.digest == TextEncoder(first.json).digest
    truncated = words()
    truncated.enable_truncation(3)
    assert TextEncoder(truncated).digest != first.digest


def test_texts_that_are_split_into_words_already():
    encoder = TextEncoder(words())
    rows = encoder([["ja", "NEIN"], "so ja nein", ("so",), np.array(["ja", "so"]), [], None])
    assert rows.values.tolist() == [[2, 3, 0], [4, 2, 3], [4, 0, 0], [2, 4, 0], [0] * 3, [0] * 3]
    assert rows.lengths.tolist() == [2, 3, 1, 2, 0, 0]
    assert encoder.ids([["ja", "so"], "nein"]) == [[2, 4], [3]]


def test_words_are_split_further_where_the_tokenizer_does():
    letters = character_encoder()
    rows = letters([["ab", "c"], "ab c"])
    assert rows.lengths.tolist() == [3, 4]


def test_words_are_cut_and_padded_as_texts_are():
    tokenizer = words()
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=4, pad_id=0)
    rows = TextEncoder(tokenizer)([["ja", "nein", "so"], "ja nein so", "so"])
    assert rows.values.tolist() == [[2, 3, 0, 0], [2, 3, 0, 0], [4, 0, 0, 0]]
    assert rows.lengths.tolist() == [2, 2, 1]


def test_ids_without_an_embedding_are_refused() -> None:
    whole = tiny_parent("text")
    size = whole.tokenizer.tokenizer.get_vocab_size()
    data = json.loads(whole.tokenizer.json)
    data["model"]["vocab"]["z"] = size + 7  # as an altered file has it
    parent = Parent(whole.network, TextEncoder(json.dumps(data)))
    assert torch.equal(parent.rows(["ab"]).values, whole.rows(["ab"]).values)
    with pytest.raises(ValueError, match=f"gives id {size + 7}.*embeddings for 0 to {size - 1}"):
        parent.rows(["ab", "zz"])
