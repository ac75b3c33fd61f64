"""Pictures: how modules overlap, what removing more would have cost, how scores have drifted.

The same overlap twice: as a PNG for MLflow's artifact viewer, and as SVG inside the report, where
labels stay text in the reader's own fonts.
"""

from __future__ import annotations

import base64
import io
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlflow_rnnmod.pages.markdown import plain

if TYPE_CHECKING:
    from PIL import ImageFont

Matrix = NDArray[np.floating]

_COLORS = "YlGnBu"
_LONGEST = 30
INK, SOFT, LINE, ACCENT, OTHER = "#1f2933", "#616e7c", "#d9dfe6", "#1d6fa5", "#c2571a"
_VALUES_UP_TO = 16


def write_overlap(overlap: Matrix, labels: Sequence[str], path: Path) -> None:
    """Write the overlap of modules as a PNG heat map, readable from 1 to a few hundred labels.

    It is painted directly: matplotlib takes seconds to lay out the labels of 150 modules, which is
    as long as logging them takes.

    ``overlap``: shares from 0 to 1, ``(labels, labels)``.
    """
    from PIL import Image, ImageDraw

    count, low = len(labels), _lowest(overlap)
    cell, size = (52, 17) if count <= _VALUES_UP_TO else (28, 15) if count <= 50 else (19, 13)
    letters, small, bold = font(size), font(15), font(19, bold=True)
    names = [plain(label, _LONGEST) for label in labels]
    margin = int(max(map(letters.getlength, names))) + 28
    side, top = cell * count, 44
    title = "Units that two modules share (Jaccard)"
    width = int(max(margin + side + 110, 40 + bold.getlength(title)))
    height = top + margin + max(side, 160) + 20
    picture = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(picture)
    draw.text((16, 14), title, INK, bold)
    heat = Image.fromarray(_painted(overlap, low)).resize((side, side), Image.Resampling.NEAREST)
    picture.paste(heat, (margin, top + margin))
    # Names of columns are written as rows, one below the other, and turned to the left.
    upright = Image.new("RGB", (margin, side), "white")
    across = ImageDraw.Draw(upright)
    for position, name in enumerate(names):
        middle = (position + 0.5) * cell
        draw.text((margin - 8, top + margin + middle), name, INK, letters, anchor="rm")
        across.text((8, middle), name, INK, letters, anchor="lm")
    picture.paste(upright.transpose(Image.Transpose.ROTATE_90), (margin, top))
    if count <= _VALUES_UP_TO:
        for (i, j), value in np.ndenumerate(overlap):
            place = (margin + (j + 0.5) * cell, top + margin + (i + 0.5) * cell)
            color = "white" if _dark(float(value), low) else INK
            draw.text(place, f"{100 * value:.0f}", color, small, anchor="mm")
    strip = Image.fromarray(_painted(np.linspace(1.0, low, 160)[:, None], low)).resize((20, 160))
    picture.paste(strip, (margin + side + 24, top + margin))
    for share in (0.0, 0.5, 1.0):
        place = (margin + side + 50, top + margin + 7 + 146 * share)
        draw.text(place, f"{100 - 100 * share * (1 - low):.0f} %", SOFT, small, anchor="lm")
    picture.save(path, format="PNG")


def overlap_svg(overlap: Matrix, labels: Sequence[str]) -> str:
    """The same heat map as SVG, to stand inside an HTML page.

    ``overlap``: shares from 0 to 1, ``(labels, labels)``.
    """
    count = len(labels)
    cell = 34 if count <= _VALUES_UP_TO else 18 if count <= 50 else 12
    letters = 12 if count <= 50 else 10
    names = [plain(label, _LONGEST) for label in labels]
    margin = max(map(_width, names)) * letters * 1.08 + 14
    side = count * cell
    low = _lowest(overlap)
    parts = [
        f'<image x="{margin:.0f}" y="{margin:.0f}" width="{side}" height="{side}" '
        f'preserveAspectRatio="none" style="image-rendering:pixelated" '
        f'href="data:image/png;base64,{_pixels(overlap, low)}"/>'
    ]
    for position, (label, name) in enumerate(zip(labels, names, strict=True)):
        middle = margin + (position + 0.5) * cell
        tip = f"<title>{escape(plain(label, 1000))}</title>"
        parts.append(
            f'<text x="{margin - 6:.1f}" y="{middle:.1f}" text-anchor="end" '
            f'dominant-baseline="central">{escape(name)}{tip}</text>'
            f'<text transform="translate({middle:.1f} {margin - 6:.1f}) rotate(-90)" '
            f'dominant-baseline="central">{escape(name)}{tip}</text>'
        )
    if count <= _VALUES_UP_TO:
        for i in range(count):
            for j in range(count):
                color = "#fff" if _dark(overlap[i, j], low) else INK
                parts.append(
                    f'<text x="{margin + (j + 0.5) * cell:.1f}" '
                    f'y="{margin + (i + 0.5) * cell:.1f}" text-anchor="middle" font-size="11" '
                    f'dominant-baseline="central" fill="{color}">{100 * overlap[i, j]:.0f}</text>'
                )
    parts.append(_scale(margin + side + 18, margin, low))
    width, height = margin + side + 80, margin + max(side, 160) + 10
    return svg(width, height, parts, letters, "Units that two modules share")


