"""The settings that a decomposition tried, as a picture: how good, how small, and how fast.

One line a setting, with a column for each of the three: as SVG in the report, and as a PNG for
MLflow's artifact viewer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from mlflow_rnnmod.pages.pictures import (
    ACCENT,
    INK,
    LINE,
    OTHER,
    SOFT,
    font,
    is_taken,
    setting,
    svg,
)

METRICS = {"accuracy": "accuracy", "f1": "F1", "bleu": "BLEU"}
"""How metrics are called in text."""

_MARGIN, _PANEL, _GAP, _TOP, _ROW, _BOTTOM = 200, 190, 50, 58, 26, 14
_SHADE = "#e8f2fa"


@dataclass(frozen=True)
class _Shape:
    """A part of the picture: ``rect`` and ``line`` from x, y to a, b; ``dot``; ``text``."""

    kind: str
    x: float
    y: float
    color: str
    a: float = 0.0
    b: float = 0.0
    text: str = ""
    anchor: str = "start"


def sorted_settings(sizing: Iterable[Mapping[str, float]]) -> list[Mapping[str, float]]:
    """By number of trunks, and then by how much is removed."""
    return sorted(sizing, key=lambda row: (row.get("trunks", 0), row["removal"]))


def taken_of(
    sizing: Sequence[Mapping[str, float]], removal: Any, trunks: float | None
) -> int | None:
    """Which of the settings was taken, where that is known."""
    found = [i for i, row in enumerate(sizing) if is_taken(row, removal, trunks)]
    return found[0] if found else None


def settings_svg(sizing: Sequence[Mapping[str, float]], taken: int | None, metric: str) -> str:
    """The picture as SVG.

    ``sizing``: settings tried, in the order to show them: ``removal``, the metric, and where known
    ``trunks``, ``weights_kept``, ``cost`` and the metric with nothing removed.
    """
    shapes, width, height = _layout(sizing, taken, metric)
    return svg(width, height, [_as_svg(shape) for shape in shapes], 12, "Settings tried")


def write_settings(
    sizing: Sequence[Mapping[str, float]], taken: int | None, metric: str, path: Path
) -> None:
    """Write the picture as a PNG; arguments as for :func:`settings_svg`."""
    from PIL import Image, ImageDraw

    scale = 2
    shapes, width, height = _layout(sizing, taken, metric)
    picture = Image.new("RGB", (int(scale * width), int(scale * height)), "white")
    draw, letters = ImageDraw.Draw(picture), font(12 * scale)
    anchors = {"start": "lm", "middle": "mm", "end": "rm"}
    for s in shapes:
        x, y, a, b = (scale * value for value in (s.x, s.y, s.a, s.b))
        if s.kind == "rect":
            draw.rectangle((x, y, a, b), fill=s.color)
        elif s.kind == "line":
            draw.line((x, y, a, b), fill=s.color, width=scale)
        elif s.kind == "dot":
            draw.ellipse((x - a, y - a, x + a, y + a), "white" if s.b else s.color, s.color, scale)
        else:
            draw.text((x, y), s.text, s.color, letters, anchor=anchors[s.anchor])
    picture.save(path, format="PNG")


def _layout(
    sizing: Sequence[Mapping[str, float]], taken: int | None, metric: str
) -> tuple[list[_Shape], float, float]:
    """What is where: from back to front."""
    columns = [
        (metric, METRICS[metric], f"control_{metric}", lambda v: f"{100 * v:.1f} %"),
        ("weights_kept", "weights kept", "", lambda v: f"{100 * v:.0f} %"),
        ("cost", "passes of the parent", "", lambda v: f"{v:.2f}"),
    ]
    columns = [column for column in columns if any(column[0] in row for row in sizing)]
    width = _MARGIN + len(columns) * (_PANEL + _GAP) + 10
    height = _TOP + _ROW * len(sizing) + _BOTTOM
    shapes = []
    for number, row in enumerate(sizing):
        y = _TOP + (number + 0.5) * _ROW
        if number == taken:
            half = _ROW / 2
            shapes.append(_Shape("rect", 0, y - half, _SHADE, width, y + half))
        shapes.append(_Shape("text", _MARGIN - 12, y, INK, text=setting(row), anchor="end"))
    for place, column in enumerate(columns):
        shapes += _panel(_MARGIN + place * (_PANEL + _GAP), column, sizing, taken)
    return shapes, width, height


def _panel(
    left: float,
    column: tuple[str, str, str, Callable[[float], str]],
    sizing: Sequence[Mapping[str, float]],
    taken: int | None,
) -> list[_Shape]:
    name, words, control, shown = column
    values = [row[key] for row in sizing for key in (name, control) if key in row]
    # How good differs in its last digits; sizes are read from 0.
    low = min(values) if control else 0.0
    span = max(max(values) - low, 0.01)
    end = _TOP + _ROW * len(sizing)

    def at(value: float) -> float:
        return left + (value - low) / span * _PANEL

    shapes = [
        _Shape("text", left, 16, INK, text=words),
        _Shape("line", left, _TOP, LINE, left, end),
        _Shape("line", left + _PANEL, _TOP, LINE, left + _PANEL, end),
    ]
    if any(control in row for row in sizing):
        shapes.append(_Shape("dot", left + 5, 36, OTHER, 4, 1))
        shapes.append(_Shape("text", left + 15, 36, SOFT, text="nothing removed, same repairs"))
    for number, row in enumerate(sizing):
        y = _TOP + (number + 0.5) * _ROW
        if control in row:
            shapes.append(_Shape("dot", at(row[control]), y, OTHER, 4, 1))
        if name not in row:
            continue
        x = at(row[name])
        shapes.append(_Shape("dot", x, y, ACCENT, 6 if number == taken else 4))
        beside = at(row[control]) if control in row else left
        right = x + 60 < left + _PANEL + _GAP and not (x < beside < x + 60 < x + x - left)
        side, anchor = (x + 11, "start") if right else (x - 11, "end")
        shapes.append(_Shape("text", side, y, SOFT, text=shown(row[name]), anchor=anchor))
    return shapes


def _as_svg(s: _Shape) -> str:
    if s.kind == "rect":
        size = f'width="{s.a - s.x:.1f}" height="{s.b - s.y:.1f}"'
        return f'<rect x="{s.x:.1f}" y="{s.y:.1f}" {size} fill="{s.color}"/>'
    if s.kind == "line":
        ends = f'x1="{s.x:.1f}" y1="{s.y:.1f}" x2="{s.a:.1f}" y2="{s.b:.1f}"'
        return f'<line {ends} stroke="{s.color}"/>'
    if s.kind == "dot":
        fill = "#fff" if s.b else s.color
        return (
            f'<circle cx="{s.x:.1f}" cy="{s.y:.1f}" r="{s.a:.0f}" fill="{fill}" '
            f'stroke="{s.color}" stroke-width="1.5"/>'
        )
    return (
        f'<text x="{s.x:.1f}" y="{s.y:.1f}" fill="{s.color}" text-anchor="{s.anchor}" '
        f'dominant-baseline="central">{escape(s.text)}</text>'
    )
