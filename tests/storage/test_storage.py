"""Files of parents and modules: written, read back, checked, refused."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from mlflow_rnnmod._digest import canonical_json
from mlflow_rnnmod.networks import Parent, Trunk
from mlflow_rnnmod.storage import (
    FORMAT,
    kind_of,
    read_contract,
    read_module,
    read_parent,
    write_module,
    write_parent,
)
from mlflow_rnnmod.storage.files import pack_bits, unpack_bits
from tests.builders import ODD_LABELS, tiny_module, tiny_parent


def never(digest: str, reference: dict) -> Parent:
    raise AssertionError(f"asked for the parent {digest}, which is bundled")


def edit(path: Path, change, resign: bool = True) -> None:
    """Change a document by hand, with a digest that fits again if ``resign``."""
    body = json.loads(path.read_text(encoding="utf-8"))
    change(body)
    if resign:
        body.pop("sha256")
        body["sha256"] = hashlib.sha256(canonical_json(body).encode()).hexdigest()
    path.write_text(json.dumps(body), encoding="utf-8")


def test_padding_of_the_tokenizer_is_kept(tmp_path):
    parent = tiny_parent("text", side="left")
    write_parent(parent, tmp_path)
    assert read_parent(tmp_path).tokenizer(["ab", "a"]).values[1, 0] == 0


def test_weights_are_stored_as_they_are(tmp_path):
    parent = tiny_parent(dtype=torch.float64)
    write_parent(parent, tmp_path)
    stored = load_file(tmp_path / "weights.safetensors")
    assert {k: (v.dtype, v.shape) for k, v in stored.items()} == {
        k: (v.dtype, v.shape) for k, v in parent.network.state_dict().items()
    }
    assert read_parent(tmp_path).network.dtype == torch.float64


def test_shared_weights_can_be_written(tmp_path):
    parent = tiny_parent(embedding_size=8, labels=[f"l{i}" for i in range(20)])
    parent.network.output.weight = parent.network.embedding.weight
    parent = Parent(parent.network)
    write_parent(parent, tmp_path)
    assert read_parent(tmp_path).digest == parent.digest


@pytest.mark.parametrize("repaired", [True, False])
@pytest.mark.parametrize("removal", [0.0, 0.5])
def test_module_comes_back_as_it_was(tmp_path, repaired, removal):
    parent = tiny_parent(recurrent=((9, 4), (17,))).known_as("m-1", "sqlite:///here.db")
    module = tiny_module(parent, removal=removal, repaired=repaired)
    module = replace(module, origin={"uri": "models:/a/1"})
    write_module(module, tmp_path)
    asked = []

    def find(digest, reference):
        asked.append((digest, reference))
        return parent

    found = read_module(tmp_path, find)
    assert asked == [
        (
            parent.digest,
            {
                "digest": parent.digest,
                "model_id": "m-1",
                "tracking_uri": "sqlite:///here.db",
                "tokenizer": None,
            },
        )
    ]
    assert found.parent is parent
    assert found.trunk == module.trunk
    for name in module.trunk.keep:
        assert torch.equal(found.trunk.keep[name], module.trunk.keep[name])
        assert torch.equal(found.trunk.fold[name], module.trunk.fold[name])
    readout, odds = torch.randn(3, parent.network.config.readout_size), torch.randn(3)
    assert torch.equal(found.head(readout, odds), module.head(readout, odds))
    assert torch.equal(found.open_head(readout, odds), module.open_head(readout, odds))
    assert found.energy == module.energy
    assert found.contract == module.contract
    assert found.figures == module.figures
    assert found.made == module.made
    assert found.origin == module.origin
    assert read_contract(tmp_path)[0] == module.contract


@pytest.mark.parametrize("kind", ["text", "tokens", "features"])
def test_standalone_module_needs_nobody(tmp_path, kind):
    parent = tiny_parent(kind).known_as("m-1", "http://here")
    write_module(tiny_module(parent), tmp_path, standalone=True)
    found = read_module(tmp_path, never)
    assert found.parent.digest == parent.digest
    assert (found.parent.model_id, found.parent.tracking_uri) == ("m-1", "http://here")


@pytest.mark.parametrize("label", ODD_LABELS)
def test_any_label(tmp_path, label):
    parent = tiny_parent(labels=ODD_LABELS)
    write_module(tiny_module(parent, label), tmp_path, standalone=True)
    assert read_module(tmp_path, never).label == label


def test_guesses_come_back_exactly(tmp_path):
    """A removed unit's guess is a constant and a weighted sum of the kept units."""
    parent = tiny_parent(recurrent=((9, 4),))
    plain = tiny_module(parent, removal=0.5)
    mix = {name: torch.randn(len(mask), len(mask)) for name, mask in plain.trunk.keep.items()}
    mix.pop("recurrent.0.bwd")
    module = replace(plain, trunk=Trunk(plain.trunk.keep, plain.trunk.fold, mix))
    assert module.trunk != plain.trunk
    write_module(module, tmp_path, standalone=True)
    found = read_module(tmp_path, never)
    assert found.trunk == module.trunk
    assert found.trunk.mix.keys() == {"recurrent.0.fwd"}
    assert torch.equal(found.trunk.mix["recurrent.0.fwd"], module.trunk.mix["recurrent.0.fwd"])


