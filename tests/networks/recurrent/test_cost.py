from __future__ import annotations

from mlflow_rnnmod.networks.recurrent.cost import COMMON, Machine, Work, seconds
from tests.builders import tiny_module, tiny_parent


def work(count: int, rows: int, units: int = 100) -> Work:
    return Work(count, rows, 15, ((50, units),), ((50, units * 4 // 5),), (units // 5,), 4, True)


def choose(work: Work, threads: int, machine: Machine = COMMON) -> str:
    found = seconds(work, threads, machine)
    return min(found.keys() - {"parent"}, key=lambda way: found[way])


def test_many_modules_of_one_row_are_stacked_and_few_of_many_rows_are_not():
    assert choose(work(150, 1), 1) == choose(work(10, 1), 1) == choose(work(10, 1), 2) == "stacked"
    assert choose(work(10, 512), 2) == "threads"
    assert choose(work(10, 512), 1) == "sliced"


def test_there_are_no_threads_where_there_is_one():
    assert "threads" not in seconds(work(10, 64), 1)
    assert "threads" in seconds(work(10, 64), 2)


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
