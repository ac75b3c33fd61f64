"""Files that are not what was written: by accident, and by somebody who wants them believed."""

from __future__ import annotations

import hashlib
import json
import os
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from mlflow_rnnmod._digest import canonical_json, digest_tensors, digest_text
from mlflow_rnnmod.networks.architectures import FIRST, architecture_of
from tests.storage.test_bounds import HOSTILE

Change = Callable[[random.Random, Path], str]

VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2, 3.5, 10**5, 10**9, 2**31, 2**63, 10**18, 10**30, 1e308, -1e308,
    "", "a", "x" * 100_000, "../../../etc/passwd", "/etc/passwd", "http://127.0.0.1:9/x",
    "sqlite:////tmp/rnnmod-fuzz-precious.db", "\u0000", "☃", [], {}, [[]], [{}], {"": None},
    list(range(1000)), {str(i): i for i in range(1000)},
)  # fmt: skip
"""What a field may be made to hold."""


def nested(depth: int) -> Any:
    found: Any = []
    for _ in range(depth):
        found = [found]
    return found


# -- bytes ---------------------------------------------------------------------------------------


def flipped(random_: random.Random, path: Path) -> str:
    data = bytearray(path.read_bytes())
    for _ in range(random_.randint(1, 8)):
        data[random_.randrange(len(data))] ^= 1 << random_.randrange(8)
    path.write_bytes(data)
    return "bytes flipped"


def cut(random_: random.Random, path: Path) -> str:
    data = path.read_bytes()
    path.write_bytes(data[: random_.randrange(len(data))])
    return "cut"


def longer(random_: random.Random, path: Path) -> str:
    path.write_bytes(path.read_bytes() + random_.randbytes(random_.choice([1, 8, 4096])))
    return "longer"


def noise(random_: random.Random, path: Path) -> str:
    path.write_bytes(random_.randbytes(random_.choice([0, 1, 7, 8, 9, 1000, path.stat().st_size])))
    return "noise"


def sparse(random_: random.Random, path: Path) -> str:
    with path.open("r+b") as file:
        file.truncate(random_.choice([10**7, 10**9, 10**11]))
    return "sparse"


# -- kinds of file -------------------------------------------------------------------------------


def another_kind(random_: random.Random, path: Path) -> str:
    kind = random_.choice(["fifo", "device", "random", "folder", "loop", "missing", "elsewhere"])
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind != "missing":
        target = {"device": "/dev/zero", "random": "/dev/urandom", "loop": path.name}
        path.symlink_to(target.get(kind, "/proc/self/mem"))
    return kind


# -- JSON ----------------------------------------------------------------------------------------


def places(body: Any) -> list[tuple[Any, Any]]:
    """All (container, key) in a document; of one that has been put into itself, some."""
    found: list[tuple[Any, Any]] = []
    waiting = [body]
    while waiting and len(found) < 5000:
        some = waiting.pop()
        for key, value in some.items() if isinstance(some, dict) else enumerate(some):
            found.append((some, key))
            if isinstance(value, dict | list):
                waiting.append(value)
    return found


def other_json(random_: random.Random, path: Path) -> str:
    try:
        body = json.loads(path.read_bytes())
    except ValueError:  # MLmodel is YAML
        return flipped(random_, path)
    for _ in range(random_.choice([1, 1, 1, 2, 4])):
        found = [place for place in places(body) if place[1] not in ("sha256",)]
        container, key = random_.choice(found)
        how = random_.randrange(8)
        if how == 0 and isinstance(container, dict):
            container.pop(key, None)
        elif how == 1 and isinstance(container[key], list) and container[key]:
            container[key] = container[key] * random_.choice([2, 1000])
        elif how == 2 and isinstance(container[key], int):
            factor = random_.choice([-1, 2, 1000, 10**6, 10**12])
            container[key] = container[key] * factor + random_.choice([0, 1])
        elif how == 3:
            other, name = random_.choice(found)
            if key in container or not isinstance(container, dict):
                container[key], other[name] = other[name], container[key]
        elif how == 4 and isinstance(container, dict):
            container[random_.choice(["more", "__class__", "labels"])] = random_.choice(VALUES)
        elif how == 5 and random_.random() < 0.1:
            container[key] = nested(random_.choice([50, 500]))
        else:
            container[key] = random_.choice(VALUES)
        if isinstance(container, dict) and any(value is body for value in container.values()):
            return "a circle"
    try:
        path.write_text(json.dumps(body), encoding="utf-8")
    except (ValueError, RecursionError):
        return flipped(random_, path)
    return "JSON changed"


