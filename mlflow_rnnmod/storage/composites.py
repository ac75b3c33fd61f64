"""Files of a composite: ``composition.json``, its modules, and each of their parents once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mlflow_rnnmod.composition import Composite
from mlflow_rnnmod.composition.translation import composite_class
from mlflow_rnnmod.networks import Parent
from mlflow_rnnmod.storage.bounds import MODULES as MOST
from mlflow_rnnmod.storage.files import by_version, check_digest, read_document, write_document
from mlflow_rnnmod.storage.modules import PARENTS, clean_origin, read_module, write_module
from mlflow_rnnmod.storage.parents import read_parent, write_parent

DOCUMENT = "composition.json"
MODULES = "modules"
_FOLDER = re.compile(rf"{MODULES}/\d+")


def write_composite(composite: Composite, directory: Path) -> None:
    """Write a composite's files; they stand alone.

    Args:
        composite: the composite.
        directory: made where it is missing.

    Raises:
        ValueError: if one network comes with two tokenizers, or a parameter is not JSON.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    entries = []
    for number, module in enumerate(composite.modules):
        folder = f"{MODULES}/{number:03d}"
        entries.append(
            {
                "label": module.label,
                "folder": folder,
                "sha256": write_module(module, directory / folder),
                "parent": module.parent.digest,
                "origin": clean_origin(module.origin),
            }
        )
    for parent in _parents(composite).values():
        write_parent(parent, directory / PARENTS / parent.digest)
    content = {
        "modules": entries,
        "score": composite.score,
        "parameters": dict(composite.parameters),
        "recipe": list(composite.recipe),
    }
    write_document(directory / DOCUMENT, "composite", content)


def _parents(composite: Composite) -> dict[str, Parent]:
    parents: dict[str, Parent] = {}
    for module in composite.modules:
        parent = parents.setdefault(module.parent.digest, module.parent)
        tokenizers = [p.tokenizers for p in (parent, module.parent)]
        if tokenizers[0] != tokenizers[1]:
            raise ValueError(
                f"The modules hold the parent {parent.digest} with two tokenizers, {tokenizers}; "
                "expected one tokenizer for one network."
            )
    return parents


def read_composite(directory: Path) -> Composite:
    """The composite whose files are in ``directory``; modules of one parent share one object.

    Raises:
        ValueError: if a file is missing, truncated or altered; the file and both digests are named.
    """
    directory = Path(directory)
    path = directory / DOCUMENT
    body = read_document(path, "composite")
    return by_version({1: lambda found: _read_1(found, directory)}, body, path)


def read_folders(directory: Path) -> list[tuple[str, str]]:
    """Folders of a composite's modules and the digests of their documents.

    Raises:
        ValueError: if ``composition.json`` is missing, truncated or altered.
    """
    path = Path(directory) / DOCUMENT
    body = read_document(path, "composite")
    return by_version({1: lambda found: _folders_1(found, path)}, body, path)


def _folders_1(body: dict[str, Any], path: Path) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    known: set[str] = set()
    if not isinstance(body["modules"], list) or len(body["modules"]) > MOST:
        raise ValueError(f"{path} names more than {MOST} modules, or no list of them.")
    for entry in body["modules"]:
        if not _FOLDER.fullmatch(entry["folder"]):
            raise ValueError(
                f"{path} has a module in {entry['folder']!r}; expected {MODULES}/<number>."
            )
        if entry["folder"] in known:
            raise ValueError(f"{path} names {entry['folder']} twice; expected each module once.")
        known.add(entry["folder"])
        sha256 = check_digest(entry["sha256"], f"sha256 of {entry['folder']}", path)
        found.append((entry["folder"], sha256))
    return found


def _read_1(body: dict[str, Any], directory: Path) -> Composite:
    path = directory / DOCUMENT
    parents: dict[str, Parent] = {}

    def find_parent(digest: str, reference: dict[str, Any]) -> Parent:
        if digest not in parents:
            found = read_parent(directory / PARENTS / digest, digest)
            parents[digest] = found.known_as(reference["model_id"], reference["tracking_uri"])
        return parents[digest]

    modules = tuple(
        read_module(directory / folder, find_parent, sha256)
        for folder, sha256 in _folders_1(body, path)
    )
    return composite_class(modules)(
        modules=modules,
        score=body["score"],
        parameters=body["parameters"],
        recipe=tuple(body["recipe"]),
    )
