"""Files of a module: ``module.json``, which a plan reads, and ``module.safetensors``.

A module is a mask over its parent; the parent is named by digest, and bundled when asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import torch
from torch import Tensor

from mlflow_rnnmod.composition.plan import Entry, facts_of
from mlflow_rnnmod.decomposition.module import (
    Calibration,
    Contract,
    Energy,
    Head,
    Module,
    make_contract,
)
from mlflow_rnnmod.inputs import Likelihood, density_of
from mlflow_rnnmod.networks import Parent, Trunk
from mlflow_rnnmod.networks.digest import digest_tensors
from mlflow_rnnmod.networks.groups import check_fits
from mlflow_rnnmod.storage.files import (
    by_version,
    check_digest,
    pack_bits,
    read_document,
    read_tensors,
    unpack_bits,
    write_document,
    write_tensors,
)
from mlflow_rnnmod.storage.parents import format_of, read_parent, write_parent

DOCUMENT = "module.json"
TENSORS = "module.safetensors"
# The first format version that could say masks for single steps and gates.
MASKED = 2
PARENTS = "parents"
_TABLE = "likelihood."
_FACTS = ("kept", "full", "mixed", "network", "architecture", "bytes", "parent_bytes")

FindParent = Callable[[str, dict[str, Any]], Parent]
"""Gives the parent with a digest; the second argument is where the module says it was logged."""


def write_module(module: Module, directory: Path, standalone: bool = False) -> str:
    """Write a module's files.

    Args:
        module: the module.
        directory: made where it is missing.
        standalone: write its parent too, under ``parents/<digest>``.

    Returns:
        SHA-256 of ``module.json``.

    Raises:
        ValueError: if a number of its heads is not finite, or its figures are not JSON.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    parent, trunk = module.parent, module.trunk
    tensors = write_tensors(directory / TENSORS, _tensors(module))
    content = {
        "parent": {
            "digest": parent.digest,
            "model_id": parent.model_id,
            "tracking_uri": without_credentials(parent.tracking_uri),
        },
        "trunk": {
            "digest": trunk.digest,
            "variant": trunk.variant,
            "gates": trunk.gates,
            "units": [[name, _sizes(mask)] for name, mask in trunk.keep.items()],
        },
        "head": _head(module.head),
        "open_head": _head(module.open_head),
        **_likelihood(module.likelihood),
        "energy": asdict(module.energy),
        "contract": module.contract.to_dict(),
        # A share of nothing is NaN, which JSON can't say.
        "figures": {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in module.figures.items()
        },
        "made": dict(module.made),
        "origin": clean_origin(module.origin),
        "plan": {
            **facts_of(module),
            "bytes": (directory / TENSORS).stat().st_size,
            "standalone": standalone,
        },
        "files": {TENSORS: tensors},
    }
    if standalone:
        write_parent(parent, directory / PARENTS / parent.digest)
    version = max(format_of(parent), 1 if trunk.sliceable else MASKED)
    return write_document(directory / DOCUMENT, "module", content, version)


def read_module(directory: Path, find_parent: FindParent, sha256: str | None = None) -> Module:
    """The module whose files are in ``directory``.

    Args:
        directory: where :func:`write_module` wrote.
        find_parent: asked for the parent where it is not bundled: with its digest, and with
            ``{"digest", "model_id", "tracking_uri", "tokenizer"}`` as the module knows it.
        sha256: what the digest of ``module.json`` should be, where another file says so.

    Raises:
        ValueError: if a file is missing, truncated or altered, or the parent is not the one that
            the module names.
    """
    directory = Path(directory)
    path = directory / DOCUMENT
    body = read_document(path, "module", sha256)
    return by_version({1: lambda found: _read_1(found, directory, find_parent)}, body, path)


def read_contract(directory: Path) -> tuple[Contract, dict[str, Any]]:
    """A module's contract and its reference to the parent, from ``module.json`` alone.

    Raises:
        ValueError: if the file is missing, truncated or altered.
    """
    path = Path(directory) / DOCUMENT
    body = read_document(path, "module")
    return by_version({1: lambda found: (_contract(found), dict(found["parent"]))}, body, path)


