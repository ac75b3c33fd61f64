"""Masked and sliced networks against PyTorch's own layers, and against a slow reference."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mlflow_rnnmod.networks import Trunk, masked, sliced
from mlflow_rnnmod.networks.recurrent.reading import read_network
from tests.builders import tiny_parent, tiny_rows, tiny_trunk
from tests.networks.recurrent.reference import reference_readout
from tests.networks.recurrent.strategies import networks, random_rows, random_trunk
from tests.networks.recurrent.user_networks import Classifier, make_rows

GATES = {nn.RNN: 1, nn.LSTM: 4, nn.GRU: 3}


def zeroed(model: Classifier, trunk: Trunk) -> Classifier:
    """A copy of a user's network with all weights of the removed units set to zero."""
    model = copy.deepcopy(model)
    rnn = model.rnn
    directions = ("fwd", "bwd") if rnn.bidirectional else ("fwd",)
    with torch.no_grad():
        for layer in range(rnn.num_layers):
            kept = torch.cat([trunk.keep[f"recurrent.{layer}.{d}"] for d in directions])
            for direction in directions:
                keep = trunk.keep[f"recurrent.{layer}.{direction}"]
                rows = keep.repeat(GATES[type(rnn)]).double()
                suffix = f"_l{layer}" + ("_reverse" if direction == "bwd" else "")
                for name in ("weight_ih", "weight_hh"):
                    getattr(rnn, name + suffix).mul_(rows[:, None])
                for name in ("bias_ih", "bias_hh"):
                    getattr(rnn, name + suffix).mul_(rows)
                getattr(rnn, "weight_hh" + suffix).mul_(keep)
                if layer + 1 < rnn.num_layers:
                    after = f"_l{layer + 1}" + ("_reverse" if direction == "bwd" else "")
                    getattr(rnn, "weight_ih" + after).mul_(kept)
        for i, dense in enumerate(model.dense):
            dense.weight.mul_(kept)
            kept = trunk.keep[f"hidden.{i}"]
            dense.weight.mul_(kept[:, None])
            dense.bias.mul_(kept)
        model.fc.weight.mul_(kept)
    return model


@pytest.mark.slow
@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    cell=st.sampled_from([nn.RNN, nn.LSTM, nn.GRU]),
    layers=st.integers(1, 3),
    bidirectional=st.booleans(),
    packed=st.booleans(),
    hidden=st.sampled_from([(), (14,)]),
    readout=st.sampled_from(["final_state", "last_valid", "mean_valid", "max_valid"]),
    seed=st.integers(0, 100),
)
def test_removal_zeroes_a_units_weights(cell, layers, bidirectional, packed, hidden, readout, seed):
    torch.manual_seed(seed)
    model = Classifier(
        cell,
        readout=readout,
        packed=packed,
        hidden=hidden,
        activation="tanh",
        num_layers=layers,
        bidirectional=bidirectional,
    ).double()
    rows, lengths = make_rows(seed)
    network, _ = read_network(model, rows, lambda: model(rows.values, lengths), ("a", "b", "c"))
    trunk = random_trunk(network, folded=False)
    with torch.no_grad():
        expected = zeroed(model, trunk).eval()(rows.values, lengths)
        for make in (masked, sliced):
            found = network.logits(make(network, trunk).readout(rows))
            torch.testing.assert_close(found, expected, rtol=0.0, atol=1e-10)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True)
@given(network=networks(outputs=("label", "tags")), folded=st.booleans(), mixed=st.booleans())
def test_masked_and_sliced_hold_removed_units_at_their_guesses(network, folded, mixed):
    rows, trunk = random_rows(network), random_trunk(network, folded, mixed)
    with torch.no_grad():
        expected = reference_readout(network, rows, trunk)
        for make in (masked, sliced):
            found = make(network, trunk).readout(rows)
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("cell", ["rnn_tanh", "rnn_relu", "lstm", "gru"])
def test_sliced_is_smaller_and_float32_agrees(cell):
    parent = tiny_parent(cell=cell, recurrent=((32, 32), (32, 32)), packed=True)
    trunk, rows = tiny_trunk(parent, 0.5), tiny_rows(parent, 40, 30)
    cut, zero = sliced(parent.network, trunk), masked(parent.network, trunk)
    sizes = {name: int(mask.sum()) for name, mask in trunk.keep.items()}
    assert cut.inner.units == sizes == {name: 16 for name in sizes}
    assert zero.inner.units == parent.network.units
    with torch.no_grad():
        torch.testing.assert_close(cut.readout(rows), zero.readout(rows), rtol=1e-4, atol=1e-5)


def test_the_parent_stays_as_it_was():
    parent = tiny_parent(recurrent=((6,), (6,)))
    digest = parent.digest
    for make in (masked, sliced):
        made = make(parent.network, tiny_trunk(parent, 0.5))
        for name, weight in made.named_parameters():
            if "embedding" not in name:
                weight.zero_()
    assert type(parent)(parent.network).digest == digest
