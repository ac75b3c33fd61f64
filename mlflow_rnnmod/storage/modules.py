"""Files of a module: ``module.json``, which a plan reads, and ``module.safetensors``.

Those of a composite are all in two such files, ``modules.json`` and ``modules.safetensors``: over
HTTP every file is a request or two.

A module is a mask over its parent; the parent is named by digest, and bundled when asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, replace
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
from mlflow_rnnmod.storage.bounds import (
    GROWTH,
    LIKELIHOOD_BYTES,
    MODULES,
    check_room,
    check_types,
)
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
ALL = "modules.json"
ALL_TENSORS = "modules.safetensors"
# The first format version that could say masks for single steps and gates.
MASKED = 2
PARENTS = "parents"
_TABLE, _STEP = "likelihood.", "step_likelihood."
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
    sha256 = write_tensors(directory / TENSORS, _tensors(module))
    size = (directory / TENSORS).stat().st_size
    content = {**_content(module, size, standalone), "files": {TENSORS: sha256}}
    if standalone:
        write_parent(module.parent, directory / PARENTS / module.parent.digest)
    return write_document(directory / DOCUMENT, "module", content, _format_of(module))


def write_modules(modules: Sequence[Module], directory: Path) -> str:
    """Write the modules of a composite, all in two files; their parents are written elsewhere.

    Args:
        modules: in order.
        directory: exists.

    Returns:
        SHA-256 of ``modules.json``.

    Raises:
        ValueError: if a number of a head is not finite, or figures are not JSON.
    """
    together: dict[str, Tensor] = {}
    contents: list[dict[str, Any]] = []
    labels: dict[str, tuple[str, ...]] = {}
    for number, module in enumerate(modules):
        own = _tensors(module)
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
    return write_document(directory / ALL, "modules", content, 4)


def read_modules(directory: Path, find_parent: FindParent, sha256: str) -> tuple[Module, ...]:
    """The modules that :func:`write_modules` wrote.

    Args:
        directory: where it wrote.
        find_parent: asked for their parents; see :func:`read_module`.
        sha256: what the digest of ``modules.json`` should be.

    Raises:
        ValueError: if a file is missing, truncated or altered.
    """
    path = Path(directory) / ALL
    body = read_document(path, "modules", sha256)
    return by_version({4: lambda found: _all_4(found, path, find_parent)}, body, path)


def read_entries(directory: Path, name: str, sha256: str) -> list[tuple[Entry, dict[str, Any]]]:
    """What a plan reads of a composite's modules, from ``modules.json`` alone.

    Args:
        directory: where the file is.
        name: of the composite, to show the modules by.
        sha256: what the file's digest should be.

    Raises:
        ValueError: if it is missing, truncated or altered.
    """
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
        _check_units(content["trunk"], parents[digest])
        most += _most_bytes(content["trunk"], parents[digest])
    of_each: list[dict[str, Tensor]] = [{} for _ in contents]
    for name, tensor in read_tensors(path.parent / ALL_TENSORS, sha256, most=most).items():
        number, _, own = name.partition("/")
        if not number.isdigit() or int(number) >= len(of_each):
            raise ValueError(f"{path.parent / ALL_TENSORS} has {name!r}, of no module in {ALL}.")
        of_each[int(number)][own] = tensor

    def one(content: dict[str, Any], tensors: dict[str, Tensor]) -> Module:
        parent = parents[content["parent"]["digest"]]
        return _module_1(content, tensors, parent, path, path.parent / ALL_TENSORS)

    return tuple(
        by_version({1: lambda found, t=tensors: one(found, t)}, content, path)  # type: ignore[misc]
        for content, tensors in zip(contents, of_each, strict=True)
    )


def _format_of(module: Module) -> int:
    return max(format_of(module.parent), 1 if module.trunk.sliceable else MASKED)


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
    _check_units(body["trunk"], parent)
    most = _most_bytes(body["trunk"], parent)
    tensors = read_tensors(directory / TENSORS, sha256, most=most)
    return _module_1(body, tensors, parent, path, directory / TENSORS)


def _parent_1(body: dict[str, Any], path: Path, find_parent: FindParent) -> Parent:
    _check_body(body)
    directory = path.parent
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
    return parent


def _module_1(
    body: dict[str, Any], tensors: dict[str, Tensor], parent: Parent, path: Path, beside: Path
) -> Module:
    _check_units(body["trunk"], parent)
    _check_room(body["trunk"], tensors, beside, parent)
    module = Module(
        parent=parent,
        trunk=_trunk(body["trunk"], tensors, path),
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


def _check_body(body: dict[str, Any]) -> None:
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


def _check_units(body: dict[str, Any], parent: Parent) -> None:
    """Whether a trunk's masks are for its parent's units, before anything is made of their size."""
    found = {name: sizes if isinstance(sizes, int) else sizes[-1] for name, sizes in body["units"]}
    if found != parent.network.units or len(found) != len(body["units"]):
        raise ValueError(
            f"its masks are for the units {found!r:.200}, and its parent {parent.digest} has "
            f"{parent.network.units!r:.200}"
        )


def _most_bytes(body: dict[str, Any], parent: Parent) -> int:
    """Bytes that a module's tensors take at the most."""
    total = LIKELIHOOD_BYTES + 16 * parent.network.config.readout_size
    for _, sizes in body["units"]:
        units = torch.Size([sizes] if isinstance(sizes, int) else sizes).numel()
        total += 8 * units + (4 * units**2 if isinstance(sizes, int) else 0)
    return total


def _check_room(
    body: dict[str, Any], tensors: Mapping[str, Tensor], path: Path, parent: Parent
) -> None:
    """Whether what a trunk takes is explained by its file and its parent."""
    wanted = 0
    for name, sizes in body["units"]:
        units = torch.Size([sizes] if isinstance(sizes, int) else sizes).numel()
        wanted += 16 * units + (8 * units**2 if f"mix.{name}" in tensors else 0)
    given = path.stat().st_size + 8 * parent.bytes // GROWTH
    check_room(wanted, given, f"{path}: its trunk")


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
        step = module.likelihood.step
        if step is not None:
            tensors.update({f"{_STEP}{k}": t for k, t in step.tensors.items()})
    return tensors


def _likelihood(found: Likelihood | None) -> dict[str, Any]:
    """What a document says of a likelihood: nothing where there is none, as older versions did.

    Older releases pass it over. Its space has the version of its normaliser, its format one too.
    """
    if found is None:
        return {}
    body: dict[str, Any] = {"format": 1, "space": found.space, "facts": dict(found.facts)}
    if found.step is not None:
        body["step"] = {"space": found.step.space, "facts": dict(found.step.facts)}
    return {"likelihood": body}


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

    def tables(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}

    step, said = None, body.get("step")
    if said is not None:
        step = Likelihood(said["space"], said["facts"], tables(_STEP))
    found = Likelihood(body["space"], body["facts"], tables(_TABLE), step)
    try:
        density_of(found.space).check(found)
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path}: {error}") from error
    return found


def _trunk(body: dict[str, Any], tensors: dict[str, Tensor], path: Path) -> Trunk:
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
            f"What is beside {path} does not hold the trunk that it names:\n"
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
