"""Whether a tokenizer is the one that made some token ids, as far as ids and texts tell.

A tokenizer that is not is noticed nowhere else: the network answers to ids as it did in training,
figures look fine, and texts are answered wrongly. Ids are decoded and encoded again; what does not
come back is nothing that the tokenizer makes. Whole words come back whatever they are, so that the
order of the vocabulary, how it is spelled and what pads rows are asked, too. Only what can't be
otherwise is a problem, which ends a training before it begins; all else is a note.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import dropwhile
from typing import Any

from mlflow_rnnmod.inputs.readback import LIKELY, STRANGE, SURE, Ids, Known
from mlflow_rnnmod.inputs.text import TextEncoder
from mlflow_rnnmod.inputs.wording import decoding

ROWS = 4_000
"""Rows that are enough to tell."""
_SAME = 0.3
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
    known = Known(encoder, [row for row in rows if len(row)][:ROWS], size, pad_index)
    if not known.rows:
        return Agreement()
    shift = known.shift()
    told = f"; less {shift} they are ids that it makes, so they look shifted by one" * bool(shift)
    strange, few = known.strangers(), not shift and known.strange < STRANGE
    lost = known.lost(bool(shift))
    sure = [f"{found}{told}" for found in (strange * (not few), lost) if found]
    order = known.out_of_order()
    sure = sure or [found for found in (order * known.roomy, known.padding()) if found]
    spelled, certain = ("", False) if sure else known.misspelled()
    if sure or certain:
        return Agreement((*sure, *filter(None, (spelled,))))
    doubts = strange, known.hardly_lost(), spelled, known.small_letters(), known.long()
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
    if not alike or sum(alike) >= LIKELY * len(alike):
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
    sure = sum(alike) < SURE * len(alike) and common >= _SAME
    return Agreement((told,), ()) if sure else Agreement((), (told,))


def told(agreement: Agreement) -> str:
    """Its problems as one sentence, with the remedy."""
    return f"tokenizer does not fit the data: {'; '.join(agreement.problems)}. {_REMEDY}."


def without_padding(rows: Ids, pad_index: int | None, side: str = "right") -> list[list[int]]:
    """Ids of rows without the padding behind them, or on the left before them.

    ``pad_index``: id that pads; ``None``: the one that most rows end with, if it comes in runs.

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

    ``odd``: whether no text has an id: such ones go first.

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
