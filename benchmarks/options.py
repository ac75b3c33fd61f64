"""Options that the commands of ``benchmarks.paper`` share, and their progress bar."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.dense import CELL as DENSE_CELL
from benchmarks.resnet import BLOCKS
from benchmarks.rq1 import DRAWS, REPAIRS
from benchmarks.study import MEANS_FOLDED
from benchmarks.tasks import CELLS
from benchmarks.written import WRITTEN
from mlflow_rnnmod.decomposition.config import SHARES_OF

console = Console(width=170)
TRUNKS = (
    click.option("--share-of", type=click.Choice(SHARES_OF), default="units",
                 help="What --removal is a share of."),
    click.option("--trunks", type=click.IntRange(min=1),
                 help="How many the labels share; each has its own where this is not given."),
)  # fmt: skip


def numbers(_: Any, __: Any, value: str) -> tuple[float, ...]:
    """``"0.2,0.35"`` as numbers."""
    return tuple(float(part) for part in value.split(",") if part)


def names(_: Any, __: Any, value: str) -> tuple[str, ...]:
    """``"a,b"`` as names."""
    return tuple(part for part in value.split(",") if part)


def shared(command: Callable) -> Callable:
    """The options that every command has."""
    return with_options(
        command,
        click.option("--json", "json_file", type=click.Path(path_type=Path),
                     help="Rows are written here as they come; a run goes on with what is there."),
        click.option("--cache", type=click.Path(path_type=Path),
                     default=Path(".cache/benchmarks"), help="Of trained parents."),
        click.option("--data-dir", type=click.Path(path_type=Path, exists=True), required=True),
        click.option("--quick", is_flag=True, help="Minutes, on a part of the data."),
        click.option("--seeds", type=int, default=1, help="How many parents."),
        click.option("--gates", type=click.Choice(["joint", "separate"]), default="joint"),
        click.option("--variant", type=click.Choice(["rolled", "unrolled"]), default="rolled"),
        click.option("--layers", type=int, default=1),
        click.option("--cell", default="lstm",
                     type=click.Choice((*CELLS, *WRITTEN, DENSE_CELL, *BLOCKS)),
                     help="Data sets of vectors take the dense one, of images a residual one."),
    )  # fmt: skip


def rq1_options(command: Callable) -> Callable:
    """What is removed of one data set's parents, and how it is mended."""
    return with_options(
        command,
        click.option("--rule", "--rules", "rules", default="sensitivity,paper", callback=names),
        click.option("--removal", "--removals", "removals", default="0.05,0.2,0.35,0.5",
                     callback=numbers, help="Shares of the units."),
        click.option("--repairs", default=",".join(REPAIRS), callback=names,
                     help=f"Or {MEANS_FOLDED}: all, with means folded in the place of guesses "
                     "from kept units."),
        click.option("--draws", type=int, default=DRAWS, help="Random masks for each random row."),
        *TRUNKS,
    )  # fmt: skip


def reuse_options(command: Callable) -> Callable:
    """What modules that are put together leave out, and which of them are."""
    return with_options(
        command,
        click.option("--removal", type=float, default=0.2, help="Share of the units."),
        click.option("--across/--within", "crossing", default=None,
                     help="Only across types, or only within one; both otherwise."),
        *TRUNKS,
    )  # fmt: skip


def with_options(command: Callable, *options: Callable) -> Callable:
    """A command with some options; the last ones come first in its help."""
    for option in options:
        command = option(command)
    return command


def progress_bar() -> Progress:
    """On standard error, gone when done."""
    return Progress(
        TextColumn("{task.description:<40}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