def read_entry(
    directory: Path, name: str, sha256: str | None = None
) -> tuple[Entry, dict[str, Any]]:
    """What a plan reads of a module, from ``module.json`` alone.

    Args:
        directory: where the file is.
        name: to show the module by.
        sha256: what its digest should be, where another file says so.

    Returns:
        the entry, and the reference to the parent, with its ``tokenizer``'s digest and whether it
        is ``bundled``.

    Raises:
        ValueError: if the file is missing, truncated or altered.
    """
    path = Path(directory) / DOCUMENT
    body = read_document(path, "module", sha256)
    return by_version({1: lambda found: _entry_1(found, path, name)}, body, path)


def _entry_1(body: dict[str, Any], path: Path, name: str) -> tuple[Entry, dict[str, Any]]:
    contract, facts = _contract(body), dict(body.get("plan", {}))
    bundled = facts.pop("standalone", False)
    reference = {**body["parent"], "tokenizer": contract.tokenizers, "bundled": bundled}
    if "mixed" in facts:
        facts["mixed"] = tuple(facts["mixed"])
    known = {key: value for key, value in facts.items() if key in _FACTS}
    entry = Entry(
        name=name,
        contract=contract,
        parent=check_digest(body["parent"]["digest"], "parent.digest", path),
        trunk=check_digest(body["trunk"]["digest"], "trunk.digest", path),
        figures={k: v for k, v in body["figures"].items() if v is not None},
        **known,
    )
    return entry, reference


def _read_1(body: dict[str, Any], directory: Path, find_parent: FindParent) -> Module:
    path = directory / DOCUMENT
    reference = dict(body["parent"])
    digest = check_digest(reference["digest"], "parent.digest", path)
    bundled = directory / PARENTS / digest
    if bundled.is_dir():
        parent = read_parent(bundled, digest)
        parent = parent.known_as(reference["model_id"], reference["tracking_uri"])
    else:
        # Parents are told apart by their network; which tokenizer goes with it is told here.
        reference["tokenizer"] = _contract(body).tokenizers
        parent = find_parent(digest, reference)
    if parent.digest != digest:
        raise ValueError(
            f"{path} belongs to another parent than the one found:\n"
            f"expected digest: {digest}\nfound: {parent.digest}."
        )
    sha256 = check_digest(body["files"][TENSORS], "files", path)
    tensors = read_tensors(directory / TENSORS, sha256)
    module = Module(
        parent=parent,
        trunk=_trunk(body["trunk"], tensors, directory),
        head=_read_head(body["head"], tensors.get("head.weight")),
        open_head=_read_head(body["open_head"], tensors.get("open_head.weight")),
        energy=Energy(**body["energy"]),
        contract=_contract(body),
        figures={k: math.nan if v is None else v for k, v in body["figures"].items()},
        made=body["made"],
        origin=body["origin"],
        likelihood=_read_likelihood(body.get("likelihood"), tensors, path),
    )
    _check(module, path)
    return module


def _check(module: Module, path: Path) -> None:
    """Whether the parts fit each other; each was already found to be what was written."""
    parent, contract, problems = module.parent, module.contract, []
    if contract.tokenizers != parent.tokenizers:
        problems.append(
            f"its tokenizer has digest {contract.tokenizers}, its parent's has {parent.tokenizers}"
        )
    if contract.labels != parent.labels:
        problems.append(
            f"it expects a parent with labels {list(contract.labels)}, found {list(parent.labels)}"
        )
    elif not 0 <= contract.index < len(parent.labels):
        problems.append(f"index {contract.index} is none of {len(parent.labels)} labels")
    if (
        contract.label in parent.labels
        and contract.target != make_contract(parent, contract.label).target
    ):
        problems.append(f"it starts translations with {contract.target}, which its parent does not")
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


def _tensors(module: Module) -> dict[str, Tensor]:
    tensors = {}
    for name, mask in module.trunk.keep.items():
        mask = mask.cpu()
        tensors[f"keep.{name}"] = pack_bits(mask.flatten())
        if not mask.all():
            tensors[f"fold.{name}"] = module.trunk.fold[name].cpu()[~mask]
            # Only a removed unit's guess has weights, and only for kept ones; half precision is
            # what a trunk itself keeps them in.
            if name in module.trunk.mix:
                mix = module.trunk.mix[name].cpu()[~mask][:, mask]
                tensors[f"mix.{name}"] = mix.to(torch.float16)
    if module.head.weight is not None:
        tensors["head.weight"] = module.head.weight
    if module.open_head.weight is not None:
        tensors["open_head.weight"] = module.open_head.weight
    if module.likelihood is not None:
        tensors.update({f"{_TABLE}{k}": t for k, t in module.likelihood.tensors.items()})
    return tensors


