"""Trunks with masks for single steps and gates, beside others, in every way of running them."""

from __future__ import annotations

import pytest
import torch

from mlflow_rnnmod.networks.recurrent.ways import RecurrentTrunks as Trunks
from tests.builders import tiny_parent, tiny_rows
from tests.networks.recurrent.test_unrolled import KINDS, random_masks

ALL = [("rolled", "joint"), *KINDS]


def run(trunks: Trunks, rows, way: str) -> torch.Tensor:
    found = {}

    def finish(part: slice, readouts: torch.Tensor) -> None:
        numbers = range(len(trunks.trunks))[part]
        found.update(dict(zip(numbers, readouts, strict=True)))

    with torch.inference_mode():
        trunks.run(rows, way, finish)
    return torch.stack([found[i] for i in range(len(trunks.trunks))])


@pytest.mark.parametrize("kind", KINDS)
def test_a_way_is_chosen(kind):
    parent = tiny_parent(recurrent=((24,),), scale=1.0)
    torch.manual_seed(0)
    trunks = Trunks(parent.network, [random_masks(parent.network, kind) for _ in range(12)])
    for count in (1, 200):
        rows = tiny_rows(parent, count, 9)
        way = trunks.planned(count, 9)
        assert way == "stacked" or kind[0] == "rolled"
        found = run(trunks, rows, way)
        torch.testing.assert_close(found, run(trunks, rows, "loop"), rtol=1e-4, atol=1e-5)
    assert Trunks(parent.network, trunks.trunks[:1]).planned(5, 9) == "sliced"
