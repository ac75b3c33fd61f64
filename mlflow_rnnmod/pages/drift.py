"""A picture of drift: for each module how its scores were spread, and how they are now."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mlflow_rnnmod.pages.markdown import plain
from mlflow_rnnmod.pages.pictures import ACCENT, INK, LINE, OTHER, SOFT

MOST = 40
"""Modules that are drawn, at the most."""
_ACROSS = 4
_LONGEST = 26


def write_drift(
    panels: Sequence[tuple[str, str, Sequence[int], Sequence[int]]], title: str, path: Path
) -> None:
    """Write the picture, as PNG or SVG by the file's ending.

    Args:
        panels: for each module its label, the verdict, and counts over the same bins: expected and
            served; those that matter most first.
        title: above it.
        path: the file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = list(panels[:MOST])
    across = min(_ACROSS, max(len(shown), 1))
    down = max(1, -(-len(shown) // across))
    figure = Figure(figsize=(3.1 * across, 1.9 * down + 0.7), layout="constrained")
    FigureCanvasAgg(figure)
    more = f", {len(panels) - len(shown)} more are left out" if len(panels) > len(shown) else ""
    figure.suptitle(title + more, color=INK, fontsize=11)
    for number, (label, verdict, expected, served) in enumerate(shown):
        axes = figure.add_subplot(down, across, number + 1)
        for counts, color, name in ((expected, LINE, "expected"), (served, ACCENT, "served")):
            total = max(sum(counts), 1)
            shares = [100 * count / total for count in counts]
            places = range(1, len(counts) + 1)
            if color == LINE:
                axes.bar(places, shares, width=1.0, color=LINE, edgecolor="white", label=name)
            else:
                axes.plot(places, shares, color=color, marker="o", markersize=3, label=name)
        strong = verdict == "drifted"
        name = f"{plain(label, _LONGEST)}: {verdict}"
        axes.set_title(name, fontsize=9, color=OTHER if strong else INK, loc="left")
        axes.tick_params(labelsize=7, colors=SOFT)
        axes.spines[["top", "right"]].set_visible(False)
        if number == 0:
            axes.legend(fontsize=7, frameon=False)
        if number % across == 0:
            axes.set_ylabel("% of rows", fontsize=7, color=SOFT)
        if number // across == down - 1:
            axes.set_xlabel("scores, low to high", fontsize=7, color=SOFT)
    figure.savefig(path, dpi=110)
