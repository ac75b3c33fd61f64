"""Files that ask for too much: refused by what they say, before anything is allocated."""

from __future__ import annotations

import hashlib
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mlflow_rnnmod._digest import canonical_json, digest_text
from mlflow_rnnmod.composition import compose
from mlflow_rnnmod.inputs.text import TextEncoder
from mlflow_rnnmod.storage import (
    read_composite,
    read_module,
    read_parent,
    write_composite,
    write_module,
    write_parent,
)
from mlflow_rnnmod.storage.bounds import DOCUMENT_BYTES, check_room, parse_json, tensor_shapes
from tests.builders import tiny_module, tiny_modules, tiny_parent
from tests.storage.test_composites import write_as_format_1


def edit(path: Path, change: Any) -> None:
    """Change a document, with its digest put right, as somebody does who wants it believed."""
    body = json.loads(path.read_bytes())
    body.pop("sha256")
    change(body)
    body["sha256"] = digest_text(canonical_json(body))
    path.write_text(json.dumps(body), encoding="utf-8")


def redigest(document: Path, name: str) -> None:
    """Put right what a document says of another file beside it."""
    sha256 = hashlib.sha256((document.parent / name).read_bytes()).hexdigest()
    edit(document, lambda body: body["files"].update({name: sha256}))


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    folder = tmp_path / "parent"
    write_parent(tiny_parent("text"), folder)
    return folder


@pytest.fixture
def module(tmp_path: Path) -> Path:
    folder = tmp_path / "module"
    write_module(tiny_module(tiny_parent("text")), folder, standalone=True)
    return folder


def nowhere(digest: str, reference: dict[str, Any]) -> Any:
    raise AssertionError("the parent is bundled")


def with_tokenizer(folder: Path, change: Any) -> None:
    """Change a stored tokenizer, and all digests that name it."""
    path = folder / "tokenizer.json"
    body = json.loads(path.read_bytes())
    change(body)
    path.write_bytes(canonical_json(body).encode())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()

    def said(document: dict[str, Any]) -> None:
        document["tokenizer"]["digest"] = digest
        document["files"]["tokenizer.json"] = digest

    edit(folder / "network.json", said)


@pytest.mark.parametrize("name", ["network.json", "weights.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "socket"])
def test_only_regular_files_are_opened(parent: Path, name: str, kind: str) -> None:
    path = parent / name
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/stdin" if False else "/dev/tty")
    with pytest.raises(ValueError, match=name):
        read_parent(parent)


def test_a_link_to_a_regular_file_is_one(parent: Path, tmp_path: Path) -> None:
    moved = (parent / "weights.safetensors").rename(tmp_path / "blob")
    (parent / "weights.safetensors").symlink_to(moved)
    assert read_parent(parent).labels


def test_a_document_is_small(parent: Path) -> None:
    path = parent / "network.json"
    with path.open("r+b") as file:
        file.truncate(DOCUMENT_BYTES + 1)
    with pytest.raises(ValueError, match=f"network.json has {DOCUMENT_BYTES + 1} bytes"):
        read_parent(parent)


@pytest.mark.parametrize("text", ["[NaN]", "[1e999]", "[-Infinity]", "[" * 100_000])
def test_json_in_the_strict_sense(text: str) -> None:
    with pytest.raises(ValueError):
        parse_json(text)


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 10**9},
        {"steps": 1.5},
        {"recurrent": [[4]] * 100_000},
        {"recurrent": [[10**9]]},
        {"recurrent": [[2**62, 2**62]]},
        {"recurrent": "ab"},
        {"input_size": 10**15},
        {"embedding_size": 10**12},
        {"labels": [1, 2, 3]},
        {"labels": [["a"], ["b"], ["c"]]},
        {"hidden": [{"units": 10**12}]},
        {"pad_index": 10**6},
    ],
)
def test_a_structure_that_asks_for_too_much(parent: Path, change: dict[str, Any]) -> None:
    edit(parent / "network.json", lambda body: body["network"].update(change))
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"network.json|weights.safetensors"):
        read_parent(parent)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 2**26


def test_masks_are_their_parents(module: Path) -> None:
    def change(body: dict[str, Any]) -> None:
        body["trunk"]["units"] = [[name, 60_000] for name, _ in body["trunk"]["units"]]

    edit(module / "module.json", change)
    with pytest.raises(ValueError, match=r"module.json.*masks are for the units"):
        read_module(module, nowhere)


def test_what_is_allocated_is_explained_by_the_file(module: Path) -> None:
    check_room(2**28 + 64 * 1000, 1000, "honest")
    with pytest.raises(ValueError, match="from a file of 8000"):
        check_room(14_400_000_000, 8000, "its trunk")


def test_numbers_that_are_none_are_refused(parent: Path) -> None:
    weights = load_file(parent / "weights.safetensors")
    name = next(iter(weights))
    for wrong in (float("nan"), float("inf")):
        spoilt = {**weights, name: torch.full_like(weights[name], wrong)}
        save_file(spoilt, parent / "weights.safetensors")
        redigest(parent / "network.json", "weights.safetensors")
        with pytest.raises(ValueError, match=rf"weights.safetensors: {name} holds NaN or infinity"):
            read_parent(parent)


