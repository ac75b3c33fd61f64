"""N-grams of words, characters or token ids: counts, tables with back-off, many read at once.

Witten and Bell's interpolation (IEEE Trans. Inf. Theory 37(4), 1991), written as a table of
probabilities and back-off weights (as ARPA files have it): p(w | h) is that of the longest stored
n-gram, times the weights of the histories that were backed off from. What is stored of each n-gram
is a hash of 24 bits and two logarithms of 8 bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor

from mlflow_rnnmod.inputs.likelihood import Counts, Likelihood, Stack
from mlflow_rnnmod.inputs.normaliser import UNKNOWN, Sequences, hashed

VOCABULARY = 50_000
"""Words that there may be, seen or not: what an unseen one shares its chance with."""
LEAST_COUNTS = (2, 2)
"""How often an n-gram must be seen to be stored: of one, of more. Once would tell of one person."""
BUDGET = 9_200
"""Bytes of a table, at the most."""
STEP = 14
"""Steps a nat: what logarithms are rounded to."""
FEW_STEPS = 2000
"""Steps of a label below which the parent's own words stand behind it."""

SHORT = 0xFFFFFF
"""What is stored of a hash."""

_MASK = 0xFFFFFFFF
_START, _END = 0x5BD1E995, 0x1B873593
_UNKNOWN = int(hashed([[UNKNOWN]]).values[0])


Table = tuple[Tensor, Tensor, Tensor, Tensor]
"""Of one order: label << 32 | key, in order; how often; the keys of history and shorter n-gram."""


class Grams(NamedTuple):
    """The n-grams of some rows, of one order.

    Args:
        keys: hashes, int64 ``(steps,)``.
        histories: hashes of all but the last.
        shorter: hashes of all but the first.
    """

    keys: Tensor
    histories: Tensor
    shorter: Tensor


def mixed(a: Tensor, b: Tensor | int) -> Tensor:
    """A hash of two, 32 bits in int64."""
    found = ((a ^ (b + 0x7F4A7C15)) * 0x9E3779B1 + b) & _MASK
    found = ((found ^ (found >> 15)) * 0x85EBCA77) & _MASK
    return found ^ (found >> 13)


def grams_of(seen: Sequences, order: int) -> tuple[list[Grams], Tensor]:
    """N-grams of each order from 1, with one that ends each row.

    Gives the n-grams, in each of the orders as many; and the row of each, int64.
    """
    rows, lengths = len(seen), seen.lengths
    padded = lengths + order  # order - 1 starts, one end
    first = padded.cumsum(0) - padded
    total = int(padded.sum())
    row = torch.repeat_interleave(torch.arange(rows), padded)
    place = torch.arange(total) - first[row]
    inside = place >= order - 1
    last = place == padded[row] - 1
    values = torch.full((total,), _START)
    values[last] = _END
    values[inside & ~last] = seen.values
    keys = [mixed(values, 1)]
    for size in range(2, order + 1):
        back = torch.roll(values, size - 1)
        keys.append(mixed(keys[-1], mixed(back, size)))
    found = []
    none = torch.zeros_like(values)
    for size in range(1, order + 1):
        history = torch.roll(keys[size - 2], 1) if size > 1 else none
        shorter = keys[size - 2] if size > 1 else none
        found.append(Grams(keys[size - 1][inside], history[inside], shorter[inside]))
    return found, row[inside]


