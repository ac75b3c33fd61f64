"""Reading networks that answer at each step, with lists, or with several labels."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mlflow_rnnmod.networks import (
    NetworkSpec,
    RecurrentNetwork,
    Rows,
    UnreadableNetwork,
    check_parity,
    read_weights,
)
from mlflow_rnnmod.networks.recurrent.reading import read_network
from tests.networks.recurrent.test_reading import CELLS
from tests.networks.recurrent.user_kinds import AtOnce, SeveralLabels, Tagger, arranged, make_rows

LABELS = ("a", "b", "c")
AXES = ["rows_steps_labels", "rows_labels_steps", "steps_rows_labels", "flattened"]
ACTIVATIONS = ["relu", "tanh", "identity"]


def read(model, rows, lengths, spec=None, labels=LABELS):
    return read_network(model, rows, lambda: model(rows.values, lengths), labels, spec)


def louder(model: nn.Module) -> nn.Module:
    """With larger weights, or all activations are near zero, where relu and identity are alike."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(2.0)
    return model.double()


def assert_same_tags(
    model: Tagger | AtOnce, network: RecurrentNetwork, rows: Rows, lengths: torch.Tensor, end: str
) -> None:
    """The same answers at every step that is one."""
    model.eval()
    model.axes = "rows_steps_labels"
    with torch.no_grad():
        wanted, ours = model(rows.values, lengths), network(rows)
    ours = ours.log_softmax(-1) if end == "log_softmax" else ours
    valid = torch.arange(rows.values.shape[1]) < lengths[:, None]
    if network.config.feed != "steps":
        valid = torch.ones(ours.shape[:2], dtype=torch.bool)
    assert torch.equal(valid, network.answered(rows))
    steps = wanted.shape[1]
    torch.testing.assert_close(
        ours[:, :steps][valid[:, :steps]], wanted[valid[:, :steps]], rtol=0.0, atol=1e-10
    )


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    cell=st.sampled_from(sorted(CELLS)),
    layers=st.integers(1, 2),
    bidirectional=st.booleans(),
    packed=st.sampled_from(["no", "whole", "longest"]),
    tokens=st.booleans(),
    hidden=st.sampled_from([(), (7,), (7, 5)]),
    activation=st.sampled_from(ACTIVATIONS),
    end=st.sampled_from(["logits", "log_softmax"]),
    axes=st.sampled_from(AXES),
    masked=st.sampled_from([None, 0.0, -torch.inf]),
    seed=st.integers(0, 5),
)
def test_any_tagger_is_found_and_answers_alike_on_other_rows(
    cell, layers, bidirectional, packed, tokens, hidden, activation, end, axes, masked, seed
):
    torch.manual_seed(seed)
    kind, options = CELLS[cell]
    model = louder(
        Tagger(
            kind,
            packed=packed != "no",
            total=packed == "whole",
            tokens=tokens,
            hidden=hidden,
            activation=activation,
            end=end,
            axes=axes,
            masked=masked,
            num_layers=layers,
            bidirectional=bidirectional,
            dropout=0.3 if layers > 1 else 0.0,
            **options,
        )
    )
    rows, lengths = make_rows(seed, tokens)
    network, reading = read(model, rows, lengths)
    config = network.config
    assert (config.output, config.readout, config.feed) == ("tags", "all_steps", "steps")
    assert (reading.spec.output, reading.spec.axes) == (end, axes)
    assert config.packed == (packed != "no" and bidirectional)
    assert (config.steps is None) == (config.packed or not bidirectional)
    again, second = read(model, rows, lengths, reading.spec)
    assert len(second.tried) == 1 and second.spec == reading.spec
    assert again.config == config
    assert check_parity(model, again, rows, lambda: model(rows.values, lengths), reading) <= 1e-10
    assert_same_tags(model, network, *make_rows(seed + 100, tokens), end)


@pytest.mark.slow
@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    cell=st.sampled_from(sorted(CELLS)),
    bidirectional=st.booleans(),
    tokens=st.booleans(),
    output_steps=st.sampled_from([None, 1, 4, 9, 12]),
    hidden=st.sampled_from([(), (7,)]),
    activation=st.sampled_from(ACTIVATIONS),
    end=st.sampled_from(["logits", "log_softmax"]),
    axes=st.sampled_from(AXES),
    end_label=st.sampled_from([None, "b"]),
    seed=st.integers(0, 5),
)
def test_any_list_is_found(
    cell, bidirectional, tokens, output_steps, hidden, activation, end, axes, end_label, seed
):
    torch.manual_seed(seed)
    kind, options = CELLS[cell]
    model = louder(
        AtOnce(
            kind,
            output_steps=output_steps,
            stepwise=True,
            tokens=tokens,
            hidden=hidden,
            activation=activation,
            end=end,
            axes=axes,
            bidirectional=bidirectional,
            **options,
        )
    )
    rows, lengths = make_rows(seed, tokens)
    once = output_steps in (None, 1)
    if once and axes == "flattened":
        axes = "rows_labels"  # a single step can't be seen in it
        spec = NetworkSpec(feed="flat")
    else:
        spec = NetworkSpec(kind="list", end_label=end_label)
    network, reading = read(model, rows, lengths, spec)
    config = network.config
    if axes == "rows_labels":
        assert (config.output, config.readout) == ("label", "last_step")
        return
    assert (config.output, config.readout, config.end_label) == ("list", "all_steps", end_label)
    assert (config.feed, config.output_steps) == (
        ("flat", None) if once else ("repeat", output_steps)
    )
    assert (config.steps, config.packed) == (9, False)
    if not once:
        assert read(model, rows, lengths)[1].config == replace(config, end_label=None)
    assert_same_tags(model, network, *make_rows(seed + 100, tokens), end)


