"""Work that is finished whatever interrupts it, so that nothing is left half undone."""

from __future__ import annotations

import threading
from collections.abc import Callable


def finish(work: Callable[[], None], name: str) -> None:
    """Do some work to its end; what interrupts it is raised afterwards.

    Ctrl-C, and whatever else a signal handler raises, is raised in the main thread wherever that
    is. So the work is done in a thread of its own, and this one only waits.

    Args:
        work: bounded in time, as it can't be stopped.
        name: of the thread.

    Raises:
        BaseException: the last interruption, or else what the work raised.

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
