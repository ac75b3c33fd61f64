"""One piece of work in a forked process of its own, with limits, and watched.

The process that forks has everything imported, so that a child costs milliseconds. It must not have
used threads of its own before: only what it has itself survives a fork.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

MEGABYTES = 512
SECONDS = 10
_WAITED = 90.0
_ROOM = 4 * 2**30  # of addresses, beyond what is there: an allocator takes some for itself
_READS = (sys.prefix, sys.base_prefix, "/proc", "/sys", "/dev/null", "/dev/urandom", "/etc/ld")
_READS += (os.path.dirname(__file__),)  # which tracebacks of what is raised may look up
_READS += ("/usr", "/lib", "/etc/localtime", "/etc/mime", "/root/.mime", "/etc/apache")


@dataclass
class Outcome:
    """What came of it.

    Args:
        kind: ``"answered"``, ``"error"``, ``"abort"``, ``"hang"``.
        answer: what the work gave.
        error: type and message of what it raised, or the signal.
        events: what it did that nobody asked for: code, writes, reads elsewhere, connections.
        seconds: of processor time.
        megabytes: beyond what the process had at first.
    """

    kind: str
    answer: Any = None
    error: tuple[str, str] | None = None
    events: list[str] = field(default_factory=list)
    seconds: float = 0.0
    megabytes: float = 0.0


def run(work: Callable[[], Any], folder: str, more: tuple[str, ...] = ()) -> Outcome:
    """Do some work in a child.

    Args:
        work: gives JSON types.
        folder: where it may read; with ``more`` and what Python itself reads.
        more: other folders.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _child(work, (folder, *more), writing)
    os.close(writing)
    told, hung = _told(reading)
    os.close(reading)
    if hung:
        os.kill(child, signal.SIGKILL)
    _, status, used = os.wait4(child, 0)
    seconds = used.ru_utime + used.ru_stime
    code = os.waitstatus_to_exitcode(status)
    if hung or code in (-signal.SIGXCPU, -signal.SIGKILL):
        return Outcome("hang", error=("hang", f"{seconds:.1f} s"), seconds=seconds)
    if code != 0 or not told:
        name = signal.Signals(-code).name if code < 0 else f"exit {code}"
        return Outcome("abort", error=("abort", name), seconds=seconds)
    found = json.loads(told)
    return Outcome(**found, seconds=seconds)


def _told(reading: int) -> tuple[bytes, bool]:
    told, end = b"", time.monotonic() + _WAITED
    while True:
        left = end - time.monotonic()
        if left <= 0 or not select.select([reading], [], [], left)[0]:
            return told, True
        part = os.read(reading, 65536)
        if not part:
            return told, False
        told += part


def _child(work: Callable[[], Any], allowed: tuple[str, ...], writing: int) -> None:
    """The child's whole life; it never returns."""
    scratch = tempfile.gettempdir()
    events: list[str] = []
    sys.addaudithook(lambda name, arguments: _watch(name, arguments, allowed, scratch, events))
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)  # panics are told there
    before = _resident()
    resource.setrlimit(resource.RLIMIT_CPU, (3 * SECONDS, 3 * SECONDS + 1))
    addresses = _addresses() + _ROOM
    resource.setrlimit(resource.RLIMIT_AS, (addresses, addresses))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    found: dict[str, Any] = {"kind": "answered"}
    try:
        found["answer"] = work()
    except BaseException as error:
        found = {"kind": "error", "error": [type(error).__name__, str(error)[:4000]]}
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found.update(events=events[:20], megabytes=max(0.0, most - before))
    os.write(writing, json.dumps(found).encode()[:60000])
    os._exit(0)


def _watch(
    name: str, arguments: tuple[Any, ...], allowed: tuple[str, ...], scratch: str, events: list[str]
) -> None:
    if name in ("socket.connect", "socket.bind", "socket.getaddrinfo", "subprocess.Popen"):
        events.append(f"{name} {arguments[1:]!r:.200}")
    elif name in ("os.system", "os.exec", "os.posix_spawn", "os.fork", "pickle.find_class"):
        events.append(f"{name} {arguments!r:.200}")
    elif name in ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "shutil.rmtree"):
        path = os.fsdecode(arguments[0])  # relative ones are below a folder that is open
        if os.path.isabs(path) and not path.startswith(scratch):
            events.append(f"{name} {path:.200}")
    elif name == "open" and isinstance(arguments[0], str | bytes):
        path = os.path.realpath(os.fsdecode(arguments[0]))
        flags = arguments[2] if isinstance(arguments[2], int) else 0
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            if not path.startswith((scratch, "/dev/null")):
                events.append(f"write {path:.200}")
        elif not path.startswith((*allowed, *_READS, scratch)):
            events.append(f"read {path:.200}")


def _resident() -> float:
    """Megabytes that this process has had at the most; a child begins with its parent's."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _addresses() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
