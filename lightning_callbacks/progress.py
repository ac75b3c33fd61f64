"""Progress of a decomposition, shown in the way the trainer shows its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Progress = Callable[[str, int, int], None]


def bar_style(trainer: Any) -> str | None:
    """``"rich"`` or ``"tqdm"`` as the trainer's own bar, which is stopped; ``None`` where quiet."""
    bar = getattr(trainer, "progress_bar_callback", None)
    if bar is None or not trainer.is_global_zero or not getattr(bar, "is_enabled", True):
        return None
    if not any("RichProgressBar" in kind.__name__ for kind in type(bar).__mro__):
        return "tqdm"
    # The trainer's display is still up when the fit has ended, and rich shows one at a time.
    display = getattr(bar, "progress", None)
    if display is not None:
        display.stop()
    return "rich"


@contextmanager
def progress_bar(style: str | None) -> Iterator[Progress]:
    """A function ``(stage, done, total)`` that shows one bar for each stage.

    Args:
        style: ``"rich"``, ``"tqdm"``, or ``None`` for a function that shows nothing.
    """
    if style == "rich":
        yield from _rich()
    elif style == "tqdm":
        yield from _tqdm()
    else:
        yield lambda stage, done, total: None


def _rich() -> Iterator[Progress]:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    tasks: dict[str, Any] = {}
    with Bars(*columns) as bars:

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield show


def _tqdm() -> Iterator[Progress]:
    from tqdm.auto import tqdm

    bars: dict[str, Any] = {}

    def show(stage: str, done: int, total: int) -> None:
        if stage not in bars:
            for earlier in bars.values():
                earlier.close()
            bars[stage] = tqdm(total=total, desc=stage)
        bar = bars[stage]
        bar.total = total
        bar.update(done - bar.n)

    try:
        yield show
    finally:
        for bar in bars.values():
            bar.close()
