"""Likelihoods in a module's files: as they were, checked, of other versions, and none."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from mlflow_rnnmod.composition import compose
from mlflow_rnnmod.storage import read_composite, read_module, write_composite, write_module
from tests.composition.test_likelihoods import likely, two
from tests.composition.test_step_likelihoods import tagging
from tests.storage.test_storage import edit


@pytest.mark.parametrize("kind", ["text", "tokens", "features"])
def test_they_come_back_as_they_were(kind, tmp_path):
    module = likely(kind, ("a", "b"))[1]
    write_module(module, tmp_path)
    found = read_module(tmp_path, lambda digest, reference: module.parent).likelihood
    assert found.space == module.likelihood.space and found.facts == module.likelihood.facts
    assert found.tensors.keys() == module.likelihood.tensors.keys()
    assert all(torch.equal(found.tensors[k], t) for k, t in module.likelihood.tensors.items())


def test_composites_score_the_same(tmp_path):
    composite = compose(two(), unlabelled=["abc", "hello", "äöü"])
    write_composite(composite, tmp_path)
    found = read_composite(tmp_path)
    assert found.score == "hybrid" and found.parameters == composite.parameters
    texts = ["größe", "", "o'neill"]
    assert torch.equal(found.scores(texts), composite.scores(texts))


def test_a_module_without_says_nothing_of_one(tmp_path):

    module = replace(likely("text", ("a", "b"))[0], likelihood=None)
    write_module(module, tmp_path)
    assert "likelihood" not in json.loads((tmp_path / "module.json").read_text())
    assert read_module(tmp_path, lambda *_: module.parent).likelihood is None


def test_older_releases_read_the_rest(tmp_path):
    module = likely("text", ("a", "b"))[0]
    write_module(module, tmp_path)
    body = json.loads((tmp_path / "module.json").read_text())
    assert body["format"] == 1  # as without a likelihood: nothing else has changed


def test_an_altered_table_is_found_out(tmp_path):
    module = likely("text", ("a", "b"))[0]
    write_module(module, tmp_path)
    file = tmp_path / "module.safetensors"
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(ValueError, match="truncated or altered"):
        read_module(tmp_path, lambda *_: module.parent)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"space": "characters-9"}, "reads version 1"),
        ({"space": "smells-1"}, "expected one of"),
        ({"format": 7}, "newest that this version"),
        ({"facts": {"orders": [1, 2, 3, 4], "unseen": -9.0}}, "tables of"),
        ({"facts": {}}, "orders"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(change, words, tmp_path):
    module = likely("text", ("a", "b"))[0]
    write_module(module, tmp_path)
    edit(tmp_path / "module.json", lambda body: body["likelihood"].update(change))
    with pytest.raises(ValueError, match=words) as error:
        read_module(tmp_path, lambda *_: module.parent)
    assert "module.json" in str(error.value)


@pytest.mark.parametrize("output", ["label", "tags"])
def test_tables_of_other_numbers_are_refused(output, tmp_path):
    modules = likely("text", ("a", "b")) if output == "label" else tagging("text", ("a", "b"), 0)
    whole = modules[0].likelihood
    tensors = {"keys": torch.zeros(3), "values": torch.zeros(3)}
    if output == "label":
        bad = replace(whole, tensors={**whole.tensors, "keys": torch.zeros(3)})
    else:
        bad = replace(whole, step=replace(whole.step, tensors=tensors))
    write_module(replace(modules[0], likelihood=bad), tmp_path)
    with pytest.raises(ValueError, match=r"'keys' of torch\.float32"):
        read_module(tmp_path, lambda *_: modules[0].parent)
