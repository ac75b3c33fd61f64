"""Whether a tokenizer is the one that made some token ids, as far as ids and texts tell.

A tokenizer that is not is noticed nowhere else: the network answers to ids as it did in training,
figures look fine, and texts are answered wrongly. Ids are decoded and encoded again; what does not
come back is nothing that the tokenizer makes. Whole words come back whatever they are, so that the
order of the vocabulary, its capital letters and what pads rows are asked, too. Only what can't be
otherwise is a problem, which ends a training before it begins; all else is a note.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import dropwhile
from typing import Any

from mlflow_rnnmod._locks import cached_property
from mlflow_rnnmod.inputs.text import TextEncoder
from mlflow_rnnmod.inputs.wording import decoding

Ids = Sequence[Sequence[int]]

ROWS = 4_000
"""Rows that are enough to tell."""
FEW = 200
"""Ids below which what is never seen says nothing."""
_TRIED = 200
_SURE, _LIKELY = 0.9, 0.98
_CASED = _STRANGE = 0.01
_SAME = 0.3
_MANY = 500
_MARK = re.compile(r"<.+>|\[.+\]|\W*(pad|padding)\W*", re.IGNORECASE)
_REMEDY = (
    "Give the tokenizer that made the data set's ids, with whatever the data set did to its texts "
    "before (lower-casing is a normalizer, an end of text a post-processor). To go on without it, "
    "leave tokenizer out: modules then take token ids"
)


@dataclass(frozen=True)
class Agreement:
    """How a tokenizer and some ids go together.

    Args:
        problems: what can't be if it made them, in sentences with a remedy.
        notes: what makes one doubt it.
    """

    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(self.problems + other.problems, self.notes + other.notes)


def compare_ids(encoder: TextEncoder, rows: Ids, size: int, pad_index: int | None) -> Agreement:
    """Whether a tokenizer makes such ids.

    Args:
        encoder: with the tokenizer.
        rows: ids of training rows, without padding.
        size: rows of the network's embedding.
        pad_index: id that pads rows; ``None`` where nothing does.

    Example:
        >>> from tokenizers import Tokenizer, models, normalizers
        >>> words = Tokenizer(models.WordLevel({"?": 0, "Ja": 1, "ja": 2}, unk_token="?"))
        >>> words.normalizer = normalizers.Lowercase()
        >>> compare_ids(TextEncoder(words), [[2, 2]], 3, None).problems
        ()
        >>> compare_ids(TextEncoder(words), [[1, 2]], 3, None).problems[0]
        "50.0 % of the ids in training rows are none that the tokenizer makes of text: it reads \
'Ja' as 'ja'"
    """
    known = _Known(encoder, [row for row in rows if len(row)][:ROWS], size, pad_index)
    if not known.rows:
        return Agreement()
    shift = known.shift()
    told = f"; less {shift} they are ids that it makes, so they look shifted by one" * bool(shift)
    strange, few = known.strangers(), not shift and known.strange < _STRANGE
    lost = known.lost(bool(shift))
    sure = [f"{found}{told}" for found in (strange * (not few), lost) if found]
    order = known.out_of_order()
    sure = sure or [found for found in (order * known.roomy, known.padding()) if found]
    if sure:
        return Agreement(tuple(sure))
    doubts = strange, known.hardly_lost(), known.small_letters(), known.long()
    return Agreement((), tuple(doubt for doubt in (*doubts, order or known.room()) if doubt))


def compare_texts(encoder: TextEncoder, texts: Sequence[Any], rows: Ids) -> Agreement:
    """Whether a tokenizer makes these ids of these texts.

    Args:
        encoder: with the tokenizer.
        texts: what the tokenizer reads.
        rows: for each the ids that it was trained with, without padding.

    Example:
        >>> from tokenizers import Tokenizer, models
        >>> words = TextEncoder(Tokenizer(models.WordLevel({"?": 0, "ja": 1}, unk_token="?")))
        >>> compare_texts(words, ["ja"], [[1]])
        Agreement(problems=(), notes=())
        >>> compare_texts(words, ["Ja"], [[1]]).problems
        ("of 1 texts of the training data, the tokenizer makes the data set's ids of 0: 'Ja' \
becomes [0], and the data set has [1]",)
    """
    found = [
        [i for i, seen in zip(e.ids, e.attention_mask, strict=True) if seen]
        for e in encoder.encodings(texts)
    ]
    alike = [_alike(own, list(given)) for own, given in zip(found, rows, strict=True)]
    # Other parts of the same text, as subword regularisation draws them, are no other text.
    inner = decoding(encoder.tokenizer)
    alike = [
        same or _spell_alike(inner, own, given)
        for same, own, given in zip(alike, found, rows, strict=True)
    ]
    if not alike or sum(alike) >= _LIKELY * len(alike):
        return Agreement()
    first = alike.index(False)
    told = (
        f"of {len(alike)} texts of the training data, the tokenizer makes the data set's ids of "
        f"{sum(alike)}: {texts[first]!r:.60} becomes {found[first][:12]}, and the data set has "
        f"{list(rows[first])[:12]}"
    )
    # Unless they have hardly a token in common: then they may be other texts.
    pairs = list(zip(found, rows, strict=True))
    common = max(_common(pairs, shift) for shift in (0, 1, -1))
    sure = sum(alike) < _SURE * len(alike) and common >= _SAME
    return Agreement((told,), ()) if sure else Agreement((), (told,))


def told(agreement: Agreement) -> str:
    """Its problems as one sentence, with the remedy."""
    return f"tokenizer does not fit the data: {'; '.join(agreement.problems)}. {_REMEDY}."


def strangers(encoder: TextEncoder, counts: Mapping[Any, int]) -> str:
    """Which ids are no tokens, in words; empty where all are."""
    inner, size = encoder.tokenizer, encoder.tokenizer.get_vocab_size()
    none = {i: n for i, n in counts.items() if inner.id_to_token(i) is None}
    if not none:
        return ""
    shown = ", ".join(map(str, sorted(none)[:5])) + (", ..." if len(none) > 5 else "")
    share = 100 * sum(none.values()) / sum(counts.values())
    return (
        f"{share:.2f} % of the ids in training rows are no tokens of the tokenizer ({shown}; it "
        f"has {size} tokens)"
    )


def without_padding(rows: Ids, pad_index: int | None, side: str = "right") -> list[list[int]]:
    """Ids of rows without the padding behind them, or on the left before them.

    Args:
        rows: ids.
        pad_index: id that pads; ``None``: the one that most rows end with, if it comes in runs.
        side: where padding stands.

    Example:
        >>> without_padding([[3, 9, 9], [4, 3, 9], [5, 9, 9]], None)
        [[3], [4, 3], [5]]
    """
    if pad_index is None:
        pad_index = padding_of(rows, side)
    turned = [list(row) if side == "right" else list(row)[::-1] for row in rows]
    for row in turned:
        while row and row[-1] == pad_index:
            row.pop()
    return turned if side == "right" else [row[::-1] for row in turned]


def padding_of(
    rows: Ids, side: str = "right", odd: Callable[[int], bool] = lambda i: False
) -> int | None:
    """The id that pads rows, where runs of it end a tenth of them, or it is nowhere else.

    Args:
        rows: ids.
        side: where padding stands.
        odd: whether no text has an id: such ones go first.

    Example:
        >>> padding_of([[3, 9, 9], [4, 3, 9], [5, 9, 9]]), padding_of([[3, 9], [9, 4]])
        (9, None)
    """
    turned = [row if side == "right" else row[::-1] for row in rows]
    runs = Counter(row[-1] for row in turned if len(row) > 1 and row[-1] == row[-2])
    if not runs:
        return None
    pad, count = max(runs.items(), key=lambda found: (odd(found[0]), found[1]))
    if 10 * count >= len(turned):
        return pad
    content = (dropwhile(lambda i: i == pad, reversed(row)) for row in turned)
    return None if any(pad in row for row in content) else pad


def _alike(one: list[int], other: list[int]) -> bool:
    """Whether ids are the same as far as both go: data sets cut texts by themselves."""
    both = min(len(one), len(other))
    if not both:
        return len(one) == len(other)
    return one[:both] == other[:both] or one[-both:] == other[-both:]


def _spell_alike(inner: Any, one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether ids are written alike, special tokens too, as far as both go."""
    if not one or not other or any(inner.id_to_token(i) is None for i in other):
        return False
    texts = inner.decode_batch([list(one), list(other)], skip_special_tokens=False)
    return all(texts) and (texts[0].startswith(texts[1]) or texts[1].startswith(texts[0]))


