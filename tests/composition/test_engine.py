from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_rnnmod.composition import Composite, compose
from mlflow_rnnmod.composition.scores import ENERGY_WEIGHT
from mlflow_rnnmod.decomposition.module import Calibration, Energy, Head, Module, make_contract
from mlflow_rnnmod.inputs.rows import bucket
from mlflow_rnnmod.networks import Parent, Rows, Trunk
from mlflow_rnnmod.networks.guard import tolerance
from mlflow_rnnmod.networks.many import WAYS
from mlflow_rnnmod.networks.protocol import TrunkNetwork
from mlflow_rnnmod.networks.recurrent.packed import PackedNetwork
from mlflow_rnnmod.networks.recurrent.ways import _parts, masked
from tests.builders import tiny_module, tiny_modules, tiny_parent, tiny_rows
from tests.networks.recurrent.strategies import networks, random_rows, random_trunk


def random_head(size: int) -> Head:
    weight = None if torch.rand(()) < 0.3 else 0.3 * torch.randn(size)
    return Head(weight, 0.7, Calibration(0.5 + float(torch.rand(())), float(torch.randn(()))))


def random_modules(parent: Parent, trunks: list[Trunk]) -> list[Module]:
    """A module for each label; labels take the trunks in turn."""
    size = parent.network.config.readout_size
    return [
        Module(
            parent,
            trunks[i % len(trunks)],
            random_head(size),
            random_head(size),
            Energy(0.5 * i, 1.0 + i),
            make_contract(parent, label),
        )
        for i, label in enumerate(parent.labels)
    ]


def plain_scores(modules: list[Module], rows: Rows, score: str) -> torch.Tensor:
    """One module after the other, from the formulas."""
    columns = []
    for module in modules:
        network = module.parent.network
        readout = masked(network, module.trunk).readout(rows)
        logits = network.logits(readout)
        own = module.contract.index
        others = torch.cat([logits[:, :own], logits[:, own + 1 :]], dim=1)
        odds = logits[:, own] - others.exp().sum(1).log()

        def margin(head: Head, odds=odds, readout=readout) -> torch.Tensor:
            if head.weight is not None:
                odds = odds + (readout * head.weight).sum(1) + head.bias
            return odds * head.calibration.scale + head.calibration.offset

        if score == "margin":
            columns.append(margin(module.head))
        elif score == "open":
            energy = network(rows).exp().sum(1).log()
            energy = (energy - module.energy.mean) / module.energy.deviation
            sure = torch.sigmoid(margin(module.open_head)).log()
            columns.append(sure + ENERGY_WEIGHT * energy)
        else:
            columns.append(logits[:, own] if score == "logit" else torch.sigmoid(odds))
    return torch.stack(columns, dim=1)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    network=networks(),
    mixed=st.booleans(),
    count=st.integers(1, 4),
    full=st.booleans(),
    score=st.sampled_from(["margin", "open", "logit", "probability"]),
    way=st.sampled_from([way for way in WAYS if way != "auto"]),
)
def test_all_ways_score_as_the_formulas_do(network, mixed, count, full, score, way):
    parent = Parent(network)
    rows = random_rows(network)
    trunks = [random_trunk(network, True, mixed) for _ in range(count)]
    if full:
        trunks[-1] = Trunk.whole(network.units)
    modules = random_modules(parent, trunks)
    found = compose(modules, score=score).scores(rows, engine=way)
    expected = plain_scores(modules, rows, score)
    assert found.shape == (len(rows), len(modules))
    assert ((found - expected).abs() <= 1e-9 * expected.abs().clamp(min=1)).all()


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn_tanh", "rnn_relu"])
@pytest.mark.parametrize("count", [1, 40, 300])
def test_all_ways_agree_in_float32(cell, count):
    labels = tuple(f"label {i}" for i in range(12))
    parent = tiny_parent(labels=labels, cell=cell, recurrent=((24,),), scale=1.0)
    modules = tiny_modules(parent, removal=0.3)
    rows = tiny_rows(parent, count, steps=9)
    composite = compose(modules)
    expected = composite.scores(rows, engine="loop")
    allowed = 10 * tolerance(torch.float32, expected, 24, 9)
    for way in WAYS:
        found = composite.scores(rows, engine=way)
        assert ((found - expected).abs() <= allowed).all(), way


