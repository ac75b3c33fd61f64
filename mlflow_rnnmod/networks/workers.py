"""Threads that run one module each, with one core each."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from mlflow_rnnmod._locks import Lock

T = TypeVar("T")
_lock = Lock()
_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}


def threads() -> int:
    """How many threads PyTorch may use here."""
    return torch.get_num_threads()


def on_threads(tasks: Iterable[Callable[[], T]]) -> list[T]:
    """Run tasks side by side; results in their order.

    Many small networks run faster side by side with one core each than one after the other with
    all cores, which wait for each other at every step.
    """
    tasks = list(tasks)
    count = threads()
    if count == 1 or len(tasks) == 1:
        return [task() for task in tasks]
    return list(_pool(count).map(_run, tasks))


def _run(task: Callable[[], T]) -> T:
    with torch.inference_mode():
        return task()


def _pool(count: int) -> ThreadPoolExecutor:
    """The process's pool; a forked process makes its own, as threads do not survive a fork."""
    key = (os.getpid(), count)
    with _lock:
        if key not in _pools:
            ready = threading.Barrier(count + 1)

            def one_core() -> None:
                torch.set_num_threads(1)
                ready.wait()

            pool = ThreadPoolExecutor(count, "rnnmod", one_core)
            for _ in range(count):
                pool.submit(int)
            ready.wait()
            # The number is each thread's own, but threads to come start with the one set last.
            torch.set_num_threads(count)
            _pools[key] = pool
        return _pools[key]
