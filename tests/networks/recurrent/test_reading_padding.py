"""Reading what a network does with padding: which steps it reads, and how far rows are padded."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mlflow_rnnmod.networks import NetworkSpec, Rows
from tests.networks.recurrent.test_reading import assert_same_answers, read
from tests.networks.recurrent.user_networks import Classifier, make_rows


@pytest.mark.parametrize(
    ("readout", "packed", "bidirectional", "side", "steps"),
    [
        ("last_step", False, False, "right", 9),
        ("mean_steps", False, False, "right", 9),
        ("mean_steps", True, False, "right", 9),
        ("mean_valid", False, True, "right", 9),  # the backward direction starts in the padding
        ("mean_valid", False, False, "left", 9),
        ("mean_valid", False, False, "right", None),
        ("last_valid", False, False, "right", None),
        ("final_state", True, True, "right", None),
    ],
)
def test_steps_are_fixed_where_the_network_reads_its_padding(
    readout, packed, bidirectional, side, steps
):
    model = Classifier(readout=readout, packed=packed, bidirectional=bidirectional, side=side)
    rows, lengths = make_rows(side=side)
    network, reading = read(model.double(), rows, lengths)
    assert network.config.steps == steps == reading.config.steps
    assert bool(reading.notes) == (steps is not None)
    # What the rule is for: more or less padding does not change what it answers.
    few = rows[lengths <= 6]
    cut = Rows(few.values[:, :6] if side == "right" else few.values[:, 3:])
    with torch.no_grad():
        short, full = (network(network.prepare(part)) for part in (cut, few))
    torch.testing.assert_close(short, full, rtol=0.0, atol=1e-10)


def test_steps_can_be_told():
    model = Classifier(readout="last_step").double()
    rows, lengths = make_rows()
    for told, expected in ((15, 15), ("any", None)):
        network, reading = read(model, rows, lengths, NetworkSpec(steps=told))
        assert network.config.steps == expected and reading.notes == ()


def test_features_without_lengths_have_no_padding():
    model = Classifier(readout="last_step", bidirectional=True, tokens=False).double()
    rows, lengths = make_rows(tokens=False, padded=False)
    network, _ = read(model, Rows(rows.values), lengths)
    assert network.config.steps is None
    # Rows of other lengths then are on their own, whatever they are batched with.
    shorter, lengths = make_rows(5, tokens=False)
    with torch.no_grad():
        together = network(shorter)
        alone = [
            model.eval()(row[None, :n], n[None])
            for row, n in zip(shorter.values, lengths, strict=True)
        ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0.0, atol=1e-10)


def test_the_padding_token_is_seen_in_rows_with_lengths():
    model = Classifier(nn.GRU, readout="mean_valid", padding_idx=None).double()
    rows, lengths = make_rows(pad_index=17, with_lengths=True)
    network, reading = read(model, rows, lengths)
    assert network.config.pad_index == reading.spec.pad_index == 17
    assert_same_answers(model, network, Rows(rows.values), lengths)


def test_the_padding_token_can_be_told():
    model = Classifier(nn.GRU, readout="mean_valid", padding_idx=None, bidirectional=True).double()
    rows, lengths = make_rows(pad_index=17)
    with pytest.raises(ValueError, match="does not reproduce") as error:
        read(model, rows, lengths)
    assert "Token 0 was taken for padding; if it is another one" in str(error.value)
    network, _ = read(model, rows, lengths, NetworkSpec(pad_index=17))
    assert network.config.pad_index == 17
    assert_same_answers(model, network, *make_rows(3, pad_index=17))


def test_the_embedding_says_what_pads():
    model = Classifier(nn.GRU, readout="max_valid", padding_idx=17).double()
    network, _ = read(model, *make_rows(pad_index=17))
    assert network.config.pad_index == 17


def test_spellings_of_one_function_are_one_setting():
    rows, lengths = make_rows()
    found = set()
    for readout, packed in (("last_valid", False), ("last_valid", True), ("final_state", True)):
        model = Classifier(readout=readout, packed=packed).double()
        network, _ = read(model, rows, lengths)
        found.add((network.config.readout, network.config.packed))
    assert found == {("last_valid", False)}
