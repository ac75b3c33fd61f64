"""Jobs side by side, which stop together where one fails; work that nothing interrupts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Any

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


def finish(work: Callable[[], None], name: str) -> None:
    """Do some work to its end; what interrupts it is raised afterwards.

    Ctrl-C, and whatever else a signal handler raises, is raised in the main thread wherever that
    is. So the work is done in a thread of its own, and this one only waits.

    Example:
        >>> finish(lambda: print("done"), "example")
        done
    """
    failures: list[BaseException] = []
    # Not join: where that is interrupted, it takes a thread that goes on for one that has ended.
    done = threading.Event()

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=guarded, name=name, daemon=True)
    interruption: BaseException | None = None
    begun = False
    while not begun or not done.is_set():
        try:
            if not begun:
                begun = True
                thread.start()
            done.wait(0.2)
        except BaseException as error:
            interruption = error
    if interruption is not None:
        raise interruption
    if failures:
        raise failures[0]