def is_taken(row: Mapping[str, float], removal: Any, trunks: float | None = None) -> bool:
    """Whether a setting that was tried is the one that was taken.

    Example:
        >>> is_taken({"removal": 0.2, "trunks": 3.0}, 0.2, 3.0)
        True
    """
    if not isinstance(removal, int | float) or abs(row["removal"] - removal) >= 1e-9:
        return False
    return trunks is None or row.get("trunks", trunks) == trunks


def sizing_svg(
    sizing: Iterable[Mapping[str, float]],
    chosen: Any,
    trunks: float | None = None,
    metric: str = "accuracy",
) -> str:
    """How good the settings tried are, beside nothing removed with the same repairs.

    It stands against the share of units removed; where the number of trunks was tried too, against
    the passes of the parent that a composite takes.

    Args:
        sizing: ``removal``, the metric, the metric with nothing removed (``control_accuracy``), and
            where known ``trunks`` and ``cost``, of each setting tried.
        chosen: the share that was taken, where it is known.
        trunks: how many trunks were taken.
        metric: ``accuracy``, ``f1`` or ``bleu``.
    """
    control = f"control_{metric}"
    tried = list(sizing)
    several = len({row["removal"] for row in tried}) < len(tried)
    by_cost = several and all("cost" in row for row in tried)
    axis = "cost" if by_cost else "removal"
    tried.sort(key=lambda row: row[axis])
    width, height, left, right, top, bottom = 640, 300, 64, 24, 40, 50
    values = [row[name] for row in tried for name in (metric, control) if name in row]
    low, high, step = _ticks(100 * min(values), 100 * max(values))
    furthest = max(max(row[axis] for row in tried), 0.05)

    def at(place: float, accuracy: float) -> tuple[float, float]:
        x = left + (width - left - right) * place / furthest
        y = top + (height - top - bottom) * (high - 100 * accuracy) / (high - low)
        return x, y

    parts = []
    tick = low
    while tick <= high + 1e-9:
        _, y = at(0, tick / 100)
        parts.append(
            f'<line x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}" stroke="{LINE}"/>'
            f'<text x="{left - 8}" y="{y:.1f}" text-anchor="end" dominant-baseline="central" '
            f'fill="{SOFT}">{tick:g} %</text>'
        )
        tick += step
    for name, color, dash in (
        (control, OTHER, ' stroke-dasharray="6 4"'),
        (metric, ACCENT, ""),
    ):
        spots = [at(row[axis], row[name]) for row in tried if name in row]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
        if name != metric or not by_cost:  # settings of both kinds are points, not a line
            parts.append(
                f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="2"{dash}/>'
            )
        if name == metric:
            for row, (x, y) in zip(tried, spots, strict=True):
                size, fill = (7, color) if is_taken(row, chosen, trunks) else (4, "#fff")
                parts.append(
                    f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size}" fill="{fill}" '
                    f'stroke="{color}" stroke-width="2"><title>{setting(row)}</title></circle>'
                )
    marks = np.linspace(0.0, furthest, 5) if by_cost else [row["removal"] for row in tried]
    for mark in marks:
        x, _ = at(mark, 0)
        parts.append(
            f'<text x="{x:.1f}" y="{height - bottom + 20}" text-anchor="middle" '
            f'fill="{SOFT}">{f"{mark:.2f}" if by_cost else f"{100 * mark:g} %"}</text>'
        )
    words = "passes of the parent" if by_cost else "units removed in each layer"
    parts.append(
        f'<text x="{(left + width - right) / 2:.0f}" y="{height - 8}" text-anchor="middle" '
        f'fill="{SOFT}">{words}</text>'
    )
    parts.append(_legend(left))
    return svg(width, height, parts, 12, f"{metric.capitalize()} against {words}")


def setting(row: Mapping[str, float]) -> str:
    """A setting that was tried, in words."""
    words = f"{100 * row['removal']:g} % removed"
    if "trunks" not in row:
        return words
    return f"{words}, {row['trunks']:.0f} trunk{'s' if row['trunks'] != 1 else ''}"


def _legend(left: float) -> str:
    line = 'y1="16" y2="16" stroke-width="2"'
    return (
        f'<line x1="{left}" x2="{left + 28}" {line} stroke="{ACCENT}"/>'
        f'<text x="{left + 36}" y="16" dominant-baseline="central">modules composed again</text>'
        f'<line x1="{left + 210}" x2="{left + 238}" {line} stroke="{OTHER}" '
        f'stroke-dasharray="6 4"/>'
        f'<text x="{left + 246}" y="16" dominant-baseline="central">nothing removed, same repairs'
        f'</text><circle cx="{left + 450}" cy="16" r="7" fill="{ACCENT}"/>'
        f'<text x="{left + 464}" y="16" dominant-baseline="central">taken</text>'
    )


