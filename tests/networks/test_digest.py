"""Digests: fixed for good, and different for anything that is different."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest
import torch

from mlflow_rnnmod._digest import canonical_json, digest_tensors, digest_text, short
from mlflow_rnnmod.networks import Parent, RecurrentNetwork
from tests.builders import tiny_parent

TENSORS = {"b": torch.tensor([1.5, -2.0]), "a": torch.tensor([[1, 2, 3]], dtype=torch.int64)}
STRUCTURE = {"cell": "lstm", "labels": ["ja", "né"]}


def test_the_digest_is_the_one_that_the_format_says():
    """Files name parents by it: it may never change."""
    text = '{"cell":"lstm","labels":["ja","né"]}' + '["a","int64",[1,3]]'
    data = text.encode() + b"".join(n.to_bytes(8, "little") for n in (1, 2, 3))
    data += b'["b","float32",[2]]' + bytes.fromhex("0000c03f") + bytes.fromhex("000000c0")
    found = digest_tensors(TENSORS, STRUCTURE)
    assert found == hashlib.sha256(data).hexdigest()
    assert found == "f894efadaa747b2ee9118205e15a56bf683b465d03fd993d9cb8cf89c297b356"
    assert short(found) == found[:12]


@pytest.mark.parametrize(
    "tensors",
    [
        {"a": TENSORS["a"], "b": torch.tensor([1.5, -2.0000002])},
        {"a": TENSORS["a"], "c": TENSORS["b"]},
        {"a": TENSORS["b"], "b": TENSORS["a"]},
        {"a": TENSORS["a"]},
        {"a": TENSORS["a"].reshape(3, 1), "b": TENSORS["b"]},
        {"a": TENSORS["a"], "b": TENSORS["b"].double()},
        {"a": TENSORS["a"], "b": TENSORS["b"].view(torch.int32)},  # the same bytes
        {"a": TENSORS["a"], "b": torch.tensor([-2.0, 1.5])},
        {**TENSORS, "c": torch.zeros(0)},
        {},
    ],
)
def test_other_tensors_have_another_digest(tensors):
    assert digest_tensors(tensors, STRUCTURE) != digest_tensors(TENSORS, STRUCTURE)


@pytest.mark.parametrize("structure", [{}, {**STRUCTURE, "labels": ["né", "ja"]}, None])
def test_another_structure_has_another_digest(structure):
    assert digest_tensors(TENSORS, structure) != digest_tensors(TENSORS, STRUCTURE)


def test_what_is_the_same_has_the_same_digest():
    expected = digest_tensors(TENSORS, STRUCTURE)
    turned = dict(reversed(TENSORS.items()))
    assert digest_tensors(turned, dict(reversed(STRUCTURE.items()))) == expected
    # Neither memory layout nor gradients are part of a tensor's value.
    wide = torch.tensor([[1.5, 0.0], [-2.0, 0.0]], requires_grad=True)[:, 0]
    assert not wide.is_contiguous()
    assert digest_tensors({**TENSORS, "b": wide}, STRUCTURE) == expected


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.int64]
)
def test_every_dtype_and_shape_has_a_digest(dtype):
    shapes = [torch.zeros(shape).to(dtype) for shape in ((), (0,), (1,), (2, 3), (3, 2))]
    assert len({digest_tensors({"a": tensor}, {}) for tensor in shapes}) == len(shapes)


def test_canonical_json():
    data = {"b": [1, 2.5, None, True], "a": {"ü": "é\n"}}
    assert canonical_json(data) == '{"a":{"ü":"é\\n"},"b":[1,2.5,null,true]}'
    assert json.loads(canonical_json(data)) == data
    assert digest_text("né") == hashlib.sha256("né".encode()).hexdigest()


def test_parents_are_told_apart_by_weights_and_structure():
    parent = tiny_parent()
    assert tiny_parent().digest == parent.digest != tiny_parent(seed=1).digest
    others = [
        tiny_parent(labels=("german", "irish", "Zulu")),
        tiny_parent(readout="mean_valid"),
        tiny_parent(steps=9),
        tiny_parent(dtype=torch.float64),
    ]
    assert len({parent.digest, *(other.digest for other in others)}) == 5
    nudged = RecurrentNetwork(parent.network.config)
    nudged.load_state_dict(parent.network.state_dict())
    nudged.output.bias.data[0] = torch.nextafter(nudged.output.bias[0], torch.tensor(10.0))
    assert Parent(nudged).digest != parent.digest


def test_a_parents_digest_says_nothing_of_where_it_is_and_how_it_reads_text():
    parent = tiny_parent("text")
    assert parent.known_as("m-1", "sqlite:///x.db").digest == parent.digest
    assert replace(parent, tokenizer=None).digest == parent.digest
    assert parent.tokenizer.digest != tiny_parent("text", side="left").digest
