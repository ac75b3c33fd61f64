"""Runs that go on: only rows that are not there yet are made."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import rq2
from benchmarks.data import TextData
from benchmarks.reuse import RULES


class Bench:
    """A workshop whose modules are their own names."""

    def __init__(self) -> None:
        self.trained: list[tuple[str, ...]] = []

    def epochs(self, *_: Any) -> int:
        return 2

    def scratch(self, data: TextData, *_: Any) -> tuple[float, float, None]:
        self.trained.append(tuple(data.names))
        return 90.0, 1.0, None

    def modules(self, data: TextData, *_: Any) -> dict[str, str]:
        return {name: name for name in data.names}


def texts(name: str, names: tuple[str, ...]) -> TextData:
    labels = list(names) * 4
    splits = ("train", "validation", "test")
    return TextData(
        name,
        {s: [f"{name} {i}" for i in range(len(labels))] for s in splits},
        {s: labels for s in splits},
        names,
    )


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(rq2, "compose", lambda modules, **_: modules)
    monkeypatch.setattr(rq2, "composite_points", lambda *_: 80.0)
    monkeypatch.setattr(rq2, "with_likelihood", lambda *_: None)
    monkeypatch.setattr(rq2, "reuse_row", lambda pair, rule, *_, **__: (pair, rule))


@pytest.mark.usefixtures("rows")
def test_within_a_set_goes_on_with_what_is_missing():
    data, told = texts("one", ("a", "b", "c")), lambda _: None
    every = list(rq2.within(Bench(), data, None, 0.2, set(), told))
    assert len(every) == 9 and {rule for _, rule in every} == set(RULES)
    bench, last = Bench(), every[4]
    assert list(rq2.within(bench, data, None, 0.2, {*every} - {last}, told)) == [last]
    assert bench.trained == [tuple(last[0].split("+"))]
    assert list(rq2.within(Bench(), data, None, 0.2, set(every), told)) == []


@pytest.mark.usefixtures("rows")
def test_across_types_goes_on_with_what_is_missing():
    first, second = ((texts(*given), None) for given in (("one", ("a", "b")), ("two", ("x", "y"))))
    every = list(dict.fromkeys(rq2.across(Bench(), first, second, 0.2, set(), lambda _: None)))
    bench, last = Bench(), every[-1]
    left = list(rq2.across(bench, first, second, 0.2, {*every} - {last}, lambda _: None))
    assert set(left) == {last} and set(bench.trained) == {tuple(last[0].split("+"))}
