"""Densities of text and of token ids: n-grams of words, of characters, of ids."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from mlflow_rnnmod.inputs.likelihood import Density, Likelihood, space_of
from mlflow_rnnmod.inputs.neighbours import (
    Steps,
    check_table,
    read_steps,
    shapes_of,
    spelled,
    steps_of,
    surfaces,
)
from mlflow_rnnmod.inputs.ngrams import BUDGET, LEAST_COUNTS, NGramCounts, NGramStack
from mlflow_rnnmod.inputs.normaliser import (
    UNKNOWN,
    VERSION,
    Sequences,
    characters_of,
    hashed,
    words_of,
)
from mlflow_rnnmod.inputs.tokenizers import parts_of

WEIGHT = 0.5
"""What a nat counts in a vote."""
LENGTH = {"words": 12.0, "characters": 24.0, "ids": 12.0}
"""Up to how many steps the evidence of a text adds up; a longer one counts as if it had so many."""


class GramDensity(Density):
    """N-grams of what a text is made of."""

    order: ClassVar[int] = 2
    unit: ClassVar[str] = "words"
    stepwise = True
    beside_ties = 0.5

    @property
    def space(self) -> str:
        """As :attr:`Density.space`."""
        return space_of(self)

    def counts(self, labels: int, room: float = 1.0) -> NGramCounts:
        """As :meth:`Density.counts`."""
        return NGramCounts(self.order, labels, self.space, int(room * BUDGET))

    def stack(self, likelihoods: Sequence[Likelihood]) -> NGramStack:
        """As :meth:`Density.stack`."""
        return NGramStack(self.order, likelihoods)

    def sizes(self, seen: Sequences) -> Tensor:
        """As :meth:`Density.sizes`; the end of a text is one step more."""
        return seen.lengths.float() + 1

    def vote(self, log_likelihoods: Tensor, sizes: Tensor) -> Tensor:
        """As :meth:`Density.vote`: of a long text what it says a word, so many times."""
        share = (LENGTH[self.kind] / sizes).clamp(max=1.0)
        return WEIGHT * share[:, None] * log_likelihoods

    def check(self, likelihood: Likelihood) -> None:
        """As :meth:`Density.check`."""
        orders = likelihood.facts["orders"]
        sizes = shapes_of(likelihood)
        expected = {
            "keys": (sum(orders), 3),
            "values": (sum(orders),),
            "backs": (sum(orders[:-1]),),
        }
        if len(orders) != self.order or sizes != expected:
            raise ValueError(
                f"its likelihood has tables of {sizes} for {orders}; expected {expected} of "
                f"{self.order} orders."
            )
        if likelihood.step is not None:
            check_table(likelihood.step)

    def words(self, likelihood: Likelihood) -> str:
        """As :meth:`Density.words`."""
        orders = likelihood.facts["orders"]
        shown = ", ".join(
            f"{count:,} {'single ' if not size else f'{size + 1}-grams of '}{self.unit}"
            for size, count in enumerate(orders)
        )
        return (
            f"how often {shown} were seen in training rows, each as a hash of 24 bits with a "
            f"rounded logarithm; what was seen less than {min(LEAST_COUNTS)} times is not stored"
            + ("; the same of steps with their neighbours" if likelihood.step is not None else "")
        )

    def steps_of_rows(self, rows: Any, tokenizer: Any = None, side: str = "right") -> Steps:
        """As :meth:`Density.steps_of_rows`: each token is a step."""
        ids, lengths = valid_steps(rows, side)
        if tokenizer is None:
            return steps_of(_hashed_ids(ids), torch.zeros_like(ids), lengths)
        inner = tokenizer.tokenizer
        size = max(inner.get_vocab_size(), int(ids.max()) + 1 if len(ids) else 0)
        tokens = [
            UNKNOWN if i == tokenizer.unknown else inner.id_to_token(i) or "" for i in range(size)
        ]
        words, endings = zip(*(spelled(token) for token in tokens), strict=True)
        found = [hashed([each]).values[ids] for each in (words, endings)]
        return steps_of(found[0], found[1], lengths)

    def steps_of_inputs(self, inputs: Any, parent: Any) -> Steps:
        """As :meth:`Density.steps_of_inputs`: what was in the text where a token is."""
        if parent.tokenizer is not None:
            return read_steps(surfaces(parent.tokenizer, inputs))
        rows = parent.network.content(parent.rows(inputs))
        return self.steps_of_rows(rows, None, parent.network.side)

    @classmethod
    def parsed(cls, rest: str) -> GramDensity:
        """As :meth:`Density.parsed`."""
        if rest:
            raise ValueError(f"{rest!r} behind a space of {cls.unit}; expected nothing.")
        return cls()


class Words(GramDensity):
    """Pairs of words of a text, through the normaliser of the format.

    Example:
        >>> Words().of_inputs(["two words", ["in", "three", "parts"]]).lengths.tolist()
        [2, 3]
    """

    kind, version, raw = "words", VERSION, True

    def of_inputs(self, inputs: Any) -> Sequences:
        """As :meth:`Density.of_inputs`: texts, or lists of words."""
        return hashed(words_of(_plain(text)) for text in inputs)

    def of_rows(self, rows: Any, tokenizer: Any = None, side: str = "right") -> Sequences:
        """As :meth:`Density.of_rows`: words are read back from token ids."""
        return _read_back(rows, tokenizer, side, words_of)


class Characters(GramDensity):
    """Three characters of a text in a row, where a parent reads it so.

    Example:
        >>> Characters().of_inputs([" Zoë "]).lengths.tolist()
        [3]
    """

    kind, version, raw, order, unit = "characters", VERSION, True, 3, "characters"

    def of_inputs(self, inputs: Any) -> Sequences:
        """As :meth:`Density.of_inputs`: texts, or lists of words."""
        return hashed(characters_of(_plain(text)) for text in inputs)

    def of_rows(self, rows: Any, tokenizer: Any = None, side: str = "right") -> Sequences:
        """As :meth:`Density.of_rows`."""
        return _read_back(rows, tokenizer, side, _characters)


class Ids(GramDensity):
    """Pairs of token ids of a vocabulary of ``size``, which parents are taken to share."""

    kind, unit = "ids", "token ids"

    def __init__(self, size: int) -> None:
        self.size = size

    @property
    def space(self) -> str:
        """As :attr:`Density.space`."""
        return space_of(self, self.size)

    def of_rows(self, rows: Any, tokenizer: Any = None, side: str = "right") -> Sequences:
        """As :meth:`Density.of_rows`."""
        values, lengths = valid_steps(rows, side)
        return Sequences(_hashed_ids(values), lengths)

    @classmethod
    def parsed(cls, rest: str) -> Ids:
        """As :meth:`Density.parsed`."""
        return cls(int(rest))


def text_density(tokenizer: Any) -> GramDensity:
    """Words, or characters where a tokenizer goes by characters."""
    inner = tokenizer.tokenizer
    special = {token.content for token in inner.get_added_tokens_decoder().values()}
    special |= {getattr(inner.model, "unk_token", None) or ""}
    # Markers that nobody called special: [UNK], <pad>.
    ends = {"[]", "<>"}
    words = [w for w in inner.get_vocab() if w not in special and w[:1] + w[-1:] not in ends]
    return Characters() if words and all(len(word) <= 1 for word in words) else Words()


def _characters(token: str) -> list[str]:
    return [" "] if token.isspace() else characters_of(token)


def _hashed_ids(ids: Tensor) -> Tensor:
    return (ids * 0x9E3779B1 + 1) & 0xFFFFFFFF


def _plain(text: Any) -> str:
    return text if isinstance(text, str) else " ".join(text)


def valid_steps(rows: Any, side: str) -> tuple[Tensor, Tensor]:
    """Ids of rows without padding, one row behind the other, and how many each has."""
    values = rows.values.cpu()
    steps = values.shape[1]
    if rows.lengths is None:
        return values.flatten(), torch.full((len(values),), steps)
    lengths = rows.lengths.cpu().clamp(max=steps)
    place = torch.arange(steps)
    inside = place < lengths[:, None]
    if side == "left":
        inside = place >= (steps - lengths)[:, None]
    return values[inside], lengths


def _read_back(rows: Any, tokenizer: Any, side: str, parts: Any) -> Sequences:
    """Words of a parent's rows: those of its tokens, or of the text that its tokenizer decodes."""
    ids, lengths = valid_steps(rows, side)
    inner = decoding(tokenizer.tokenizer)
    if inner.decoder is not None:
        split = [row.tolist() for row in ids.split(lengths.tolist())]
        return hashed(parts(text) for text in inner.decode_batch(split))
    unknown = tokenizer.unknown
    special = {i for i, token in inner.get_added_tokens_decoder().items() if token.special}
    padding = inner.id_to_token(tokenizer.pad_index) or ""
    special |= {tokenizer.pad_index} if not padding.isalnum() else set()
    size = max(inner.get_vocab_size(), int(ids.max()) + 1 if len(ids) else 0)
    tokens = [inner.id_to_token(i) or "" for i in range(size)]
    found = [
        [UNKNOWN] if i == unknown else [] if i in special else parts(token)
        for i, token in enumerate(tokens)
    ]
    known = hashed(found)
    starts, counts = known.lengths.cumsum(0) - known.lengths, known.lengths[ids]
    which = torch.repeat_interleave(counts)
    place = torch.arange(len(which)) - (counts.cumsum(0) - counts)[which] + starts[ids][which]
    row = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    total = torch.zeros_like(lengths).index_add_(0, row, counts)
    return Sequences(known.values[place], total)


def decoding(inner: Any) -> Any:
    """A tokenizer of parts of words that can put them together again."""
    kind = type(inner.model).__name__
    if inner.decoder is not None or kind == "WordLevel":
        return inner
    from tokenizers import Tokenizer, decoders

    copy = Tokenizer.from_str(inner.to_str())
    marks = {word[:1] for word in inner.get_vocab()}
    before = {part.get("type") for part in parts_of(json.loads(inner.to_str())["pre_tokenizer"])}
    if kind == "WordPiece":
        copy.decoder = decoders.WordPiece()
    elif "\u0120" in marks or "ByteLevel" in before:
        copy.decoder = decoders.ByteLevel()
    elif "\u2581" in marks or "Metaspace" in before:
        copy.decoder = decoders.Metaspace()
    return copy
