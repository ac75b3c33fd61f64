"""Processes that watch together; what happens where one of them can't."""

from __future__ import annotations

from dataclasses import fields
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing

from mlflow_rnnmod.decomposition import DecompositionConfig, Team, collect, decompose
from mlflow_rnnmod.decomposition.decompose import help_decompose
from tests.builders import tiny_parent
from tests.decomposition.test_statistics import random_sample

pytestmark = pytest.mark.slow  # processes that start and wait
COUNT = 31


def parent():
    return tiny_parent(recurrent=((5,), (4,)), dtype=torch.float64)


def sample(seed: int = 0, count: int = COUNT):
    torch.manual_seed(seed)
    return random_sample(parent().network, count=count)


def data():
    torch.manual_seed(3)
    return [random_sample(parent().network, count=60).rows for _ in range(2)]


def plain(statistics):
    """All numbers, by layer and field."""
    if statistics is None:
        return None
    return {
        f"{name}.{field.name}": value
        for name, layer in statistics.layers.items()
        for field in fields(layer)
        if isinstance(value := getattr(layer, field.name), torch.Tensor)
    }


def scenarios(rank: int, team: Team):
    """Each with what it gives, and how many rows this process watched for it."""
    network, seen = parent().network, []

    def watch(part):
        seen.append(len(part))
        return collect(network, part, batch_size=8)

    def fail(part):
        if rank == 1:
            raise MemoryError("rank 1")
        return watch(part)

    def run(name, job):
        seen.clear()
        try:
            found = job()
        except Exception as error:
            found = str(error)
        return name, found, list(seen)

    group = team.group
    yield run("together", lambda: plain(team.watch(network, sample(), watch)))
    yield run("different", lambda: plain(Team(group).watch(network, sample(rank), watch)))
    yield run("too few", lambda: plain(Team(group).watch(network, sample(count=1), watch)))
    yield run("one fails", lambda: plain(Team(group).watch(network, sample(), fail)))

    def leaves():
        with Team(group) as other:
            if rank == 1:
                raise OSError("no data")
            return plain(other.watch(network, sample(), watch))

    yield run("one leaves", leaves)

    def first_leaves():
        with Team(group) as other:
            if rank == 0:
                raise OSError("no data")
            return plain(other.watch(network, sample(), watch))

    yield run("first leaves", first_leaves)

    def whole():
        config = DecompositionConfig(rule="paper", removal=0.4)
        with Team(group) as other:
            if rank == 1:
                return help_decompose(other, parent(), *data(), config=config)
            found = decompose(parent(), *data(), config=config, team=other)
            return [dict(module.trunk.keep) for module in found.modules]

    yield run("decompose", whole)


def one_process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    meet = f"file://{folder}/meet"
    timeout = timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=2, timeout=timeout)
    found = {name: (result, seen) for name, result, seen in scenarios(rank, Team())}
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("team")
    multiprocessing.spawn(one_process, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def check(one, many) -> None:
    assert one.keys() == many.keys()
    for name, value in one.items():
        if name.rpartition(".")[2] in ("histogram", "observed", "count", "active"):
            assert torch.equal(value, many[name]), name
        else:
            torch.testing.assert_close(many[name], value, rtol=1e-6, atol=1e-12)


def test_each_watches_its_share_and_all_get_the_sum(found):
    expected = plain(collect(parent().network, sample(), batch_size=8))
    for rank in range(2):
        statistics, seen = found[rank]["together"]
        check(expected, statistics)
        assert seen == [16 - rank]


@pytest.mark.parametrize(
    ("name", "shares"),
    [("different", []), ("one fails", [16]), ("one leaves", [])],
)
def test_the_first_watches_alone_where_another_can_not(found, name, shares):
    expected = plain(collect(parent().network, sample(), batch_size=8))
    statistics, seen = found[0][name]
    check(expected, statistics)
    assert seen == [*shares, COUNT]
    assert found[1][name] == ({"one fails": "rank 1", "one leaves": "no data"}.get(name), [])


def test_a_row_is_too_few_to_share(found):
    assert found[0]["too few"][1] == [1]
    assert found[1]["too few"] == (None, [])


def test_nobody_waits_for_a_first_that_has_no_data(found):
    assert found[0]["first leaves"] == ("no data", [])
    assert found[1]["first leaves"] == (None, [])


def test_a_decomposition_comes_out_the_same(found):
    alone = decompose(parent(), *data(), config=DecompositionConfig(rule="paper", removal=0.4))
    masks, _ = found[0]["decompose"]
    assert any(not module.trunk.full for module in alone.modules)
    for module, keep in zip(alone.modules, masks, strict=True):
        assert all(torch.equal(keep[name], mask) for name, mask in module.trunk.keep.items())
    assert found[1]["decompose"][0] is None
