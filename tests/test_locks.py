"""Processes that fork while a model answers, and models that do not wait for each other."""

from __future__ import annotations

import os
import threading
import time

import pytest
import torch

from mlflow_rnnmod._locks import Lock, cached_property
from mlflow_rnnmod.composition import compose
from tests.builders import tiny_inputs, tiny_modules, tiny_parent


def in_child(work, seconds=60.0):
    """Exit status of a forked process that does some work; -1 where it hangs."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if work() else 1)
        except BaseException:
            os._exit(2)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return -1


def test_a_lock_is_open_in_a_forked_process():
    lock = Lock()
    with lock:
        assert in_child(lambda: not lock.locked and lock.__enter__() is None) == 0
        assert lock.locked
    with lock:
        pass


def test_a_block_that_forks_ends_in_both():
    lock = Lock()

    def ends():
        lock.__exit__(None, None, None)
        with lock:
            return True

    with lock:
        assert in_child(ends) == 0


def test_models_are_made_ready_side_by_side():
    """One that takes long does not stop another; functools before Python 3.12 did."""
    begun, go = threading.Event(), threading.Event()

    class Model:
        def __init__(self, slow):
            self.slow = slow

        @cached_property
        def engine(self):
            if self.slow:
                begun.set()
                go.wait(30)
            return object()

    slow = Model(True)
    thread = threading.Thread(target=lambda: slow.engine)
    thread.start()
    begun.wait(30)
    quick = Model(False)
    assert quick.engine is quick.engine
    assert in_child(lambda: Model(False).engine is not None, 20) == 0
    go.set()
    thread.join()
    assert slow.engine is slow.engine


@pytest.mark.parametrize("way", ["auto", "sliced", "stacked", "loop"])
def test_a_forked_process_answers_whatever_the_others_were_doing(way):
    torch.set_num_threads(1)
    composite = compose(tiny_modules(tiny_parent("tokens")))
    inputs = tiny_inputs(composite.modules[0].parent)
    expected = composite.predict(inputs, engine=way)
    stop = threading.Event()

    def busy():
        while not stop.is_set():
            fresh = compose(composite.modules)
            fresh.predict(inputs, engine=way)

    threads = [threading.Thread(target=busy, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(8):
            fresh = compose(composite.modules)
            assert in_child(lambda fresh=fresh: fresh.predict(inputs, engine=way) == expected) == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()
