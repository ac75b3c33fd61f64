"""Locks that a forked process finds open, and properties that are computed once without any.

Servers fork: ``gunicorn --preload`` loads a model, answers, and forks its workers. A lock that some
thread holds at that moment is held for ever in the child, where that thread is not.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

_locks: weakref.WeakSet[Lock] = weakref.WeakSet()


class Lock:
    """A lock, to be used by ``with``; in a forked process it is open.

    Example:
        >>> lock = Lock()
        >>> with lock:
        ...     lock.locked
        True
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _locks.add(self)

    @property
    def locked(self) -> bool:
        """Whether somebody holds it."""
        return self._lock.locked()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        if self._lock.locked():  # it is not where the block itself has forked
            self._lock.release()

    def renew(self) -> None:
        """Open it, in a process that has one thread only."""
        self._lock = threading.Lock()


def _renew_all() -> None:
    for lock in list(_locks):
        lock.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)

if TYPE_CHECKING:
    from functools import cached_property
else:

    class cached_property:  # noqa: N801
        """As ``functools.cached_property`` is since Python 3.12: without a lock.

        Before, one lock for all objects of a class is held while the value is computed, so that two
        models wait for each other, and a process that is forked meanwhile for ever. Two threads may
        compute a value twice; all get the one that was there first.
        """

        def __init__(self, function: Callable[[Any], Any]) -> None:
            self.function = function
            self.__doc__ = function.__doc__
            self.__module__ = function.__module__

        def __set_name__(self, owner: type, name: str) -> None:
            self.name = name

        def __get__(self, instance: Any, owner: type | None = None) -> Any:
            if instance is None:
                return self
            values = vars(instance)
            if self.name not in values:
                values.setdefault(self.name, self.function(instance))
            return values[self.name]
