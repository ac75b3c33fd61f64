"""Files of a module: ``module.json``, which a plan reads, and ``module.safetensors``.

Those of a composite are all in two such files, ``modules.json`` and ``modules.safetensors``: over
HTTP every file is a request or two.

A module is a mask over its parent; the parent is named by digest, and bundled when asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from mlflow_rnnmod.composition.plan import Entry, facts_of
from mlflow_rnnmod.decomposition.module import Contract, Energy, Module
from mlflow_rnnmod.networks import Parent
from mlflow_rnnmod.storage.bounds import (
    MODULES,
    check_body,
    check_contract,
    check_module,
    check_room,
    check_trunk_room,
    check_types,
    check_units,
    most_bytes,
)
from mlflow_rnnmod.storage.files import (
    by_version,
    check_digest,
    clean_origin,
    read_document,
    read_tensors,
    without_credentials,
    write_document,
    write_tensors,
)
from mlflow_rnnmod.storage.module_parts import (
    contract_of,
    head_body,
    likelihood_body,
    read_head,
    read_likelihood,
    read_trunk,
    sizes_of,
    tensors_of,
    windows_bytes,
)
from mlflow_rnnmod.storage.parents import format_of, read_parent, write_parent

DOCUMENT = "module.json"
TENSORS = "module.safetensors"
ALL = "modules.json"
ALL_TENSORS = "modules.safetensors"
# The first format version that could say masks for single steps and gates.
MASKED = 2
# The first with windows, which older releases would pass over, and with names of vocabularies.
NAMED = 5
PARENTS = "parents"
_FACTS = ("kept", "full", "mixed", "network", "architecture", "bytes", "parent_bytes")
_TOLD: dict[str, Any] = {
    "kept": dict,
    "full": (bool, type(None)),
    "network": (dict, type(None)),
    "architecture": str,
    "bytes": (int, type(None)),
    "parent_bytes": (int, type(None)),
}

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
    sha256 = write_tensors(directory / TENSORS, tensors_of(module))
    size = (directory / TENSORS).stat().st_size
    content = {**_content(module, size, standalone), "files": {TENSORS: sha256}}
    if standalone:
        write_parent(module.parent, directory / PARENTS / module.parent.digest)
    return write_document(directory / DOCUMENT, "module", content, _format_of(module))


def write_modules(modules: Sequence[Module], directory: Path) -> str:
    """Write the modules of a composite, all in two files; their parents are written elsewhere."""
    together: dict[str, Tensor] = {}
    contents: list[dict[str, Any]] = []
    labels: dict[str, tuple[str, ...]] = {}
    for number, module in enumerate(modules):
        own = tensors_of(module)
        together.update({f"{number}/{name}": tensor for name, tensor in own.items()})
        size = sum(tensor.numel() * tensor.element_size() for tensor in own.values())
        content = {**_content(module, size, True), "format": _format_of(module), "files": {}}
        # All modules of a parent name all of its labels: once will do, or they would be squared.
        if (
            labels.setdefault(module.parent.digest, module.contract.labels)
            == (content["contract"]["labels"])
        ):
            del content["contract"]["labels"]
        contents.append(content)
    files = {ALL_TENSORS: write_tensors(directory / ALL_TENSORS, together)}
    content = {"modules": contents, "labels": labels, "files": files}
    newest = max((each["format"] for each in contents), default=4)
    return write_document(directory / ALL, "modules", content, max(4, newest))


def read_modules(directory: Path, find_parent: FindParent, sha256: str) -> tuple[Module, ...]:
    """The modules that :func:`write_modules` wrote."""
    path = Path(directory) / ALL
    body = read_document(path, "modules", sha256)
    return by_version({4: lambda found: _all_4(found, path, find_parent)}, body, path)


def read_entries(directory: Path, name: str, sha256: str) -> list[tuple[Entry, dict[str, Any]]]:
    """What a plan reads of a composite's modules, from ``modules.json`` alone."""
    path = Path(directory) / ALL
    body = read_document(path, "modules", sha256)

    def entries(found: dict[str, Any]) -> list[tuple[Entry, dict[str, Any]]]:
        return [
            by_version({1: lambda one: _entry_1(one, path, _within(name, one))}, content, path)
            for content in _whole(found)
        ]

    return by_version({4: entries}, body, path)