def test_weights_are_compared_by_their_header(parent: Path) -> None:
    weights = load_file(parent / "weights.safetensors")
    name = sorted(weights)[0]
    wrong = {**weights, name: weights[name][:-1].clone(), "more": torch.zeros(1)}
    save_file(wrong, parent / "weights.safetensors")
    redigest(parent / "network.json", "weights.safetensors")
    with pytest.raises(ValueError, match=rf"has more, which nobody reads; {name} has shape"):
        read_parent(parent)


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff" * 8, b"\x02\0\0\0\0\0\0\0[]", b"\x09\0\0\0\0\0\0\0" + b'{"a": {}}', b"12345678"],
)
def test_a_header_that_is_none(data: bytes) -> None:
    with pytest.raises(ValueError, match="header"):
        tensor_shapes(data)


def test_a_composite_has_each_module_once(tmp_path: Path) -> None:
    """So it was where each had a folder of its own; in one file, they are those that are named."""
    composite = compose(tiny_modules(tiny_parent("text")))
    write_as_format_1(composite, tmp_path / "old")

    def change(body: dict[str, Any]) -> None:
        body["modules"] = body["modules"][:1] * 10_001

    edit(tmp_path / "old" / "composition.json", change)
    with pytest.raises(ValueError, match="composition.json names more than 10000 modules"):
        read_composite(tmp_path / "old")
    edit(tmp_path / "old" / "composition.json", lambda b: b.update(modules=b["modules"][:2]))
    with pytest.raises(ValueError, match="names modules/000 twice"):
        read_composite(tmp_path / "old")
    write_composite(composite, tmp_path / "new")
    edit(tmp_path / "new" / "composition.json", change)
    with pytest.raises(ValueError, match=r"names other modules than modules\.json holds"):
        read_composite(tmp_path / "new")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("label", "another"),
        ("index", 2),
        ("index", True),
        ("index", False),
        ("index", 0.0),
        ("index", 1.0),
        ("steps", 7),
        ("input", "features"),
        ("input_size", 3),
        ("output", "tags"),
        ("end_label", "zulu"),
        ("mask_steps", 4),
    ],
)
def test_a_contract_is_its_parents(module: Path, field: str, value: Any) -> None:
    edit(module / "module.json", lambda body: body["contract"].update({field: value}))
    with pytest.raises(ValueError, match=r"module.json"):
        read_module(module, nowhere)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("head", {"bias": None, "calibration": {}}),
        ("head", {"bias": 0, "calibration": {"scale": "1"}}),
        ("energy", {"mean": None}),
        ("figures", []),
        ("made", "by hand"),
        ("origin", ["x"]),
        ("trunk", {}),
        ("files", None),
    ],
)
def test_fields_have_their_types(module: Path, field: str, value: Any) -> None:
    edit(module / "module.json", lambda body: body.update({field: value}))
    with pytest.raises(ValueError, match=r"module.json"):
        read_module(module, nowhere)


def replacement(find: str, write: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": find}, "content": write}


def regex(find: str, write: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"Regex": find}, "content": write}


HOSTILE = {
    "padding": {
        "padding": {
            "strategy": {"Fixed": 10**9},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "[PAD]",
        }
    },
    "multiple": {
        "padding": {
            "strategy": "BatchLongest",
            "direction": "Right",
            "pad_to_multiple_of": 10**9,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "[PAD]",
        }
    },
    "doubling": {"normalizer": {"type": "Sequence", "normalizers": [replacement("a", "aa")] * 40}},
    "rare": {"normalizer": {"type": "Sequence", "normalizers": [replacement("☃", "☃☃")] * 40}},
    "pattern": {"normalizer": {"type": "Sequence", "normalizers": [regex(".", "12345")] * 9}},
    "long": {"normalizer": {"type": "Prepend", "prepend": "x" * 10**6}},
    "many": {"normalizer": {"type": "Sequence", "normalizers": [{"type": "Lowercase"}] * 10**4}},
    "backtracking": {"normalizer": regex("(x+x+)+y|((a*)*)*b|(A.*)*(,.*)*Q", "")},
    "template": {
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}]
            + [{"SpecialToken": {"id": "s", "type_id": 0}}] * 1000,
            "pair": [],
            "special_tokens": {"s": {"id": "s", "ids": [1] * 1000, "tokens": ["s"] * 1000}},
        }
    },
}


@pytest.mark.parametrize("name", [name for name in HOSTILE if name != "backtracking"])
def test_a_hostile_tokenizer_is_refused(parent: Path, name: str) -> None:
    with_tokenizer(parent, lambda body: body.update(HOSTILE[name]))
    with pytest.raises(ValueError, match=r"tokenizer.json: .*asks for too much"):
        read_parent(parent)


def test_honest_normalizers_may_write_more_than_they_find() -> None:
    """Punctuation is often set apart: three letters for one, for each of many."""
    body = json.loads(tiny_parent("text").tokenizer.json)
    marks = [replacement(mark, f" {mark} ") for mark in ".,;:!?()[]"]
    parts = [{"type": "NFKC"}, *marks, regex(r"\s+", " "), regex(r"(\d)", "0")]
    body["normalizer"] = {"type": "Sequence", "normalizers": parts}
    TextEncoder(json.dumps(body)).try_out()


def test_a_panic_names_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicException(BaseException):
        pass

    class Panicking:
        def encode(self, text: str, **how: Any) -> None:
            if "bad" in text:
                raise PanicException("retry-limit-in-match over")

        def encode_batch(self, texts: list[str], **how: Any) -> None:
            raise PanicException("retry-limit-in-match over")

    encoder = TextEncoder(tiny_parent("text").tokenizer.json)
    encoder.__dict__["tokenizer"] = Panicking()
    with pytest.raises(ValueError, match="can't read the text 'bad one': retry-limit"):
        encoder(["good", "bad one"])
