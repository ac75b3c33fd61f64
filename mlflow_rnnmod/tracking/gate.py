"""The gate: what two models answer on the same rows, label by label, and whether one lost much.

A label's figure is its F1, so that it loses where it is missed and where it is answered wrongly.
Both models answer the same rows, so differences are paired: the interval of a difference is that of
a ratio's linearization over rows, and McNemar's exact test asks whether one model is right about
the label on more rows where only one of them is (Dietterich, Neural Computation 10, 1998).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from rich.table import Table

    from mlflow_rnnmod.answers import Answer

OVERALL = "all labels"
MIN_ROWS = 20
"""Rows of a label below which nothing can be told of it."""
_Z = 1.959964
_MANY = 1000


@dataclass(frozen=True)
class Change:
    """One label's figure in the old model and in the new one.

    Args:
        label: the label.
        rows: how many rows (of tags: steps) carry it.
        old: the old model's figure, a share from 0 to 1; NaN where there is nothing to tell.
        new: the new model's.
        low: lower end of the difference's interval, at 95 %.
        high: its upper end.
        p: McNemar's exact two-sided p.
        better: answers that only the new model has right.
        worse: answers that only the old model has right.
    """

    label: str
    rows: int
    old: float
    new: float
    low: float
    high: float
    p: float
    better: int
    worse: int

    @property
    def difference(self) -> float:
        """New less old, a share."""
        return self.new - self.old

    def to_dict(self) -> dict[str, Any]:
        """As JSON types, shares rounded to the fifth digit."""
        shares = {name: getattr(self, name) for name in ("old", "new", "difference", "low", "high")}
        return {
            "label": self.label,
            "rows": self.rows,
            **{k: None if math.isnan(v) else round(v, 5) for k, v in shares.items()},
            "p": None if math.isnan(self.p) else float(f"{self.p:.3g}"),
            "better": self.better,
            "worse": self.worse,
        }


@dataclass(frozen=True)
class Comparison:
    """Two models on the same rows.

    Args:
        overall: over all rows: accuracy, or micro-F1 where an answer is several labels.
        labels: each label of either, F1.
        metric: name of the figure over all rows.
        rows: how many there were.
    """

    overall: Change
    labels: tuple[Change, ...]
    metric: str
    rows: int
    figure: str = "F1"
    strange: tuple[str, ...] = ()
    """Labels that rows have and neither model."""

    def lost(self, max_drop: float) -> list[Change]:
        """Labels that lost more than ``max_drop`` points, those that lost most first."""
        found = [c for c in self.labels if -100 * c.difference > max_drop + 1e-9]
        return sorted(found, key=lambda change: change.difference)

    def untold(self, min_rows: int = MIN_ROWS) -> list[Change]:
        """Labels with fewer rows than that."""
        return [change for change in self.labels if change.rows < min_rows]

    def refusal(self, max_drop: float, min_rows: int = MIN_ROWS) -> str | None:
        """Why the new model may not take the old one's place, with labels and amounts."""
        from mlflow_rnnmod.pages.wording import some

        reasons = []
        if lost := self.lost(max_drop):
            told = [
                f"{c.label!r} {100 * c.old:.1f} to {100 * c.new:.1f} "
                f"({100 * c.difference:+.1f} points of {self.figure}, p={c.p:.2g}, {c.rows} rows)"
                for c in lost
            ]
            reasons.append(f"more than {max_drop:g} points were lost by {some(told, 20)}")
        if few := self.untold(min_rows):
            told = [f"{c.label!r} ({c.rows})" for c in few]
            reasons.append(
                f"too few rows to tell for {some(told, 20)}; expected {min_rows} of each label "
                "(see min_rows)"
            )
            if self.strange:
                strange = ", ".join(map(repr, self.strange[:5]))
                reasons.append(f"rows are labelled {strange}, which is no label of either model")
        return "; ".join(reasons) or None

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "metric": self.metric,
            "figure": self.figure,
            "rows": self.rows,
            "overall": self.overall.to_dict(),
            "labels": [change.to_dict() for change in self.labels],
        }

    @property
    def worst_first(self) -> tuple[Change, ...]:
        """Labels, those that lost most first."""
        return tuple(
            sorted(self.labels, key=lambda c: 9.0 if math.isnan(c.difference) else c.difference)
        )

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """A table: header, and a row for all labels and for each."""
        header = ["", "rows", "old", "new", "difference", "95 % interval", "McNemar p"]
        first = [f"{self.overall.label} ({self.metric})", *_cells(self.overall)]
        return header, [first, *([c.label, *_cells(c)] for c in self.worst_first)]

    def __rich__(self) -> Table:
        """The table, labels that lost most first."""
        from rich.table import Table
        from rich.text import Text

        header, rows = self.cells()
        table = Table(title=f"{self.figure} of each label, in points, on {self.rows} rows")
        for number, name in enumerate(header):
            table.add_column(name, justify="right" if number else "left", overflow="fold")
        for row in rows:
            table.add_row(*map(Text, row))
        return table

    def markdown(self, longest: int = 30) -> str:
        """The table for a version's description."""
        from mlflow_rnnmod.pages.markdown import escape
        from mlflow_rnnmod.pages.markdown import table as markdown_table

        header, rows = self.cells()
        # MLflow's tables have no space between their columns.
        shown = [
            [escape(label), *(f"&emsp;{escape(cell)}" for cell in cells)]
            for label, *cells in rows[: longest + 1]
        ]
        names = [f"&emsp;{name}" for name in header[1:]]
        found = markdown_table(["&nbsp;" * 12, *names], shown, "lrrrrrr")
        left = len(rows) - len(shown)
        return found + (f"\n\n{left} labels that lost less are left out." if left else "")


