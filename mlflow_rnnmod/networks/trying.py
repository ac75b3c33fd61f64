"""Which way is fastest: estimated before the first batch, and by what batches took after that."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

# Estimates of different ways are off by up to twice; what should take longer than this many times
# the best is never tried.
WORTH = 3.0
# Where the best should take fewer seconds than this, there is nothing to win by trying.
LEAST = 1e-3
# Times that each way is tried at first, times that are remembered of it, and batches after which it
# is tried once more (again after twice as many, and so on).
_FIRST, _KEPT, _AGAIN = 2, 3, 8


class Trials:
    """How long each way took for some trunks, against what it was estimated to take.

    A way's last few times count, by the shortest of them: one that was tried while others used the
    machine is tried again, and one that has become slow is left. Nothing outlives the object.

    Args:
        estimate: from rows and steps of a batch to seconds of each way that may be taken.
    """

    def __init__(self, estimate: Callable[[int, int], Mapping[str, float]]) -> None:
        self._estimate = estimate
        self._worth: dict[tuple[int, int], Mapping[str, float]] = {}
        # By way and size: how often it was run, and how its last times compare to the estimates.
        self._runs: dict[tuple[str, int, int], tuple[int, Sequence[float]]] = {}

    def best(self, rows: int, steps: int) -> str:
        """The way that is fastest for a batch, as far as is known."""
        worth = self._ways(rows, steps)
        tried = {way: self._of(way, rows, steps)[1] for way in worth}
        if not all(tried.values()):
            return min(worth, key=lambda way: worth[way])
        return min(worth, key=lambda way: worth[way] * min(tried[way]))

    def due(self, rows: int, steps: int) -> str:
        """The way to run the next batch in: the best, or one that is to be tried."""
        worth = self._ways(rows, steps)
        runs = {way: self._of(way, rows, steps)[0] for way in worth}
        rare = min(sorted(worth, key=lambda way: worth[way]), key=lambda way: runs[way])
        wanted = _FIRST + math.log2(1 + sum(runs.values()) // _AGAIN)
        return rare if len(worth) > 1 and runs[rare] < int(wanted) else self.best(rows, steps)

    def note(self, way: str, rows: int, steps: int, seconds: float) -> None:
        """A batch took so long."""
        expected = self._ways(rows, steps).get(way)
        if expected:
            runs, last = self._of(way, rows, steps)
            kept = (*last, seconds / expected)[-_KEPT:]
            self._runs[way, *_size(rows, steps)] = runs + 1, kept

    def _of(self, way: str, rows: int, steps: int) -> tuple[int, Sequence[float]]:
        return self._runs.get((way, *_size(rows, steps)), (0, ()))

    def _ways(self, rows: int, steps: int) -> Mapping[str, float]:
        """What each way that is worth trying should take; asked once for each size."""
        if (rows, steps) not in self._worth:
            found = self._estimate(rows, steps)
            least = min(found.values())
            most = WORTH * least if least >= LEAST else least
            self._worth[rows, steps] = {way: time for way, time in found.items() if time <= most}
        return self._worth[rows, steps]


def _size(rows: int, steps: int) -> tuple[int, int]:
    """Batches of about one size: within a fifth of the rows, and two fifths of the steps."""
    return round(2 * math.log2(max(rows, 1))), round(math.log2(max(steps, 1)))
