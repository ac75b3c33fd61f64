"""What a file may ask for: it is looked at before it is read, and believed before it is allocated.

A file can come from anybody. Nothing is opened that is no regular file - a pipe would be waited for
for ever, a device never ends -, no document is larger than any honest one, and what a file asks to
be allocated has to be explained by its own size.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mlflow_rnnmod.decomposition.module import Contract, Module, make_contract
from mlflow_rnnmod.networks import Parent
from mlflow_rnnmod.networks.groups import check_fits
from mlflow_rnnmod.storage.module_parts import windows_bytes

DOCUMENT_BYTES = 16 * 2**20
"""Of a JSON document; a thousand modules take two."""
TOKENIZER_BYTES = 64 * 2**20
"""Of a tokenizer; the largest known ones have 35 MB."""
MODEL_BYTES = 4 * 2**20
"""Of MLflow's own ``MLmodel``."""
LIKELIHOOD_BYTES = 64 * 2**20
"""Of a label's likelihood; some thousand words take some ten thousand bytes."""
MODULES = 10_000
"""Of a composite."""
ROOM = 2**28
"""Bytes that may be allocated whatever a file's size."""
GROWTH = 64
"""Bytes that may be allocated for each byte of a file, beyond that: masks are stored as bits."""
HEADER_BYTES = 16 * 2**20
"""Of a safetensors file, beside its tensors."""


def read_regular(path: Path, most: int | None = None) -> bytes:
    """A regular file's bytes.

    ``most``: bytes that it may have at the most; ``None`` for any number.
    """
    try:
        # Looked at before it is opened, which alone may do something; and again when it is open,
        # without waiting: opening a pipe would, until somebody writes to it.
        _check_regular(path, os.stat(path))
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise ValueError(f"{path} is missing or can't be read: {error}.") from error
    try:
        found = os.fstat(handle)
        _check_regular(path, found)
        if most is not None and found.st_size > most:
            raise ValueError(
                f"{path} has {found.st_size} bytes; expected at most {most} for a file of its kind."
            )
        with open(handle, "rb", closefd=False) as file:
            # No more than it said: a file of some file systems says 0 and never ends.
            return file.read(found.st_size)
    except OSError as error:
        raise ValueError(f"{path} can't be read: {error}.") from error
    finally:
        os.close(handle)


def _check_regular(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{path} is {_kind(found.st_mode)}; expected a regular file.")


def _kind(mode: int) -> str:
    kinds = {
        stat.S_ISDIR: "a folder",
        stat.S_ISFIFO: "a pipe",
        stat.S_ISCHR: "a device",
        stat.S_ISBLK: "a device",
        stat.S_ISSOCK: "a socket",
    }
    return next((words for test, words in kinds.items() if test(mode)), "something else")


def parse_json(data: bytes | str) -> Any:
    """JSON, in the strict sense: NaN and infinity are none, nor what nests without end."""

    def refuse(word: str) -> None:
        raise ValueError(f"it holds the number {word}, which JSON does not know")

    def finite(text: str) -> float:
        value = float(text)
        if value in (float("inf"), float("-inf")):
            raise ValueError(f"it holds the number {text[:40]}, which is too large")
        return value

    try:
        return json.loads(data, parse_constant=refuse, parse_float=finite)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def tensor_shapes(data: bytes) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in a safetensors file, from its header alone."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > min(HEADER_BYTES, len(data) - 8):
        raise ValueError(f"its header should have {size} bytes, and it has {len(data)} in all")
    header = parse_json(data[8 : 8 + size])
    if not isinstance(header, dict):
        raise ValueError(f"its header holds a {type(header).__name__}")
    header.pop("__metadata__", None)
    try:
        return {name: tuple(map(int, entry["shape"])) for name, entry in header.items()}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"its header does not say the shape of each tensor: {error!r}") from error


def check_room(wanted: int, given: int, what: str) -> None:
    """Whether a file's size explains what it asks to be allocated.

    ``wanted``: bytes; ``given``: bytes of the file.
    """
    most = ROOM + GROWTH * given
    if wanted > most:
        raise ValueError(
            f"{what} would take {wanted} bytes, from a file of {given}; expected at most {most}"
        )


def check_types(body: Mapping[str, Any], types: Mapping[str, type | tuple[type, ...]]) -> None:
    """Whether fields of a document have their types."""
    problems = []
    for name, kind in types.items():
        kinds = kind if isinstance(kind, tuple) else (kind,)
        value = body[name]
        # bool is an int to Python, and is none to JSON.
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            wanted = " or ".join(k.__name__ for k in kinds)
            problems.append(f"{name} is a {type(value).__name__}, expected {wanted}")
    if problems:
        raise TypeError("; ".join(problems))