def _whole(body: dict[str, Any]) -> list[dict[str, Any]]:
    """What is said of each module, with its parent's labels."""
    if not isinstance(body["modules"], list) or len(body["modules"]) > MODULES:
        raise ValueError(f"{ALL} holds more than {MODULES} modules, or no list of them.")
    found = []
    for content in body["modules"]:
        labels = body["labels"][content["parent"]["digest"]]
        found.append({**content, "contract": {"labels": labels, **content["contract"]}})
    return found


def _within(name: str, content: dict[str, Any]) -> str:
    return f"{name} ({content['contract']['label']})"


def _all_4(body: dict[str, Any], path: Path, find_parent: FindParent) -> tuple[Module, ...]:
    sha256 = check_digest(body["files"][ALL_TENSORS], "files", path)
    contents, parents = _whole(body), {}
    most = 0
    for content in contents:
        digest = content["parent"]["digest"]
        if digest not in parents:
            parents[digest] = _parent_1(content, path, find_parent)
        check_units(content["trunk"], parents[digest])
        most += most_bytes(content["trunk"], parents[digest])
    of_each: list[dict[str, Tensor]] = [{} for _ in contents]
    for name, tensor in read_tensors(path.parent / ALL_TENSORS, sha256, most=most).items():
        number, _, own = name.partition("/")
        if not number.isdigit() or int(number) >= len(of_each):
            raise ValueError(f"{path.parent / ALL_TENSORS} has {name!r}, of no module in {ALL}.")
        of_each[int(number)][own] = tensor
    wanted = [
        windows_bytes(own, parents[content["parent"]["digest"]])
        for content, own in zip(contents, of_each, strict=True)
    ]
    beside = path.parent / ALL_TENSORS
    check_room(sum(wanted), beside.stat().st_size, f"{beside}: what is added to weights")

    def one(content: dict[str, Any], tensors: dict[str, Tensor]) -> Module:
        parent = parents[content["parent"]["digest"]]
        return _module_1(content, tensors, parent, path, path.parent / ALL_TENSORS)

    return tuple(
        by_version({1: lambda found, t=tensors: one(found, t)}, content, path)  # type: ignore[misc]
        for content, tensors in zip(contents, of_each, strict=True)
    )


def _format_of(module: Module) -> int:
    masked = 1 if module.trunk.sliceable else MASKED
    newer = bool(module.trunk.windows) or module.contract.vocabulary is not None
    return max(format_of(module.parent), masked, NAMED if newer else 1)


def _content(module: Module, size: int, standalone: bool) -> dict[str, Any]:
    """What a document says of a module, apart from where its tensors are."""
    parent, trunk = module.parent, module.trunk
    return {
        "parent": {
            "digest": parent.digest,
            "model_id": parent.model_id,
            "tracking_uri": without_credentials(parent.tracking_uri),
        },
        "trunk": {
            "digest": trunk.digest,
            "variant": trunk.variant,
            "gates": trunk.gates,
            "units": [[name, sizes_of(mask)] for name, mask in trunk.keep.items()],
        },
        "head": head_body(module.head),
        "open_head": head_body(module.open_head),
        **likelihood_body(module.likelihood),
        "energy": asdict(module.energy),
        "contract": module.contract.to_dict(),
        # A share of nothing is NaN, which JSON can't say.
        "figures": {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in module.figures.items()
        },
        "made": dict(module.made),
        "origin": clean_origin(module.origin),
        "plan": {**facts_of(module), "bytes": size, "standalone": standalone},
    }


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
    return by_version({1: lambda found: (contract_of(found), dict(found["parent"]))}, body, path)


