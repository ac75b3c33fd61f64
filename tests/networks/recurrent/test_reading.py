"""Reading networks as people write them: the same answers, on batches never seen in reading."""

from __future__ import annotations

import itertools
import json
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from mlflow_rnnmod.networks import (
    NetworkSpec,
    Reading,
    RecurrentNetwork,
    Rows,
    check_parity,
    read_weights,
)
from mlflow_rnnmod.networks.recurrent.config import READOUTS
from mlflow_rnnmod.networks.recurrent.reading import read_network
from tests.networks.recurrent.user_networks import Classifier, make_rows

LABELS = ("a", "b", "c")
CELLS = {
    "rnn_tanh": (nn.RNN, {"nonlinearity": "tanh"}),
    "rnn_relu": (nn.RNN, {"nonlinearity": "relu"}),
    "lstm": (nn.LSTM, {}),
    "gru": (nn.GRU, {}),
}


def read(
    model: nn.Module, rows: Rows, lengths: torch.Tensor, spec: NetworkSpec | None = None
) -> tuple[RecurrentNetwork, Reading]:
    return read_network(model, rows, lambda: model(rows.values, lengths), LABELS, spec)


def assert_same_answers(
    model: nn.Module, network: RecurrentNetwork, rows: Rows, lengths: torch.Tensor
) -> None:
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(network(rows), model(rows.values, lengths), rtol=0.0, atol=1e-10)


@pytest.mark.slow
@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    cell=st.sampled_from(sorted(CELLS)),
    layers=st.integers(1, 3),
    bidirectional=st.booleans(),
    readout=st.sampled_from([name for name in READOUTS if name != "all_steps"]),
    padding=st.sampled_from(["right", "left", "packed"]),
    tokens=st.booleans(),
    batch_first=st.booleans(),
    bias=st.booleans(),
    hidden=st.sampled_from([(), (14,), (14, 11)]),
    activation=st.sampled_from(["relu", "tanh", "identity"]),
    seed=st.integers(0, 5),
)
def test_any_network_is_found_and_answers_alike_on_other_rows(
    cell,
    layers,
    bidirectional,
    readout,
    padding,
    tokens,
    batch_first,
    bias,
    hidden,
    activation,
    seed,
):
    torch.manual_seed(seed)
    kind, options = CELLS[cell]
    side = "left" if padding == "left" else "right"
    model = Classifier(
        kind,
        readout=readout,
        packed=padding == "packed",
        tokens=tokens,
        side=side,
        hidden=hidden,
        activation=activation,
        num_layers=layers,
        bidirectional=bidirectional,
        batch_first=batch_first,
        bias=bias,
        dropout=0.3 if layers > 1 else 0.0,
        **options,
    ).double()
    with torch.no_grad():  # or all activations are near zero, where relu and identity are alike
        for weight in model.parameters():
            weight.mul_(2.0)
    rows, lengths = make_rows(seed, tokens, side=side)
    network, reading = read(model, rows, lengths)
    other, other_lengths = make_rows(seed + 100, tokens, side=side)
    assert_same_answers(model, network, other, other_lengths)
    assert reading.difference <= 1e-10
    assert (network.config.cell, len(network.config.recurrent)) == (cell, layers)
    again, second = read(model, rows, lengths, reading.spec)
    assert len(second.tried) == 1 and second.spec == reading.spec
    assert again.config == network.config