def test_several_threads_agree_with_one():
    parent = tiny_parent(labels=[f"label {i}" for i in range(9)], recurrent=((16,), (12,)))
    composite = compose(tiny_modules(parent))
    rows = tiny_rows(parent, 100)
    expected = composite.scores(rows, engine="loop")
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        for way in ("threads", "stacked"):
            found = composite.scores(rows, engine=way)
            assert torch.allclose(found, expected, atol=2e-5, rtol=1e-5), way
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_modules_of_two_parents_keep_their_columns():
    first = tiny_parent(labels=("a", "b", "c"))
    second = tiny_parent(labels=("d", "e"), seed=1, cell="gru")
    one, two = tiny_modules(first), tiny_modules(second)
    mixed = [two[1], one[2], one[0], two[0]]
    rows = tiny_rows(first, 20)
    found = compose(mixed, score="open").scores(rows)
    for column, module in enumerate(mixed):
        alone = Composite((module,), "open").scores(rows)[:, 0]
        assert torch.allclose(found[:, column], alone, atol=1e-5)


def test_rows_come_back_in_their_order_from_small_batches():
    parent = tiny_parent()
    modules = tiny_modules(parent)
    rows = tiny_rows(parent, 50, steps=30)
    composite = compose(modules)
    whole = composite.scores(rows)
    composite.engine.batch_size = 7
    assert torch.allclose(composite.scores(rows), whole, atol=1e-5)


def test_a_trunk_is_run_once_for_all_its_heads(monkeypatch):
    parent = tiny_parent()
    trunk = tiny_module(parent).trunk
    modules = [tiny_module(parent, label, trunk=trunk) for label in parent.labels]
    composite = compose(modules)
    rows = tiny_rows(parent)
    composite.scores(rows)
    calls = []
    for kind in (TrunkNetwork, PackedNetwork):
        real = kind.readout
        monkeypatch.setattr(
            kind, "readout", lambda self, rows, real=real: calls.append(1) or real(self, rows)
        )
    composite.scores(rows)
    assert len(calls) == 1


def test_a_composite_that_was_used_can_be_copied():
    composite = compose(tiny_modules(tiny_parent()))
    rows = tiny_rows(composite.modules[0].parent)
    found = [composite.scores(rows, engine=way) for way in WAYS]
    copied = copy.deepcopy(composite)
    for way, expected in zip(WAYS, found, strict=True):
        assert torch.equal(copied.scores(rows, engine=way), expected)


def test_an_unknown_way_is_refused():
    composite = compose(tiny_modules(tiny_parent()))
    with pytest.raises(ValueError, match="engine='fast', expected one of"):
        composite.predict(tiny_rows(composite.modules[0].parent), engine="fast")


def test_buckets_hold_every_row_once_and_bound_their_size():
    lengths = torch.tensor([5, 1, 60_000, 2, 3, 60_000, 4])
    chunks = bucket(lengths, 4)
    assert sorted(torch.cat(list(chunks)).tolist()) == list(range(7))
    assert all(
        len(c) <= 4 and (len(c) == 1 or int(lengths[c].max()) * len(c) <= 65_536) for c in chunks
    )


@given(st.integers(1, 200), st.integers(1, 600), st.integers(1, 2000), st.integers(1, 8))
def test_parts_hold_every_trunk_once_and_bound_their_size(trunks, rows, steps, workers):
    parts = list(_parts(trunks, rows, steps, workers))
    assert [i for part in parts for i in range(trunks)[part]] == list(range(trunks))
    for part in parts:
        size = part.stop - part.start
        assert size == 1 or size * rows <= 1024 and size * rows * steps <= 65_536
