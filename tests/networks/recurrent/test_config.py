"""Structures as plain data: what fits, and that they come back from JSON."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings

from mlflow_rnnmod.networks import HiddenLayer, NetworkConfig, Rows, concatenate
from mlflow_rnnmod.networks.guard import tolerance
from tests.networks.recurrent.strategies import networks
from tests.networks.recurrent.test_network import config


@settings(max_examples=30, deadline=None, derandomize=True)
@given(network=networks(outputs=("label", "tags")))
def test_structures_come_back_from_json(network):
    structure = network.config
    assert NetworkConfig.from_dict(json.loads(json.dumps(structure.to_dict()))) == structure


@settings(max_examples=30, deadline=None, derandomize=True)
@given(network=networks(outputs=("label", "tags")))
def test_units_are_those_of_the_weights(network):
    found = {}
    for name, weight in network.named_parameters():
        if name.endswith("weight_hh_l0"):
            found[name.removesuffix(".weight_hh_l0")] = weight.shape[1]
        elif name.startswith("hidden.") and name.endswith(".weight"):
            found[name.removesuffix(".weight")] = weight.shape[0]
    assert network.units == found
    assert network.config.readout_size == network.output.in_features


def test_names_of_layers():
    structure = config(recurrent=((6, 7), (8,)), hidden=(HiddenLayer(4),))
    assert structure.units == {
        "recurrent.0.fwd": 6, "recurrent.0.bwd": 7, "recurrent.1.fwd": 8, "hidden.0": 4,
    }  # fmt: skip
    assert structure.inputs_of(0) == ()
    assert structure.inputs_of(1) == ("recurrent.0.fwd", "recurrent.0.bwd")
    assert structure.readout_layers == ("hidden.0",)
    assert config(recurrent=((6,), (7, 8))).readout_layers == ("recurrent.1.fwd", "recurrent.1.bwd")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"input": "text"}, "input='text', expected one of"),
        ({"embedding_size": None}, "embedding_size=None with input='tokens'"),
        ({"input": "features"}, "embedding_size=4 with input='features'"),
        ({"cell": "LSTM"}, "cell='LSTM', expected one of"),
        ({"readout": "mean"}, "readout='mean', expected one of"),
        ({"output": "steps"}, "output='steps'"),
        ({"side": "top"}, "side='top'"),
        ({"recurrent": ()}, "recurrent=(), expected one tuple a layer"),
        ({"recurrent": ((5, 5, 5),)}, "recurrent=((5, 5, 5),)"),
        ({"recurrent": ((0,),)}, "recurrent=((0,),)"),
        ({"labels": ("a",)}, "labels=('a',), expected at least two labels"),
        ({"labels": ("a", "a")}, "expected at least two labels, all different"),
        ({"packed": True, "side": "left"}, "packing needs padding on the right"),
        ({"steps": 0}, "steps=0, expected None or a number from 1 to 100000"),
        ({"hidden": (HiddenLayer(3, "gelu"),)}, "hidden activation='gelu'"),
    ],
)
def test_structures_that_do_not_fit(changes, expected):
    with pytest.raises(ValueError) as error:
        config(**changes)
    assert expected in str(error.value)


def test_all_problems_at_once():
    with pytest.raises(ValueError) as error:
        config(cell="x", readout="y", labels=())
    assert all(text in str(error.value) for text in ("cell='x'", "readout='y'", "labels=()"))


@pytest.mark.parametrize("change", [{"cells": 3}, {"recurrent": None}, {"hidden": [{"size": 3}]}])
def test_data_that_is_no_structure(change):
    with pytest.raises(ValueError, match="Not a network's structure"):
        NetworkConfig.from_dict({**config().to_dict(), **change})
    with pytest.raises(ValueError, match="Not a network's structure"):
        NetworkConfig.from_dict({})


# Rows


def test_rows_in_parts():
    rows = Rows(torch.arange(10).reshape(5, 2), torch.arange(5), torch.arange(5) * 10)
    parts = list(rows.batches(2))
    assert [len(part) for part in parts] == [2, 2, 1]
    again = concatenate(parts)
    for name in ("values", "lengths", "targets"):
        assert torch.equal(getattr(again, name), getattr(rows, name))
    assert rows[torch.tensor([3, 1])].targets.tolist() == [30, 10]


@pytest.mark.parametrize("side", ["right", "left"])
def test_rows_of_different_steps_are_padded(side):
    joined = concatenate([Rows(torch.tensor([[1]])), Rows(torch.tensor([[2, 3]]))], 9, side)
    assert joined.values.tolist() == [[1, 9] if side == "right" else [9, 1], [2, 3]]
    assert joined.lengths is None and joined.targets is None


def test_rows_that_do_not_fit():
    with pytest.raises(ValueError, match="lengths has 2 rows, values has 3"):
        Rows(torch.zeros(3, 1), torch.zeros(2))
    with pytest.raises(ValueError, match="targets has 4 rows, values has 3"):
        Rows(torch.zeros(3, 1), None, torch.zeros(4))
    with pytest.raises(ValueError, match="parts is empty"):
        concatenate([])


# Tolerances


def test_tolerances():
    values = torch.tensor([0.0, -3.0, 300.0])
    assert tolerance(torch.float64, values).tolist() == pytest.approx([1e-10] * 3)
    assert tolerance(torch.float32, values).tolist() == pytest.approx([1e-5, 3e-5, 3e-3])
    large = tolerance(torch.float32, values, units=400, steps=64)  # sqrt(25,600) / 40 = 4
    assert large.tolist() == pytest.approx([4e-5, 4e-5, 3e-3])
    with pytest.raises(ValueError, match="dtype=torch.float16; expected torch.float32"):
        tolerance(torch.float16)
