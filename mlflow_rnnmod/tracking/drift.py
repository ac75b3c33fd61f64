"""Drift: whether what is served still looks, to each module, like the rows it was expected on.

A composite carries how its scores - and its modules' likelihoods, where all have one - were spread
on rows that it was measured on: for each module ten bins that held a tenth of them each, and how
often its label was answered. Served rows are put into the same bins; no right answers are needed.
How far the two are apart is their population stability index, sum of (served - expected)
log(served / expected); below 0.1 counts as the same and above 0.25 as another world by common
usage, but few rows scatter: what chance explains (a chi-squared test between both counts) is not
called drift.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from mlflow.exceptions import MlflowException
from torch import Tensor

from mlflow_rnnmod.composition import Composite
from mlflow_rnnmod.composition.evidence import space_of
from mlflow_rnnmod.storage.module_parts import knowledge
from mlflow_rnnmod.tracking import fetch
from mlflow_rnnmod.tracking.given import Given, read_given
from mlflow_rnnmod.tracking.recipes import EXPECTED

if TYPE_CHECKING:
    from rich.table import Table

BINS = 10
LEAST = 50
"""Scores below which nothing is said of them."""
SAME, MOVED, DRIFTED, UNKNOWN = "same", "moved", "drifted", "unknown"
_LIMITS = ((0.25, DRIFTED), (0.1, MOVED))
_CHANCE = 0.001
_DIGITS = 16


@dataclass(frozen=True)
class Spread:
    """How one module's scores were spread.

    Args:
        edges: of the bins, ``BINS - 1`` scores.
        counts: scores in each bin.
        share: of the rows (or steps) that answered its label.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    share: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {"edges": list(self.edges), "counts": list(self.counts), "share": self.share}


@dataclass(frozen=True)
class ModuleDrift:
    """What is to be said of one module.

    Args:
        label: the module's.
        what: of which number: ``"score"``, or ``"likelihood"``.
        verdict: ``"same"``, ``"moved"``, ``"drifted"``; ``"unknown"`` where nothing was expected of
            this module, or there are too few rows.
        psi: population stability index.
        p: of a chi-squared test between what was expected and what is served.
        expected: spread on the rows it was expected on.
        served: spread of what is served, over the same bins.
    """

    label: str
    what: str
    verdict: str
    psi: float
    p: float
    expected: Spread | None
    served: Spread | None

    @property
    def name(self) -> str:
        """For people."""
        return self.label if self.what == "score" else f"{self.label} ({self.what})"

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        spreads = {"expected": self.expected, "served": self.served}
        return {
            "label": self.label,
            "what": self.what,
            "verdict": self.verdict,
            "psi": None if math.isnan(self.psi) else round(self.psi, 4),
            "p": None if math.isnan(self.p) else float(f"{self.p:.3g}"),
            **{k: None if s is None else s.to_dict() for k, s in spreads.items()},
        }


@dataclass(frozen=True)
class Drift:
    """What is to be said of a composite.

    Args:
        modules: those that drifted most first.
        rows: served.
        expected_rows: that were expected.
    """

    modules: tuple[ModuleDrift, ...]
    rows: int
    expected_rows: int

    @property
    def drifted(self) -> tuple[ModuleDrift, ...]:
        """Modules to which what is served looks otherwise."""
        return tuple(found for found in self.modules if found.verdict == DRIFTED)

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        modules = [found.to_dict() for found in self.modules]
        return {"rows": self.rows, "expected_rows": self.expected_rows, "modules": modules}

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """A table: header, and a row for each module."""
        header = ["label", "of", "verdict", "PSI", "p", "answered before", "answered now"]
        rows = []
        for m in self.modules:
            shares = [None if s is None else s.share for s in (m.expected, m.served)]
            told = ["-" if s is None or math.isnan(s) else f"{100 * s:.1f} %" for s in shares]
            numbers = [("-" if math.isnan(x) else f"{x:.2g}") for x in (m.psi, m.p)]
            rows.append([m.label, m.what, m.verdict, *numbers, *told])
        return header, rows

    def __rich__(self) -> Table:
        """The table."""
        from rich.table import Table
        from rich.text import Text

        header, rows = self.cells()
        table = Table(*header, title=f"{self.rows} rows, beside {self.expected_rows} expected ones")
        for row in rows:
            table.add_row(*map(Text, row))
        return table


def with_expected(composite: Composite, inputs: Sequence[Any]) -> Composite:
    """The composite with how its scores are spread on some rows; nothing that it answers changes.

    Args:
        composite: of modules that have scores; one that translates is given back as it is.
        inputs: rows as it will be asked, right answers are not needed.
    """
    if not composite.answer.scored or len(inputs) < LEAST:
        return composite
    found = _observed(composite, inputs)
    modules = {
        label: {"of": _mark(composite, label), **{k: s.to_dict() for k, s in spreads.items()}}
        for label, spreads in found.items()
    }
    expected = {"rows": len(inputs), "modules": modules}
    return replace(composite, parameters={**composite.parameters, EXPECTED: expected})


