"""Our network against PyTorch's own layers, and what it takes for padding."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from mlflow_rnnmod.networks import HiddenLayer, NetworkConfig, RecurrentNetwork, Rows, Trunk
from mlflow_rnnmod.networks.recurrent.config import STEPS, cell_weights
from tests.networks.recurrent.reference import reference_readout, run_direction
from tests.networks.recurrent.strategies import networks, random_rows

KINDS = {"rnn_tanh": nn.RNN, "rnn_relu": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


def config(**changes: object) -> NetworkConfig:
    fields = {
        "input": "tokens",
        "input_size": 11,
        "embedding_size": 4,
        "cell": "lstm",
        "recurrent": ((5,),),
        "labels": ("a", "b", "c"),
        "pad_index": 0,
    }
    return NetworkConfig(**{**fields, **changes})  # type: ignore[arg-type]


# States and answers


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    cell=st.sampled_from(sorted(KINDS)),
    layers=st.integers(1, 3),
    directions=st.integers(1, 2),
    packed=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_states_are_those_of_one_pytorch_module(cell, layers, directions, packed, seed):
    torch.manual_seed(seed)
    options = {"nonlinearity": cell.removeprefix("rnn_")} if cell.startswith("rnn_") else {}
    theirs = KINDS[cell](
        4, 5, layers, batch_first=True, bidirectional=directions == 2, **options
    ).double()
    structure = config(
        input="features",
        input_size=4,
        embedding_size=None,
        pad_index=None,
        cell=cell,
        recurrent=((5,) * directions,) * layers,
        packed=packed,
        readout="final_state",
    )
    ours = RecurrentNetwork(structure).double()
    for layer in range(layers):
        for direction, suffix in (("fwd", ""), ("bwd", "_reverse"))[:directions]:
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                weight = getattr(theirs, f"{name}_l{layer}{suffix}").detach()
                setattr(ours.cell(layer, direction), f"{name}_l0", nn.Parameter(weight.clone()))
    rows = random_rows(ours)
    x = rows.values
    if packed:
        x = pack_padded_sequence(x, rows.lengths, batch_first=True, enforce_sorted=False)
    with torch.no_grad():
        out, h = theirs(x)
        states = ours.states(rows)
    out = pad_packed_sequence(out, batch_first=True, total_length=6)[0] if packed else out
    h = h[0] if isinstance(h, tuple) else h
    last = [states.layers[f"recurrent.{layers - 1}.{d}"] for d in ("fwd", "bwd")[:directions]]
    torch.testing.assert_close(torch.cat(last, dim=-1), out, rtol=0.0, atol=1e-12)
    final = torch.cat(list(h[-directions:]), dim=1)
    torch.testing.assert_close(states.readout, final, rtol=0.0, atol=1e-12)
    assert torch.equal(states.valid, torch.arange(6) < rows.lengths[:, None])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(network=networks(outputs=("label", "tags")))
def test_answers_are_those_of_a_step_by_step_reference(network):
    rows = random_rows(network)
    with torch.no_grad():
        readout = reference_readout(network, rows)
        torch.testing.assert_close(network.states(rows).readout, readout, rtol=0.0, atol=1e-10)
        expected = readout @ network.output.weight.T + network.output.bias
        torch.testing.assert_close(network(rows), expected, rtol=0.0, atol=1e-10)


@pytest.mark.parametrize("cell", sorted(KINDS))
def test_steps_written_out_are_pytorchs(cell):
    torch.manual_seed(0)
    options = {"nonlinearity": cell.removeprefix("rnn_")} if cell.startswith("rnn_") else {}
    layer = KINDS[cell](3, 5, batch_first=True, **options).double()
    x = torch.randn(2, 7, 3, dtype=torch.float64)
    weight_ih, weight_hh, bias_ih, bias_hh = cell_weights(layer)
    state = (x.new_zeros(2, 5),) * (2 if cell == "lstm" else 1)
    outputs = []
    for projected in torch.nn.functional.linear(x, weight_ih, bias_ih).unbind(1):
        state = STEPS[cell](projected, state, weight_hh, bias_hh)
        outputs.append(state[0])
    found = torch.stack(outputs, dim=1)
    torch.testing.assert_close(found, layer(x)[0], rtol=0.0, atol=1e-12)
    whole = Trunk.whole({"layer": 5})
    for row in range(2):
        expected = run_direction(cell, layer, x[row], False, whole, "layer")
        torch.testing.assert_close(found[row], expected, rtol=0.0, atol=1e-12)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    network=networks(
        paddings=("packed",),
        readouts=("last_valid", "final_state", "mean_valid", "max_valid"),
    )
)
def test_padding_of_packed_rows_does_not_matter(network):
    rows = random_rows(network)
    with torch.no_grad():
        alone = [
            network(Rows(values[None, :n], n[None]))
            for values, n in zip(rows.values, rows.lengths, strict=True)
        ]
        torch.testing.assert_close(network(rows), torch.cat(alone), rtol=0.0, atol=1e-10)


def test_dropout_and_training_play_no_part():
    network = RecurrentNetwork(config(recurrent=((5,), (5,)), hidden=(HiddenLayer(4),)))
    rows = random_rows(network)
    assert not network.training
    assert torch.equal(network(rows), network.train()(rows))


# Lengths and steps


@pytest.mark.parametrize(
    ("side", "values", "expected"),
    [
        ("right", [3, 4, 0, 0], 2),
        ("right", [3, 0, 4, 0], 3),  # the padding token inside a row is content
        ("right", [0, 0, 0, 0], 1),  # an empty row is one step of padding
        ("right", [0, 3, 0, 0], 2),
        ("right", [1, 2, 3, 4], 4),
        ("left", [0, 0, 3, 4], 2),
        ("left", [0, 3, 0, 4], 3),
        ("left", [0, 0, 0, 0], 1),
        ("left", [3, 0, 0, 0], 4),
    ],
)
def test_lengths_of_token_rows(side, values, expected):
    network = RecurrentNetwork(config(side=side))
    assert network.lengths(Rows(torch.tensor([values]))).tolist() == [expected]
    valid = network.valid(torch.tensor([expected]), 4)[0].tolist()
    full = [True] * expected + [False] * (4 - expected)
    assert valid == (full if side == "right" else full[::-1])


def test_lengths_that_are_told_count():
    network = RecurrentNetwork(config())
    rows = Rows(
        torch.tensor([[3, 4, 0], [3, 4, 5], [0, 0, 0], [1, 1, 1]]), torch.tensor([1, 2, 0, 9])
    )
    assert network.lengths(rows).tolist() == [1, 2, 1, 3]


def test_every_step_of_features_counts():
    network = RecurrentNetwork(config(input="features", embedding_size=None, pad_index=None))
    assert network.lengths(Rows(torch.zeros(2, 5, 11))).tolist() == [5, 5]


@pytest.mark.parametrize(
    ("side", "steps", "values", "lengths"),
    [
        ("right", 5, [[3, 4, 0, 0, 0], [5, 6, 7, 0, 0]], [2, 3]),
        ("left", 5, [[0, 0, 3, 4, 0], [0, 0, 5, 6, 7]], [3, 3]),
        ("right", 2, [[3, 4], [5, 6]], [2, 2]),
        ("left", 2, [[4, 0], [6, 7]], [2, 2]),
    ],
)
def test_rows_are_padded_or_cut_to_a_fixed_number_of_steps(side, steps, values, lengths):
    network = RecurrentNetwork(config(side=side, steps=steps))
    prepared = network.prepare(
        Rows(torch.tensor([[3, 4, 0], [5, 6, 7]]), None, torch.tensor([1, 0]))
    )
    assert prepared.values.tolist() == values
    assert network.lengths(prepared).tolist() == lengths
    assert prepared.targets.tolist() == [1, 0]


def test_rows_of_the_right_number_of_steps_are_left_alone():
    rows = Rows(torch.tensor([[3, 4, 0]]))
    assert RecurrentNetwork(config()).prepare(rows) is rows
    assert RecurrentNetwork(config(steps=3)).prepare(rows) is rows


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (torch.zeros(2, 0, dtype=torch.int64), r"shape \(2, 0\); expected at least one step"),
        (torch.zeros(2, dtype=torch.int64), r"shape \(2,\); expected at least one step"),
    ],
)
def test_rows_without_steps(values, expected):
    with pytest.raises(ValueError, match=expected):
        RecurrentNetwork(config())(Rows(values))


def test_features_of_a_wrong_size():
    network = RecurrentNetwork(config(input="features", embedding_size=None, pad_index=None))
    with pytest.raises(ValueError, match=r"shape \(2, 5, 9\); expected \(rows, steps, 11\)"):
        network(Rows(torch.zeros(2, 5, 9)))


def test_no_rows_give_no_answers():
    network = RecurrentNetwork(config(recurrent=((5, 5), (5, 5)), packed=True))
    assert network(Rows(torch.zeros(0, 3, dtype=torch.int64))).shape == (0, 3)
