"""What token ids mean: one name for a vocabulary, where no tokenizer is stored to tell.

Ids themselves do not tell: vocabularies are learned in the order of frequency, so that the most
frequent ids of any two are the same (docs/decisions.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

from mlflow_rnnmod._digest import canonical_json, digest_text

LETTERS = 200
"""Of a name at most."""


def vocabulary_name(vocabulary: Any) -> str:
    """A vocabulary's name: the one that is given, or the digest of its tokens with their ids.

    Args:
        vocabulary: a name of the user's own; the tokens, in the order of their ids, in a list or an
            array; ids by token; or what has these as ``get_vocab()``, as tokenizers do, or as
            ``get_stoi()``.

    Raises:
        ValueError: if it is none of these, or a token is in it twice.

    Example:
        >>> vocabulary_name("words of 2024"), vocabulary_name(["a", "b"])[:8]
        ('words of 2024', 'f4c1d8bd')
        >>> vocabulary_name(["a", "b"]) == vocabulary_name({"b": 1, "a": 0})
        True
    """
    if isinstance(vocabulary, str) and 0 < len(vocabulary.strip()) <= LETTERS:
        return vocabulary
    ask = getattr(vocabulary, "get_vocab", None) or getattr(vocabulary, "get_stoi", None)
    found = ask() if callable(ask) else vocabulary
    if not isinstance(found, Mapping) and callable(getattr(found, "tolist", None)):
        found = found.tolist()
    if isinstance(found, Sequence) and all(isinstance(token, str) for token in found):
        twice = [token for token, count in Counter(found).items() if count > 1]
        if twice and not isinstance(found, str):
            raise ValueError(
                f"vocabulary holds {twice[0]!r} more than once; expected each token once, at the "
                "place of its id"
            )
        found = found if isinstance(found, str) else {token: i for i, token in enumerate(found)}
    tokens = isinstance(found, Mapping) and all(
        isinstance(token, str) and isinstance(number, Integral) for token, number in found.items()
    )
    if not tokens or not found:
        raise ValueError(
            f"vocabulary={vocabulary!r:.100}, expected a name of your own (at most {LETTERS} "
            "letters), a list of tokens, ids by token, or a tokenizer"
        )
    return digest_text(canonical_json({token: int(number) for token, number in found.items()}))
