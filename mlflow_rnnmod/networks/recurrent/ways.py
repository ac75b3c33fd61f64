"""The ways of running many trunks of one parent; all of them give the same."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor

from mlflow_rnnmod.networks.recurrent.cost import Work, choose
from mlflow_rnnmod.networks.workers import on_threads, threads
from mlflow_rnnmod.networks.recurrent.network import RecurrentNetwork
from mlflow_rnnmod.networks.recurrent.packed import PackedNetwork, can_pack, feed
from mlflow_rnnmod.networks.recurrent.slicing import TrunkNetwork, View, masked, sliced
from mlflow_rnnmod.networks.recurrent.stepwise import Stepwise
from mlflow_rnnmod.networks.recurrent.unrolled import Unrolled
from mlflow_rnnmod.networks.rows import Rows
from mlflow_rnnmod.networks.trunk import Trunk

WAYS = ("auto", "loop", "sliced", "threads", "stacked")
"""How modules with trunks of their own are run.

``loop``: one masked network after the other, as everybody else does; ``sliced``: one after the
other, cut down to their units; ``threads``: the same on a thread each; ``stacked``: all at once,
step by step, over the parent's own weights. ``auto`` takes what should be fastest. Trunks with
masks for single steps or gates are never cut down, but run in any of these ways.
"""

# States (trunks x rows) that are stepped at once, at the most, and so many that a second thread
# gets some, too.
MAX_STATES, MIN_STATES = 1024, 64
# Readouts (trunks x rows, times steps where each is answered) whose heads are finished at once.
MAX_FINISHED = 2048
# ... and states times steps, where all steps are kept.
MAX_KEPT = 65_536

# What a way needs is made once, whoever asks first.
_lock = threading.Lock()

# Called with a slice of the trunks and their readouts (trunks, rows, readout size).
Finish = Callable[[slice, Tensor], None]


def check_way(way: str) -> None:
    """Raises ``ValueError`` for a way that does not exist."""
    if way not in WAYS:
        raise ValueError(f"engine={way!r}, expected one of {WAYS}.")


class Trunks:
    """Some trunks of one parent, none of them full; what each way needs is made when it is used.

    Args:
        network: the parent's.
        trunks: at least one, all different.
    """

    def __init__(self, network: RecurrentNetwork, trunks: Sequence[Trunk]) -> None:
        self.network, self.trunks = network, tuple(trunks)
        self._packs = can_pack(network)
        self._networks: dict[bool, list[View | PackedNetwork]] = {}
        self._stacks: list[tuple[int, Stepwise | Unrolled]] | None = None

    def way(self, way: str, rows: int, steps: int) -> str:
        """The way that is taken for a batch, where ``"auto"`` is asked for."""
        if way != "auto":
            return way
        if self.network.device.type != "cpu":
            return "stacked" if len(self.trunks) > 1 else "sliced"
        if len(self.trunks) == 1:
            return "sliced"
        if any(trunk.variant == "unrolled" for trunk in self.trunks):
            return "stacked"  # no kernel has masks for single steps
        return choose(self.work(rows, steps), threads())

    def steps(self, rows: Rows) -> int:
        """Steps of the recurrent layers for a batch."""
        config = self.network.config
        return rows.values.shape[1] if config.feed == "steps" else config.output_steps or 1

    def work(self, rows: int, steps: int) -> Work:
        """What there is to do for a batch."""
        return Work.of(self.network.config, self.trunks, rows, steps)

    def run(self, rows: Rows, way: str, finish: Finish) -> None:
        """Hand the readouts of all trunks to ``finish``, some at a time, in any order.

        Args:
            rows: a batch, on the network's device.
            way: any of ``WAYS`` but ``auto``.
            finish: called on this thread or on others.
        """
        if way == "stacked":
            self._run_stacked(rows, finish)
            return

        views = self._views(way == "loop")
        fed = feed(self.network, rows) if self._packs else None

        def readout(view: View | PackedNetwork) -> Tensor:
            if isinstance(view, PackedNetwork):
                assert fed is not None
                return view.readout(fed)
            return view.readout(rows)

        def task(part: slice) -> Callable[[], None]:
            return lambda: finish(part, torch.stack([readout(view) for view in views[part]]))

        workers = self._workers() if way == "threads" else 1
        # Heads are finished for some trunks at a time: many small operations become a few.
        found = len(rows) * (self.steps(rows) if self.network.config.stepwise else 1)
        size = max(min(-(-len(views) // workers), MAX_FINISHED // found), 1)
        tasks = [task(slice(i, i + size)) for i in range(0, len(views), size)]
        if workers > 1:
            on_threads(tasks)
        else:
            for run in tasks:
                run()

    def _run_stacked(self, rows: Rows, finish: Finish) -> None:
        with _lock:
            if self._stacks is None:
                self._stacks = list(self._stack())
        lengths = rows.lengths if rows.lengths is not None else self.network.lengths(rows)
        rows = Rows(rows.values, lengths)
        for start, stack in self._stacks:
            self._run_stack(start, stack, rows, finish)

    def _run_stack(
        self, start: int, stack: Stepwise | Unrolled, rows: Rows, finish: Finish
    ) -> None:
        """Trunks of a stack, the first of which is number ``start``."""
        projected = stack.project(rows)

        def task(part: slice) -> Callable[[], None]:
            here = slice(start + part.start, start + part.stop)
            return lambda: finish(here, stack.readout(rows, part, projected))

        parts = _parts(stack.count, len(rows), self.steps(rows), self._workers())
        on_threads(task(part) for part in parts)

    def _stack(self) -> Iterator[tuple[int, Stepwise | Unrolled]]:
        """Neighbours that can be run together, each with the number of its first."""
        start = 0
        for sliceable, group in groupby(self.trunks, key=lambda trunk: trunk.sliceable):
            trunks = list(group)
            make = Stepwise if sliceable else Unrolled
            yield start, make(self.network, trunks)
            start += len(trunks)

    def _workers(self) -> int:
        return threads() if self.network.device.type == "cpu" else 1

    def _views(self, plain: bool) -> list[View | PackedNetwork]:
        """A network for each trunk: cut down to its units where it can be, or else masked."""
        make = masked if plain else self._cut
        with _lock:
            if plain not in self._networks:
                self._networks[plain] = [make(self.network, trunk) for trunk in self.trunks]
            return self._networks[plain]

    def _cut(self, network: RecurrentNetwork, trunk: Trunk) -> View | PackedNetwork:
        found = sliced(network, trunk)
        if self._packs and trunk.sliceable and isinstance(found, TrunkNetwork):
            return PackedNetwork(found.inner, found.completion)
        return found


def _parts(trunks: int, rows: int, steps: int, workers: int) -> Iterator[slice]:
    """Trunks in parts that keep memory bounded and every worker busy."""
    most = min(MAX_STATES, max(MAX_KEPT // steps, 1))
    size = max(most // rows, 1)
    if workers > 1 and trunks * rows >= 2 * MIN_STATES:
        shares = max(min(workers, trunks * rows // MIN_STATES), 1)
        rounds = -(-trunks // (size * shares))
        size = min(size, -(-trunks // (shares * rounds)))
    for start in range(0, trunks, size):
        yield slice(start, min(start + size, trunks))