class NGramCounts(Counts):
    """How often each n-gram was seen, for each label and for all rows together."""

    def __init__(self, order: int, labels: int, space: str, budget: int = BUDGET) -> None:
        self.order, self.labels, self.space, self.budget = order, labels, space, budget
        none = torch.zeros(0, dtype=torch.int64)
        # Of each order: label << 32 | key, count, history, shorter.
        self.tables = [(none, none, none, none) for _ in range(order)]
        self.unknown = torch.zeros(labels + 1, dtype=torch.int64)

    def add(self, seen: Sequences, carried: Tensor) -> None:
        """As :meth:`Counts.add`."""
        carried = torch.cat([carried.cpu(), torch.ones(len(carried), 1, dtype=torch.bool)], dim=1)
        grams, row = grams_of(seen, self.order)
        pairs = carried[row].nonzero()
        place, label = pairs[:, 0], pairs[:, 1]
        unknown = grams[0].keys == int(mixed(torch.tensor(_UNKNOWN), 1))
        strange = unknown.clone()
        self.unknown += torch.bincount(label[unknown[place]], minlength=self.labels + 1)
        for size, found in enumerate(grams):
            if size:  # what holds an unknown step is no n-gram
                strange = strange | torch.roll(unknown, size)
            mine = place[~strange[place]]
            own = label[~strange[place]]
            new = (
                (own << 32) | found.keys[mine],
                torch.ones_like(own),
                found.histories[mine],
                found.shorter[mine],
            )
            self.tables[size] = merged(self.tables[size], new)

    def merge(self, other: Self) -> Self:
        """As :meth:`Counts.merge`."""
        found = type(self)(self.order, self.labels, self.space, self.budget)
        found.tables = [merged(a, b) for a, b in zip(self.tables, other.tables, strict=True)]
        found.unknown = self.unknown + other.unknown
        return found

    def likelihoods(self) -> list[Likelihood | None]:
        """As :meth:`Counts.likelihoods`."""
        whole = self._fitted(self.labels, None)
        return [self._likelihood(label, whole) for label in range(self.labels)]

    def _likelihood(self, label: int, whole: _Fitted | None) -> Likelihood | None:
        fitted = self._fitted(label, whole)
        if fitted is None:
            return None
        # Shorter hashes than were counted by: of those that become the same one is kept.
        kept = [first_of(keys & SHORT) for keys in fitted.keys]
        orders = [len(each) for each in kept]

        def stored(tables: list[Tensor]) -> Tensor:
            return torch.cat([table[each] for table, each in zip(tables, kept, strict=False)])

        tensors = {
            "keys": packed(stored(fitted.keys)),
            "values": quantised(stored(fitted.values)),
            "backs": quantised(stored(fitted.backs[: self.order - 1])),
        }
        facts = {"orders": orders, "unseen": round(fitted.unseen, 4), "rows_steps": fitted.steps}
        return Likelihood(self.space, facts, tensors)

    def _of(self, label: int) -> list[Table]:
        found = []
        for keys, counts, histories, shorter in self.tables:
            low, high = torch.searchsorted(keys, torch.tensor([label << 32, (label + 1) << 32]))
            part = slice(int(low), int(high))
            found.append((keys[part] & _MASK, counts[part], histories[part], shorter[part]))
        return found

    def _fitted(self, label: int, whole: _Fitted | None) -> _Fitted | None:
        tables = self._of(label)
        keys, counts, _, _ = tables[0]
        if not len(keys):
            return None
        unknown = int(self.unknown[label])
        total, types = int(counts.sum()) + unknown, len(keys) + unknown
        share = counts.double() / (total + types)
        kept = counts >= LEAST_COUNTS[0]
        room = self.budget if whole is not None else 10**9
        most = int(0.6 * room) // 5
        if int(kept.sum()) > most:
            kept &= counts >= counts[kept].sort(descending=True).values[most - 1]
        left = 1.0 - float(share[kept].sum())
        unseen, behind = 1.0 / VOCABULARY, None
        if whole is not None and total < FEW_STEPS and whole.steps > 2 * total:
            unseen, behind = math.exp(whole.unseen), whole
        keys, share = keys[kept], share[kept]
        if behind is not None:
            # The most frequent of the parent's words, so far as there is room for them.
            extra = behind.values[0].argsort(descending=True)
            extra = extra[~torch.isin(behind.keys[0][extra], keys)][: max(most - len(keys), 0)]
            keys = torch.cat([keys, behind.keys[0][extra]])
            share = torch.cat([share, torch.zeros(len(extra), dtype=share.dtype)])
            keys, order = keys.sort()
            share = share[order]
            ground = torch.full_like(share, unseen)
            place, there = found_in(behind.keys[0], keys)
            ground[there] = behind.values[0][place[there]].double().exp()
            lowest = math.log(left * unseen)
        else:
            ground, lowest = torch.full_like(share, unseen), math.log(left * unseen)
        fitted = _Fitted([keys], [(share + left * ground).log()], [], lowest, total)
        used = 5 * len(keys)
        for size in range(1, self.order):
            used += self._longer(fitted, tables[size], size, room - used)
        fitted.backs.append(torch.zeros(len(fitted.keys[-1]), dtype=torch.float64))
        return fitted

    def _longer(self, fitted: _Fitted, table: Table, size: int, room: int) -> int:
        """The n-grams of one more order; bytes of the table that they take."""
        keys, counts, histories, shorter = table
        heads, place = histories.unique(return_inverse=True)
        total = torch.zeros(len(heads), dtype=torch.float64).index_add_(0, place, counts.double())
        types = torch.zeros_like(total).index_add_(0, place, torch.ones_like(place).double())
        share = counts / (total + types)[place]
        low, known = found_in(fitted.keys[-1], shorter)
        below = torch.full_like(share, fitted.unseen)
        below[known] = fitted.values[-1][low[known]]
        kept = counts >= LEAST_COUNTS[1]
        if size > 1:  # what is shorter must be there, or it would not be found
            kept &= known & found_in(fitted.keys[-1], histories)[1]
        last = size == self.order - 1
        back = (types / (total + types))[place]
        gain = counts * ((share + back * below.exp()) / (back * below.exp())).log()
        entry, most = (4 if last else 5), int(room * (1.0 if last else 0.5))
        count = max(most // entry, 0)
        if int(kept.sum()) > count:
            best = gain.masked_fill(~kept, -math.inf).argsort(descending=True)[:count]
            kept = torch.zeros_like(kept)
            kept[best] = True
        held = torch.zeros_like(total).index_add_(0, place[kept], share[kept])
        weight = 1.0 - held
        value = (share + weight[place] * below.exp()).log()
        # Histories of what is stored have a weight; those that are no words themselves, too.
        used = heads[torch.unique(place[kept])]
        have = found_in(fitted.keys[-1], used)[1]
        if not bool(have.all()):
            more = used[~have]
            joined, order = torch.cat([fitted.keys[-1], more]).sort()
            values = torch.cat(
                [fitted.values[-1], torch.full((len(more),), fitted.unseen, dtype=torch.float64)]
            )
            fitted.keys[-1], fitted.values[-1] = joined, values[order]
        at, there = found_in(heads, fitted.keys[-1])
        backs = torch.zeros(len(fitted.keys[-1]), dtype=torch.float64)
        backs[there] = weight[at[there]].clamp(min=1e-6).log()
        fitted.backs.append(backs)
        chosen, order = keys[kept].sort()
        fitted.keys.append(chosen)
        fitted.values.append(value[kept][order])
        return entry * len(chosen) + 5 * int((~have).sum())


@dataclass(eq=False)
class _Fitted:
    """A table before it is rounded: of each order keys in order, logarithms, back-off weights."""

    keys: list[Tensor]
    values: list[Tensor]
    backs: list[Tensor]
    unseen: float
    steps: int


class NGramStack(Stack):
    """Tables of many modules: an n-gram is looked for once, for all of them."""

    def __init__(self, order: int, likelihoods: Sequence[Likelihood]) -> None:
        self.order, self.modules = order, len(likelihoods)
        self.unseen = torch.tensor([float(each.facts["unseen"]) for each in likelihoods])
        self.levels = [_Level.of(likelihoods, size) for size in range(order)]

    def __call__(self, seen: Sequences) -> Tensor:
        """As :meth:`Stack.__call__`."""
        grams, row = grams_of(seen, self.order)
        found = self.unseen.expand(len(row), self.modules).clone()
        for size, (level, each) in enumerate(zip(self.levels, grams, strict=True)):
            if size:
                place, module, entry = self.levels[size - 1].hits(each.histories)
                flat = place * self.modules + module
                found.view(-1)[flat] += self.levels[size - 1].backs[entry]
            place, module, entry = level.hits(each.keys)
            found.view(-1)[place * self.modules + module] = level.values[entry]
        total = torch.zeros(len(seen), self.modules)
        return total.index_add_(0, row, found)


@dataclass(frozen=True, eq=False)
class _Level:
    """The n-grams of one order in many tables.

    Args:
        keys: each once, in order.
        starts: where the entries of each begin, and behind the last where they end.
        module: which table an entry is of.
        values, backs: of each entry.
    """

    keys: Tensor
    starts: Tensor
    module: Tensor
    values: Tensor
    backs: Tensor

    @classmethod
    def of(cls, likelihoods: Sequence[Likelihood], size: int) -> _Level:
        """The entries of order ``size + 1``."""
        keys, modules, values, backs = [], [], [], []
        for number, each in enumerate(likelihoods):
            orders = each.facts["orders"]
            part = slice(sum(orders[:size]), sum(orders[: size + 1]))
            found = unpacked(each.tensors["keys"][part])
            keys.append(found)
            modules.append(torch.full((len(found),), number))
            values.append(-each.tensors["values"][part].float() / STEP)
            back = each.tensors["backs"][part]
            back = back if size < len(orders) - 1 else back.new_zeros(len(found))
            backs.append(-back.float() / STEP)
        order = torch.cat(keys).argsort(stable=True)
        joined = torch.cat(keys)[order]
        each_key, counts = torch.unique_consecutive(joined, return_counts=True)
        starts = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
        return cls(
            each_key,
            starts,
            torch.cat(modules)[order],
            torch.cat(values)[order],
            torch.cat(backs)[order],
        )

    def hits(self, keys: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Which of ``keys`` are in which table: place in ``keys``, table and entry of each."""
        place, there = found_in(self.keys, keys & SHORT)
        at = there.nonzero()[:, 0]
        place = place[at]
        counts = self.starts[place + 1] - self.starts[place]
        which = torch.repeat_interleave(counts)
        first = counts.cumsum(0) - counts
        entry = torch.arange(len(which)) - first[which] + self.starts[place][which]
        return at[which], self.module[entry], entry


def merged(first: Table, second: Table) -> Table:
    """Counts of both added up, in the order of keys."""
    keys, counts, histories, shorter = (
        torch.cat([a, b]) for a, b in zip(first, second, strict=True)
    )
    each, place = keys.unique(return_inverse=True)
    total = torch.zeros_like(each).index_add_(0, place, counts)
    history, short = torch.zeros_like(each), torch.zeros_like(each)
    history[place], short[place] = histories, shorter
    return each, total, history, short


def found_in(table: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Where ``keys`` are in a sorted table, and whether they are."""
    if not len(table):
        return torch.zeros_like(keys), torch.zeros_like(keys, dtype=torch.bool)
    place = torch.searchsorted(table, keys).clamp(max=len(table) - 1)
    return place, table[place] == keys


def quantised(logarithms: Tensor) -> Tensor:
    """Logarithms of numbers up to 1 as uint8."""
    return (-logarithms * STEP).round().clamp(0, 255).to(torch.uint8)


def first_of(keys: Tensor) -> Tensor:
    """Places of keys that are each the first of its like, in the order of keys.

    Example:
        >>> first_of(torch.tensor([7, 3, 7])).tolist()
        [1, 0]
    """
    each, place = keys.unique(return_inverse=True)
    first = torch.full_like(each, len(keys))
    return first.scatter_reduce_(0, place, torch.arange(len(keys)), "amin")


def packed(keys: Tensor) -> Tensor:
    """Hashes of 24 bits as three bytes each, uint8 ``(keys, 3)``.

    Example:
        >>> unpacked(packed(torch.tensor([1, 70_000]))).tolist()
        [1, 70000]
    """
    shifted = (keys & SHORT)[:, None] >> torch.tensor([0, 8, 16])
    return (shifted & 0xFF).to(torch.uint8)


def unpacked(found: Tensor) -> Tensor:
    """What :func:`packed` made bytes of, int64."""
    return (found.long() << torch.tensor([0, 8, 16])).sum(dim=1)
