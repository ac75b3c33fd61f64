"""The picture of ``docs/results.md``: what is lost, against how much is kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from benchmarks.page.rows import METRICS, Row, grouped, mean, name_of, network, place, translates

INK, FAINT = "#22303c", "#c9d1d8"
COLOURS = {
    "sensitivity": "#3b6fb6",
    "paper": "#c98a1b",
    "reference": "#2a9d72",
    "random": "#b5485d",
}
COLUMNS = 3
LEAST = -1.0


def draw(rows: Sequence[Row], file: Path) -> bool:
    """``net`` against recurrent weights kept, a panel for each data set and a line for each rule.

    Rows with all repairs, rolled and with joint gates; a point is the mean over parents.

    Returns:
        whether there was anything to draw.
    """
    chosen = [
        r
        for r in rows
        if r["question"] == "rq1"
        and (r["repairs"], r["variant"], r["gates"]) == ("all", "rolled", "joint")
        and r["rule"] in COLOURS
        and "recurrent_weights_kept" in r
        and (r["rule"] != "random" or r["matched"] == "sensitivity")
    ]
    by_set = grouped(
        sorted(chosen, key=place), lambda r: "tatoeba" if translates(r) else r["dataset"]
    )
    panels = {dataset: most_sizes(found) for dataset, found in by_set.items()}
    if not panels:
        return False
    least = min(r["recurrent_weights_kept"] for found in panels.values() for r in found)
    columns = min(COLUMNS, len(panels))
    lines = -(-len(panels) // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(3.4 * columns, 2.7 * lines), squeeze=False, layout="constrained"
    )
    for ax, (dataset, found) in zip(axes.flat, panels.items(), strict=False):
        _panel(ax, name_of(dataset).replace("`", ""), found)
        ax.set_xlim(103, 100 * least - 3)
    for ax in list(axes.flat)[len(panels) :]:
        ax.set_visible(False)
    rules = [rule for rule in COLOURS if any(r["rule"] == rule for r in chosen)]
    handles = [plt.Line2D([], [], color=COLOURS[rule], marker="o", ms=4) for rule in rules]
    figure.legend(handles, rules, loc="outside upper center", ncols=len(rules), frameon=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110, facecolor="white")
    plt.close(figure)
    return True


def most_sizes(rows: Sequence[Row]) -> list[Row]:
    """Rows of the parents that were tried at the most sizes: all points are of the same parents."""
    parents = grouped(rows, lambda r: (*network(r), r["seed"])).values()
    sizes = [len({r["removal"] for r in part}) for part in parents]
    return [r for part, n in zip(parents, sizes, strict=True) if n == max(sizes) for r in part]


def _panel(ax: Axes, title: str, rows: Sequence[Row]) -> None:
    for rule, found in grouped(rows, lambda r: r["rule"]).items():
        points = [(100.0, 0.0)] + [
            (100 * mean(r["recurrent_weights_kept"] for r in part), mean(r["net"] for r in part))
            for part in grouped(found, lambda r: r["removal"]).values()
        ]
        x, y = zip(*sorted(points), strict=True)
        ax.plot(x, y, color=COLOURS[rule], marker="o", ms=4, lw=1.5, alpha=0.9)
    ax.axhline(0, color=FAINT, lw=1, zorder=0)
    # Hundredths of a point are not to look like much.
    low, high = ax.get_ylim()
    ax.set_ylim(min(low, LEAST), max(high, -LEAST / 4))
    ax.set_title(title, fontsize=10, color=INK)
    ax.set_xlabel("recurrent weights kept, %", fontsize=8, color=INK)
    ax.set_ylabel(f"net, points of {METRICS[rows[0]['metric']]}", fontsize=8, color=INK)
    ax.tick_params(labelsize=8, colors=INK)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color(FAINT)
