"""Whether a tokenizer made some ids: told from ids, from texts, and never where it did."""

import random

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from mlflow_rnnmod.inputs import TextEncoder
from mlflow_rnnmod.inputs.agreement import compare_ids, compare_texts, without_padding

NAMES = ["Anna", "Otto", "Maria", "Sandra", "Peter", "Ilse", "Grete", "Hugo", "Emil", "Lotte"]
NOUNS = [a + b for a in ("ban", "kel", "tor", "mil", "fen") for b in ("do", "ra", "ne", "sti")]
SEEN = [a + b for a in ("vu", "zo", "pli") for b in ("kan", "lor", "met", "wist", "dren")]


def texts(count=800, lower=False):
    """Sentences of made-up words, frequent ones first."""
    draw = random.Random(0)
    weights = [1 / (i + 1) for i in range(len(NOUNS))]
    found = []
    for _ in range(count):
        nouns = draw.choices(NOUNS, weights, k=5)
        found.append(" ".join([draw.choice(NAMES), draw.choice(SEEN), *nouns]))
    return [text.lower() for text in found] if lower else found


def words(of, normalizer=None, size=2_000, special=("[PAD]", "[UNK]")):
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(
        vocab_size=size, special_tokens=list(special), show_progress=False
    )
    tokenizer.train_from_iterator(of, trainer)
    return tokenizer


def characters(of):
    letters = {c: i + 2 for i, c in enumerate(sorted({c for text in of for c in text}))}
    tokenizer = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, **letters}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return tokenizer


def pairs(of):
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["[PAD]", "[UNK]"]
    trainer = trainers.BpeTrainer(vocab_size=60, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(of, trainer)
    return tokenizer


KINDS = {"words": words, "characters": characters, "pairs": pairs}


def ids(tokenizer, of):
    return [found.ids for found in tokenizer.encode_batch(of)]


def compared(tokenizer, rows, size=None, pad_index=0):
    size = tokenizer.get_vocab_size() if size is None else size
    return compare_ids(TextEncoder(tokenizer), rows, size, pad_index)


@pytest.mark.parametrize("kind", KINDS)
def test_the_tokenizer_that_made_the_ids_is_not_doubted(kind):
    of = texts()
    tokenizer = KINDS[kind](of)
    assert compared(tokenizer, ids(tokenizer, of)).__dict__ == {"problems": (), "notes": ()}
    found = compare_texts(TextEncoder(tokenizer), of[:50], ids(tokenizer, of[:50]))
    assert not found.problems and not found.notes


@pytest.mark.parametrize("shift", [1, -1])
@pytest.mark.parametrize("kind", KINDS)
def test_ids_that_are_shifted_by_one(kind, shift):
    of = texts()
    tokenizer = KINDS[kind](of)
    rows = [[i + shift for i in row] for row in ids(tokenizer, of)]
    found = compare_texts(TextEncoder(tokenizer), of[:50], rows[:50])
    assert "makes the data set's ids of 0" in found.problems[0]
    if shift > 0 or kind == "pairs":  # with one less, words are other words
        found = compared(tokenizer, rows, tokenizer.get_vocab_size() + 1)
        assert "shifted by one" in found.problems[0]


def test_words_in_their_order_tell_where_the_last_one_is_never_seen():
    of = texts()
    tokenizer = words(of)
    last = tokenizer.get_vocab_size() - 1
    rows = [[i + 1 for i in row if i != last] for row in ids(tokenizer, of)]
    found = compared(tokenizer, rows, last + 2)
    assert "most frequent ones, in order: ids look shifted" in found.problems[0]


def test_ids_that_are_no_tokens_are_counted():
    tokenizer = words(["a b c"])
    found = compared(tokenizer, [[2, 3], [4, 9]], 20)
    assert found.problems[0].startswith("25.00 % of the ids in training rows are no tokens")


def test_a_tokenizer_that_lower_cases_what_the_data_set_did_not():
    of = texts()
    tokenizer = words([*of, *texts(lower=True)])
    rows = ids(tokenizer, of)
    tokenizer.normalizer = normalizers.Lowercase()
    found = compared(tokenizer, rows)
    assert "14.3 % of the ids" in found.problems[0] and "as 'anna'" in found.problems[0].lower()
    assert not compared(tokenizer, ids(tokenizer, of)).problems


def test_a_tokenizer_that_does_not_lower_case_what_the_data_set_did():
    of, small = texts(), texts(lower=True)
    cased = words(of + small)
    found = compared(cased, ids(cased, small))
    assert not found.problems and "normalizers.Lowercase()" in found.notes[0]
    assert not compared(cased, ids(cased, of)).notes
    # With the texts it is sure.
    sure = compare_texts(TextEncoder(cased), of[:50], ids(cased, small[:50]))
    assert "tokenizer makes the data set's ids of 0" in sure.problems[0]
    # A few words may be all that there are: 'THREE' is nothing to them.
    few = words(small)
    assert not compared(few, ids(few, small)).notes


def test_padding_that_is_a_word_to_the_tokenizer():
    of = texts()
    tokenizer = words(of, special=("[UNK]",))
    pad = tokenizer.token_to_id("bando")
    rows = [[i for i in row if i != pad] for row in ids(tokenizer, of)]
    found = compared(tokenizer, rows, pad_index=pad)
    assert "which is the tokenizer's 'bando'" in found.problems[0]


def test_rows_that_are_longer_than_the_tokenizer_reads():
    of = texts()
    tokenizer = words(of)
    rows = ids(tokenizer, of)
    tokenizer.enable_truncation(4)
    assert "up to 7 tokens, and the tokenizer cuts texts at 4" in compared(tokenizer, rows).notes[0]


def test_texts_that_are_not_what_was_read_are_a_doubt():
    tokenizer = words(["a b c d e f g h"])
    found = compare_texts(TextEncoder(tokenizer), ["f g h"], [[2, 3, 4]])
    assert not found.problems and found.notes


def test_padding_is_left_out_on_either_side():
    assert without_padding([[1, 0, 2, 0], [0, 0, 0, 0]], 0) == [[1, 0, 2], []]
    assert without_padding([[0, 0, 1, 2]], 0, "left") == [[1, 2]]
    assert without_padding([[1, 2], [3, 3]], None, "left") == [[1, 2], []]
