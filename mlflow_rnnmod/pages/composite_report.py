"""Everything about a composite as one HTML file with pictures of its answers."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlflow_rnnmod.answers.targets import BINS, Reliability
from mlflow_rnnmod.pages.assessed import Assessment
from mlflow_rnnmod.pages.composite import BATCH, lineage, passes, story
from mlflow_rnnmod.pages.dial import METRICS
from mlflow_rnnmod.pages.markdown import plain
from mlflow_rnnmod.pages.page import document, tiles
from mlflow_rnnmod.pages.pictures import ACCENT, INK, LINE, OTHER, SOFT, svg
from mlflow_rnnmod.pages.sortable import Cell, sortable
from mlflow_rnnmod.pages.wording import figure, percent, plural, points

if TYPE_CHECKING:
    from mlflow_rnnmod.composition import Composite


_UNMARKED = str.maketrans("", "", "*`\\")
SHOWN = 24
"""Labels that a confusion matrix has room for; of more, those that are confused most."""


def confusion_svg(names: Sequence[str], counts: NDArray[np.int64]) -> str:
    """Rows by what is right and what was answered, as shares of each row.

    ``counts``: ``(names, names)``.
    """
    wrong = counts.sum(axis=1) + counts.sum(axis=0) - 2 * counts.diagonal()
    used = (counts.sum(axis=1) + counts.sum(axis=0)) > 0
    keep = [i for i in np.argsort(-wrong, kind="stable") if used[i]][:SHOWN]
    keep.sort()
    counts, names = counts[np.ix_(keep, keep)], [plain(names[i], 24) for i in keep]
    totals = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    cell, size = 26, len(names)
    margin = 12 + 7.2 * max((len(name) for name in names), default=1)
    parts = []
    for i, name in enumerate(names):
        middle = margin + (i + 0.5) * cell
        parts.append(
            f'<text x="{margin - 6:.1f}" y="{middle:.1f}" text-anchor="end" '
            f'dominant-baseline="central">{escape(name)}</text>'
            f'<text transform="translate({middle:.1f} {margin - 6:.1f}) rotate(-90)" '
            f'dominant-baseline="central">{escape(name)}</text>'
        )
        for j in range(size):
            share = counts[i, j] / totals[i, 0]
            if not counts[i, j]:
                continue
            x, y = margin + j * cell, margin + i * cell
            color = ACCENT if i == j else OTHER
            ink = "#fff" if share > 0.5 else INK
            parts.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{cell}" height="{cell}" fill="{color}" '
                f'fill-opacity="{0.12 + 0.88 * share:.2f}"><title>{escape(name)} answered as '
                f"{escape(names[j])}: {counts[i, j]}</title></rect>"
                f'<text x="{x + cell / 2:.1f}" y="{y + cell / 2:.1f}" text-anchor="middle" '
                f'font-size="10" dominant-baseline="central" fill="{ink}">{counts[i, j]}</text>'
            )
    side = margin + size * cell
    parts.append(
        f'<rect x="{margin:.1f}" y="{margin:.1f}" width="{size * cell}" height="{size * cell}" '
        f'fill="none" stroke="{LINE}"/>'
    )
    return svg(side + 12, side + 12, parts, 12, "Right labels by row, answers by column")


def reliability_svg(found: Reliability) -> str:
    """How much of what is said with some confidence is right; on the diagonal all is as said."""
    width, height, left, bottom, top = 380, 300, 56, 46, 16
    across, up = width - left - 16, height - top - bottom

    def at(x: float, y: float) -> tuple[float, float]:
        return left + across * x, top + up * (1 - y)

    parts = []
    for tick in (0.0, 0.5, 1.0):
        x, y = at(tick, tick)
        parts.append(
            f'<line x1="{left}" x2="{left + across}" y1="{y:.1f}" y2="{y:.1f}" stroke="{LINE}"/>'
            f'<text x="{left - 8}" y="{y:.1f}" text-anchor="end" dominant-baseline="central" '
            f'fill="{SOFT}">{100 * tick:.0f} %</text>'
            f'<text x="{x:.1f}" y="{height - bottom + 18}" text-anchor="middle" '
            f'fill="{SOFT}">{100 * tick:.0f} %</text>'
        )
    (x1, y1), (x2, y2) = at(0, 0), at(1, 1)
    parts.append(
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{OTHER}" '
        'stroke-dasharray="5 4"/>'
    )
    most = max(found.counts, default=1) or 1
    for place, (count, sure, right) in enumerate(
        zip(found.counts, found.confidence, found.right, strict=True)
    ):
        if not count:
            continue
        x, _ = at(place / BINS, 0)
        tall = up * count / most * 0.35
        parts.append(
            f'<rect x="{x + 2:.1f}" y="{top + up - tall:.1f}" width="{across / BINS - 4:.1f}" '
            f'height="{tall:.1f}" fill="{LINE}"><title>{count} answers</title></rect>'
        )
        x, y = at(sure, right)
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{ACCENT}"><title>{count} answers, '
            f"{100 * sure:.0f} % sure, {100 * right:.0f} % right</title></circle>"
        )
    parts.append(
        f'<text x="{left + across / 2:.0f}" y="{height - 8}" text-anchor="middle" fill="{SOFT}">'
        "how sure the answers are; dots: how many of them are right</text>"
    )
    return svg(width, height, parts, 12, "Calibration")


def composite_report(composite: Composite, found: Assessment | None = None) -> str:
    """Everything about it as one HTML file that needs no other."""
    count = len(composite.modules)
    title = f"A model of {count} {plural('module', count)}"
    parts = [f"<h1>{title}</h1>", _tiles(composite, found)]
    if found is not None:
        parts.append(
            f'<p class="soft">Measured on {escape(plain(found.data, 300))}, {found.rows} rows; '
            "each parent was asked about rows of its own labels alone.</p>"
        )
        parts += ["<h2>Labels beside their parents</h2>", _label_table(found)]
    told = (step.translate(_UNMARKED) for step in story(composite))
    parts += [
        "<h2>Where it comes from</h2>",
        f'<div class="wide">{lineage(composite, found)}</div>',
        f"<ol>{''.join(f'<li>{escape(s)}</li>' for s in told)}</ol>",
    ]
    if found is not None and found.confusion is not None:
        parts += [
            "<h2>What is taken for what</h2>",
            "<p>Right labels by row, answers by column; darker is a larger share of the row. Of "
            "many labels those that are confused most.</p>",
            f'<div class="wide">{confusion_svg(found.names, found.confusion.numpy())}</div>',
        ]
    if found is not None and found.reliability is not None:
        parts += [
            "<h2>How far its confidence can be trusted</h2>",
            f"<p>Expected calibration error {percent(found.reliability.error)}: how far confidence "
            "and what is right are apart on average. On the dashed line they are the same.</p>",
            f'<div class="wide">{reliability_svg(found.reliability)}</div>',
        ]
    if found is not None and found.signatures:
        computed = "; ".join(f"{name}: {s}" for name, s in found.signatures.items())
        parts.append(f'<p class="soft">{escape(computed)}</p>')
    return document(title, parts)


def _tiles(composite: Composite, found: Assessment | None) -> str:
    shown = []
    if found is not None:
        shown.append((figure(found.metric, found.composed), f"{METRICS[found.metric]}, composed"))
        shown += [
            (figure(found.metric, p.value), f"its parent {p.digest[:12]}, on {p.rows} rows")
            for p in found.parents
        ]
    if cost := passes(composite):
        shown.append((f"{cost[1]:.1f}", f"passes of a parent for a batch of {BATCH} (estimated)"))
    if found is not None and found.agreement is not None:
        shown.append((percent(found.agreement), "of the rows are answered as the parent does"))
    if found is not None and found.reliability is not None:
        shown.append((percent(found.reliability.error), "expected calibration error"))
    return tiles((escape(value), escape(words)) for value, words in shown)


def _label_table(found: Assessment) -> str:
    main = "bleu" if "bleu" in found.labels[0].module else "f1"
    names = sorted(found.labels[0].module, key=lambda name: name != main)  # that one first
    words = [METRICS.get(name, name) for name in names]
    header = ["label", "points", *(w for n in words for w in (n, f"parent's {n}")), "rows"]
    rows = []
    for row in found.labels:
        gap = row.difference
        known = gap == gap
        cells = [Cell.text(row.label), Cell(points(gap) if known else "", gap if known else None)]
        for name in names:
            cells += [Cell.share(row.module[name]), Cell.share(row.parent.get(name))]
        rows.append([*cells, Cell.number(row.support)])
    return (
        f'<p class="soft">Worst first, by {METRICS.get(main, main)} less the parent\'s. Click on a '
        f"column to sort by it.</p>{sortable(header, rows)}"
    )