def read_entry(
    directory: Path, name: str, sha256: str | None = None
) -> tuple[Entry, dict[str, Any]]:
    """What a plan reads of a module, from ``module.json`` alone.

    ``sha256``: what its digest should be, where another file says so; gives the entry, and the
    reference to the parent, with its ``tokenizer``'s digest and whether it is ``bundled``.
    """
    path = Path(directory) / DOCUMENT
    body = read_document(path, "module", sha256)
    return by_version({1: lambda found: _entry_1(found, path, name)}, body, path)


def _entry_1(body: dict[str, Any], path: Path, name: str) -> tuple[Entry, dict[str, Any]]:
    contract, facts = contract_of(body), dict(body.get("plan", {}))
    bundled = facts.pop("standalone", False)
    reference = {**body["parent"], "tokenizer": contract.tokenizers, "bundled": bundled}
    if "mixed" in facts:
        facts["mixed"] = tuple(facts["mixed"])
    known = {key: value for key, value in facts.items() if key in _FACTS}
    check_types(known, {key: kinds for key, kinds in _TOLD.items() if key in known})
    check_types(known.get("kept", {}), dict.fromkeys(known.get("kept", {}), int))
    check_types(body, {"figures": dict})
    check_types(body["figures"], dict.fromkeys(body["figures"], (int, float, type(None))))
    check_contract(contract)
    entry = Entry(
        name=name,
        contract=contract,
        parent=check_digest(body["parent"]["digest"], "parent.digest", path),
        trunk=check_digest(body["trunk"]["digest"], "trunk.digest", path),
        figures={k: v for k, v in body["figures"].items() if v is not None},
        likelihood=(body.get("likelihood") or {}).get("space"),
        **known,
    )
    return entry, reference


def _read_1(body: dict[str, Any], directory: Path, find_parent: FindParent) -> Module:
    path = directory / DOCUMENT
    parent = _parent_1(body, path, find_parent)
    sha256 = check_digest(body["files"][TENSORS], "files", path)
    check_units(body["trunk"], parent)
    most = most_bytes(body["trunk"], parent)
    tensors = read_tensors(directory / TENSORS, sha256, most=most)
    return _module_1(body, tensors, parent, path, directory / TENSORS)


def _parent_1(body: dict[str, Any], path: Path, find_parent: FindParent) -> Parent:
    check_body(body)
    check_contract(contract_of(body))
    directory = path.parent
    reference = dict(body["parent"])
    digest = check_digest(reference["digest"], "parent.digest", path)
    bundled = directory / PARENTS / digest
    if bundled.is_dir():
        parent = read_parent(bundled, digest)
        parent = parent.known_as(reference["model_id"], reference["tracking_uri"])
    else:
        # Parents are told apart by their network; which tokenizer goes with it is told here.
        reference["tokenizer"] = contract_of(body).tokenizers
        parent = find_parent(digest, reference)
    if parent.digest != digest:
        raise ValueError(
            f"{path} belongs to another parent than the one found:\n"
            f"expected digest: {digest}\nfound: {parent.digest}."
        )
    return parent


def _module_1(
    body: dict[str, Any], tensors: dict[str, Tensor], parent: Parent, path: Path, beside: Path
) -> Module:
    check_units(body["trunk"], parent)
    check_trunk_room(body["trunk"], tensors, beside, parent)
    module = Module(
        parent=parent,
        trunk=read_trunk(body["trunk"], tensors, path, parent),
        head=read_head(body["head"], tensors.get("head.weight")),
        open_head=read_head(body["open_head"], tensors.get("open_head.weight")),
        energy=Energy(**body["energy"]),
        contract=contract_of(body),
        figures={k: math.nan if v is None else v for k, v in body["figures"].items()},
        made=body["made"],
        origin=body["origin"],
        likelihood=read_likelihood(body.get("likelihood"), tensors, path),
    )
    check_module(module, path)
    return module
