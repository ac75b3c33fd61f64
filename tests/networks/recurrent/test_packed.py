from __future__ import annotations

import pytest
import torch
from torch import nn

from mlflow_rnnmod.networks import NetworkConfig, RecurrentNetwork, Rows
from mlflow_rnnmod.networks.recurrent import packed as module
from mlflow_rnnmod.networks.recurrent.config import HiddenLayer
from mlflow_rnnmod.networks.recurrent.packed import (
    PackedLstm,
    PackedNetwork,
    can_pack,
    feed,
    packed_states,
    packing_works,
)
from mlflow_rnnmod.networks.recurrent.ways import masked, sliced
from tests.networks.recurrent.strategies import random_trunk

pytestmark = pytest.mark.skipif(not packing_works(), reason="PyTorch lacks the operators")


def network(**changes) -> RecurrentNetwork:
    torch.manual_seed(0)
    given = {
        "input": "tokens",
        "input_size": 20,
        "embedding_size": 6,
        "cell": "lstm",
        "recurrent": ((9,), (7,)),
        "labels": ("a", "b", "c"),
        "pad_index": 0,
        **changes,
    }
    return RecurrentNetwork(NetworkConfig(**given)).requires_grad_(False)


@pytest.mark.parametrize("steps", [1, 2, 15, 60])
@pytest.mark.parametrize("rows", [1, 3, 33, 200])
@pytest.mark.parametrize(("size", "units"), [(1, 1), (7, 5), (50, 80)])
def test_a_packed_layer_gives_the_same_numbers(steps, rows, size, units):
    torch.manual_seed(steps * rows)
    layer, x = nn.LSTM(size, units).requires_grad_(False), torch.randn(steps, rows, size)
    expected = layer.double()(x.double())[0].float()
    run = PackedLstm(layer.float())
    with torch.inference_mode():
        for _ in range(2):
            torch.testing.assert_close(run(x), expected, rtol=1e-5, atol=1e-5)
        # Weights that were packed once do for any batch.
        torch.testing.assert_close(run(x[:1]), expected[:1], rtol=1e-5, atol=1e-5)


def test_weights_that_change_later_do_not_change_what_was_packed():
    layer, x = nn.LSTM(3, 4).requires_grad_(False), torch.randn(2, 3, 3)
    run, expected = PackedLstm(layer), layer(x)[0]
    for weight in layer.parameters():
        weight.zero_()
    with torch.inference_mode():
        torch.testing.assert_close(run(x), expected)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"readout": "last_step"},
        {"side": "left"},
        {"hidden": (HiddenLayer(5, "tanh"), HiddenLayer(4))},
        {"output": "tags", "readout": "all_steps"},
        {"feed": "flat", "steps": 8},
        {"input": "features", "input_size": 4, "embedding_size": None, "pad_index": None},
    ],
)
@pytest.mark.parametrize("count", [1, 9])
@pytest.mark.parametrize("lengths", [True, False])
def test_a_packed_network_reads_what_the_network_reads(changes, count, lengths):
    whole = network(**changes)
    assert can_pack(whole)
    values = torch.randint(1, 20, (count, 8))
    if whole.config.input == "features":
        values = torch.randn(count, 8, 4)
    lengths = torch.randint(1, 9, (count,)) if lengths else None
    rows = Rows(values, lengths)
    trunk = random_trunk(whole, folded=True, mixed=True)
    with torch.inference_mode():
        fed = feed(whole, rows)
        found = PackedNetwork(whole).readout(fed)
        torch.testing.assert_close(found, whole.readout(rows), rtol=1e-5, atol=1e-5)
        states, other = packed_states(whole)(rows), whole.states(rows)
        assert torch.equal(states.valid, other.valid)
        torch.testing.assert_close(states.readout, other.readout, rtol=1e-5, atol=1e-5)
        assert states.layers.keys() == other.layers.keys()
        for name, output in states.layers.items():
            torch.testing.assert_close(output, other.layers[name], rtol=1e-5, atol=1e-5)
        cut = sliced(whole, trunk)
        found = PackedNetwork(cut.inner, cut.completion).readout(fed)
        expected = masked(whole, trunk).readout(rows)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"cell": "gru"},
        {"recurrent": ((4, 4),)},
        {"packed": True},
        {"readout": "max_valid"},
    ],
)
def test_what_can_not_be_packed(changes):
    assert not can_pack(network(**changes))
    assert can_pack(network())
    assert not can_pack(network().double())


def test_without_the_operators(monkeypatch):
    packing_works.cache_clear()
    monkeypatch.setattr(module.torch.ops, "mkldnn", None)
    try:
        assert not packing_works()
        assert not can_pack(network())
    finally:
        monkeypatch.undo()
        packing_works.cache_clear()
        assert packing_works()
