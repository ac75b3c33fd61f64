"""What a stored tokenizer may do to a text: it comes from anybody, and is a small program.

Its padding says how long every text becomes, its normalizers can write a thousand letters for one,
its template puts any number of tokens around a text. What can be told from its JSON is told there;
how much its normalizers let texts grow is tried, one after the other, with texts made of what they
look for.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any

from mlflow_rnnmod._digest import canonical_json, digest_text

STEPS = 100_000
"""Tokens that a text may be padded to, or put around it."""
PARTS = 100
"""Normalizers, or decoders, one after the other."""
CONTENT = 1_000
"""Letters that a replacement may write for what it finds."""
GROWTH = 64
"""How many times longer a text may become."""
_SLACK = 10_000
_PROBES = 64


def check_tokenizer(data: Mapping[str, Any]) -> None:
    """Whether a tokenizer asks for no more than any honest one does."""
    problems = [*_problems_of_padding(data), *_problems_of_template(data)]
    for name in ("normalizer", "pre_tokenizer", "decoder"):
        problems += _problems_of_parts(name, list(parts_of(data.get(name))))
    if problems:
        raise ValueError("The tokenizer asks for too much: " + "; ".join(problems) + ".")


def check_growth(data: Mapping[str, Any]) -> None:
    """Try how much normalizers let texts grow that are made of what these look for."""
    from tokenizers import Tokenizer

    parts = list(parts_of(data.get("normalizer")))
    if not any(part.get("type") in ("Replace", "Prepend") for part in parts):
        return  # none of the others writes more than a few letters for one
    steps = []
    for part in parts:
        alone = {"version": "1.0", "model": _MODEL, "normalizer": part}
        steps.append(Tokenizer.from_str(canonical_json(alone)).normalizer)
    for probe in _probes(parts):
        text = probe
        for step in steps:
            text = step.normalize_str(text)
            if len(text) > GROWTH * len(probe) + _SLACK:
                raise ValueError(
                    f"The tokenizer asks for too much: its normalizers make {len(text)} letters of "
                    f"{len(probe)}, {probe!r:.60}; expected at most {GROWTH} times as many."
                )


_MODEL = {"type": "WordLevel", "vocab": {"?": 0}, "unk_token": "?"}


def parts_of(component: Any) -> Iterator[Mapping[str, Any]]:
    """The parts of a component that is a sequence of others, or itself."""
    stack = [component]
    while stack:
        found = stack.pop()
        if not isinstance(found, Mapping):
            continue
        inner = next((v for v in (found.get(n) for n in _SEQUENCES) if isinstance(v, list)), None)
        if inner is None:
            yield found
        else:
            stack.extend(reversed(inner))


_SEQUENCES = ("normalizers", "pretokenizers", "processors", "decoders")


def _problems_of_padding(data: Mapping[str, Any]) -> Iterator[str]:
    padding = data.get("padding")
    if isinstance(padding, Mapping):
        strategy = padding.get("strategy")
        fixed = strategy.get("Fixed") if isinstance(strategy, Mapping) else None
        for name, value in (("Fixed", fixed), ("multiple", padding.get("pad_to_multiple_of"))):
            if value is not None and not (isinstance(value, int) and 0 <= value <= STEPS):
                yield f"padding {name} {value!r:.40}, at most {STEPS} tokens"


def _problems_of_template(data: Mapping[str, Any]) -> Iterator[str]:
    total = 0
    for part in parts_of(data.get("post_processor")):
        ids = part.get("special_tokens")
        sizes = {
            name: len(found.get("ids") or ())
            for name, found in (ids.items() if isinstance(ids, Mapping) else ())
            if isinstance(found, Mapping)
        }
        for side in ("single", "pair"):
            pieces = part.get(side)
            if not isinstance(pieces, list):
                continue
            for piece in pieces:
                special = piece.get("SpecialToken") if isinstance(piece, Mapping) else None
                name = special.get("id") if isinstance(special, Mapping) else None
                # A text may be in its own template more than once.
                total += sizes.get(name, 1) if special else 100
    if total > STEPS:
        yield f"a template with {total} tokens, at most {STEPS}"


def _problems_of_parts(name: str, parts: list[Mapping[str, Any]]) -> Iterator[str]:
    if len(parts) > PARTS:
        yield f"{len(parts)} parts in its {name}, at most {PARTS}"
    patterns = 1
    for part in parts:
        written = max(
            (len(part[key]) for key in ("content", "prepend", "prefix") if _is_text(part.get(key))),
            default=0,
        )
        if written > CONTENT:
            yield f"{written} letters written by a {part.get('type')!r:.40}, at most {CONTENT}"
        pattern = part.get("pattern")
        if isinstance(pattern, Mapping) and "Regex" in pattern and part.get("type") == "Replace":
            # What a pattern finds can't be told: at worst, every letter and the places between.
            patterns *= max(1, 2 * written - 1)
    if patterns > GROWTH**2:
        yield f"patterns in its {name} that may make {patterns} letters of one, at most {GROWTH**2}"


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _probes(parts: list[Mapping[str, Any]]) -> list[str]:
    """Texts made of what replacements look for and write."""
    found: dict[str, None] = {"a b1.": None}
    for part in parts:
        pattern = part.get("pattern")
        texts = [part.get("content"), part.get("prepend")]
        if isinstance(pattern, Mapping):
            texts += [pattern.get("String"), pattern.get("Regex")]
        for text in texts:
            if _is_text(text) and text:
                found[text[:200]] = None
                for letter in dict.fromkeys(re.sub(r"\s+", " ", text)[:20]):
                    found[letter] = None
    shortest = sorted(found, key=len)[:_PROBES]
    return [*(probe * (1 + 60 // len(probe)) for probe in shortest), "".join(shortest)]


LETTERS = 200
"""Of a name at most."""


# Ids themselves do not tell: vocabularies are learned in the order of frequency, so that the most
# frequent ids of any two are the same (docs/decisions.md).
def vocabulary_name(vocabulary: Any) -> str:
    """A vocabulary's name: the one that is given, or the digest of its tokens with their ids.

    Args:
        vocabulary: a name of the user's own; the tokens, in the order of their ids, in a list or an
            array; ids by token; or what has these as ``get_vocab()``, as tokenizers do, or as
            ``get_stoi()``.

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
