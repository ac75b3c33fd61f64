"""Parents, modules and composites, written and read back; and what is not as it was written."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from mlflow_rnnmod.composition import Composite, compose, whole_parent
from mlflow_rnnmod.decomposition import Calibration, Energy, Head, Module
from mlflow_rnnmod.networks import Parent, Trunk
from mlflow_rnnmod.networks.architectures import ARCHITECTURES
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
from tests.contract.base import JOINT, Subject, trunk_of
from tests.contract.subjects import subject, subjects
from tests.storage.test_storage import edit, never


def random_head(subject: Subject, draw: torch.Generator) -> Head:
    weight = torch.randn(subject.network.config.readout_size, generator=draw) * 0.1
    return Head(weight, 0.25, Calibration(1.5, -0.5))


def modules_of(subject: Subject, kind: tuple[str, str] = JOINT) -> list[Module]:
    """A module for each label, with a trunk of its own and, where there are scores, heads."""
    found, draw = [], torch.Generator().manual_seed(3)
    for seed, module in enumerate(whole_parent(subject.parent).modules):
        trunk = trunk_of(subject.network, kind, seed)
        module = replace(
            module,
            trunk=trunk,
            contract=replace(module.contract, mask_steps=trunk.steps),
            figures={"support": 25.0, "jaccard": 0.5},
            made={"rule": "random", "repairs": ["fold"]},
        )
        if subject.scored:
            heads = random_head(subject, draw), random_head(subject, draw)
            module = replace(module, head=heads[0], open_head=heads[1], energy=Energy(1.5, 0.75))
        found.append(module)
    return found


def composite_of(subject: Subject) -> Composite:
    return compose(modules_of(subject))


@subjects
def test_a_parent_comes_back_as_it_was(name, tmp_path):
    mine, parent = subject(name), subject(name).parent
    write_parent(parent, tmp_path / "new" / "folder")
    assert kind_of(tmp_path / "new" / "folder") == "parent"
    found = read_parent(tmp_path / "new" / "folder", parent.digest)
    assert found.digest == parent.digest and found.tokenizers == parent.tokenizers
    assert found.network.architecture == parent.network.architecture
    assert found.network.config == parent.network.config
    assert found.network.dtype == torch.float64 and not found.network.training
    assert not any(weight.requires_grad for weight in found.network.parameters())
    data = mine.data()
    again = replace(mine, parent=found)
    assert torch.equal(again.outputs(data, None), mine.outputs(data, None))
    body = json.loads((tmp_path / "new" / "folder" / "network.json").read_text(encoding="utf-8"))
    assert body["kind"] == "parent" and body["format"] == parent.network.config.format


@subjects
def test_modules_of_every_kind_of_trunk_come_back_as_they_were(name, tmp_path):
    mine = subject(name)
    for number, kind in enumerate(mine.kinds):
        module = modules_of(mine, kind)[1]
        folder = tmp_path / str(number)
        write_module(module, folder, standalone=True)
        found = read_module(folder, never)
        assert found.trunk == module.trunk and found.contract == module.contract
        assert (found.trunk.variant, found.trunk.gates) == kind
        for group in module.trunk.keep:
            assert torch.equal(found.trunk.keep[group], module.trunk.keep[group])
            assert torch.equal(found.trunk.fold[group], module.trunk.fold[group])
        assert found.trunk.mix.keys() == module.trunk.mix.keys()
        body = json.loads((folder / "module.json").read_text(encoding="utf-8"))
        assert body["format"] == (mine.network.config.format if kind == JOINT else 2)
        assert body["plan"]["kept"] == module.trunk.sizes and body["plan"]["full"] is False
        assert found.energy == module.energy
        assert found.figures == module.figures and found.made == module.made
        assert read_contract(folder)[0] == module.contract
        assert found.parent.digest == mine.parent.digest
        inputs = mine.inputs()
        expected = mine.suite.answers(compose([module]), inputs)
        assert mine.suite.answers(compose([found]), inputs) == expected


@subjects
def test_a_module_by_reference_asks_for_its_parent(name, tmp_path):
    mine = subject(name)
    known = mine.parent.known_as("m-1", "http://me:secret@here/mlflow")
    write_module(replace(modules_of(mine)[0], parent=known), tmp_path)
    asked = []

    def find(digest: str, reference: dict[str, Any]) -> Parent:
        asked.append((digest, reference))
        return mine.parent

    assert read_module(tmp_path, find).parent is mine.parent
    uri = "http://here/mlflow"
    fields = (known.digest, "m-1", uri, known.tokenizers)
    names = ("digest", "model_id", "tracking_uri", "tokenizer")
    assert asked == [(known.digest, dict(zip(names, fields, strict=True)))]
    assert {path.name for path in tmp_path.iterdir()} == {"module.json", "module.safetensors"}


@subjects
def test_a_composite_comes_back_as_it_was(name, tmp_path):
    mine = subject(name)
    composite = composite_of(mine)
    write_composite(composite, tmp_path)
    assert kind_of(tmp_path) == "composite"
    found = read_composite(tmp_path)
    assert type(found) is type(composite)
    assert (found.labels, found.score, found.output) == (
        composite.labels,
        composite.score,
        composite.output,
    )
    assert found.parameters == composite.parameters and found.sources == composite.sources
    assert list(found.recipe) == json.loads(json.dumps(composite.recipe))
    inputs = mine.inputs(9)
    assert mine.suite.answers(found, inputs) == mine.suite.answers(composite, inputs)
    assert len({id(module.parent) for module in found.modules}) == 1
    assert [path.name for path in (tmp_path / "parents").iterdir()] == [mine.parent.digest]


@subjects
def test_a_flipped_byte_is_noticed(name, tmp_path):
    """In any file of a composite: a few places of each, the first and the last among them."""
    write_composite(composite_of(subject(name)), tmp_path)
    files = [path for path in sorted(tmp_path.rglob("*.*")) if path.is_file()]
    assert len(files) >= 5
    for path in files:
        data = path.read_bytes()
        for position in {0, len(data) // 3, len(data) * 2 // 3, len(data) - 1}:
            if path.suffix == ".json" and chr(data[position]).isspace():
                continue  # other white space is the same content
            changed = bytearray(data)
            changed[position] ^= 1
            path.write_bytes(bytes(changed))
            with pytest.raises(ValueError) as error:
                read_composite(tmp_path)
            assert str(path) in str(error.value)
        for bad in (data[: len(data) // 2], b""):
            path.write_bytes(bad)
            with pytest.raises(ValueError, match="truncated or altered") as error:
                read_composite(tmp_path)
            assert str(path) in str(error.value)
        path.unlink()
        with pytest.raises(ValueError, match="missing") as error:
            read_composite(tmp_path)
        assert str(path) in str(error.value)
        path.write_bytes(data)
    read_composite(tmp_path)


@subjects
def test_what_is_no_such_network_is_refused(name, tmp_path):
    parent = subject(name).parent
    write_parent(parent, tmp_path)
    path = tmp_path / "network.json"
    good = path.read_bytes()
    known = " or ".join(map(repr, ARCHITECTURES))
    edit(path, lambda body: body.update(architecture="transformer"))
    with pytest.raises(ValueError, match=f"architecture 'transformer'; expected {known}"):
        read_parent(tmp_path)
    path.write_bytes(good)
    for change in (lambda found: found.pop("labels" if "labels" in found else "targets"),
                   lambda found: found.update(flavour="sweet")):  # fmt: skip
        edit(path, lambda body, change=change: change(body["network"]))
        with pytest.raises(ValueError, match="network.json"):
            read_parent(tmp_path)
        path.write_bytes(good)
    edit(path, lambda body: body.update(digest="0" * 64))
    with pytest.raises(ValueError, match="does not hold the parent it names"):
        read_parent(tmp_path)
    path.write_bytes(good)
    with pytest.raises(ValueError, match="another parent"):
        read_parent(tmp_path, "0" * 64)


@subjects
def test_masks_of_another_network_are_refused(name, tmp_path):
    """Of other sizes than the parent's; the files by themselves are as they should be."""
    mine = subject(name)
    module = modules_of(mine)[0]
    more = Trunk({group: torch.cat([keep, keep]) for group, keep in module.trunk.keep.items()})
    write_module(replace(module, trunk=more), tmp_path, standalone=True)
    with pytest.raises(ValueError, match="masks are for the units"):
        read_module(tmp_path, never)
