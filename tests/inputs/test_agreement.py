"""Whether a tokenizer made some ids: told from ids, from texts, and never where it did."""

import gzip
import json
import os
import random
import re
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
from tokenizers import (
    ByteLevelBPETokenizer,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from mlflow_rnnmod.inputs import TextEncoder
from mlflow_rnnmod.inputs.agreement import (
    compare_ids,
    compare_texts,
    padding_of,
    without_padding,
)
from mlflow_rnnmod.inputs.spelling import SURE, shifted

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


def with_ends(of):
    """A tokenizer that puts in ordinary entries of its vocabulary, as trained with a template."""
    tokenizer = words(of, special=("<s>", "</s>", "[UNK]"))
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = [each for each in data["added_tokens"] if each["content"] == "[UNK]"]
    tokenizer = Tokenizer.from_str(json.dumps(data))
    plain = Tokenizer.from_str(json.dumps(data))
    tokenizer.post_processor = processors.TemplateProcessing(
        "<s> $A </s>", None, [("<s>", 0), ("</s>", 1)]
    )
    return tokenizer, plain


def test_what_a_post_processor_puts_in_or_the_data_set_itself():
    of = [" ".join(text.split()[:3]) for text in texts()]
    tokenizer, plain = with_ends(of)
    rows = ids(tokenizer, of)
    assert rows[0][0] == 0 and rows[0][-1] == 1
    for each in (tokenizer, plain):
        found = compared(each, rows, pad_index=None)
        assert not found.problems and not found.notes
    packed = [one + other for one, other in zip(rows[::2], rows[1::2], strict=True)]
    assert not compared(tokenizer, packed, pad_index=None).problems


@pytest.mark.parametrize("pad_index", [0, None])
@pytest.mark.parametrize("more", [0, 1])
def test_padding_is_the_first_entry_of_the_vocabulary(pad_index, more):
    of = texts(2_000)
    counts = Counter(word for text in of for word in text.split())
    order = ["<pad>", *(word for word, _ in counts.most_common())]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(order)}))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    found = compared(tokenizer, ids(tokenizer, of), len(order) + more, pad_index)
    assert not found.problems
    shifted = [[i + 1 for i in row] for row in ids(tokenizer, of)]
    assert "shifted by one" in compared(tokenizer, shifted, len(order) + 1, pad_index).problems[0]


def test_a_few_ids_that_are_no_tokens_are_a_doubt():
    of = texts()
    tokenizer = words(of)
    rows, size = ids(tokenizer, of), tokenizer.get_vocab_size()
    rows = [row + [size] * (not i % 50) for i, row in enumerate(rows)]
    found = compared(tokenizer, rows, size + 1)
    assert not found.problems and "no tokens of the tokenizer" in found.notes[0]
    assert "shifted" not in "".join(found.notes)


def bytes_of(of):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(of, trainer)
    return tokenizer


@pytest.mark.parametrize("kind", [pairs, bytes_of])
def test_subword_regularisation_is_a_doubt_at_most(kind):
    of = texts()
    tokenizer = kind(of)
    encoder = TextEncoder(tokenizer)
    tokenizer.model.dropout = 0.4
    rows = ids(tokenizer, of)
    canonical = [e.ids for e in encoder.tokenizer.encode_batch(of)]
    assert sum(one == other for one, other in zip(rows, canonical, strict=True)) < 0.1 * len(of)
    found = compare_ids(encoder, rows, tokenizer.get_vocab_size(), 0)
    assert not found.problems and "subword regularisation" in found.notes[0]
    assert not compare_texts(encoder, of[:60], rows[:60]).problems
    # Whoever draws them in the tokenizer itself is asked without.
    assert not compared(tokenizer, canonical).notes


def test_bytes_are_told_as_text():
    of = texts()
    cased = bytes_of([*of, *texts(lower=True)])
    rows = ids(cased, of)
    cased.normalizer = normalizers.Lowercase()
    problem = compared(cased, rows).problems[0]
    assert "\u0120" not in problem and any(f"{n!r} as {n.lower()!r}" in problem for n in NAMES)


@pytest.mark.parametrize("shift", [1, -1])
def test_what_is_lost_is_told_where_it_is_read_otherwise(shift):
    of = texts()
    tokenizer = bytes_of(of)
    rows = [[max(i + shift, 0) for i in row] for row in ids(tokenizer, of)]
    told = " ".join(compared(tokenizer, rows, tokenizer.get_vocab_size() + 1).problems)
    assert "shifted by one" in told
    assert "\u0120" not in told and "\ufffd" not in told
    assert all(a != b for a, b in re.findall(r"'([^']*)' as '([^']*)'", told))


def test_words_that_are_read_otherwise_are_no_shift():
    """A few words do not come back, and those beside them in the vocabulary would."""
    of = [("ban don't " if not i % 5 else "") + text for i, text in enumerate(texts())]
    tokenizer = words(of)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.train_from_iterator(
        of, trainers.WordLevelTrainer(special_tokens=["[PAD]", "[UNK]"], show_progress=False)
    )
    rows = ids(tokenizer, of)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    found = compared(tokenizer, rows)
    assert not found.problems
    assert '"don\'t" as' in found.notes[0]


