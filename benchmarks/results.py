"""Rows of a benchmark: written as they come, read back to go on, averaged over seeds."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.page.machine import machine


class RowFile:
    """A JSON file ``{"rows": [...]}`` that grows row by row; an interrupted run goes on with it."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        if path is not None and path.exists():
            self.rows = json.loads(path.read_text())["rows"]

    def add(self, row: dict[str, Any]) -> None:
        """Keep one more row, in memory and on disk; it says where it comes from."""
        self.rows.append({**row, "machine": machine(), "load": os.getloadavg()[0]})
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            part = self.path.with_suffix(".part")
            part.write_text(json.dumps({"rows": self.rows}, indent=1))
            part.replace(self.path)

    def where(self, **wanted: Any) -> list[dict[str, Any]]:
        """Rows with these values."""
        return [r for r in self.rows if all(r.get(k) == v for k, v in wanted.items())]


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error (nan for fewer than two values)."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, math.nan
    variance = sum((v - mean) ** 2 for v in values) / (len(values) - 1)
    return mean, math.sqrt(variance / len(values))


def shown(values: Sequence[float], signed: bool = True) -> str:
    """Mean and standard error, for a table."""
    mean, error = mean_and_error(values)
    text = f"{mean:+.2f}" if signed else f"{mean:.2f}"
    return text if math.isnan(error) else f"{text} ± {error:.2f}"


def print_rows(rows: Sequence[dict[str, Any]], by: Sequence[str], title: str) -> None:
    """A table of means over seeds: a line for each value of ``by``, in the rows' order."""
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row.get(name) for name in by), []).append(row)
    columns = ["delta", "control_delta", "net"]
    recurrent = all("recurrent_weights_kept" in row for row in rows)
    weights, kept_words = "recurrent_weights_kept", "W_hh kept %"
    if not recurrent:
        images = all("multiply_adds_kept" in row for row in rows)
        weights = "multiply_adds_kept" if images else "weights_kept"
        kept_words = "multiply-adds kept %" if images else "weights kept %"
    top = ["top5"] if all("top5" in row for row in rows) else []
    shares = ["actual_removal", "units_kept", weights, "jaccard"]
    numbers = [
        "seeds",
        "score",
        *columns,
        "removed %",
        kept_words,
        "jaccard",
        *top,
    ]
    table = _table(title, by, numbers)
    for key, found in groups.items():
        removed, _, kept, overlap = (sum(r[name] for r in found) / len(found) for name in shares)
        table.add_row(
            *(_cell(value) for value in key),
            str(len(found)),
            shown([r["score"] for r in found], signed=False),
            *(shown([r[name] for r in found]) for name in columns),
            f"{100 * removed:.0f}",
            f"{100 * kept:.0f}",
            f"{overlap:.2f}",
            *(shown([r[n] - r[f"parent_{n}"] for r in found]) for n in top),
        )
    Console(width=160).print(table)


def print_reuse(rows: Sequence[dict[str, Any]], title: str) -> None:
    """A table of modules against models from scratch: a line for each data set and rule."""
    numbers = ("pairs", "modules", "from scratch", "delta", "worst", "joint rows")
    beside = {
        "without likelihood": "open_score",
        "likelihood alone": "likelihood_score",
        "scratch with likelihood": "scratch_likelihood_score",
    }
    beside = {k: v for k, v in beside.items() if any(v in row for row in rows)}
    numbers = (*numbers, *beside, "its label", "paper", "training, s")
    table = _table(title, ("data set", "rule", "score"), numbers)
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["dataset"], row["rule"], row["score_strategy"]), []).append(row)
    for key, found in groups.items():
        paper = found[0].get("paper_delta")
        joint = [r["joint_score"] - r["scratch_score"] for r in found if "joint_score" in r]
        own = [r["label_delta"] for r in found if "label_delta" in r]
        seconds = [r["scratch_seconds"] for r in found if "scratch_seconds" in r]
        table.add_row(
            *key,
            str(len(found)),
            shown([r["score"] for r in found], signed=False),
            shown([r["scratch_score"] for r in found], signed=False),
            shown([r["delta"] for r in found]),
            f"{min(r['delta'] for r in found):+.2f}",
            shown(joint) if joint else "",
            *(
                shown([r[v] - r["scratch_score"] for r in found]) if v in found[0] else ""
                for v in beside.values()
            ),
            shown(own) if own else "",
            "" if paper is None else f"{paper:+.2f}",
            f"{sum(seconds) / len(seconds):.0f}" if seconds else "",
        )
    Console(width=160).print(table)


def print_scenarios(rows: Sequence[dict[str, Any]], title: str) -> None:
    """A table of the scenarios: modules put together, against a model trained again."""
    numbers = ("seeds", "modules", "trained again", "delta", "paper", "training, s", "again, s")
    table = _table(title, ("data set", "module", "rule"), numbers)
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["dataset"], row["pair"], row["rule"]), []).append(row)
    for key, found in groups.items():
        new, again = (
            sum(r[name] for r in found) / len(found) for name in ("new_seconds", "scratch_seconds")
        )
        table.add_row(
            *key,
            str(len(found)),
            shown([r["score"] for r in found], signed=False),
            shown([r["scratch_score"] for r in found], signed=False),
            shown([r["delta"] for r in found]),
            " / ".join(f"{delta:+.2f}" for delta in found[0]["paper_deltas"]),
            f"{new:.0f}",
            f"{again:.0f}",
        )
    Console(width=160).print(table)


def _table(title: str, words: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table(title=title)
    for name in (*words, *numbers):
        justify: Any = "left" if name in words else "right"
        table.add_column(name.replace("_", " "), justify=justify)
    return table


def _cell(value: Any) -> str:
    return f"{value:.0%}" if isinstance(value, float) else "" if value is None else str(value)
