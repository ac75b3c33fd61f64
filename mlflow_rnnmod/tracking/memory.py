"""What was read in this process, so that nothing is read twice; bounded in bytes, for threads."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

from mlflow_rnnmod._locks import Lock

MEMORY_VARIABLE = "RNNMOD_MEMORY"
MEGABYTES = 512


def limit() -> int:
    """Bytes that are kept: ``$RNNMOD_MEMORY`` in megabytes, 512 by default."""
    given = os.environ.get(MEMORY_VARIABLE, str(MEGABYTES))
    try:
        megabytes = float(given)
    except ValueError:
        megabytes = -1.0
    if not 0 <= megabytes < float("inf"):
        raise ValueError(f"{MEMORY_VARIABLE}={given!r}; expected megabytes, a number from 0 on.")
    return int(megabytes * 2**20)


class Memory:
    """Things by key, those used last; older ones make room for new ones.

    Args:
        limit: gives the bytes that may be kept; asked each time.

    Example:
        >>> memory = Memory(lambda: 10)
        >>> for key in "abc":
        ...     memory.put(key, key.upper(), 5)
        >>> memory.get("a"), memory.get("b"), memory.get("c")
        (None, 'B', 'C')
    """

    def __init__(self, limit: Callable[[], int] = limit) -> None:
        self._limit = limit
        self._kept: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def get(self, key: Hashable) -> Any:
        """What was put under the key; ``None`` where there is nothing (any more)."""
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key][0]

    def put(self, key: Hashable, thing: Any, size: int) -> None:
        """Keep a thing of ``size`` bytes; what is larger than the limit is not kept."""
        most = self._limit()
        with self._lock:
            self._drop(key)
            if size > most:
                return
            self._kept[key] = thing, size
            self._bytes += size
            while self._bytes > most:
                self._drop(next(iter(self._kept)))

    def _drop(self, key: Hashable) -> None:
        _, size = self._kept.pop(key, (None, 0))
        self._bytes -= size

    @property
    def bytes(self) -> int:
        """How much is kept."""
        return self._bytes

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._kept.clear()
            self._bytes = 0


MEMORY = Memory()
"""The process's."""