def test_undefined_figures_are_kept(tmp_path):
    module = tiny_module(tiny_parent(), figures={"precision": math.nan})
    write_module(module, tmp_path, standalone=True)
    assert math.isnan(read_module(tmp_path, never).figures["precision"])
    assert "NaN" not in (tmp_path / "module.json").read_text()


def test_credentials_are_not_written(tmp_path):
    parent = tiny_parent().known_as("m-1", "https://me:secret@there/mlflow")
    module = replace(tiny_module(parent), origin={"tracking_uri": "https://me:secret@there/mlflow"})
    write_module(module, tmp_path, standalone=True)
    assert not any(b"secret" in p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert read_module(tmp_path, never).parent.tracking_uri == "https://there/mlflow"


def test_documents_have_sorted_keys_and_plain_characters(tmp_path):
    parent = tiny_parent("text", labels=("日本語", "b"))
    write_module(tiny_module(parent), tmp_path, standalone=True)
    for path in tmp_path.rglob("*.json"):
        text = path.read_text(encoding="utf-8")
        found = json.loads(text)
        assert json.dumps(found, sort_keys=True) == json.dumps(found)
    assert "日本語" in (tmp_path / "module.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("labels", [10, 150])
def test_a_clinc_module_is_small(tmp_path, labels):
    """At most 16 KB under ``data/``, with one LSTM of 100 units."""
    names = [f"a_label_of_usual_length_{i}" for i in range(labels)]
    parent = tiny_parent(labels=names, recurrent=((100,),)).known_as("m-" + "0" * 32, "sqlite:///x")
    module = tiny_module(parent, removal=0.5)
    mix = {"recurrent.0.fwd": torch.randn(100, 100)}
    module = replace(module, trunk=Trunk(module.trunk.keep, module.trunk.fold, mix))
    write_module(module, tmp_path)
    assert sum(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file()) <= 16 * 1024


# --- files that are not what was written ---

FILES = [
    "module.json",
    "module.safetensors",
    "parents/{digest}/network.json",
    "parents/{digest}/weights.safetensors",
    "parents/{digest}/tokenizer.json",
]


def standalone(tmp_path: Path, name: str) -> Path:
    parent = tiny_parent("text")
    write_module(tiny_module(parent), tmp_path, standalone=True)
    return tmp_path / name.format(digest=parent.digest)


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_refused(tmp_path, name):
    path = standalone(tmp_path, name)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(ValueError, match="truncated or altered") as error:
        read_module(tmp_path, never)
    assert str(path) in str(error.value)
    assert found in str(error.value)


@pytest.mark.parametrize("name", [name for name in FILES if not name.endswith("k.json")])
def test_every_altered_byte_is_noticed(tmp_path, name):
    path = standalone(tmp_path, name)
    data = path.read_bytes()
    for position in range(0, len(data), max(1, len(data) // 40)):
        changed = bytearray(data)
        changed[position] ^= 1
        # A space that became a tab or so is no change of content.
        if name.endswith(".json") and chr(data[position]).isspace():
            continue
        path.write_bytes(bytes(changed))
        with pytest.raises(ValueError, match=path.name):
            read_module(tmp_path, never)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(tmp_path, name):
    path = standalone(tmp_path, name)
    path.unlink()
    with pytest.raises(ValueError) as error:
        read_module(tmp_path, never)
    assert str(path) in str(error.value)
    assert "missing" in str(error.value)


def test_altered_content_shows_both_digests(tmp_path):
    path = standalone(tmp_path, "module.json")
    expected = json.loads(path.read_text())["sha256"]
    edit(path, lambda body: body["energy"].update(mean=9.0), resign=False)
    with pytest.raises(ValueError, match="altered") as error:
        read_module(tmp_path, never)
    assert f"expected SHA-256 of its content: {expected}" in str(error.value)


@pytest.mark.parametrize("name", ["module.json", "parents/{digest}/network.json"])
def test_a_newer_format_is_refused(tmp_path, name):
    path = standalone(tmp_path, name)
    edit(path, lambda body: body.update(format=FORMAT + 1, novelty=1))
    with pytest.raises(ValueError, match=f"has format {FORMAT + 1}") as error:
        read_module(tmp_path, never)
    assert f"is {FORMAT}. Upgrade it: pip install --upgrade mlflow-rnnmod" in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("version", [0, -1, "1", None, 1.0, True])
def test_a_strange_format_is_refused(tmp_path, version):
    path = standalone(tmp_path, "module.json")
    edit(path, lambda body: body.update(format=version))
    with pytest.raises(ValueError, match="module.json has format"):
        read_module(tmp_path, never)


def test_other_weights_under_the_same_name_are_refused(tmp_path):
    """Every file fits its digest, and still the network is not the one it is called."""
    parent, other = tiny_parent(seed=0), tiny_parent(seed=1)
    write_parent(parent, tmp_path / "a")
    write_parent(other, tmp_path / "b")
    edit(tmp_path / "b" / "network.json", lambda body: body.update(digest=parent.digest))
    with pytest.raises(ValueError, match="does not hold the parent it names") as error:
        read_parent(tmp_path / "b", parent.digest)
    assert parent.digest in str(error.value)
    assert other.digest in str(error.value)


def test_another_parent_than_asked_for_is_refused(tmp_path):
    parent = tiny_parent()
    write_parent(parent, tmp_path)
    with pytest.raises(ValueError, match="another parent") as error:
        read_parent(tmp_path, "0" * 64)
    assert parent.digest in str(error.value)
    assert "0" * 64 in str(error.value)


def test_a_found_parent_is_checked(tmp_path):
    parent, other = tiny_parent(seed=0), tiny_parent(seed=1)
    write_module(tiny_module(parent), tmp_path)
    with pytest.raises(ValueError, match="another parent") as error:
        read_module(tmp_path, lambda digest, reference: other)
    assert parent.digest in str(error.value)
    assert other.digest in str(error.value)


def test_a_parent_with_another_tokenizer_is_refused(tmp_path):
    """The digest of a parent is that of its network; the tokenizer has its own."""
    parent = tiny_parent("text")
    write_module(tiny_module(parent), tmp_path)
    with pytest.raises(ValueError, match="tokenizer has digest"):
        read_module(tmp_path, lambda digest, reference: Parent(parent.network))


def test_a_trunk_is_checked_by_its_digest(tmp_path):
    standalone(tmp_path, "module.json")
    edit(tmp_path / "module.json", lambda body: body["trunk"].update(digest="0" * 64))
    with pytest.raises(ValueError, match="does not hold the trunk"):
        read_module(tmp_path, never)


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body.pop("contract"),
        lambda body: body["contract"].update(novelty=1),
        lambda body: body.update(head=[]),
        lambda body: body["trunk"].update(units=None),
        lambda body: body["contract"].update(index=99),
    ],
)
def test_fields_that_do_not_fit_are_refused(tmp_path, change):
    standalone(tmp_path, "module.json")
    edit(tmp_path / "module.json", change)
    with pytest.raises(ValueError, match="module.json"):
        read_module(tmp_path, never)


@pytest.mark.parametrize("digest", ["../../etc", "", None, "A" * 64])
def test_a_digest_never_leads_elsewhere(tmp_path, digest):
    standalone(tmp_path, "module.json")
    edit(tmp_path / "module.json", lambda body: body["parent"].update(digest=digest))
    with pytest.raises(ValueError, match="64 hexadecimal characters"):
        read_module(tmp_path, never)


def test_what_json_cannot_say_is_refused(tmp_path):
    module = replace(tiny_module(tiny_parent()), made={"rule": object()})
    with pytest.raises(ValueError, match="module.json can't be written"):
        write_module(module, tmp_path)


def test_kinds(tmp_path):
    write_parent(tiny_parent(), tmp_path / "parent")
    write_module(tiny_module(tiny_parent()), tmp_path / "module", standalone=True)
    (tmp_path / "nothing").mkdir()
    assert kind_of(tmp_path / "parent") == "parent"
    assert kind_of(tmp_path / "module") == "module"
    with pytest.raises(ValueError, match="neither a parent, nor a module, nor a composite"):
        kind_of(tmp_path / "nothing")
    edit(tmp_path / "module" / "module.json", lambda body: body.update(kind="parent"))
    with pytest.raises(ValueError, match="has kind 'parent'; expected 'module'"):
        read_module(tmp_path / "module", never)


@given(st.lists(st.booleans(), max_size=70))
def test_bits(mask):
    packed = pack_bits(torch.tensor(mask, dtype=torch.bool))
    assert packed.numel() == math.ceil(len(mask) / 8)
    number = sum(bit << place for place, bit in enumerate(mask))
    assert int.from_bytes(bytes(packed.tolist()), "little") == number
    assert unpack_bits(packed, len(mask)).tolist() == mask


def test_bits_of_another_length_are_refused():
    with pytest.raises(ValueError, match="a mask of 9 units"):
        unpack_bits(torch.zeros(1, dtype=torch.uint8), 9)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.int64, torch.float16])
def test_weights_of_types_that_do_not_go_together_are_refused(tmp_path, dtype):
    write_parent(tiny_parent(), tmp_path)
    path = tmp_path / "weights.safetensors"
    tensors = load_file(path)
    name = sorted(tensors)[0]
    save_file({**tensors, name: tensors[name].to(dtype)}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    edit(tmp_path / "network.json", lambda body: body["files"].update({path.name: digest}))
    with pytest.raises(ValueError, match=f"{path}.*types .*{dtype}.*expected one for all"):
        read_parent(tmp_path)


def test_a_document_without_end_is_refused_before_it_is_read(tmp_path):
    path = standalone(tmp_path, FILES[0])
    with path.open("r+b") as file:
        file.truncate(2**40)  # sparse: no disk is written
    with pytest.raises(ValueError, match=f"has {2**40} bytes; expected at most"):
        read_module(tmp_path, never)
