"""What commands print: a table for people, tab-separated values for programs, JSON for both."""

from __future__ import annotations

import json
import shutil
import sys
import unicodedata
from collections.abc import Sequence
from typing import Any

import click


def somebody_looks_on() -> bool:
    """Whether the output goes to a terminal."""
    return sys.stdout.isatty()


def print_json(found: Any) -> None:
    """JSON for programs; NaN, which JSON has not, as null."""
    click.echo(json.dumps(_finite(found), indent=1, ensure_ascii=False))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and value != value else value


def cell(value: Any) -> str:
    """A value as a cell shows it."""
    if isinstance(value, float):
        return f"{value:.3f}"
    return "" if value is None else str(value)


def print_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()
) -> None:
    """A table; where nobody looks on, tab-separated for other programs.

    Nothing is ever cut. Where a terminal is too narrow, each row becomes a few lines: its first
    cell alone, the others named below it.
    """
    clean = [[_one_line(text) for text in row] for row in rows]
    if not somebody_looks_on():
        for row in [list(header), *clean]:
            click.echo("\t".join(row))
        return
    if not clean:
        return
    width = shutil.get_terminal_size().columns
    used = [i for i in range(len(header)) if any(row[i] for row in clean)]
    widths = {i: max(_width(text) for text in (header[i], *(r[i] for r in clean))) for i in used}
    if sum(widths.values()) + 2 * (len(used) - 1) <= width:
        for row in [list(header), *clean]:
            cells = [_padded(row[i], widths[i], header[i] in right) for i in used]
            click.echo("  ".join(cells).rstrip())
        return
    for row in clean:
        click.echo(row[used[0]])
        line = "   "
        for i in used[1:]:
            if not row[i]:
                continue
            part = f" {header[i]}: {row[i]}" if header[i] else f" {row[i]}"
            if len(line) > 3 and _width(line) + _width(part) + 1 > width:
                click.echo(line)
                line = "   "
            line += ("," if len(line) > 3 else "") + part
        if line.strip():
            click.echo(line)


def _one_line(text: str) -> str:
    return "".join(" " if unicodedata.category(c) == "Cc" else c for c in str(text))


def _width(text: str) -> int:
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(bool(unicodedata.combining(c)) for c in text)


def _padded(text: str, width: int, right: bool) -> str:
    room = " " * (width - _width(text))
    return room + text if right else text + room
