"""The page of parents trained apart, from the rows of ``benchmarks.paper apart``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.results import mean_and_error, shown

OPENING = """# Results: parents trained apart

Modules of two parents that learned different labels, put together without any joint row, against
one parent that learned all of them; points of accuracy (micro-F1, where there are several labels)
on test splits. Written by `python -m benchmarks.paper apart SET --json FILE --page
docs/results_apart.md --data-dir DIR`. Weights were chosen on validation rows
([decisions](decisions.md)).

- *hybrid*: open head, energy and likelihood, the default; *open*: without likelihoods, the default
  before; *likelihood*: the likelihoods alone, no network; *bayes*: log-probability inside the
  parent, and likelihoods; *joint*: scales fitted on 300 rows of all labels.
- *one parent*: modules of the parent that learned all labels; *margin* is how they are compared by
  default.
- *refused*: CLINC's out-of-scope queries less familiar than 5 % of the validation rows are.
"""
_ORDER = ("hybrid", "open", "likelihood", "bayes", "margin", "logit", "probability")


def page(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: a table for each data set, a line for each score."""
    parts = [OPENING]
    for name in dict.fromkeys(row["dataset"] for row in rows):
        mine = [row for row in rows if row["dataset"] == name]
        whole = {row["seed"]: row["whole"] for row in mine}
        parts.append(f"## {name}: one parent {shown(list(whole.values()), signed=False)}\n")
        for one in (False, True):
            found = [row for row in mine if (row["split"] == "one parent") is one]
            parts.append("\n".join(_table(found, one)) + "\n")
    return "\n".join(parts)


def _table(rows: Sequence[dict[str, Any]], one: bool) -> list[str]:
    found = sorted({row["score"] for row in rows}, key=_place)
    lines = [
        f"| {'one parent' if one else 'parents trained apart'} | mean | worst | of | refused, % |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for score in found:
        own = [row for row in rows if row["score"] == score]
        deltas = [row["accuracy"] - row["whole"] for row in own]
        refused = [row["refused"] for row in own if row["refused"] is not None]
        told = f"{mean_and_error(refused)[0]:.0f}" if refused else ""
        lines.append(f"| {score} | {shown(deltas)} | {min(deltas):+.2f} | {len(deltas)} | {told} |")
    return lines


def _place(score: str) -> tuple[int, str]:
    return (_ORDER.index(score) if score in _ORDER else len(_ORDER), score)
