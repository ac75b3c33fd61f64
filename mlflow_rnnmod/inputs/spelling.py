"""Whether tokens are spelled as what stands beside them asks, or as their neighbours in the list.

Words that end alike stand beside the same words: so it is where ids are the vocabulary's own. Where
they are shifted by one, each word is spelled as the one beside it in the vocabulary, which may be
any. How far spellings tell what stands beside them is asked of many shifts; the right one stands
out among them. No word needs to be known for that, and nothing of what is right is assumed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

SURE, LIKELY = 8.0, 5.0
"""Standard deviations by which one shift surely, and probably, stands out among others."""
_FAR = 25
_BESIDE = 100
_KINDS = 40
_TOKENS, _PAIRS = 500, 2_000
_CLEAR = 3.0


def shifted(rows: Sequence[Sequence[int]], tokens: Sequence[str]) -> tuple[int, float]:
    """What ids have to be less of for spellings to go with what stands beside them.

    Gives 1 or -1, and by how many standard deviations it stands out; 0 and 0 where ids as they are
    stand out, or too little is there to tell.

    Example:
        >>> shifted([[1, 2, 3]], ["is", "the", "walking"])
        (0, 0.0)
    """
    beside, ids = _pairs(rows)
    if len(tokens) < _TOKENS or len(ids) < _PAIRS:
        return 0, 0.0
    kinds = _kinds(tokens)
    told = {shift: _told(beside, ids - shift, kinds) for shift in range(-_FAR, _FAR + 1)}
    others = torch.tensor([found for shift, found in told.items() if abs(shift) > 1])
    spread = max(float(others.std()), 1e-3 * float(others.mean()), 1e-9)
    out = {shift: (told[shift] - float(others.mean())) / spread for shift in (-1, 0, 1)}
    shift = max((1, -1), key=lambda each: out[each])
    if out[shift] < LIKELY or out[shift] < _CLEAR * out[0]:
        return 0, 0.0
    return shift, out[shift]


def _pairs(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Which frequent ids stand before and behind which ids; each pair once, or a few would rule."""
    counts = Counter(i for row in rows for i in row)
    place = {i: n for n, (i, _) in enumerate(counts.most_common(_BESIDE))}
    found = set()
    for row in rows:
        for one, other in zip(row, row[1:], strict=False):
            if one in place:
                found.add((place[one], other))
            if other in place:
                found.add((_BESIDE + place[other], one))
    pairs = torch.tensor(sorted(found), dtype=torch.long).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _kinds(tokens: Sequence[str]) -> Tensor:
    """How each token is spelled, as a number below ``_KINDS``; 0 for what is rare."""
    named = [_kind(token) for token in tokens]
    common = [kind for kind, _ in Counter(named).most_common(_KINDS - 1)]
    numbers = {kind: number for number, kind in enumerate(common, 1)}
    return torch.tensor([numbers.get(kind, 0) for kind in named])


def _kind(token: str) -> str:
    """Its ending and whether it has a capital letter; or that it is short, a number, or a mark."""
    word = token.strip("\u2581 ")
    if not word[-1:].isalpha():
        return "number" if word[-1:].isdigit() else "mark"
    if len(word) < 3:
        return "short"
    return f"{word[0] != word[0].lower()} {word[-2:].lower()}"


def _told(beside: Tensor, ids: Tensor, kinds: Tensor) -> float:
    """Nats that a token's spelling tells of what stands beside it."""
    known = (ids >= 0) & (ids < len(kinds))
    joint = torch.bincount(
        beside[known] * _KINDS + kinds[ids[known]], minlength=2 * _BESIDE * _KINDS
    )
    shares = joint.double().reshape(2 * _BESIDE, _KINDS) / max(int(joint.sum()), 1)
    alone = shares.sum(1, keepdim=True) * shares.sum(0, keepdim=True)
    seen = shares > 0
    return float((shares[seen] * (shares[seen] / alone[seen]).log()).sum())
