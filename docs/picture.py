"""Draws the README's picture: python docs/picture.py writes docs/picture.png."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch

INK, FAINT, PAPER = "#22303c", "#c9d1d8", "#f6f8fa"
COLOURS = {
    "German": "#3b6fb6",
    "Italian": "#2a9d72",
    "Slovak": "#c98a1b",
    "Irish": "#b5485d",
    "Finnish": "#7a5ab5",
    "Zulu": "#4d9aa8",
}
WEAK = "#b9a6aa"
COLUMNS, ROWS = 5, 3


def box(ax: Axes, x: float, y: float, w: float, h: float, edge: str = INK, face: str = PAPER,
        width: float = 1.4) -> None:  # fmt: skip
    """A box with round corners; x and y are its lower left corner."""
    style = "round,pad=0,rounding_size=0.12"
    ax.add_patch(FancyBboxPatch((x, y), w, h, boxstyle=style, ec=edge, fc=face, lw=width, zorder=2))


def units(ax: Axes, x: float, y: float, colour: str, kept: np.ndarray, step: float = 0.2) -> None:
    """A grid of hidden units, those that are kept filled; x and y are its lower left unit."""
    for index, keep in enumerate(kept):
        centre = (x + step * (index % COLUMNS), y + step * (index // COLUMNS))
        face = colour if keep else "white"
        edge = colour if keep else FAINT
        ax.add_patch(Circle(centre, step * 0.32, fc=face, ec=edge, lw=0.9, zorder=4))


def arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], colour: str,
          bend: float = 0.0, width: float = 1.6, dashed: bool = False) -> None:  # fmt: skip
    """An arrow from start to end."""
    ax.add_patch(
        FancyArrowPatch(
            start, end, arrowstyle="-|>", mutation_scale=11, color=colour, lw=width, zorder=3,
            connectionstyle=f"arc3,rad={bend}", linestyle="--" if dashed else "-",
            shrinkA=0, shrinkB=0,
        )
    )  # fmt: skip


def parent(ax: Axes, y: float, name: str, labels: list[str], weak: str | None = None) -> None:
    """A trained network: one box of units, and its labels on the right edge."""
    height = 0.5 * len(labels) + 0.75
    box(ax, 0, y - height / 2, 3.0, height)
    ax.text(0.2, y + height / 2 - 0.3, name, weight="bold", size=10.5, color=INK, va="center")
    middle = y - 0.22
    units(ax, 0.32, middle - 0.25, INK, np.ones(COLUMNS * ROWS, bool), step=0.25)
    for index, label in enumerate(labels):
        at = y + height / 2 - 0.8 - 0.5 * index
        colour = WEAK if label == weak else COLOURS[label]
        ax.plot([1.45, 1.98], [middle, at], color=FAINT, lw=1.1, zorder=3)
        ax.text(2.05, at, label, size=9, color=colour, weight="bold", va="center")


def module(ax: Axes, y: float, label: str, registered: str, seed: int, weak: bool = False) -> None:
    """One label's module: the units that it keeps, and where it is registered."""
    colour = WEAK if weak else COLOURS[label]
    box(ax, 4.6, y - 0.36, 3.75, 0.72, edge=colour, face="white")
    kept = np.random.default_rng(seed).permutation(COLUMNS * ROWS) >= 5
    units(ax, 4.82, y - 0.2, colour, kept)
    ax.text(6.0, y + 0.13, label, weight="bold", size=9.5, color=colour, va="center")
    ax.text(6.0, y - 0.15, registered, size=8, color=INK, family="monospace", va="center")


def draw(path: Path) -> None:
    """The whole picture."""
    figure, ax = plt.subplots(figsize=(12.6, 6.1), dpi=130)
    ax.set(xlim=(-0.1, 13.6), ylim=(-0.65, 6.15), aspect="equal")
    ax.axis("off")
    for x, title, text in (
        (0, "Parents", "trained as usual, with one callback"),
        (4.6, "Modules", "one for each label: a mask over its parent"),
        (10.0, "Composite", "an MLflow model like any other"),
    ):
        ax.text(x, 5.95, title, size=13.5, weight="bold", color=INK, va="center")
        ax.text(x, 5.62, text, size=9, color=INK, va="center")

    parent(ax, 3.9, "surnames", ["German", "Italian", "Slovak", "Irish"], weak="Irish")
    parent(ax, 0.95, "more-surnames", ["Irish", "Finnish", "Zulu"])
    ax.text(0.2, 2.7, "few Irish names", size=7.5, color=INK, style="italic", va="center")

    rows = [
        (5.0, "German", "surnames.german/1", 1, False),
        (4.15, "Italian", "surnames.italian/1", 2, False),
        (3.3, "Slovak", "surnames.slovak/1", 3, False),
        (2.45, "Irish", "surnames.irish/1", 4, True),
        (1.6, "Irish", "more-surnames.irish/1", 5, False),
        (0.75, "Finnish", "more-surnames.finnish/1", 6, False),
        (-0.1, "Zulu", "more-surnames.zulu/1", 7, False),
    ]
    for y, label, registered, seed, weak in rows:
        module(ax, y, label, registered, seed, weak)
        source = 3.9 if y > 2 else 0.95
        arrow(ax, (3.06, source), (4.54, y), WEAK if weak else COLOURS[label], width=1.2)
    ax.text(3.78, 5.1, "decompose", size=9.5, style="italic", color=INK, ha="center")

    box(ax, 10.0, 1.35, 3.4, 3.6)
    ax.text(10.22, 4.66, "the highest score answers", size=9, color=INK, va="center")
    inside = [("German", 1, "reuse"), ("Italian", 2, "reuse"), ("Irish", 5, "replace"),
              ("Finnish", 6, "add")]  # fmt: skip
    sources = [5.0, 4.15, 1.6, 0.75]
    for index, ((label, seed, verb), source) in enumerate(zip(inside, sources, strict=True)):
        y = 4.1 - 0.76 * index
        box(ax, 10.2, y - 0.31, 3.0, 0.62, edge=COLOURS[label], face="white", width=1.2)
        kept = np.random.default_rng(seed).permutation(COLUMNS * ROWS) >= 5
        units(ax, 10.4, y - 0.18, COLOURS[label], kept, step=0.18)
        ax.text(11.4, y, label, size=9.5, weight="bold", color=COLOURS[label], va="center")
        arrow(ax, (8.42, source), (10.14, y), COLOURS[label])
        ax.text(13.08, y, verb, size=8.5, style="italic", color=INK, ha="right", va="center")

    ax.text(10.0, 0.85, "“Oberhauser”  →  German", size=9.5, color=INK, va="center")
    ax.text(10.0, 0.5, "“Koskenniemi”  →  Finnish", size=9.5, color=INK, va="center")
    ax.text(10.0, 0.15, "“Παπαδοπούλου”  →  none of these", size=9.5, color=INK, va="center")
    figure.savefig(path, bbox_inches="tight", pad_inches=0.1, facecolor="white")
    plt.close(figure)


if __name__ == "__main__":
    draw(Path(__file__).with_name("picture.png"))
