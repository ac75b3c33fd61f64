"""Jobs that run side by side and stop together where one fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Any

from mlflow_rnnmod.tracking.interruptions import finish

_PATIENCE = 60.0
"""Seconds."""

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, how much of it is done, and of how much."""


@contextmanager
def workers(threads: int) -> Iterator[ThreadPoolExecutor]:
    """Threads for jobs; what has not begun when the block is left by an error never does."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="rnnmod")
    try:
        yield pool
    finally:
        finish(lambda: _end(pool), "rnnmod-jobs")


def _end(pool: ThreadPoolExecutor) -> None:
    """Wait for what has begun; not for long, as a request that nobody answers takes minutes."""
    end = {"wait": True, "cancel_futures": True}
    waiting = threading.Thread(target=pool.shutdown, kwargs=end, daemon=True)
    waiting.start()
    waiting.join(_PATIENCE)


def raise_first_failure(jobs: Sequence[Future[Any]]) -> None:
    """Raise what one of the finished jobs raised, if any did."""
    for job in jobs:
        if job.done():
            job.result()


def tell(progress: Progress, stage: str, jobs: Sequence[Future[Any]], total: int) -> None:
    """Tell ``progress`` how many of the jobs are done, of ``total`` that there will be."""
    progress(stage, sum(job.done() for job in jobs), total)


def wait(jobs: Sequence[Future[Any]], stage: str, progress: Progress) -> None:
    """Until all are done, or one fails: its error is raised."""
    already = sum(job.done() for job in jobs)
    for done, job in enumerate(as_completed(jobs), 1):
        job.result()
        if done >= already:
            progress(stage, done, len(jobs))
