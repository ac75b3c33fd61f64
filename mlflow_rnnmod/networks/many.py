"""The ways of running many trunks of one parent, on threads or not; all of them give the same."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor

from mlflow_rnnmod._locks import Lock
from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.networks.protocol import Finish, Network
from mlflow_rnnmod.networks.trunk import Trunk
from mlflow_rnnmod.networks.trying import Trials

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


WAYS = ("auto", "loop", "sliced", "threads", "stacked")
"""How modules with trunks of their own are run.

``loop``: one masked network after the other, as everybody else does; ``sliced``: one after the
other, cut down to their units; ``threads``: the same on a thread each; ``stacked``: all at once.
``auto`` takes what should be fastest, tries what may be as fast on the first batches of a size, and
keeps to what was. Trunks with masks for single steps or gates are never cut
down, but run in any of these ways.
"""

# Readouts (trunks x observations) whose heads are finished at once.
MAX_FINISHED = 2048

# From what :meth:`ManyTrunks.feed` makes of a batch to a trunk's readout.
Run = Callable[[Any], Tensor]


def check_way(way: str) -> None:
    """Raises ``ValueError`` for a way that does not exist."""
    if way not in WAYS:
        raise ValueError(f"engine={way!r}, expected one of {WAYS}.")


class ManyTrunks:
    """Some trunks of one parent, none of them full; what each way needs is made when it is used.

    What an architecture adds are :meth:`expected`, :meth:`make_stack` and :meth:`run_stack`; and
    :meth:`feed` and :meth:`cut` where views share what they read.

    Args:
        network: the parent's.
        trunks: at least one, all different.
    """

    def __init__(self, network: Network, trunks: Sequence[Trunk]) -> None:
        self.network, self.trunks = network, tuple(trunks)
        # What a way needs is made once, whoever asks first.
        self._lock = Lock()
        self._views: dict[bool, list[Run]] = {}
        self._stack: Any = None
        self._trials = Trials(self.expected)

    def way(self, way: str, rows: Rows) -> str:
        """The way that is taken for a batch, where ``"auto"`` is asked for."""
        if way != "auto":
            return way
        size = len(rows), self.steps(rows)
        return self._only() or self._trials.due(*size)

    def planned(self, rows: int, steps: int) -> str:
        """The way that is fastest for a batch of so many rows and steps, as far as is known."""
        return self._only() or self._trials.best(rows, steps)

    def _only(self) -> str | None:
        """The way that is always taken, if there is one."""
        if len(self.trunks) == 1:
            return "sliced"
        return "stacked" if self.network.device.type != "cpu" else None

    def run(self, rows: Rows, way: str, finish: Finish) -> None:
        """Hand the readouts of all trunks to ``finish``, some at a time, in any order."""
        ready = self._stacked() if way == "stacked" else self._runs(way == "loop")
        started = time.perf_counter()
        if way == "stacked":
            self.run_stack(ready, rows, finish)
        else:
            self._run_each(ready, way, rows, finish)
        if self._only() is None:
            taken = time.perf_counter() - started
            self._trials.note(way, len(rows), self.steps(rows), taken)

    def _run_each(self, views: Sequence[Run], way: str, rows: Rows, finish: Finish) -> None:
        """Run every trunk by itself, on a thread each or not."""
        fed = self.feed(rows)

        def task(part: slice) -> Callable[[], None]:
            return lambda: finish(part, torch.stack([view(fed) for view in views[part]]))

        workers = self.workers() if way == "threads" else 1
        # Heads are finished for some trunks at a time: many small operations become a few.
        found = len(rows) * (self.steps(rows) if self.network.config.answer.stepwise else 1)
        size = max(min(-(-len(views) // workers), MAX_FINISHED // max(found, 1)), 1)
        tasks = [task(slice(i, i + size)) for i in range(0, len(views), size)]
        if workers > 1:
            on_threads(tasks)
        else:
            for run in tasks:
                run()

    def alone(self, rows: Rows) -> Tensor:
        """The readout of a single trunk, cut down to its units."""
        (only,) = self._runs(False)
        return only(self.feed(rows))

    def _runs(self, plain: bool) -> list[Run]:
        """How each trunk is run by itself, cut down or masked; made once."""
        with self._lock:
            if plain not in self._views:
                self._views[plain] = [self.cut(trunk, not plain) for trunk in self.trunks]
        return self._views[plain]

    def _stacked(self) -> Any:
        """What :meth:`run_stack` needs; made once."""
        with self._lock:
            if self._stack is None:
                self._stack = self.make_stack()
        return self._stack

    def workers(self) -> int:
        """Threads that may be used."""
        return threads() if self.network.device.type == "cpu" else 1

    def steps(self, rows: Rows) -> int:
        """Steps that are run for a batch."""
        return 1

    def feed(self, rows: Rows) -> Any:
        """What all views of a batch read."""
        return rows

    def cut(self, trunk: Trunk, cut: bool) -> Run:
        """How one trunk is run, cut down to its units or masked."""
        return self.network.view(trunk, cut).readout

    def expected(self, rows: int, steps: int) -> Mapping[str, float]:
        """Seconds that each way that may be taken on the CPU should take."""
        return {"sliced": 0.0}

    def make_stack(self) -> Any:
        """What :meth:`run_stack` needs, made once."""
        raise NotImplementedError

    def run_stack(self, stack: Any, rows: Rows, finish: Finish) -> None:
        """Run all trunks at once."""
        raise NotImplementedError
