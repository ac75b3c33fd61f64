"""Tokenizers learned from a data set's training texts, all by the ``tokenizers`` library."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

PAD, UNKNOWN, END = "[PAD]", "[UNK]", "[EOS]"
NUMBER = r"\d+([.,]\d+)*"


def word_tokenizer(texts: Iterable[str], vocabulary: int = 10_000, steps: int | None = 15):
    """A lower-casing word tokenizer learned from ``texts``, cutting (not padding) at ``steps``."""
    return _learned(texts, vocabulary, steps, normalizers.Lowercase(), pre_tokenizers.Whitespace())


def number_tokenizer(texts: Iterable[str], vocabulary: int = 10_000, steps: int | None = None):
    """A lower-casing word tokenizer to which all numbers are one word."""
    normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace(Regex(NUMBER), "0")]
    )
    return _learned(texts, vocabulary, steps, normalizer, pre_tokenizers.Whitespace())


def character_tokenizer(texts: Iterable[str], vocabulary: int = 1000, steps: int | None = None):
    """One id for each character, lower-cased."""
    normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    return _learned(texts, vocabulary, steps, normalizer, pre_tokenizers.Split("", "isolated"))


def token_tokenizer(texts: Iterable[str], vocabulary: int = 20_000, steps: int | None = None):
    """One id for each word between spaces, whatever it is made of; case stays.

    A sentence of words with a space between them has as many ids as words.
    """
    return _learned(texts, vocabulary, steps, None, pre_tokenizers.WhitespaceSplit())


def subword_tokenizer(
    texts: Iterable[str], vocabulary: int, start_tokens: Sequence[str] = ()
) -> Tokenizer:
    """Byte pairs over words with their leading space; encodes and decodes any text.

    Args:
        texts: what it is learned from.
        vocabulary: number of tokens, special ones included.
        start_tokens: one for each language that a decoder can be told to answer in.
    """
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(),
            pre_tokenizers.Punctuation(),
        ]
    )
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, UNKNOWN, END, *start_tokens],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _learned(
    texts: Iterable[str],
    vocabulary: int,
    steps: int | None,
    normalizer: normalizers.Normalizer | None,
    pre_tokenizer: pre_tokenizers.PreTokenizer,
) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    trainer = trainers.WordLevelTrainer(
        vocab_size=vocabulary, special_tokens=[PAD, UNKNOWN], show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    if steps is not None:
        tokenizer.enable_truncation(steps)
    return tokenizer
