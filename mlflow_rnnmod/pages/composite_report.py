"""Everything about a composite as one HTML file with pictures."""

from __future__ import annotations

from html import escape as html
from typing import TYPE_CHECKING

from mlflow_rnnmod.pages.assessed import Assessment
from mlflow_rnnmod.pages.composite import BATCH, _figure, lineage, passes, story
from mlflow_rnnmod.pages.dial import METRICS
from mlflow_rnnmod.pages.markdown import plain
from mlflow_rnnmod.pages.matrix import confusion_svg, reliability_svg
from mlflow_rnnmod.pages.page import STYLE
from mlflow_rnnmod.pages.sortable import SCRIPT, Cell, sortable
from mlflow_rnnmod.pages.sortable import STYLE as SORTING
from mlflow_rnnmod.pages.wording import percent, plural, points

if TYPE_CHECKING:
    from mlflow_rnnmod.composition import Composite


def composite_report(composite: Composite, found: Assessment | None = None) -> str:
    """Everything about it as one HTML file that needs no other."""
    count = len(composite.modules)
    title = f"A model of {count} {plural('module', count)}"
    parts = [f"<h1>{title}</h1>", _tiles(composite, found)]
    if found is not None:
        parts.append(
            f'<p class="soft">Measured on {html(plain(found.data, 300))}, {found.rows} rows; each '
            "parent was asked about rows of its own labels alone.</p>"
        )
        parts += ["<h2>Labels beside their parents</h2>", _label_table(found)]
    parts += [
        "<h2>Where it comes from</h2>",
        f'<div class="wide">{lineage(composite, found)}</div>',
        f"<ol>{''.join(f'<li>{html(_unmarked(s))}</li>' for s in story(composite))}</ol>",
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
        told = "; ".join(f"{name}: {s}" for name, s in found.signatures.items())
        parts.append(f'<p class="soft">{html(told)}</p>')
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}{SORTING}</style></head>\n<body>\n"
        + "\n".join(parts)
        + f"\n<script>{SCRIPT}</script></body></html>\n"
    )


def _unmarked(markdown: str) -> str:
    """A sentence of the story without its marks."""
    return markdown.replace("**", "").replace("`", "").replace("\\", "")


def _tiles(composite: Composite, found: Assessment | None) -> str:
    tiles = []
    if found is not None:
        tiles.append((_figure(found.metric, found.composed), f"{METRICS[found.metric]}, composed"))
        tiles += [
            (_figure(found.metric, p.value), f"its parent {p.digest[:12]}, on {p.rows} rows")
            for p in found.parents
        ]
    if cost := passes(composite):
        tiles.append((f"{cost[1]:.1f}", f"passes of a parent for a batch of {BATCH} (estimated)"))
    if found is not None and found.agreement is not None:
        tiles.append((percent(found.agreement), "of the rows are answered as the parent does"))
    if found is not None and found.reliability is not None:
        tiles.append((percent(found.reliability.error), "expected calibration error"))
    return '<div class="tiles">' + "".join(
        f'<div class="tile"><b>{html(value)}</b><span>{html(words)}</span></div>'
        for value, words in tiles
    ) + "</div>"  # fmt: skip


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
