"""Whether what a module's files say fits together, and its parent, before it is believed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mlflow_rnnmod.decomposition.module import Contract, Module, make_contract
from mlflow_rnnmod.networks import Parent
from mlflow_rnnmod.networks.groups import check_fits
from mlflow_rnnmod.storage.bounds import GROWTH, LIKELIHOOD_BYTES, check_room, check_types
from mlflow_rnnmod.storage.module_parts import windows_bytes


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
    """Whether a contract's fields have their types.

    Raises:
        TypeError: naming all that do not.
    """
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
