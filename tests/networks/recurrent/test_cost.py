from __future__ import annotations

import json

import pytest
import torch

from mlflow_rnnmod.networks.recurrent import machine
from mlflow_rnnmod.networks.recurrent.cost import Work, choose, seconds
from mlflow_rnnmod.networks.recurrent.machine import SHIPPED, Machine, fit
from tests.builders import tiny_module, tiny_parent


def work(count: int, rows: int, units: int = 100) -> Work:
    return Work(count, rows, 15, ((50, units),), ((50, units * 4 // 5),), (units // 5,), 4)


def test_fit_finds_what_times_were_made_of():
    counts = [(1.0, 2.0, 0.0), (1.0, 8.0, 5.0), (1.0, 4.0, 100.0), (1.0, 16.0, 1.0)]
    truth = (3e-4, 2e-5, 7e-6)
    times = [sum(a * b for a, b in zip(c, truth, strict=True)) for c in counts]
    assert fit(counts, times) == pytest.approx(truth, rel=1e-6)


def test_fit_gives_nothing_negative():
    counts = [(1.0, 1.0), (1.0, 2.0), (1.0, 3.0)]
    found = fit(counts, [3e-3, 2e-3, 1e-3])
    assert min(found) >= 0 and max(found) > 0


def test_many_modules_of_one_row_are_stacked_and_few_of_many_rows_are_not():
    assert choose(work(150, 1), 1, SHIPPED) == "stacked"
    assert choose(work(10, 512), 2, SHIPPED) == "threads"
    assert choose(work(10, 512), 1, SHIPPED) == "sliced"


def test_there_are_no_threads_where_there_is_one():
    assert "threads" not in seconds(work(10, 64), SHIPPED, 1)
    assert "threads" in seconds(work(10, 64), SHIPPED, 2)


def test_a_figure_of_the_machine_decides():
    slow = Machine(*[(1.0,) * 4] * 4, (1e-9,) * 4, 1.0, 1.0)
    assert choose(work(2, 512), 2, slow) == "stacked"


def test_work_counts_the_parents_own_sizes():
    parent = tiny_parent(recurrent=((8, 6), (7,)))
    trunk = tiny_module(parent, removal=0.5).trunk
    found = Work.of(parent.network.config, [trunk], 3, 5)
    assert found.whole == ((6, 8), (6, 6), (14, 7))
    kept = {name: int(mask.sum()) for name, mask in trunk.keep.items()}
    below = kept["recurrent.0.fwd"] + kept["recurrent.0.bwd"]
    assert found.cut[2] == (below, kept["recurrent.1.fwd"])


def test_figures_are_kept_and_read_again(tmp_path, monkeypatch):
    monkeypatch.setenv("RNNMOD_CACHE", str(tmp_path / "cache"))
    assert machine.read_cached() is None
    machine.write_cached(SHIPPED)
    assert machine.read_cached() == SHIPPED


@pytest.mark.parametrize("content", ["", "[]", '{"kernel": 1}', "nonsense"])
def test_a_spoilt_cache_is_done_without(tmp_path, monkeypatch, content):
    monkeypatch.setenv("RNNMOD_CACHE", str(tmp_path))
    machine.cache_file().write_text(content)
    assert machine.read_cached() is None


def test_a_cache_that_cant_be_written_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("RNNMOD_CACHE", str(tmp_path / "file" / "cache"))
    machine.write_cached(SHIPPED)
    assert machine.read_cached() is None
    monkeypatch.setenv("RNNMOD_CACHE", "")
    machine.write_cached(SHIPPED)
    assert machine.cache_file() is None and machine.read_cached() is None


def test_the_machine_is_measured_once_and_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("RNNMOD_CACHE", str(tmp_path))
    monkeypatch.setattr(machine, "_current", None)
    monkeypatch.setattr(machine, "_busy_until", 0.0)
    monkeypatch.setattr(machine, "_QUIET", float("inf"))  # however busy it is
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    found = machine.current_machine()
    assert machine.current_machine() is found
    assert all(min(p) >= 0 < max(p) for p in (getattr(found, n) for n in machine._PRODUCTS))
    assert torch.equal(torch.get_rng_state(), state) and torch.get_num_threads() == threads
    assert json.loads(machine.cache_file().read_text())["handoff"] == found.handoff


def test_what_a_busy_machine_shows_is_forgotten(tmp_path, monkeypatch):
    """The figures that come with the package do, and it is measured again later."""
    monkeypatch.setenv("RNNMOD_CACHE", str(tmp_path))
    monkeypatch.setattr(machine, "_current", None)
    monkeypatch.setattr(machine, "_busy_until", 0.0)
    asked = []
    monkeypatch.setattr(Machine, "measured", classmethod(lambda cls: asked.append(1)))
    assert machine.current_machine() is machine.current_machine() is SHIPPED
    assert len(asked) == 1 and not machine.cache_file().exists()
    monkeypatch.setattr(machine, "_busy_until", 0.0)
    quick = Machine(*[(2.0,) * 4] * 5, 1.0, 1.0)
    monkeypatch.setattr(Machine, "measured", classmethod(lambda cls: quick))
    assert machine.current_machine() is quick == machine.read_cached()