def _ticks(low: float, high: float) -> tuple[float, float, float]:
    """Round bounds around ``low`` to ``high``, in percent, and a step with 3 to 6 ticks."""
    span = max(high - low, 1.0)
    step = next(step for step in (0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 25.0) if span / step <= 4)
    below, above = float(np.floor(low / step) * step), float(np.ceil(high / step) * step)
    return (below, above, step) if above > below else (below - step, above + step, step)


def svg(width: float, height: float, parts: Iterable[str], size: int, title: str) -> str:
    """A picture of these parts, with letters of ``size``."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" role="img" aria-label="{escape(title)}" '
        f'font-family="system-ui, sans-serif" font-size="{size}" fill="{INK}">'
        + "".join(parts)
        + "</svg>"
    )


def _scale(x: float, y: float, low: float) -> str:
    """The colour bar: from 1 at the top down to ``low``."""
    strip = np.linspace(1.0, low, 64)[:, None]
    ticks = "".join(
        f'<text x="{x + 20:.0f}" y="{y + 8 + 144 * share:.0f}" dominant-baseline="central" '
        f'font-size="11" fill="{SOFT}">{100 - 100 * share * (1.0 - low):.0f} %</text>'
        for share in (0.0, 0.5, 1.0)
    )
    return (
        f'<image x="{x:.0f}" y="{y:.0f}" width="14" height="160" preserveAspectRatio="none" '
        f'href="data:image/png;base64,{_pixels(strip, low)}"/>' + ticks
    )


def _pixels(values: Matrix, low: float) -> str:
    """``values`` as a PNG of one pixel each, base64."""
    from PIL import Image

    found = io.BytesIO()
    Image.fromarray(_painted(values, low)).save(found, format="PNG")
    return base64.b64encode(found.getvalue()).decode()


def _painted(values: Matrix, low: float) -> NDArray[np.uint8]:
    """Colours of ``values``, from ``low`` to 1, ``(rows, columns, 3)``."""
    from matplotlib import colormaps

    shares = np.clip((np.asarray(values, dtype=float) - low) / max(1.0 - low, 1e-9), 0, 1)
    return colormaps[_COLORS](shares, bytes=True)[..., :3].copy()


def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The font that matplotlib brings, which is there wherever matplotlib is."""
    from matplotlib import get_data_path
    from PIL import ImageFont

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(get_data_path(), "fonts", "ttf", name)), size)


def _lowest(overlap: Matrix) -> float:
    """The value at the light end of the colours: a round one below the least overlap."""
    return float(min(np.floor(10 * np.min(overlap)) / 10, 0.9)) if len(overlap) else 0.0


def _dark(value: float, low: float) -> bool:
    return (value - low) / max(1.0 - low, 1e-9) > 0.55


def _width(name: str) -> float:
    """Roughly how wide ``name`` is, in times the size of the font."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in name)
    capital = sum(character.isupper() or character in "mwMW@%" for character in name)
    return 0.56 * (len(name) - wide) + 1.1 * wide + 0.16 * capital


PANELS = 40
"""Modules whose drift is drawn, at the most."""
_BESIDE = 4
_PANEL_LABEL = 26


def write_drift(
    panels: Sequence[tuple[str, str, Sequence[int], Sequence[int]]], title: str, path: Path
) -> None:
    """Write the picture, as PNG or SVG by the file's ending.

    ``panels``: for each module its label, the verdict, and counts over the same bins: expected and
    served; those that matter most first.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = list(panels[:PANELS])
    across = min(_BESIDE, max(len(shown), 1))
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
        name = f"{plain(label, _PANEL_LABEL)}: {verdict}"
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


FEWEST = 4
"""Modules from which on their order is changed."""


def grouped(
    overlap: NDArray[np.floating], labels: Sequence[str]
) -> tuple[NDArray[np.floating], list[str]]:
    """Overlap and labels in an order of like ones: average linkage, leaves ordered optimally.

    ``overlap``: shares from 0 to 1, symmetric, ``(labels, labels)``.

    Example:
        >>> one, two = [1.0, 0.1, 0.9, 0.1], [0.1, 1.0, 0.1, 0.8]
        >>> matrix = np.array([one, two, [0.9, 0.1, 1.0, 0.1], [0.1, 0.8, 0.1, 1.0]])
        >>> order = grouped(matrix, list("abcd"))[1]
        >>> sorted(map(sorted, (order[:2], order[2:])))
        [['a', 'c'], ['b', 'd']]
    """
    if len(labels) < FEWEST:
        return overlap, list(labels)
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    distance = 1 - np.asarray(overlap, dtype=float)
    np.fill_diagonal(distance, 0.0)
    tree = linkage(squareform(distance, checks=False), "average", optimal_ordering=True)
    order = leaves_list(tree)
    return overlap[np.ix_(order, order)], [labels[i] for i in order]