def odd_json(random_: random.Random, path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    how = random_.randrange(5)
    if how == 0:
        text = text.replace(": ", ': NaN, "x": ', 1)
    elif how == 1:
        text = "[" * 100_000
    elif how == 2:
        text = '{"a": ' * 50_000 + "1" + "}" * 50_000
    elif how == 3:
        text = "[" + "1" * 10_000 + "]"
    else:
        text = "\ufeff" + text
    path.write_text(text, encoding="utf-8")
    return "JSON odd"


# -- tokenizers ----------------------------------------------------------------------------------


def hostile_tokenizer(random_: random.Random, path: Path) -> str:
    body = json.loads(path.read_bytes())
    name = random_.choice(list(HOSTILE))
    body.update(HOSTILE[name])
    path.write_text(canonical_json(body), encoding="utf-8")
    return f"tokenizer: {name}"


# -- tensors -------------------------------------------------------------------------------------


def other_header(random_: random.Random, path: Path) -> str:
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    names = [name for name in header if name != "__metadata__"]
    name = random_.choice(names)
    how = random_.randrange(7)
    if how == 0:
        header[name]["shape"] = random_.choice([[10**6, 10**6], [2**62, 4], [-1], [0], [], ["a"]])
    elif how == 1:
        header[name]["dtype"] = random_.choice(["F64", "F16", "I8", "BOOL", "F8_E5M2", "C64", "X"])
    elif how == 2:
        header[name]["data_offsets"] = random_.choice([[0, 10**12], [-1, 4], [8, 0], [0, 0], None])
    elif how == 3:
        header[random_.choice(["more", "", "../x"])] = header.pop(name)
    elif how == 4:
        header["__metadata__"] = random_.choice([{"a": "b" * 10_000}, [], {"a": 1}])
    elif how == 5:
        written = random_.choice([2**63, 2**40, len(data), 0])
        path.write_bytes(struct.pack("<Q", written) + data[8:])
        return "header's size"
    else:
        header[name] = random_.choice([None, {}, [], 5])
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])
    return "header changed"


def other_tensors(random_: random.Random, path: Path) -> str:
    tensors = load(path.read_bytes())
    name = random_.choice(list(tensors))
    how = random_.randrange(5)
    if how == 0:
        tensors.pop(name)
    elif how == 1:
        tensors["more"] = torch.zeros(random_.choice([1, 10_000]))
    elif how == 2 and tensors[name].is_floating_point():
        tensors[name] = torch.full_like(
            tensors[name],
            random_.choice([float("nan"), float("inf"), torch.finfo(tensors[name].dtype).max, 0.0]),
        )
    elif how == 3:
        tensors[name] = tensors[name].flatten()[: random_.randrange(tensors[name].numel() + 1)]
        tensors[name] = tensors[name].clone()
    else:
        tensors[name] = torch.cat([tensors[name], tensors[name]])
    path.write_bytes(save(tensors))
    return "tensors changed"


def changes_for(path: Path) -> tuple[Change, ...]:
    """What can be done to a file."""
    common: tuple[Change, ...] = (flipped, cut, longer, noise, another_kind, sparse)
    if path.suffix == ".safetensors":
        return (*common, *(other_header, other_tensors) * 3)
    if path.name.endswith("tokenizer.json"):
        return (*common, *(hostile_tokenizer, other_json) * 3, odd_json)
    return (*common, *(other_json,) * 8, odd_json)


# -- believed ------------------------------------------------------------------------------------