def _cells(c: Change) -> list[str]:
    def points(share: float, sign: str = "") -> str:
        return "-" if math.isnan(share) else f"{100 * share:{sign}.1f}"

    interval = f"{points(c.low, '+')} to {points(c.high, '+')}"
    return [
        str(c.rows),
        points(c.old),
        points(c.new),
        points(c.difference, "+"),
        "-" if math.isnan(c.low) else interval,
        "-" if math.isnan(c.p) else f"{c.p:.2g}",
    ]


def compare(
    truth: Sequence[Any],
    old: Sequence[Any],
    new: Sequence[Any],
    labels: Sequence[str],
    answer: Answer,
    end_label: str | None = None,
) -> Comparison:
    """What an old and a new model answered for the same rows.

    Args:
        truth: what is right for each row: a label, or a list of labels.
        old: the old model's answers, likewise.
        new: the new model's.
        labels: of either model; all others count as "none of these".
        answer: the kind of answer.
        end_label: the label that ends a list, which does not count.

    Example:
        >>> from mlflow_rnnmod.answers import answer_of
        >>> found = compare(["a", "b"] * 20, ["a", "a"] * 20, ["a", "b"] * 20, ["a", "b"],
        ...                 answer_of("label"))
        >>> [(c.label, c.rows, round(c.old, 2), c.new) for c in found.labels]
        [('a', 20, 0.67, 1.0), ('b', 20, 0.0, 1.0)]
        >>> found.refusal(max_drop=0.5), found.overall.better
        (None, 20)
    """
    names = [label for label in labels if label != end_label]
    tables, row = _tables((truth, old, new), names, answer)
    wanted, said_old, said_new = tables
    first, second = ((wanted == said).all(axis=1) for said in (said_old, said_new))
    if answer.metric == "accuracy":
        counts = [(right.astype(float), np.ones(len(wanted))) for right in (first, second)]
    else:
        counts = [_f1(wanted, said, all_labels=True) for said in (said_old, said_new)]
    overall = _change(OVERALL, len(wanted), counts, first, second, row)
    found = []
    for number, label in enumerate(names):
        columns = [table[:, number] for table in tables]
        counts = [_f1(columns[0], said) for said in columns[1:]]
        before, after = (columns[0] == said for said in columns[1:])
        found.append(_change(label, int(columns[0].sum()), counts, before, after, row))
    rows = int(row[-1]) + 1 if len(row) else 0
    metric = answer.metric.replace("f1", "F1")
    known = {*labels, None}
    said = union(*([cell] if isinstance(cell, str) else cell for cell in truth))
    strange = tuple(label for label in said if label not in known)
    return Comparison(overall, tuple(found), metric, rows, strange=strange)