def check_module(module: Module, path: Path) -> None:
    """Whether the parts fit each other; each was already found to be what was written."""
    parent, contract, problems = module.parent, module.contract, []
    if contract.tokenizers != parent.tokenizers:
        problems.append(
            f"its tokenizer has digest {contract.tokenizers}, its parent's has {parent.tokenizers}"
        )
    if contract.labels != parent.labels:
        problems.append(
            f"it expects a parent with labels {list(contract.labels)!r:.200}, found "
            f"{list(parent.labels)!r:.200}"
        )
    elif contract.label not in parent.labels:
        problems.append(f"its label {contract.label!r:.100} is none of its parent's")
    elif not problems:
        # What ids mean is not known of weights: modules say it.
        expected = make_contract(parent, contract.label, module.trunk)
        expected = replace(expected, vocabulary=contract.vocabulary)
        problems += [
            f"{field.name} is {getattr(contract, field.name)!r:.100}, and of its parent it is "
            f"{getattr(expected, field.name)!r:.100}"
            for field in fields(Contract)
            if getattr(contract, field.name) != getattr(expected, field.name)
        ]
    try:
        check_fits(parent.network.groups, module.trunk)
    except ValueError as error:
        problems.append(str(error).rstrip(".").replace("\n", " "))
    size = parent.network.config.readout_size
    for name, head in (("head", module.head), ("open_head", module.open_head)):
        if head.weight is not None and head.weight.shape != (size,):
            problems.append(
                f"{name}.weight has shape {tuple(head.weight.shape)}, expected {(size,)}"
            )
    if problems:
        raise ValueError(f"{path} does not fit its parent {parent.digest}: {'; '.join(problems)}.")


def check_body(body: dict[str, Any]) -> None:
    """Whether a document's fields have their types, and its numbers are some."""
    parts = ("parent", "trunk", "head", "open_head", "energy", "contract")
    check_types(body, dict.fromkeys((*parts, "figures", "made", "origin", "files"), dict))
    for name in ("head", "open_head"):
        check_types(body[name], {"bias": (int, float), "calibration": dict})
        calibration = body[name]["calibration"]
        check_types(calibration, dict.fromkeys(calibration, (int, float)))
    check_types(body["energy"], dict.fromkeys(body["energy"], (int, float)))
    check_types(body["figures"], dict.fromkeys(body["figures"], (int, float, type(None))))


def check_contract(contract: Contract) -> None:
    """Whether a contract's fields have their types."""
    texts, number = (str, type(None)), (int, type(None))
    types: dict[str, Any] = {"label": str, "index": int, "input": str}
    types["input_size"] = (int, list, tuple)
    types |= {"tokenizer": texts, "output": str, "steps": number, "end_label": texts}
    types |= {"mask_steps": number, "target": (dict, type(None)), "vocabulary": texts}
    check_types(vars(contract), types)
    if not all(isinstance(label, str) for label in contract.labels):
        raise TypeError(f"labels are {list(contract.labels)!r:.200}, expected texts")


def check_units(body: dict[str, Any], parent: Parent) -> None:
    """Whether a trunk's masks are for its parent's units, before anything is made of their size."""
    found = {name: sizes if isinstance(sizes, int) else sizes[-1] for name, sizes in body["units"]}
    if found != parent.network.units or len(found) != len(body["units"]):
        raise ValueError(
            f"its masks are for the units {found!r:.200}, and its parent {parent.digest} has "
            f"{parent.network.units!r:.200}"
        )


def most_bytes(body: dict[str, Any], parent: Parent) -> int:
    """Bytes that a module's tensors take at the most."""
    total = LIKELIHOOD_BYTES + 16 * parent.network.config.readout_size
    for _, sizes in body["units"]:
        units = torch.Size([sizes] if isinstance(sizes, int) else sizes).numel()
        total += 8 * units + (4 * units**2 if isinstance(sizes, int) else 0)
    return total + parent.bytes  # what is added to its weights, in half precision


def check_trunk_room(
    body: dict[str, Any], tensors: Mapping[str, Tensor], path: Path, parent: Parent
) -> None:
    """Whether what a trunk takes is explained by its file and its parent."""
    wanted = 0
    for name, sizes in body["units"]:
        units = torch.Size([sizes] if isinstance(sizes, int) else sizes).numel()
        wanted += 16 * units + (8 * units**2 if f"mix.{name}" in tensors else 0)
    wanted += windows_bytes(tensors, parent)
    given = path.stat().st_size + 8 * parent.bytes // GROWTH
    check_room(wanted, given, f"{path}: its trunk")
