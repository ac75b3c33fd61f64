"""A served composite under fire: many clients at once, and a server that forks its workers."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch

from mlflow_rnnmod.composition import compose
from tests.builders import tiny_inputs, tiny_modules, tiny_parent


def fire(
    answer: Callable[[Any], Any], batches: list[Any], clients: int, seconds: float
) -> Counter[str]:
    """So many clients that ask at once; what came of their questions.

    Args:
        answer: gives the answers to a batch.
        batches: what is asked, each client another one first.
        clients: threads.
        seconds: how long.
    """
    expected = [answer(batch) for batch in batches]
    counts: Counter[str] = Counter()
    lock, end = threading.Lock(), time.monotonic() + seconds

    def client(number: int) -> None:
        own: Counter[str] = Counter()
        while time.monotonic() < end:
            number = (number + 1) % len(batches)
            try:
                same = answer(batches[number]) == expected[number]
                own["as before" if same else "another answer"] += 1
            except Exception as error:
                own[f"error: {error!r:.100}"] += 1
        with lock:
            counts.update(own)

    threads = [threading.Thread(target=client, args=(i,)) for i in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return counts


def forked_server(workers: int, questions: int, clients: int = 4) -> Counter[str]:
    """Workers forked from a process that answers meanwhile, as ``gunicorn --preload`` has them.

    What each worker's first questions came to; a worker that does not end is a hang.
    """
    torch.set_num_threads(1)
    modules = tiny_modules(tiny_parent("tokens"))
    inputs = tiny_inputs(modules[0].parent)
    expected = compose(modules).predict(inputs)
    stop = threading.Event()

    def busy() -> None:
        while not stop.is_set():
            compose(modules).predict(inputs)

    threads = [threading.Thread(target=busy, daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    counts: Counter[str] = Counter()
    try:
        for _ in range(workers):
            loaded = compose(modules)
            child = os.fork()
            if child == 0:
                try:
                    good = all(loaded.predict(inputs) == expected for _ in range(questions))
                    os._exit(0 if good else 1)
                except BaseException:
                    os._exit(2)
            counts[_ended(child)] += 1
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    return counts


def _ended(child: int, seconds: float = 60.0) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            code = os.waitstatus_to_exitcode(status)
            return {0: "as before", 1: "another answer"}.get(code, f"exit {code}")
        time.sleep(0.02)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return "hang"


def served(clients: int, seconds: float) -> Counter[str]:
    """Clients of one composite, with inputs of all lengths, in the process that serves it."""
    composite = compose(tiny_modules(tiny_parent("text")))
    inputs = tiny_inputs(composite.modules[0].parent)
    batches = [inputs[:1], inputs, inputs * 7, [" ".join(inputs) * 20], inputs[1:2]]
    return fire(composite.predict, batches, clients, seconds)