def test_padding_is_found_over_all_rows():
    assert padding_of([[1, 2], [3, 4]] * 20 + [[1, 9, 9]]) == 9
    assert padding_of([[1, 2], [9, 4]] * 20 + [[1, 9, 9]]) is None
    assert padding_of([[9, 9, 1], [9, 2, 3]], "left") == 9


def test_bytes_of_other_texts_are_doubted_though_each_comes_back() -> None:
    """Each id's token is one of the other tokenizer's, too; whole rows are written otherwise."""

    def trained(texts: list[str]) -> TextEncoder:
        made = ByteLevelBPETokenizer()
        made.train_from_iterator(texts, vocab_size=300, show_progress=False)
        return TextEncoder(Tokenizer.from_str(made.to_str()))

    draw = random.Random(0)

    def texts(letters: str) -> list[str]:
        return ["".join(draw.choices(letters, k=30)) for _ in range(200)]

    mine = texts("000111234567")
    right, wrong = trained(mine), trained(texts("012333444567"))
    rows = [right.tokenizer.encode(text).ids for text in mine]
    right_found = compare_ids(right, rows, 300, None)
    assert not right_found.problems and not right_found.notes
    found = compare_ids(wrong, rows, 300, None)
    assert found.problems or any("another tokenizer" in note for note in found.notes), found


ENDINGS = {"is": "ing", "the": "ness", "very": "ish", "they": "ate"}


def grammar(count=3_000, order="any"):
    """A word tokenizer and ids of sentences whose words end as those before them ask.

    The words of each ending are made up; in the vocabulary they stand in any order, or in one.
    """
    draw = random.Random(3)
    syllables = [a + b for a in "bdfgklmnprst" for b in "aeiou"]
    stems = ["".join(draw.choices(syllables, k=3)) for _ in range(200)]
    of = {each: sorted({stem + end for stem in stems}) for each, end in ENDINGS.items()}
    rows = []
    for _ in range(count):
        asked = draw.choices(list(ENDINGS), k=4)
        rows.append(" ".join(f"{word} {draw.choice(of[word])}" for word in asked))
    seen = Counter(word for row in rows for word in row.split())
    known = [word for word, _ in seen.most_common()] if order == "frequency" else sorted(seen)
    if order == "any":
        draw.shuffle(known)
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", *known])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer, ids(tokenizer, rows)


@pytest.mark.parametrize("shift", [1, -1])
def test_words_that_are_spelled_as_their_neighbours_are_shifted(shift):
    """Nothing else tells: each id is a word's, and each word comes back."""
    tokenizer, rows = grammar()
    last = tokenizer.get_vocab_size() - 1
    rows = [[i for i in row if i not in (2, last)] for row in rows]
    shifted = [[i + shift for i in row] for row in rows]
    found = compared(tokenizer, shifted)
    assert "less" in found.problems[0] and "shifted by one" in found.problems[0]
    assert str(shift) in found.problems[0]
    assert not compared(tokenizer, rows).problems


@pytest.mark.parametrize("order", ["any", "frequency", "letters"])
def test_words_that_are_spelled_as_they_should_are_not_doubted_for_it(order):
    tokenizer, rows = grammar(order=order)
    assert not compared(tokenizer, rows).problems


@pytest.mark.slow
def test_where_spellings_tell_nothing_no_shift_is_seen():
    """Random words, numbers, and a vocabulary in which every second word has a capital letter."""
    for seed in range(12):
        draw = random.Random(seed)
        words = ["".join(draw.choices("abcdefgh", k=6)) for _ in range(700)]
        pairs = [word for each in words[:350] for word in (each, each.title())]
        rows = [
            draw.choices(range(700), [1 / (i + 1) for i in range(700)], k=8) for _ in range(900)
        ]
        for tokens in (words, [str(i) for i in range(700)], pairs):
            assert shifted(rows, tokens) == (0, 0.0)
    assert shifted([], words) == (0, 0.0)


@pytest.mark.skipif("RNNMOD_DATA" not in os.environ, reason="needs the data sets")
@pytest.mark.parametrize("name, size", [("clinc_oos", 5_000), ("math_qa", 1_500)])
def test_queries_and_problems_whose_ids_are_shifted(name, size):
    with gzip.open(Path(os.environ["RNNMOD_DATA"], name, "train.jsonl.gz"), "rt") as file:
        of = [json.loads(line)["text"] for line in islice(file, 4_000)]
    tokenizer = words(of, size=size)
    tokens = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
    rows = ids(tokenizer, of)
    assert shifted(rows, tokens) == (0, 0.0)
    for shift in (1, -1):
        found = shifted([[i + shift for i in row] for row in rows], tokens)
        assert found[0] == shift and found[1] > SURE
