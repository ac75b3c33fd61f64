from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing

from mlflow_rnnmod.decomposition import collect
from mlflow_rnnmod.decomposition.team import merge_across_processes, share_of
from tests.builders import tiny_parent
from tests.decomposition.test_statistics import random_sample


def watched(rank: int, world: int, exact: bool = False):
    parent = tiny_parent(recurrent=((5,), (4,)), dtype=torch.float64)
    torch.manual_seed(0)
    sample = random_sample(parent.network, count=31)
    return collect(parent.network, share_of(sample, rank, world), exact=exact, batch_size=8)


def one_process(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world
    )
    merged = merge_across_processes(watched(rank, world))
    tensors = {
        f"{name}.{field.name}": getattr(layer, field.name)
        for name, layer in merged.layers.items()
        for field in fields(layer)
        if field.name != "exact"
    }
    for name, layer in merge_across_processes(watched(rank, world, exact=True)).layers.items():
        tensors[f"{name}.tendency"] = layer.exact.tendency(1, 0)
    torch.save(tensors, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_get_what_one_gets(tmp_path):
    multiprocessing.spawn(one_process, (2, str(tmp_path)), nprocs=2)
    expected = watched(0, 1)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, layer in expected.layers.items():
            exact = watched(0, 1, exact=True).layers[name].exact
            torch.testing.assert_close(found[f"{name}.tendency"], exact.tendency(1, 0))
            for field in [field for field in fields(layer) if field.name != "exact"]:
                one, many = getattr(layer, field.name), found[f"{name}.{field.name}"]
                if field.name in ("histogram", "observed", "count", "active"):
                    assert torch.equal(one, many), (name, field.name)
                else:
                    torch.testing.assert_close(many, one, rtol=1e-6, atol=1e-12)


def test_without_a_group_nothing_changes():
    statistics = watched(0, 1)
    assert merge_across_processes(statistics) is statistics


def test_shares_are_disjoint_and_complete():
    sample = random_sample(tiny_parent().network, count=11)
    parts = [share_of(sample, rank, 3).rivals for rank in range(3)]
    assert sorted(map(len, parts)) == [3, 4, 4]
    assert sorted(torch.cat(parts).tolist()) == sorted(sample.rivals.tolist())
    with pytest.raises(ValueError, match="rank=3"):
        share_of(sample, 3, 3)