@pytest.mark.parametrize("tokens", [True, False])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_one_label_from_the_whole_input_at_once(tokens, bidirectional):
    model = louder(AtOnce(tokens=tokens, hidden=(7,), bidirectional=bidirectional))
    rows, lengths = make_rows(tokens=tokens)
    network, reading = read(model, rows, lengths)
    config = network.config
    assert (config.feed, config.steps, config.readout) == ("flat", 9, "last_step")
    assert len(reading.tried) == 3  # the activations
    other, _ = make_rows(3, tokens)
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(network(other), model(other.values), rtol=0.0, atol=1e-10)


def test_a_vector_in_one_step():
    """A network over one float vector: the step is put in front of it by its forward."""

    class Vector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(9, 8, batch_first=True)
            self.fc = nn.Linear(8, 3)

        def forward(self, x):
            return self.fc(self.rnn(x[..., 0][:, None])[0][:, -1])

    model = louder(Vector())
    rows = Rows(torch.randn(24, 9, 1, dtype=torch.float64))
    network, _ = read_network(model, rows, lambda: model(rows.values), LABELS)
    assert (network.config.feed, network.config.steps) == ("flat", 9)
    other = Rows(torch.randn(24, 9, 1, dtype=torch.float64))
    with torch.no_grad():
        torch.testing.assert_close(network(other), model(other.values), rtol=0.0, atol=1e-10)