def _likelihood(found: Likelihood | None) -> dict[str, Any]:
    """What a document says of a likelihood: nothing where there is none, as older versions did.

    Older releases pass it over. Its space has the version of its normaliser, its format one too.
    """
    if found is None:
        return {}
    return {"likelihood": {"format": 1, "space": found.space, "facts": dict(found.facts)}}


def _read_likelihood(
    body: dict[str, Any] | None, tensors: dict[str, Tensor], path: Path
) -> Likelihood | None:
    if body is None:
        return None
    if body["format"] != 1:
        raise ValueError(
            f"{path} has a likelihood of format {body['format']!r}, and the newest that this "
            "version of mlflow_rnnmod reads is 1. Upgrade it: pip install --upgrade mlflow-rnnmod."
        )
    tables = {k.removeprefix(_TABLE): t for k, t in tensors.items() if k.startswith(_TABLE)}
    found = Likelihood(body["space"], body["facts"], tables)
    try:
        density_of(found.space).check(found)
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path}: {error}") from error
    return found


def _trunk(body: dict[str, Any], tensors: dict[str, Tensor], directory: Path) -> Trunk:
    keep, fold, mix = {}, {}, {}
    for name, sizes in body["units"]:
        shape = torch.Size([sizes] if isinstance(sizes, int) else sizes)
        keep[name] = unpack_bits(tensors[f"keep.{name}"], shape.numel()).view(shape)
        fold[name] = torch.zeros(shape)
        if not keep[name].all():
            fold[name][~keep[name]] = tensors[f"fold.{name}"]
        if f"mix.{name}" in tensors:
            mix[name] = torch.zeros(shape * 2)
            inside = ~keep[name][:, None] & keep[name]
            mix[name][inside] = tensors[f"mix.{name}"].float().flatten()
    trunk = Trunk(keep, fold, mix, variant=body["variant"], gates=body["gates"])
    if trunk.digest != body["digest"]:
        raise ValueError(
            f"{directory / TENSORS} does not hold the trunk that {DOCUMENT} names:\n"
            f"expected digest: {body['digest']}\nfound: {trunk.digest}."
        )
    return trunk


def _sizes(mask: Tensor) -> int | list[int]:
    """A mask's units; where it has them, its steps and gates before."""
    return len(mask) if mask.ndim == 1 else list(mask.shape)


def _contract(body: dict[str, Any]) -> Contract:
    found = body["contract"]
    size = found["input_size"]
    size = tuple(size) if isinstance(size, list) else size
    return Contract(**{**found, "labels": tuple(found["labels"]), "input_size": size})


def _head(head: Head) -> dict[str, Any]:
    return {"bias": head.bias, "calibration": asdict(head.calibration)}


def _read_head(body: dict[str, Any], weight: Tensor | None) -> Head:
    return Head(weight, body["bias"], Calibration(**body["calibration"]))


def without_credentials(uri: str | None) -> str | None:
    """``uri`` without a user's name and password, which have no place in an artifact.

    Example:
        >>> without_credentials("https://me:secret@models.example:5000/mlflow")
        'https://models.example:5000/mlflow'
    """
    if uri is None or "@" not in uri:
        return uri
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def clean_origin(origin: Mapping[str, Any]) -> dict[str, Any]:
    """A module's origin as it is stored: JSON types, addresses without credentials."""
    return {
        name: without_credentials(value) if name.endswith("uri") else value
        for name, value in origin.items()
    }


def knowledge(module: Module) -> str:
    """SHA-256 over what a module answers by: its parent, its own tensors and numbers, its contract.

    Where it came from, what it was measured at, and how it was made are not in it.
    """
    structure = {
        "parent": module.parent.digest,
        "tokenizers": module.parent.tokenizers,
        "trunk": module.trunk.digest,
        "head": _head(module.head),
        "open_head": _head(module.open_head),
        "energy": asdict(module.energy),
        "contract": module.contract.to_dict(),
        **_likelihood(module.likelihood),
    }
    return digest_tensors(_tensors(module), structure)
