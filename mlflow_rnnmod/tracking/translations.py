"""The gate for models that translate: BLEU of each language, old and new on the same sources.

The interval of a difference and its p are a paired bootstrap's (Koehn, EMNLP 2004), over the counts
of n-grams that BLEU is made of, so that nothing is translated or counted twice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sacrebleu.metrics import BLEU

from mlflow_rnnmod.tracking.gate import OVERALL, Change, Comparison, union

_DRAWS = 1000
_SEED = 0
_ORDER = 4


def compare_translations(
    truth: Sequence[Mapping[str, str]],
    old: Sequence[Any],
    new: Sequence[Any],
    old_labels: Sequence[str],
    new_labels: Sequence[str],
) -> Comparison:
    """What an old and a new model translated.

    ``old``: the old model's, a text where it knows one language, else by language.

    Example:
        >>> right = [{"de": "das ist ein kleines altes Haus"}] * 20
        >>> found = compare_translations(
        ...     right, ["das ist ein Haus"] * 20, [r["de"] for r in right], ["de"], ["de"])
        >>> found.labels[0].new, found.labels[0].difference > 0.3
        (1.0, True)
    """
    changes = []
    for label in union(old_labels, new_labels):
        known = [i for i, right in enumerate(truth) if label in right]
        right = [truth[i][label] for i in known]
        counts = [
            _counts([_of(said[i], label, labels) for i in known], right)
            for said, labels in ((old, old_labels), (new, new_labels))
        ]
        changes.append(_change(label, *counts))
    told = [c for c in changes if not math.isnan(c.difference)]

    def mean(name: str) -> float:
        return sum(getattr(c, name) for c in told) / len(told) if told else math.nan

    rows = sum(change.rows for change in changes)
    better, worse = sum(c.better for c in changes), sum(c.worse for c in changes)
    ends = (math.nan, math.nan, math.nan)
    overall = Change(OVERALL, rows, mean("old"), mean("new"), *ends, better, worse)
    return Comparison(overall, tuple(changes), "mean BLEU", len(truth), "BLEU")


def _of(said: Any, label: str, labels: Sequence[str]) -> str:
    """The translation into one language; nothing where the model does not know it."""
    found = said.get(label, "") if isinstance(said, Mapping) else said if label in labels else ""
    if not isinstance(found, str):
        raise ValueError(
            f"The translations are {found!r:.60}; expected texts: a parent without a tokenizer "
            "writes token ids, which BLEU can't be counted of."
        )
    return found


def _counts(said: Sequence[str], right: Sequence[str]) -> np.ndarray:
    """For each sentence: n-grams that are right, n-grams, and both lengths; ``(rows, 10)``."""
    bleu = BLEU(effective_order=True)
    rows = []
    for one, other in zip(said, right, strict=True):
        found = bleu.sentence_score(one, [other])
        rows.append([*found.counts, *found.totals, found.sys_len, found.ref_len])
    return np.array(rows, dtype=float).reshape(len(said), 2 * _ORDER + 2)


def _bleu(sums: np.ndarray) -> np.ndarray:
    """Corpus BLEU, a share, of summed counts ``(..., 10)``, smoothed as sacrebleu does."""
    hits, totals = sums[..., :_ORDER], sums[..., _ORDER : 2 * _ORDER]
    said, right = sums[..., -2], sums[..., -1]
    # An order without a hit counts as half a hit, the next one as a quarter, and so on.
    missed = np.cumsum(hits == 0, axis=-1)
    smooth = np.where(hits == 0, 0.5**missed, hits)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(smooth / totals).mean(axis=-1)
        brevity = np.where(said < right, 1 - right / said, 0.0)
        known = (said > 0) & (totals > 0).all(axis=-1) & (hits[..., 0] > 0)
        return np.where(known, np.exp(np.where(known, logs + brevity, 0.0)), 0.0)


def _change(label: str, old: np.ndarray, new: np.ndarray) -> Change:
    n = len(old)
    if n == 0:
        return Change(label, 0, *(math.nan,) * 5, 0, 0)
    before, after = float(_bleu(old.sum(0))), float(_bleu(new.sum(0)))
    draws = np.random.default_rng(_SEED).multinomial(n, np.full(n, 1 / n), size=_DRAWS)
    drawn = _bleu(draws @ new) - _bleu(draws @ old)
    low, high = (float(x) for x in np.quantile(drawn, (0.025, 0.975)))
    side = min(float((drawn <= 0).mean()), float((drawn >= 0).mean()))
    sentences = _bleu(new) - _bleu(old)
    better, worse = int((sentences > 0).sum()), int((sentences < 0).sum())
    return Change(label, n, before, after, low, high, min(1.0, 2 * side), better, worse)