_Pair = tuple[np.ndarray, np.ndarray]


def _f1(wanted: np.ndarray, said: np.ndarray, all_labels: bool = False) -> _Pair:
    """What F1 divides, for each observation: twice the hits, and those that are there or said."""
    top = 2.0 * (wanted & said)
    bottom = wanted.astype(float) + said
    return (top.sum(axis=1), bottom.sum(axis=1)) if all_labels else (top, bottom)


def _change(
    label: str,
    support: int,
    counts: Sequence[_Pair],
    first: np.ndarray,
    second: np.ndarray,
    row: np.ndarray,
) -> Change:
    """Figures of one label from what each observation adds above and below the fraction line."""
    shares, residuals = [], []
    for top, bottom in counts:
        total = float(bottom.sum())
        share = float(top.sum()) / total if total else math.nan
        shares.append(share)
        residuals.append((top - share * bottom) / total if total else np.zeros(len(top)))
    known = [share for share in shares if not math.isnan(share)]
    # A label that one of them never answers, and that no row has, is told by the other alone.
    old, new = ((0.0 if known else math.nan) if math.isnan(share) else share for share in shares)
    by_row = np.bincount(row, residuals[1] - residuals[0]) if len(row) else np.zeros(0)
    n = len(by_row)
    spread = math.nan
    if n > 1 and known:
        spread = _Z * math.sqrt(float((by_row**2).sum()) * n / (n - 1))
    better, worse = int((second & ~first).sum()), int((first & ~second).sum())
    change = new - old
    low, high = max(-1.0, change - spread), min(1.0, change + spread)
    return Change(
        label,
        support,
        old,
        new,
        low,
        high,
        mcnemar(better, worse) if n else math.nan,
        better,
        worse,
    )


def mcnemar(better: int, worse: int) -> float:
    """The exact two-sided p of so many rows that one model alone has right, and the other alone.

    Example:
        >>> mcnemar(0, 0), mcnemar(1, 5)
        (1.0, 0.21875)
    """
    n, few = better + worse, min(better, worse)
    if n > _MANY:  # the normal distribution with a correction for continuity
        return math.erfc(max(0.0, abs(better - worse) - 1) / math.sqrt(2 * n))
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(few + 1)) / 2**n)


def _tables(
    answers: Sequence[Sequence[Any]], names: Sequence[str], answer: Answer
) -> tuple[list[np.ndarray], np.ndarray]:
    """For truth, old and new which labels each observation has; and the row it belongs to."""
    index = {label: number for number, label in enumerate(names)}
    lengths = {len(rows) for rows in answers}
    if len(lengths) > 1:
        raise ValueError(f"There are {lengths} answers; expected as many of each.")
    if answer.each_step:
        _check_steps(answers)
        known = [np.array([label is not None for label in right], bool) for right in answers[0]]
        row = np.repeat(np.arange(len(known)), [int(told.sum()) for told in known])
        flat = [
            [[y] for cells, told in zip(rows, known, strict=True) for y in compress(cells, told)]
            for rows in answers
        ]
    else:
        flat = [[[cell] if isinstance(cell, str) else cell for cell in rows] for rows in answers]
        row = np.arange(len(answers[0]))
    tables = []
    for cells in flat:
        table = np.zeros((len(cells), len(names)), dtype=bool)
        for number, cell in enumerate(cells):
            for label in cell:
                if label in index:
                    table[number, index[label]] = True
        tables.append(table)
    return tables, row


def _check_steps(answers: Sequence[Sequence[Any]]) -> None:
    for number, (right, *said) in enumerate(zip(*answers, strict=True)):
        if any(len(cells) != len(right) for cells in said):
            raise ValueError(
                f"Row {number} has {len(right)} right labels, and {[len(s) for s in said]} were "
                "answered; expected a label for each step (None where it is not known)."
            )


def union(*labels: Iterable[str]) -> list[str]:
    """All labels, each once, in order."""
    return list(dict.fromkeys(label for some in labels for label in some))


def by_label(comparison: Comparison) -> Mapping[str, Change]:
    """Changes by label."""
    return {change.label: change for change in comparison.labels}
