from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_rnnmod.tracking import memory
from mlflow_rnnmod.tracking.memory import Memory


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 7)), max_size=40))
def test_the_newest_that_fit_are_kept(puts):
    """Against the plain meaning: of the last put of each key, the newest whose sizes fit."""
    found = Memory(lambda: 10)
    sizes: dict[str, int] = {}
    for key, size in puts:
        found.put(key, (key, size), size)
        sizes.pop(key, None)
        sizes[key] = size
        while sum(sizes.values()) > 10:
            del sizes[next(iter(sizes))]
    assert found.bytes == sum(sizes.values())
    for key in "abcde":
        assert found.get(key) == ((key, sizes[key]) if key in sizes else None)


def test_what_is_asked_for_stays_longer():
    found = Memory(lambda: 2)
    for key in "ab":
        found.put(key, key, 1)
    found.get("a")
    found.put("c", "c", 1)
    assert [found.get(key) for key in "abc"] == ["a", None, "c"]
    found.clear()
    assert (found.get("a"), found.bytes) == (None, 0)


def test_what_is_too_large_is_not_kept_and_drives_nothing_out():
    found = Memory(lambda: 2)
    found.put("a", 1, 1)
    found.put("b", 2, 3)
    assert (found.get("a"), found.get("b")) == (1, None)


def test_many_threads(monkeypatch):
    found = Memory(lambda: 50)

    def work(start: int) -> None:
        for i in range(2000):
            found.put((start + i) % 70, i, 1 + i % 3)
            found.get(i % 70)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0 < found.bytes <= 50
    assert found.bytes == sum(size for _, size in found._kept.values())


def test_the_limit_comes_from_the_environment(monkeypatch):
    monkeypatch.delenv("RNNMOD_MEMORY", raising=False)
    assert memory.limit() == 512 * 2**20
    monkeypatch.setenv("RNNMOD_MEMORY", "0.5")
    assert memory.limit() == 2**19
    for wrong in ("much", "-1", "nan", "inf"):
        monkeypatch.setenv("RNNMOD_MEMORY", wrong)
        with pytest.raises(ValueError, match=f"RNNMOD_MEMORY={wrong!r}"):
            memory.limit()
