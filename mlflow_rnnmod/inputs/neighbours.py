"""A step of a text: its word, the words beside it, and for strange words how they end.

For answers that have one for each step. Given the label, word and neighbours are taken to be
independent (naive Bayes); a word that is not stored goes by its last three characters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from mlflow_rnnmod.inputs.likelihood import Counts, Likelihood, Stack
from mlflow_rnnmod.inputs.ngrams import (
    LEAST_COUNTS,
    SHORT,
    STEP,
    Table,
    first_of,
    found_in,
    merged,
    mixed,
    packed,
    quantised,
    unpacked,
)
from mlflow_rnnmod.inputs.normaliser import MAX_CHARACTERS, UNKNOWN, hashed, words_of

KIND = "neighbours-1"
FEATURES = ("word", "ending", "before", "after")
BUDGET = 4_500
"""Bytes of a table, at the most."""
SHARES = (0.5, 0.15, 0.175, 0.175)
"""Which part of it each feature has."""
ENDING = 3
"""Characters of an ending."""
KINDS = (50_000, 5_000, 50_000, 50_000)
"""Of each feature, how many there may be."""
NEIGHBOUR = 0.75
"""What a neighbour counts beside the word."""
WEIGHT = 0.5
"""What a nat of a step counts in a vote."""

_EDGE = 0x27D4EB2F
_UNKNOWN = int(hashed([[UNKNOWN]]).values[0])


class Steps(NamedTuple):
    """Steps of some rows, one row behind the other.

    Args:
        features: hashes, int64 ``(features, steps)``.
        lengths: steps of each row, int64 ``(rows,)``.
    """

    features: Tensor
    lengths: Tensor


def spelled(token: str) -> tuple[str, str]:
    """A step's word and its ending, through the normaliser of the format.

    Example:
        >>> spelled("Running"), spelled("1984"), spelled("U.S.")
        (('running', 'ing'), ('0', '0'), ('u.s.', '.s.'))
    """
    word = "".join(words_of(token)) if token != UNKNOWN else token
    return word, word[-ENDING:]


def steps_of(words: Tensor, endings: Tensor, lengths: Tensor) -> Steps:
    """Steps with their neighbours; what lies beyond an end is a word of its own."""
    edge = torch.tensor([_EDGE])
    last = lengths.cumsum(0)
    last, first = last[lengths > 0] - 1, (last - lengths)[lengths > 0]
    before, after = torch.cat([edge, words])[:-1], torch.cat([words, edge])[1:]
    before, after = before.clone(), after.clone()
    before[first], after[last] = _EDGE, _EDGE
    return Steps(torch.stack([words, endings, before, after]), lengths)


def read_steps(tokens: Sequence[Sequence[str]]) -> Steps:
    """Steps of rows of tokens, as a text has them.

    Example:
        >>> read_steps([["The", "cat"], []]).features.shape
        torch.Size([4, 2])
    """
    split = [[spelled(token) for token in row] for row in tokens]
    words, endings = (hashed([[pair[i] for pair in row] for row in split]) for i in (0, 1))
    return steps_of(words.values, endings.values, words.lengths)


def surfaces(encoder: Any, texts: Sequence[Any]) -> list[list[str]]:
    """What each token of a text, or of a list of words, was in it."""
    found = []
    for text, encoding in zip(texts, encoder.encodings(texts), strict=True):
        pieces = []
        places = zip(encoding.offsets, encoding.word_ids, encoding.attention_mask, strict=True)
        for (start, end), word, valid in places:
            if valid:
                whole = text if isinstance(text, str) else text[word] if word is not None else ""
                pieces.append(whole[start:end][:MAX_CHARACTERS])
        found.append(pieces)
    return found


class StepCounts(Counts):
    """How often each feature was seen at steps of each label."""

    def __init__(self, labels: int) -> None:
        self.labels = labels
        none = torch.zeros(0, dtype=torch.int64)
        self.tables: list[Table] = [(none,) * 4 for _ in FEATURES]  # type: ignore[misc]
        self.unknown = torch.zeros(len(FEATURES), labels, dtype=torch.int64)

    def add(self, seen: Steps, carried: Tensor) -> None:
        """As :meth:`Counts.add`; ``carried`` is the label of each step, negative for none."""
        known = carried >= 0
        label = carried[known]
        for number, values in enumerate(seen.features):
            own = values[known]
            strange = own == _UNKNOWN
            self.unknown[number] += torch.bincount(label[strange], minlength=self.labels)
            keys = (label[~strange] << 32) | mixed(own[~strange], number + 11)
            one = torch.ones_like(keys)
            self.tables[number] = merged(self.tables[number], (keys, one, one, one))

    def merge(self, other: Self) -> Self:
        """As :meth:`Counts.merge`."""
        found = type(self)(self.labels)
        found.tables = [merged(a, b) for a, b in zip(self.tables, other.tables, strict=True)]
        found.unknown = self.unknown + other.unknown
        return found

    def likelihoods(self) -> list[Likelihood | None]:
        """As :meth:`Counts.likelihoods`."""
        return [self._likelihood(label) for label in range(self.labels)]

    def _likelihood(self, label: int) -> Likelihood | None:
        keys, values, sizes, unseen = [], [], [], []
        for number, (every, counts, _, _) in enumerate(self.tables):
            low, high = torch.searchsorted(every, torch.tensor([label << 32, (label + 1) << 32]))
            part = slice(int(low), int(high))
            mine, count = every[part] & 0xFFFFFFFF, counts[part]
            unknown = int(self.unknown[number, label])
            total, types = int(count.sum()) + unknown, len(mine) + unknown
            if total == 0:
                return None
            most = int(BUDGET * SHARES[number]) // 4
            kept = count >= LEAST_COUNTS[0]
            if int(kept.sum()) > most:
                best = count.masked_fill(~kept, 0).argsort(descending=True, stable=True)[:most]
                kept = torch.zeros_like(kept)
                kept[best] = True
            share = count.double() / (total + types)
            left = max(1.0 - float(share[kept].sum()), 1e-6)
            unseen.append(round(math.log(left / KINDS[number]), 4))
            stored = first_of(mine[kept] & SHORT)
            keys.append(mine[kept][stored])
            values.append(quantised((share[kept][stored] + left / KINDS[number]).log()))
            sizes.append(len(keys[-1]))
        tensors = {"keys": packed(torch.cat(keys)), "values": torch.cat(values)}
        return Likelihood(KIND, {"sizes": sizes, "unseen": unseen}, tensors)


def check_table(likelihood: Likelihood) -> None:
    """Whether a table of steps is one that this version reads."""
    if likelihood.space != KIND:
        raise ValueError(
            f"likelihood of steps in the space {likelihood.space!r}; expected {KIND!r}. Upgrade "
            "mlflow_rnnmod, or decompose the parent again."
        )
    expected = sum(likelihood.facts["sizes"])
    sizes = shapes_of(likelihood)
    if sizes != {"keys": (expected, 3), "values": (expected,)}:
        raise ValueError(
            f"its likelihood of steps has tables of {sizes}; expected {expected} rows."
        )


def shapes_of(likelihood: Likelihood) -> dict[str, tuple[int, ...]]:
    """Shapes of tables of bytes."""
    for name, tensor in sorted(likelihood.tensors.items()):
        if tensor.dtype != torch.uint8:
            raise ValueError(
                f"its likelihood has {name!r} of {tensor.dtype}; expected torch.uint8."
            )
    return {name: tuple(tensor.shape) for name, tensor in likelihood.tensors.items()}


class StepStack(Stack):
    """Tables of many modules."""

    def __init__(self, likelihoods: Sequence[Likelihood]) -> None:
        self.unseen = torch.tensor([each.facts["unseen"] for each in likelihoods])
        self.levels = []
        for number in range(len(FEATURES)):
            keys, values = [], []
            for each in likelihoods:
                sizes = each.facts["sizes"]
                part = slice(sum(sizes[:number]), sum(sizes[: number + 1]))
                keys.append(unpacked(each.tensors["keys"][part]))
                values.append(-each.tensors["values"][part].float() / STEP)
            all_keys = torch.cat(keys).unique()
            table = self.unseen[:, number].repeat(len(all_keys) + 1, 1)
            there = torch.zeros(len(all_keys) + 1, len(likelihoods), dtype=torch.bool)
            for module, (own, value) in enumerate(zip(keys, values, strict=True)):
                place = torch.searchsorted(all_keys, own)
                table[place, module], there[place, module] = value, True
            self.levels.append((all_keys, table, there))

    def __call__(self, seen: Steps) -> Tensor:
        """Log-likelihoods of steps, float32 ``(steps, modules)``."""
        told = []
        for number, values in enumerate(seen.features):
            keys, table, there = self.levels[number]
            place, known = found_in(keys, mixed(values, number + 11) & SHORT)
            place = torch.where(known, place, len(keys))
            told.append((table[place], there[place]))
        (word, stored), (ending, _), (before, _), (after, _) = told
        # How a strange word ends: what the label's own strange words leave, shared out by endings.
        strange = self.unseen[:, 0] + ending + math.log(KINDS[1])
        word = torch.where(stored, word, strange)
        return word + NEIGHBOUR * (before + after)


def padded(values: Tensor, lengths: Tensor, steps: int) -> Tensor:
    """Steps one row behind the other as ``(rows, steps, modules)``, 0 where there are none."""
    found = values.new_zeros(len(lengths), steps, values.shape[1])
    place = torch.arange(int(lengths.max()) if len(lengths) else 0)
    inside = (place < lengths[:, None]).nonzero()
    kept = inside[:, 1] < steps
    found[inside[kept, 0], inside[kept, 1]] = values[kept]
    return found