class SequenceFirst(nn.Module):
    """The lengths are computed inside, the last valid output is gathered, two GRUs in a row."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict({"words": nn.Embedding(20, 6, padding_idx=0)})
        self.first = nn.GRU(6, 10, bidirectional=True)
        self.second = nn.GRU(20, 9)
        self.classifier = nn.Sequential(nn.Linear(9, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 3))

    def forward(self, x, lengths=None):
        lengths = (x != 0).sum(1)
        e = self.encoder["words"](x.t())
        h, _ = self.first(e)
        h, _ = self.second(h)
        return self.classifier(h[lengths - 1, torch.arange(x.shape[0])])


def test_separate_layers_need_their_order():
    model = SequenceFirst().double()
    rows, lengths = make_rows()
    with pytest.raises(ValueError, match="2 submodules could be the recurrent layer") as error:
        read(model, rows, lengths)
    assert "first (GRU 6 to 10, 1 layers, bidirectional), second (GRU 20 to 9" in str(error.value)
    assert "NetworkSpec(recurrent=('first', 'second'))" in str(error.value)
    network, reading = read(model, rows, lengths, NetworkSpec(recurrent=("first", "second")))
    assert network.config.recurrent == ((10, 10), (9,))
    assert reading.spec.hidden == ("classifier.0",) and reading.spec.head == "classifier.3"
    assert reading.spec.embedding == "encoder.words"
    assert_same_answers(model, network, *make_rows(7))


class HiddenState(nn.Module):
    """``pack_padded_sequence``, then the states ``h_n``, joined in some way."""

    def __init__(self, join, size: int, labels: int = 3, end=lambda z: z) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 6)
        self.lstm = nn.LSTM(6, 9, 2, bidirectional=True, batch_first=True)
        self.fc = nn.Linear(size, labels)
        self.join, self.end = join, end

    def forward(self, x, lengths):
        e = self.embedding(x)
        packed = pack_padded_sequence(e, lengths, batch_first=True, enforce_sorted=False)
        _, (h_n, _) = self.lstm(packed)
        return self.end(self.fc(self.join(h_n)))


@pytest.mark.parametrize(
    ("name", "join", "size"),
    [
        ("concatenate", lambda h: torch.cat((h[-2], h[-1]), 1), 18),
        ("sum", lambda h: h[-2] + h[-1], 9),
        ("mean", lambda h: h[-2:].mean(0), 9),
        ("backward", lambda h: h[-1], 9),
    ],
)
def test_directions_are_joined_as_the_network_joins_them(name, join, size):
    model = HiddenState(join, size).double()
    network, reading = read(model, *make_rows())
    assert (reading.spec.directions, reading.spec.readout) == (name, "final_state")
    assert reading.spec.packed is True
    assert_same_answers(model, network, *make_rows(3))


def test_log_softmax_is_recognised():
    model = HiddenState(lambda h: torch.cat((h[-2], h[-1]), 1), 18, end=lambda z: z.log_softmax(-1))
    rows, lengths = make_rows()
    network, reading = read(model.double(), rows, lengths)
    assert reading.spec.output == "log_softmax"
    with torch.no_grad():
        torch.testing.assert_close(
            network(rows).log_softmax(-1), model(rows.values, lengths), rtol=0.0, atol=1e-10
        )


@pytest.mark.parametrize("squeezed", [True, False])
def test_one_output_answers_for_the_second_of_two_labels(squeezed):
    model = HiddenState(
        lambda h: torch.cat((h[-2], h[-1]), 1), 18, 1, lambda z: z[:, 0] if squeezed else z
    ).double()
    rows, lengths = make_rows()
    network, _ = read_network(model, rows, lambda: model(rows.values, lengths), ("no", "yes"))
    with torch.no_grad():
        logits, z = network(rows), model(rows.values, lengths).reshape(-1)
        probability = logits.softmax(-1)[:, 1]
    torch.testing.assert_close(probability, torch.sigmoid(z), rtol=0.0, atol=1e-10)
    assert logits[:, 0].abs().max() == 0.0


def test_one_hot_vectors_become_an_embedding():
    class OneHot(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.RNN(20, 12, batch_first=True)
            self.i2o = nn.Linear(12, 3)

        def forward(self, x, lengths):
            out, _ = self.rnn(nn.functional.one_hot(x, 20).to(self.i2o.weight))
            return self.i2o(out[torch.arange(len(x)), lengths - 1])

    model = OneHot().double()
    network, reading = read(model, *make_rows())
    assert (reading.spec.embedding, network.config.input) == (None, "tokens")
    assert_same_answers(model, network, *make_rows(3))
    assert_same_answers(model, read_weights(model, reading), *make_rows(3))


def test_outputs_may_be_wrapped():
    inner = Classifier().double()
    rows, lengths = make_rows()
    for wrap in (lambda z: (z, "states"), lambda z: {"logits": z, "loss": None}):
        network, _ = read_network(
            inner, rows, lambda wrap=wrap: wrap(inner(rows.values, lengths)), LABELS
        )
        assert_same_answers(inner, network, rows, lengths)


def test_lightning_modules_are_read_too():
    lightning = pytest.importorskip("pytorch_lightning")

    class Task(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = Classifier()
            self.metric = nn.CrossEntropyLoss(weight=torch.ones(3))

        def forward(self, x, lengths):
            return self.model(x, lengths)

    model = Task().double()
    network, reading = read(model, *make_rows())
    assert reading.spec.recurrent == ("model.rnn",) and reading.notes == ()
    assert_same_answers(model, network, *make_rows(2))


def test_weights_that_start_at_zero_hide_no_habit():
    """Before the first step many a network answers the same whatever its habits are."""
    model = Classifier(readout="mean_valid", bidirectional=True, hidden=(14,)).double()
    with torch.no_grad():
        model.fc.weight.zero_()
        for name, weight in model.rnn.named_parameters():
            if "bias" in name:
                weight.zero_()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rows, lengths = make_rows()
    _, reading = read(model, rows, lengths)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    assert_same_answers(model, read_weights(model, reading), *make_rows(4))


# Nothing is disturbed


def test_the_users_network_and_random_numbers_stay_as_they_were():
    torch.manual_seed(0)
    model = Classifier(num_layers=2, dropout=0.5)
    model.embedding.max_norm = 0.7  # rescales its weights when it is asked
    model.train()
    model.fc.eval()
    rows, lengths = make_rows()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()

    def forward():
        torch.rand(1), np.random.rand(), random.random()
        assert not any(part.training for part in model.modules())
        return model(rows.values, lengths)

    network, _ = read_network(model, rows, forward, LABELS)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all() and random.getstate() == states[2]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.training and model.rnn.training and not model.fc.training
    assert all(weight.grad is None and weight.requires_grad for weight in model.parameters())
    ours = {tensor.data_ptr() for tensor in network.state_dict().values()}
    assert not ours & {tensor.data_ptr() for tensor in model.state_dict().values()}
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(network(rows), model(rows.values, lengths))


def test_modes_come_back_after_an_error():
    model = Classifier()
    rows, lengths = make_rows()
    with pytest.raises(ZeroDivisionError):
        read_network(model, rows, lambda: 1 / 0, LABELS)
    assert all(part.training for part in model.modules())
    assert torch.is_grad_enabled()


def test_weights_are_read_again_after_training():
    model = Classifier(nn.GRU, hidden=(14,), readout="mean_valid", bidirectional=True).double()
    rows, lengths = make_rows()
    old, reading = read(model, rows, lengths)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))

    def forward():
        return model(rows.values, lengths)

    with pytest.raises(ValueError, match="does not reproduce"):
        check_parity(model, old, rows, forward, reading)
    network = read_weights(model, reading)
    assert check_parity(model, network, rows, forward, reading) <= 1e-10
    assert network.config == old.config
    assert_same_answers(model, network, *make_rows(8))


def test_large_batches_are_checked_whole():
    """Only some rows are tried; a row that answers differently is found nevertheless."""
    model = Classifier().double()
    rows, lengths = make_rows(count=200)

    def forward():
        z = model(rows.values, lengths)
        z[57] += 1.0
        return z

    with pytest.raises(ValueError, match="nearest differs by 1,") as error:
        read_network(model, rows, forward, LABELS)
    assert "200 rows" in str(error.value)


def test_float32_networks_are_read():
    for cell, bidirectional in itertools.product((nn.RNN, nn.LSTM, nn.GRU), (True, False)):
        torch.manual_seed(1)
        model = Classifier(
            cell, 64, bidirectional=bidirectional, readout="final_state", packed=True
        )
        network, reading = read(model, *make_rows(count=64, steps=40))
        assert network.dtype == torch.float32 and reading.difference < 1e-5


def test_a_reading_says_what_was_found():
    model = Classifier(readout="last_step").double()
    _, reading = read(model, *make_rows())
    spec = reading.spec
    assert NetworkSpec(**json.loads(json.dumps(spec.to_dict()))) == spec
    assert (spec.embedding, spec.recurrent, spec.hidden, spec.head) == (
        "embedding", ("rnn",), (), "fc",
    )  # fmt: skip
    assert (spec.readout, spec.packed, spec.padding, spec.steps) == ("last_step", False, "right", 9)
    assert len(reading.tried) >= 9 and reading.tried[0].startswith("readout='last_step'")


def test_parts_without_a_say_are_named_but_do_no_harm():
    model = Classifier().double()
    model.projector = nn.LayerNorm(5)
    _, reading = read(model, *make_rows())
    assert "projector (LayerNorm)" in reading.notes[0]