def drift(thing: Composite | str | os.PathLike[str], data: Any, reference: Any = None) -> Drift:
    """Whether what is served still looks like what a composite was measured on.

    Args:
        thing: a composite, or its URI.
        data: served rows (see :func:`~mlflow_rnnmod.tracking.given.read_given`).
        reference: rows to compare with instead of those that the composite remembers.

    Raises:
        MlflowException: if it is no composite, remembers nothing and no reference is given, or the
            data can't be read.

    Example::

        mlflow_rnnmod.drift("models:/names@champion", "served.jsonl").drifted
    """
    composite = fetch.load(thing) if isinstance(thing, str | os.PathLike) else thing
    if not isinstance(composite, Composite) or not composite.answer.scored:
        raise MlflowException.invalid_parameter_value(
            f"{thing!r:.120} is no composite with scores; expected one."
        )
    if reference is not None:
        rows = _rows(reference, composite)
        composite = with_expected(composite, rows.inputs)
        if EXPECTED not in composite.parameters:
            raise MlflowException.invalid_parameter_value(
                f"reference has {len(rows)} rows; expected at least {LEAST}."
            )
    expected = composite.parameters.get(EXPECTED)
    if expected is None:
        raise MlflowException.invalid_parameter_value(
            f"{thing!r:.120} does not remember what its scores looked like. Give rows that it was "
            "made from to compare with: --reference FILE of rnnmod drift, reference= in Python. "
            "promote, and replace and compose with data, write it down; in Python with_expected."
        )
    served = _rows(data, composite)
    observed = _observed(composite, served.inputs, expected["modules"])
    found = [
        _judged(label, what, _spread(expected, composite, label, what), spread)
        for label, spreads in observed.items()
        for what, spread in spreads.items()
    ]
    order = {DRIFTED: 0, MOVED: 1, SAME: 2, UNKNOWN: 3}
    found.sort(key=lambda m: (order[m.verdict], -m.psi if m.psi == m.psi else 0.0))
    return Drift(tuple(found), len(served), int(expected["rows"]))


def _rows(data: Any, composite: Composite) -> Given:
    return read_given(data, composite, targets=False)


def _mark(composite: Composite, label: str) -> str:
    """What scores of a label depend on: its module, and how they are made."""
    module = composite.modules[composite.labels.index(label)]
    return f"{composite.score}:{knowledge(module)[:_DIGITS]}"


def _spread(
    expected: Mapping[str, Any], composite: Composite, label: str, what: str
) -> Spread | None:
    found = expected["modules"].get(label)
    if found is None or what not in found or found["of"] != _mark(composite, label):
        return None  # another module answers for the label by now
    body = found[what]
    return Spread(tuple(body["edges"]), tuple(body["counts"]), float(body["share"]))


def _observed(
    composite: Composite, inputs: Sequence[Any], expected: Mapping[str, Any] | None = None
) -> dict[str, dict[str, Spread]]:
    """Spreads of each module's numbers, over the bins that were expected, or over new ones."""
    scores = composite.scores(list(inputs))
    answers = composite.predict(list(inputs))
    cells = [cell if isinstance(cell, list) else [cell] for cell in answers]
    each = composite.answer.each_step
    total = sum(map(len, cells)) if each else len(cells)
    numbers = {"score": scores.flatten(0, -2) if scores.ndim > 2 else scores}
    if space_of(composite.modules) is not None:
        numbers["likelihood"] = composite.evidence.standard(composite.checked(list(inputs)))
    found: dict[str, dict[str, Spread]] = {}
    for position, label in enumerate(composite.labels):
        said = sum(cell.count(label) if each else label in cell for cell in cells)
        share = said / total if total else math.nan
        known = (expected or {}).get(label, {})
        found[label] = {}
        for what, table in numbers.items():
            values = table[:, position]
            values = values[values.isfinite()].double()
            edges = known.get(what, {}).get("edges")
            found[label][what] = _counted(values, edges, share)
    return found


def _counted(values: Tensor, edges: Sequence[float] | None, share: float) -> Spread:
    if edges is None:
        levels = torch.linspace(0, 1, BINS + 1, dtype=torch.float64)[1:-1]
        edges = torch.quantile(values[: 10**7], levels).tolist() if len(values) else [0.0] * 9
    bins = torch.bucketize(values, torch.tensor(edges, dtype=torch.float64), right=True)
    counts = torch.bincount(bins, minlength=len(edges) + 1)
    return Spread(tuple(map(float, edges)), tuple(counts.tolist()), share)


def _judged(label: str, what: str, expected: Spread | None, served: Spread) -> ModuleDrift:
    if expected is None or sum(served.counts) < LEAST:
        return ModuleDrift(label, what, UNKNOWN, math.nan, math.nan, expected, served)
    psi, p = stability(expected.counts, served.counts)
    verdict = next((name for limit, name in _LIMITS if psi > limit and p < _CHANCE), SAME)
    return ModuleDrift(label, what, verdict, psi, p, expected, served)


def stability(expected: Sequence[int], served: Sequence[int]) -> tuple[float, float]:
    """Population stability index of two counts over the same bins, and a chi-squared test's p.

    Example:
        >>> stability([10] * 10, [10] * 10)
        (0.0, 1.0)
        >>> psi, p = stability([50] * 10, [0] * 5 + [100] * 5)
        >>> psi > 1, p < 1e-6
        (True, True)
    """
    from scipy.stats import chi2_contingency

    a, b = (torch.tensor(counts, dtype=torch.float64) for counts in (expected, served))
    n, m = float(a.sum()), float(b.sum())
    first, second = ((c + 0.5) / (t + 0.5 * len(c)) for c, t in ((a, n), (b, m)))
    psi = float(((second - first) * (second / first).log()).sum())
    counts = torch.stack([a, b])[:, a + b > 0].numpy()
    return psi, float(chi2_contingency(counts, correction=False).pvalue)