def test_one_hot_vectors_flattened():
    class OneHot(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.RNN(20 * 9, 8, batch_first=True)
            self.fc = nn.Linear(8, 3)

        def forward(self, x, lengths):
            x = nn.functional.one_hot(x, 20).to(self.fc.weight)
            return self.fc(self.rnn(x.flatten(1)[:, None])[0][:, 0])

    model = louder(OneHot())
    network, _ = read(model, *make_rows(), NetworkSpec(feed="flat"))
    assert (network.config.input_size, network.config.feed) == (20, "flat")
    rows, lengths = make_rows(2)
    with torch.no_grad():
        wanted = model(rows.values, lengths)
        torch.testing.assert_close(network(rows), wanted, rtol=0.0, atol=1e-10)


def test_a_repeated_vector_and_one_label_need_the_steps():
    model = louder(AtOnce(output_steps=4))
    rows, lengths = make_rows()
    with pytest.raises(UnreadableNetwork, match="does not reproduce"):
        read(model, rows, lengths)
    network, reading = read(model, rows, lengths, NetworkSpec(output_steps=4))
    assert (network.config.feed, network.config.output_steps) == ("repeat", 4)
    assert reading.config.output == "label"


def test_several_labels_show_in_the_targets_or_are_said():
    rows, lengths = make_rows()
    targets = torch.rand(24, 3) > 0.5
    for end in ("logits", "sigmoid"):
        model = louder(SeveralLabels(end=end))
        for known, spec in (
            (targets, None),
            (targets.float(), None),
            (None, NetworkSpec(kind="multilabel")),
        ):
            network, reading = read(model, replace(rows, targets=known), lengths, spec)
            assert (network.config.output, reading.spec.output) == ("multilabel", end)
            assert reading.spec.readout == "mean_steps"
    assert read(louder(SeveralLabels()), rows, lengths)[0].config.output == "label"


def test_sigmoids_without_a_say():
    with pytest.raises(UnreadableNetwork, match=r"say NetworkSpec\(kind='multilabel'\)"):
        read(louder(SeveralLabels(end="sigmoid")), *make_rows())


def test_two_labels_from_one_output_at_each_step():
    model = louder(Tagger(labels=1, bidirectional=True, packed=True))
    rows, lengths = make_rows()
    for squeeze in (True, False):
        network, _ = read_network(
            model,
            rows,
            lambda squeeze=squeeze: (
                model(rows.values, lengths).squeeze(-1) if squeeze else model(rows.values, lengths)
            ),
            ("no", "yes"),
        )
        model.eval()
        with torch.no_grad():
            logits, z = network(rows), model(rows.values, lengths)
        valid = network.answered(rows)
        odds = (logits[..., 1] - logits[..., 0])[valid]
        torch.testing.assert_close(odds, z[..., 0][valid], rtol=0.0, atol=1e-10)


def test_as_many_rows_as_steps_as_labels():
    """Axes that the shape can't tell apart are found by trying."""
    for axes in AXES[:3]:
        model = louder(Tagger(labels=9, axes=axes))
        rows, lengths = make_rows(count=9)
        network, reading = read(model, rows, lengths, labels=tuple("abcdefghi"))
        assert reading.spec.axes == axes
        assert_same_tags(model, network, *make_rows(3), "logits")


@pytest.mark.parametrize("tokens", [True, False])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_answers_to_the_longest_row_only(tokens, bidirectional):
    """``pad_packed_sequence`` gives as many steps as the longest row of a batch has."""
    model = Tagger(packed=True, total=False, tokens=tokens, bidirectional=bidirectional)
    rows, lengths = make_rows(tokens=tokens)
    rows, lengths = rows[lengths < 8], lengths[lengths < 8]
    assert int(lengths.max()) == 7 and model.double()(rows.values, lengths).shape[1] == 7
    network, _ = read(louder(model), rows, lengths)
    assert_same_tags(model, network, rows, lengths, "logits")


def test_the_directions_of_a_tagger_may_be_summed():
    class Summed(Tagger):
        def forward(self, values, lengths):
            out, _ = self.rnn(self.embedding(values))
            one, other = out.chunk(2, dim=-1)
            return arranged(self.dense(one + other), self.axes)

    model = Summed(bidirectional=True)
    model.dense.layers[0] = nn.Linear(8, 3)
    network, reading = read(louder(model), *make_rows())
    assert reading.spec.directions == "sum"
    assert_same_tags(model, network, *make_rows(3), "logits")


def test_separate_layers_that_tag():
    class Separate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(20, 6)
            self.one = nn.LSTM(6, 8, batch_first=True, bidirectional=True)
            self.two = nn.LSTM(16, 5, batch_first=True)
            self.fc = nn.Linear(5, 3)
            self.dropout = nn.Dropout(0.3)

        def forward(self, values, lengths):
            out = self.dropout(self.one(self.embedding(values))[0])
            return self.fc(self.dropout(self.two(out)[0])).transpose(1, 2)

    model = louder(Separate())
    network, reading = read(model, *make_rows(), NetworkSpec(recurrent=("one", "two")))
    assert network.config.recurrent == ((8, 8), (5,)) and network.config.output == "tags"
    assert read_weights(model, reading).config == network.config


def test_specs_of_kinds_go_through_json():
    spec = NetworkSpec(kind="list", end_label="none", feed="repeat", output_steps=7, steps=9)
    assert NetworkSpec(**json.loads(json.dumps(spec.to_dict()))) == spec


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"kind": "label", "axes": "flattened"}, "axes='flattened' with kind='label'"),
        ({"kind": "tags", "readout": "last_step"}, "readout='last_step' with kind='tags'"),
        ({"kind": "tags", "end_label": "x"}, "end_label='x' with kind='tags'; a list has one"),
        ({"kind": "label", "output": "sigmoid"}, "expected 'multilabel'"),
        ({"kind": "words"}, "kind='words', expected one of"),
        ({"feed": "flat", "packed": True}, "reads a fixed number of steps, and packs nothing"),
        ({"feed": "flat", "output_steps": 3}, "output_steps=3 with feed='flat'"),
        ({"output_steps": 0}, "output_steps=0, expected a positive number"),
    ],
)
def test_specs_that_contradict_themselves(arguments, expected):
    with pytest.raises(ValueError, match=expected):
        NetworkSpec(**arguments)


@pytest.mark.parametrize(
    ("model", "spec", "expected"),
    [
        (Tagger(), NetworkSpec(kind="label"), "kind='label', but answers .* are at each step"),
        (SeveralLabels(), NetworkSpec(kind="tags"), "kind='tags', but answers .* for each row"),
        (Tagger(), NetworkSpec(feed="flat"), "don't fit together"),
        (Tagger(), NetworkSpec(axes="rows_labels_steps"), "arranged as 'rows_labels_steps'"),
        (AtOnce(), NetworkSpec(feed="flat", steps=4), "The spec says .*'steps': 4"),
        (Tagger(), NetworkSpec(kind="list", end_label="z"), "end_label='z', expected one of"),
        (AtOnce(steps=7), None, r"reads vectors of 42, but before it come .* \(or 9 of them"),
    ],
)
def test_what_does_not_fit_is_said(model, spec, expected):
    with pytest.raises(ValueError, match=expected):
        read(model.double(), *make_rows(), spec)
