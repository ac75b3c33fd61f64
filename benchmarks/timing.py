"""Measuring things side by side, and showing figures beside their limits."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from mlflow_rnnmod.networks.many import threads


@dataclass(frozen=True)
class Figure:
    """One line of the table."""

    name: str
    value: float
    low: float
    high: float
    limit: float | None
    note: str = ""

    @property
    def missed(self) -> bool:
        """Whether it is above its limit."""
        return self.limit is not None and self.value > self.limit


def interleaved(
    ways: Mapping[str, Callable[[], object]], repeats: int, least: float = 2e-3
) -> dict[str, list[float]]:
    """Seconds of each way, once a repeat, all in turn; short ones are run several times."""
    inner = {}
    for name, run in ways.items():
        run()
        started = time.perf_counter()
        run()
        inner[name] = max(int(least / max(time.perf_counter() - started, 1e-9)), 1)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, run in ways.items():
            started = time.perf_counter()
            for _ in range(inner[name]):
                run()
            times[name].append((time.perf_counter() - started) / inner[name])
    return times


def ratio(
    name: str, over: Sequence[float], under: Sequence[float], limit: float | None, note: str = ""
) -> Figure:
    """Median and quartiles of ratios; each repeat's own parent is its measure."""
    ratios = [a / b for a, b in zip(over, under, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return Figure(name, middle, low, high, limit, note)


def bytes_of(folder: Path) -> int:
    """Of all files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def show(figures: Sequence[Figure]) -> None:
    """Print the table."""
    table = Table(title=f"{threads()} threads, torch {torch.__version__}")
    for column in ("figure", "median", "quartiles", "at most", "note"):
        table.add_column(column, justify="left" if column in ("figure", "note") else "right")
    for figure in figures:
        style = "bold red" if figure.missed else None
        limit = "" if figure.limit is None else f"{figure.limit:g}"
        spread = f"{figure.low:.2f} - {figure.high:.2f}"
        table.add_row(figure.name, f"{figure.value:.2f}", spread, limit, figure.note, style=style)
    Console(width=150).print(table)


def markdown(figures: Sequence[Figure]) -> str:
    """The table for the README: median, quartiles, limit."""
    lines = ["| figure | median | quartiles | at most |", "| --- | ---: | ---: | ---: |"]
    for figure in figures:
        limit = "" if figure.limit is None else f"{figure.limit:g}"
        missed = " (missed)" if figure.missed else ""
        single = figure.low == figure.high
        spread = "" if single else f"{figure.low:.2f} to {figure.high:.2f}"
        lines.append(f"| {figure.name} | {figure.value:.2f}{missed} | {spread} | {limit} |")
    return "\n".join(lines) + "\n"
