"""Progress of a decomposition, shown in the way the trainer shows its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mlflow_rnnmod.decomposition.course import Course

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
    """A function ``(stage, done, total)`` that shows one bar over all stages, and what is left.

    ``style``: ``"rich"``, ``"tqdm"``, or ``None`` for a function that shows nothing.
    """
    if style == "rich":
        yield from _rich(Course())
    elif style == "tqdm":
        yield from _tqdm(Course())
    else:
        yield lambda stage, done, total: None


def _rich(course: Course) -> Iterator[Progress]:
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Bars(*columns) as bars:
        task = bars.add_task("", total=1.0, left="")

        def show(stage: str, done: int, total: int) -> None:
            step = course.told(stage, done, total)
            bars.update(task, description=step.stage, completed=step.share, left=step.words)

        yield show
        bars.update(task, completed=1.0, left="")


def _tqdm(course: Course) -> Iterator[Progress]:
    from tqdm.auto import tqdm

    form = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}{postfix}"
    with tqdm(total=1.0, bar_format=form) as bar:

        def show(stage: str, done: int, total: int) -> None:
            step = course.told(stage, done, total)
            bar.n = step.share
            bar.set_description_str(step.stage, refresh=False)
            bar.set_postfix_str(step.words, refresh=False)
            bar.refresh()

        yield show
        bar.n = 1.0
        bar.set_postfix_str("")