def believe(folder: Path) -> None:
    """Put every digest right, as far as what is there lets one."""
    for path in sorted(folder.rglob("network.json")):
        _quietly(_believe_parent, path)
    for path in sorted(folder.rglob("module.json")):
        _quietly(_believe_module, path)
    for path in sorted(folder.rglob("modules.json")):
        _quietly(_believe_modules, path)
    for path in sorted(folder.rglob("composition.json")):
        _quietly(_believe_composite, path)


def _quietly(work: Callable[[Path], None], path: Path) -> None:
    try:
        work(path)
    except Exception:  # what can't be put right stays wrong
        _quietly_signed(path)


def _quietly_signed(path: Path) -> None:
    try:
        _sign(path, json.loads(_bytes(path)))
    except Exception:
        return


def _sha(path: Path) -> str:
    return hashlib.sha256(_bytes(path)).hexdigest()


def _bytes(path: Path) -> bytes:
    if not path.is_file() or path.is_symlink() or path.stat().st_size > 10**8:
        raise ValueError(path)
    return path.read_bytes()


def _sign(path: Path, body: dict[str, Any]) -> None:
    body.pop("sha256", None)
    body["sha256"] = digest_text(canonical_json(body))
    path.write_text(json.dumps(body), encoding="utf-8")


def _believe_parent(path: Path) -> None:
    body = json.loads(_bytes(path))
    for name in list(body["files"]):
        body["files"][name] = _sha(path.parent / name)
    for key, name in (
        ("tokenizer", "tokenizer.json"),
        ("target_tokenizer", "target_tokenizer.json"),
    ):
        if isinstance(body.get(key), dict):
            body[key]["digest"] = _sha(path.parent / name)
    _sign(path, body)
    try:
        weights = load(_bytes(path.parent / "weights.safetensors"))
        config = architecture_of(body.get("architecture", FIRST)).config.from_dict(body["network"])
        body["digest"] = digest_tensors(weights, config.to_dict())
    except Exception:
        return
    _sign(path, body)
    if path.parent.parent.name == "parents" and path.parent.name != body["digest"]:
        path.parent.rename(path.parent.parent / body["digest"])


def _believe_module(path: Path) -> None:
    body = json.loads(_bytes(path))
    body["files"]["module.safetensors"] = _sha(path.parent / "module.safetensors")
    top = path.parents[2] if path.parents[1].name == "modules" else path.parent
    parents = {p.parent.name: p for p in top.glob("parents/*/network.json")}
    if parents and body["parent"]["digest"] not in parents and len(parents) == 1:
        body["parent"]["digest"] = next(iter(parents))
    found = parents.get(body["parent"]["digest"])
    if found is not None:
        known = json.loads(_bytes(found))
        if isinstance(known.get("tokenizer"), dict):
            body["contract"]["tokenizer"] = known["tokenizer"]["digest"]
    _sign(path, body)


def _believe_modules(path: Path) -> None:
    body = json.loads(_bytes(path))
    body["files"]["modules.safetensors"] = _sha(path.parent / "modules.safetensors")
    parents = [found.parent.name for found in path.parent.glob("parents/*/network.json")]
    for content in body["modules"]:
        old = content["parent"]["digest"]
        if old not in parents and len(parents) == 1:
            content["parent"]["digest"] = parents[0]
            body["labels"].setdefault(parents[0], body["labels"].get(old, []))
        known = path.parent / "parents" / content["parent"]["digest"] / "network.json"
        tokenizer = json.loads(_bytes(known)).get("tokenizer")
        if isinstance(tokenizer, dict):
            content["contract"]["tokenizer"] = tokenizer["digest"]
    _sign(path, body)


def _believe_composite(path: Path) -> None:
    body = json.loads(_bytes(path))
    if (path.parent / "modules.json").exists():
        body["files"]["modules.json"] = _sha(path.parent / "modules.json")
        contents = json.loads(_bytes(path.parent / "modules.json"))["modules"]
        for entry, content in zip(body["modules"], contents, strict=True):
            entry["parent"] = content["parent"]["digest"]
        _sign(path, body)
        return
    for entry in body["modules"]:
        document = path.parent / entry["folder"] / "module.json"
        entry["sha256"] = _sha(document)
        entry["parent"] = json.loads(_bytes(document))["parent"]["digest"]
    _sign(path, body)
