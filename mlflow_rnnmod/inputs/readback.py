"""What a tokenizer says to ids that another may have made: whether they come back from text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

from mlflow_rnnmod._locks import cached_property
from mlflow_rnnmod.inputs.spelling import SURE as SURELY_SPELLED
from mlflow_rnnmod.inputs.spelling import shifted as misspelled
from mlflow_rnnmod.inputs.text import TextEncoder
from mlflow_rnnmod.inputs.wording import decoding

Ids = Sequence[Sequence[int]]

FEW = 200
"""Ids below which what is never seen says nothing."""
SURE, LIKELY = 0.9, 0.98
"""Shares below which ids are surely, and probably, none of a tokenizer's."""
STRANGE = 0.01
"""Share of ids that are no tokens from which on another tokenizer made them."""
_TRIED = 200
_CASED = 0.01
_MANY = 500
_MARK = re.compile(r"<.+>|\[.+\]|\W*(pad|padding)\W*", re.IGNORECASE)


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


class Known:
    """What a tokenizer says to some ids.

    Args:
        encoder: with the tokenizer.
        rows: ids, without padding, none empty.
        size: rows of the network's embedding.
        pad_index: id that pads rows; ``None`` where nothing does.
    """

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
        return same >= SURE * len(texts)

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
                if share >= LIKELY and told and self._moved(shift):
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
        lost = self.share < SURE and not self.respelled
        return self._told_lost() if many or lost or (shifted and self.missing) else ""

    def hardly_lost(self) -> str:
        """Some ids that do not come back."""
        if self.share >= LIKELY and self.whole >= SURE:
            return ""
        if not self.respelled and self.share < LIKELY:
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
        text = str(self.inner.decode([i]))
        return text.strip() or text or (self._token(i) or "")

    def _reread(self, i: int) -> str:
        """What an id's text is read as."""
        return " ".join(map(self._word, self._read(self.inner.decode([i]) or self._word(i))))

    def _told_lost(self) -> str:
        both = ((self._word(i), self._reread(i)) for i, _ in self.missing.most_common())
        # Some parts of words are only lost beside others, and some bytes are no letters.
        unlike = ((a, b) for a, b in both if a != b and "\ufffd" not in a)
        shown = ", ".join(f"{a!r} as {b!r}" for a, b in islice(unlike, 3))
        return (
            f"{100 * (1 - self.share):.1f} % of the ids in training rows are none that the "
            f"tokenizer makes of text{': it reads ' * bool(shown)}{shown}"
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

    def misspelled(self) -> tuple[str, bool]:
        """Words are spelled as their neighbours in the vocabulary should be, and whether surely."""
        tokens = [self._token(i) or "" for i in range(self.size)]
        shift, out = misspelled(self.rows, tokens)
        if not shift:
            return "", False
        beside = "before" if shift > 0 else "behind"
        told = (
            f"the tokenizer's words do not end as those beside them ask, and those {beside} them "
            f"in its vocabulary do: less {shift} ids are its own, so they look shifted by one"
        )
        return told, out >= SURELY_SPELLED

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
