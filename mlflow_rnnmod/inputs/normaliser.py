"""Raw text as numbers: one normaliser for all parents, which belongs to the format.

A parent's tokenizer knows its own words, and would call strange ones alike. Here each word, or
character, is a number of its own, whoever reads it. Version 1: NFKC, lower case; words are runs of
letters, digits and underscores, all other characters but spaces stand by themselves; a run of
digits is the word ``0``.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

VERSION = 1
MAX_CHARACTERS = 20_000
"""What is read of a text: so much says what kind of text it is."""
UNKNOWN = "\ufffd"
"""Stands where a tokenizer did not know what was there; it is never counted as a word."""

_WORDS = re.compile(r"\d+|\w+|[^\w\s]")
_DIGITS = re.compile(r"\d")
_FEW = 200_000
_hashes: dict[str, int] = {}


@dataclass(frozen=True, eq=False)
class Sequences:
    """Inputs of different lengths, one behind the other.

    Args:
        values: int64 ``(all steps,)``, 32 bits each.
        lengths: int64 ``(rows,)``.
    """

    values: Tensor
    lengths: Tensor

    def __len__(self) -> int:
        return len(self.lengths)


def words_of(text: str) -> list[str]:
    """A text's words.

    Example:
        >>> words_of("What's Due in 2024?")
        ['what', "'", 's', 'due', 'in', '0', '?']
    """
    text = text[:MAX_CHARACTERS]
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    found = _WORDS.findall(text.lower())
    return ["0" if word[0].isdigit() else word for word in found]


def characters_of(text: str) -> list[str]:
    """A text's characters, spaces at both ends left out.

    Example:
        >>> characters_of(" Ó 7")
        ['ó', ' ', '0']
    """
    text = text[:MAX_CHARACTERS]
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return list(_DIGITS.sub("0", text.lower().strip()))


def hashed(rows: Iterable[Sequence[str]]) -> Sequences:
    """Words or characters as 32 bits each (CRC-32 of their UTF-8).

    Example:
        >>> hashed([["a", "b"], [], ["a"]]).lengths.tolist()
        [2, 0, 1]
    """
    if len(_hashes) > _FEW:
        _hashes.clear()
    known, found, lengths = _hashes, [], []
    for row in rows:
        lengths.append(len(row))
        for word in row:
            value = known.get(word)
            if value is None:
                value = known[word] = zlib.crc32(word.encode("utf-8", "replace"))
            found.append(value)
    return Sequences(
        torch.tensor(found, dtype=torch.int64), torch.tensor(lengths, dtype=torch.int64)
    )
