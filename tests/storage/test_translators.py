"""Files of translators, their modules and composites."""

from __future__ import annotations

import json

import pytest

from mlflow_rnnmod.composition import compose
from mlflow_rnnmod.composition.plan import entry_of, make_plan
from mlflow_rnnmod.networks import Parent
from mlflow_rnnmod.storage import (
    kind_of,
    read_composite,
    read_contract,
    read_module,
    read_parent,
    write_composite,
    write_module,
    write_parent,
)
from mlflow_rnnmod.storage.modules import read_entry
from tests.storage.test_storage import edit, never
from tests.translators import (
    sentences,
    tiny_translator,
    translator_module,
    translator_modules,
)

TEXTS = sentences(8, seed=3)[0]


@pytest.mark.parametrize("cell", ["rnn_tanh", "rnn_relu", "lstm", "gru"])
@pytest.mark.parametrize("joint", [True, False])
def test_a_translator_comes_back_as_it_was(tmp_path, cell, joint):
    parent = tiny_translator(cell, encoder=((5, 5), (4,)), decoder=(9, 8), joint=joint)
    write_parent(parent, tmp_path)
    found = read_parent(tmp_path, parent.digest)
    assert found.network.architecture == "translator"
    assert found.network.config == parent.network.config
    assert found.tokenizers == parent.tokenizers
    assert (found.target_tokenizer is None) == joint
    rows = parent.tokenizer(TEXTS)
    for code in parent.labels:
        assert found.network.translate(rows, code) == parent.network.translate(rows, code)
    names = {path.name for path in tmp_path.iterdir()}
    expected = {"network.json", "weights.safetensors", "tokenizer.json"}
    assert names == expected | (set() if joint else {"target_tokenizer.json"})
    body = json.loads((tmp_path / "network.json").read_text(encoding="utf-8"))
    assert (body["kind"], body["architecture"], body["format"]) == ("parent", "translator", 2)


def test_a_module_asks_for_the_parent_with_both_tokenizers(tmp_path):
    parent = tiny_translator(joint=False)
    module = translator_module(parent, "it")
    write_module(module, tmp_path)
    asked = []

    def find(digest: str, reference: dict) -> Parent:
        asked.append((digest, reference["tokenizer"]))
        return parent

    assert read_module(tmp_path, find).contract == module.contract
    both = f"{parent.tokenizer.digest}+{parent.target_tokenizer.digest}"
    assert asked == [(parent.digest, both)] == [(parent.digest, parent.tokenizers)]
    contract, _ = read_contract(tmp_path)
    assert contract.target == {
        "code": "it",
        "start": 5,
        "tokenizer": parent.target_tokenizer.digest,
    }
    other = Parent.of_translator(parent.network, parent.tokenizer)
    with pytest.raises(ValueError, match="its tokenizer has digest"):
        read_module(tmp_path, lambda digest, reference: other)


def test_a_module_that_starts_otherwise_than_its_parent_is_refused(tmp_path):
    module = translator_module(tiny_translator(), "it")
    write_module(module, tmp_path, standalone=True)
    edit(tmp_path / "module.json", lambda body: body["contract"]["target"].update(start=4))
    with pytest.raises(ValueError, match="target is .*'start': 4"):
        read_module(tmp_path, never)


def test_weights_that_are_missing_are_named(tmp_path):
    write_parent(tiny_translator(), tmp_path)
    edit(
        tmp_path / "network.json",
        lambda body: body["network"].update(decoder=[10, 10]),
    )
    with pytest.raises(ValueError, match=r"decoder\.1\.weight_ih_l0"):
        read_parent(tmp_path)


def test_composites_of_two_parents_stand_alone(tmp_path):
    first, second = tiny_translator(seed=0), tiny_translator("lstm", joint=False, seed=1)
    composite = compose([translator_module(first, "de"), translator_module(second, "fr")])
    write_composite(composite, tmp_path)
    assert kind_of(tmp_path) == "composite"
    found = read_composite(tmp_path)
    assert type(found) is type(composite)
    assert (found.labels, found.score, found.recipe) == (
        composite.labels,
        composite.score,
        composite.recipe,
    )
    assert found.predict(TEXTS) == composite.predict(TEXTS)
    assert len(list((tmp_path / "parents").iterdir())) == 2


def test_plans_know_translators(tmp_path):
    parent = tiny_translator("lstm", decoder=(9, 8))
    modules = translator_modules(parent)
    plan = make_plan([entry_of(module) for module in modules])
    assert plan.fits and plan.labels == ("de", "fr", "it")
    weights = sum(weight.numel() for weight in parent.network.parameters())
    assert plan.parameters == weights
    assert plan.passes is None and plan.milliseconds is None and plan.accuracy is None
    assert any("depends on what is translated" in note for note in plan.notes)
    write_module(modules[0], tmp_path)
    entry, reference = read_entry(tmp_path, "de")
    assert reference["tokenizer"] == parent.tokenizers
    assert make_plan([entry]).fits
    assert plan.bytes >= parent.bytes
