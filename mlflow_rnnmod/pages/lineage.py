"""A picture of where a composite comes from: parents, their modules, the composite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from mlflow_rnnmod.pages.markdown import plain
from mlflow_rnnmod.pages.pictures import ACCENT, INK, LINE, OTHER, SOFT, svg

COLORS = (ACCENT, OTHER, "#2f855a", "#805ad5", "#b7791f", "#c53030", "#2c7a7b", "#4a5568")
_ROW, _BOX, _GAP, _WIDE, _TOP = 24, 20, 120, 190, 42
SHOWN = 60
"""Modules that are drawn one by one."""


@dataclass(frozen=True)
class Source:
    """A parent with its modules, as the picture shows it.

    Args:
        name: of the parent.
        labels: of its modules.
        note: a word under the name.
    """

    name: str
    labels: tuple[str, ...]
    note: str = ""


def lineage_svg(sources: Sequence[Source], composite: str, note: str = "") -> str:
    """Parents on the left, modules in the middle, the composite on the right."""
    shown, left = [], SHOWN
    for source in sources:
        labels = list(source.labels[: max(left, 1)])
        rest = len(source.labels) - len(labels)
        shown.append((source, [*labels, *([f"and {rest} more"] if rest else [])]))
        left -= len(labels)
    height = _TOP + sum(max(len(labels), 2) * _ROW + 14 for _, labels in shown)
    middle, right = 10 + _WIDE + _GAP, 10 + 2 * (_WIDE + _GAP)
    centre = (_TOP + height) / 2
    parts = [
        f'<text x="{x}" y="18" fill="{SOFT}">{words}</text>'
        for x, words in ((10, "parents"), (middle, "modules"), (right, "composite"))
    ]
    y = float(_TOP)
    for number, (source, labels) in enumerate(shown):
        color = COLORS[number % len(COLORS)]
        tall = max(len(labels), 2) * _ROW
        own = y + tall / 2
        for place, label in enumerate(labels):
            at = y + (place + 0.5) * _ROW
            parts += [
                _curve(10 + _WIDE, own, middle, at, color),
                _curve(middle + _WIDE, at, right, centre, color),
                _box(middle, at - _BOX / 2, _BOX, label, color, filled=False),
            ]
        parts.append(_box(10, own - 20, 40, source.name, color, True, source.note))
        y += tall + 14
    parts.append(_box(right, centre - 20, 40, composite, INK, True, note))
    return svg(right + _WIDE + 10, height, parts, 12, "Parents, modules, composite")


def _curve(x1: float, y1: float, x2: float, y2: float, color: str) -> str:
    half = (x1 + x2) / 2
    return (
        f'<path d="M {x1:.0f} {y1:.1f} C {half:.0f} {y1:.1f}, {half:.0f} {y2:.1f}, {x2:.0f} '
        f'{y2:.1f}" fill="none" stroke="{color}" stroke-opacity="0.45" stroke-width="1.5"/>'
    )


def _box(
    x: float, y: float, tall: float, words: str, color: str, filled: bool, note: str = ""
) -> str:
    fill, ink = (color, "#fff") if filled else ("#fff", INK)
    first = y + tall / 2 - (7 if note else 0)
    text = (
        f'<text x="{x + 10:.0f}" y="{first:.1f}" dominant-baseline="central" fill="{ink}">'
        f"{escape(plain(words, 26))}<title>{escape(plain(words, 400))}</title></text>"
    )
    if note:
        text += (
            f'<text x="{x + 10:.0f}" y="{first + 15:.1f}" dominant-baseline="central" '
            f'font-size="10" fill="{LINE if filled else SOFT}">{escape(plain(note, 32))}</text>'
        )
    return (
        f'<rect x="{x:.0f}" y="{y:.1f}" width="{_WIDE}" height="{tall:.0f}" rx="5" fill="{fill}" '
        f'stroke="{color}"/>' + text
    )