def _common(pairs: Sequence[tuple[Sequence[int], Sequence[int]]], shift: int) -> float:
    """The share of ids that are in both of a pair, with ``shift`` taken from the second's."""
    both = sum((Counter(one) & Counter(i - shift for i in other)).total() for one, other in pairs)
    return both / max(sum(len(other) for _, other in pairs), 1)


class _Known:
    """What a tokenizer says to some ids."""

    def __init__(self, encoder: TextEncoder, rows: Ids, size: int, pad_index: int | None) -> None:
        from tokenizers import Tokenizer

        self.encoder, self.rows, self.embedded, self.pad = encoder, rows, size, pad_index
        self.inner = decoding(Tokenizer.from_str(encoder.json))
        self.cut = (encoder.tokenizer.truncation or {}).get("max_length")
        self.inner.no_truncation()
        self.inner.no_padding()
        if getattr(self.inner.model, "dropout", None):
            self.inner.model.dropout = None
        self.size = self.inner.get_vocab_size()
        added = self.inner.get_added_tokens_decoder().items()
        self.special = {i for i, token in added if token.special}
        self.special |= {encoder.unknown} if encoder.unknown is not None else set()
        # What a post-processor puts in is often an ordinary entry of the vocabulary.
        self.special |= set(self.inner.encode("").ids)
        self.counts = Counter(i for row in rows for i in row)
        self.share, self.whole, self.missing = self._returned(0)

    def _readable(self, i: int) -> bool:
        """Whether an id's own text is read as it, or would be but for capital letters."""
        if self._token(i) is None or self._cased(i):
            return True
        texts = (self.inner.decode([i]), self._token(i) or "")
        return any(self._read(text) == [i] for text in texts)

    def _returned(self, shift: int) -> tuple[float, float, Counter[int]]:
        """Which shares of ids and of rows come back when decoded and encoded, and what does not."""
        known = self._known(shift)
        total = sum(map(len, known))
        best = (1.0, 1.0, Counter[int]()) if not total else (-1.0, -1.0, Counter[int]())
        for way in self._ways() if total else ():
            missing, same = Counter[int](), 0
            for own, again in zip(known, way(known), strict=True):
                missing += Counter(own) - Counter(again)
                same += own == again
            found = (1 - missing.total() / total, same / len(known), missing)
            best = max(best, found, key=lambda one: one[:2])
            if best[1] == 1:
                break
        return best

    def _known(self, shift: int) -> list[list[int]]:
        """Ids of some rows that are tokens of texts; at the ends, those read by themselves alone.

        Data sets put marks of their own there, and cut words in two.
        """
        rows = [[i - shift for i in row] for row in self.rows[:_TRIED]]
        ends = Counter(i for row in rows for i in {row[0], row[-1]})
        odd = {i for i in ends if not self._readable(i)}
        marks = self.special | {i for i in odd if 2 * ends[i] >= len(rows)}
        for row in rows:
            row[:] = row[row[0] in odd :]
            row[:] = row[: len(row) - (bool(row) and row[-1] in odd)]
        return [[i for i in row if self._token(i) and i not in marks] for row in rows]

    @cached_property
    def respelled(self) -> bool:
        """Whether rows are texts that the tokenizer writes alike, in other parts of words.

        Subword regularisation draws them so; with another tokenizer's ids it may be so, too.
        """
        if self.inner.decoder is None:
            return False
        texts = self.inner.decode_batch(self._known(0))
        again = self.inner.decode_batch([self._read(text) for text in texts])
        same = sum(one == other for one, other in zip(texts, again, strict=True))
        return same >= _SURE * len(texts)

    def _ways(self) -> list[Callable[[Ids], list[list[int]]]]:
        """Ways to write ids as text, as tokenizers without a decoder do not say how."""
        how = {"add_special_tokens": False}

        def encoded(texts: Sequence[Any], **more: Any) -> list[list[int]]:
            return [found.ids for found in self.inner.encode_batch(list(texts), **how, **more)]

        def words(rows: Ids) -> list[list[str]]:
            return [[self._token(i) or "" for i in row] for row in rows]

        ways: list[Callable[[Ids], list[list[int]]]] = [
            lambda rows: encoded(self.inner.decode_batch([list(row) for row in rows]))
        ]
        if self.inner.decoder is None:
            ways.append(lambda rows: encoded(["".join(row) for row in words(rows)]))
            ways.append(lambda rows: encoded(words(rows), is_pretokenized=True))
        return ways

    def _token(self, i: int | None) -> str | None:
        return self.inner.id_to_token(i) if i is not None and i >= 0 else None

    @property
    def _unknown(self) -> int:
        """How often a token is unknown."""
        return 0 if self.encoder.unknown is None else self.counts[self.encoder.unknown]

    def _read(self, text: str) -> list[int]:
        return list(self.inner.encode(text, add_special_tokens=False).ids)

    def shift(self) -> int:
        """What ids have to be less of for the tokenizer to have made them; 0 where none is."""
        strange = any(self._token(i) is None for i in self.counts)
        whole = self.inner.decoder is None
        if not self.missing and not strange:
            return 0
        for shift in (1, -1):
            if all(self._token(i - shift) is not None for i in self.counts):
                share, *_ = self._returned(shift)
                more = share - self.share
                # Parts of words tell by themselves; whole words may come back whatever they are.
                told = more > 0.01 or (strange and more >= 0) or (not whole and more > 0)
                told = (told and self._moved(shift)) or (not whole and more > 0.05)
                if share >= _LIKELY and told:
                    return shift
        return 0

    def _moved(self, shift: int) -> bool:
        """Whether ids leave off one too late, and begin so: whole words come back as they are.

        An end of text or padding of the data set's own leaves off so, too.
        """
        ordinary = self._ordinary()
        return bool(ordinary) and not self.counts[ordinary[0 if shift > 0 else -1]]

    @property
    def strange(self) -> float:
        """Share of ids that are no tokens."""
        none = sum(n for i, n in self.counts.items() if self._token(i) is None)
        return none / max(self.counts.total(), 1)

    def strangers(self) -> str:
        """Ids that are no tokens."""
        return strangers(self.encoder, self.counts)

    def lost(self, shifted: bool) -> str:
        """Ids that do not come back: too many, or for a letter's case alone."""
        cased = sum(n for i, n in self.missing.items() if self._cased(i))
        many = cased and cased >= _CASED * sum(map(len, self.rows[:_TRIED]))
        lost = self.share < _SURE and not self.respelled
        return self._told_lost() if many or lost or (shifted and self.missing) else ""

    def hardly_lost(self) -> str:
        """Some ids that do not come back."""
        if self.share >= _LIKELY and self.whole >= _SURE:
            return ""
        if not self.respelled and self.share < _LIKELY:
            return self._told_lost()
        return (
            f"the tokenizer takes the texts of {100 * (1 - self.whole):.0f} % of the training rows "
            "apart otherwise than these are: so it is with subword regularisation; otherwise "
            "another tokenizer made them, and modules would misread texts"
        )

    def _cased(self, i: int) -> bool:
        text = self._word(i)
        return text != text.lower() and self._reread(i) == text.lower()

    def _word(self, i: int) -> str:
        """An id as text: the tokens themselves may be bytes in disguise."""
        return self.inner.decode([i]).strip() or (self._token(i) or "")

    def _reread(self, i: int) -> str:
        """What an id's text is read as."""
        return " ".join(map(self._word, self._read(self.inner.decode([i]) or self._word(i))))

    def _told_lost(self) -> str:
        worst = [i for i, _ in self.missing.most_common(3)]
        shown = ", ".join(f"{self._word(i)!r} as {self._reread(i)!r}" for i in worst)
        return (
            f"{100 * (1 - self.share):.1f} % of the ids in training rows are none that the "
            f"tokenizer makes of text: it reads {shown}"
        )

    def _ordinary(self) -> list[int]:
        """Ids of what stands in texts: neither special, nor padding, nor a mark such as <pad>."""
        without = self.special | {self.pad}
        found = ((i, self._token(i)) for i in range(self.size) if i not in without)
        return [i for i, token in found if token and not _MARK.fullmatch(token)]

    def out_of_order(self) -> str:
        """The most frequent word is hardly seen, and those behind it are the most frequent ones.

        Vocabularies are learned in the order of how frequent words are. With ids one too high the
        first word's is what the unknown token was, the next one's is the first word, and the
        unknown token is never seen.
        """
        ordinary = self._ordinary()
        head = ordinary[1:21]
        if len(head) < 20 or self.counts.total() < 5 * FEW or self._unknown:
            return ""
        first, seen = ordinary[0], [self.counts[i] for i in head]
        most = max(n for i, n in self.counts.items() if i not in self.special)
        pairs = [(a, b) for k, a in enumerate(seen) for b in seen[k + 1 :]]
        ordered = sum(a > b for a, b in pairs) / len(pairs)
        alone = not self.counts[first] and (self._token(first) or "")[-1:].isalpha()
        if seen[0] < most or ordered < 0.9 or not (alone or self.roomy):
            return ""
        if 2 * self.counts[first] > seen[0]:
            return ""
        return (
            f"the tokenizer's first word {self._token(first)!r} (id {first}) is hardly in the "
            "training rows, and the words behind it are the most frequent ones, in order: ids look "
            "shifted by one"
        )

    @property
    def roomy(self) -> bool:
        """Whether the network knows one id more than there are tokens, and it is not padding."""
        return self.embedded == self.size + 1 and self.pad != self.size

    def room(self) -> str:
        """One id more than tokens, and nothing that says that the first ones are as they should."""
        token = self._token(self.pad)
        unseen = self.encoder.unknown is not None and not self._unknown
        if not self.roomy or self.counts.total() < FEW or not (unseen or self._means(token or "")):
            return ""
        return (
            f"the network knows {self.embedded} ids and the tokenizer {self.size} tokens: if the "
            "data set adds one to ids, the tokenizer has to do so, too (a padding token as its "
            "first one)"
        )

    def _means(self, token: str) -> bool:
        unknown = self.encoder.unknown is not None and self._token(self.encoder.unknown) == token
        return unknown or (token.isalnum() and "pad" not in token.lower())

    def padding(self) -> str:
        """What pads rows is an ordinary token, which no row holds."""
        token = self._token(self.pad)
        if self.pad is None or not token or self.pad in self.special or self.counts[self.pad]:
            return ""
        if not self._means(token) or self._read(token) != [self.pad] or self.counts.total() < FEW:
            return ""
        return (
            f"rows are padded with id {self.pad}, which is the tokenizer's {token!r} and is in no "
            "training row otherwise: ids look shifted by one"
        )

    def small_letters(self) -> str:
        """Capital letters are something else to the tokenizer, and no row has any."""
        letters = [t for t in map(self._token, self._ordinary()) if t and t[-1:].isalpha()]
        capital = sum(token != token.lower() for token in letters)
        # A few words may be all that there are.
        if capital < 10 and len(letters) < _MANY and any(len(token) > 1 for token in letters):
            return ""
        seen = [i for i, _ in self.counts.most_common() if i not in self.special]
        texts = [self.inner.decode([i]).strip() or (self._token(i) or "") for i in seen]
        if self.counts.total() < FEW or any(text != text.lower() for text in texts):
            return ""
        small = [text for text in texts if text[:1].upper() != text[:1]][:100]
        other = 0
        for text in small:
            own, again = self._read(text), self._read(text[:1].upper() + text[1:])
            new = set(again) - set(own)
            other += any(i == self.encoder.unknown or not self.counts[i] for i in new)
        if len(small) < 10 or other < 0.9 * len(small):
            return ""
        return (
            f"no training row has a capital letter, and the tokenizer reads {small[0]!r} otherwise "
            f"with one ({small[0][:1].upper() + small[0][1:]!r}): if the data set lower-cases its "
            "texts, have the tokenizer do so (normalizers.Lowercase()), or texts with capital "
            "letters are answered wrongly"
        )

    def long(self) -> str:
        """Rows that the tokenizer would have cut."""
        longest = max(map(len, self.rows))
        if self.cut is None or longest <= self.cut:
            return ""
        return (
            f"training rows have up to {longest} tokens, and the tokenizer cuts texts at "
            f"{self.cut} (enable_truncation): texts are read shorter than the network learned to"
        )
