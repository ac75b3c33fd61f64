"""Files of a composite: ``composition.json``, its modules, and each of their parents once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mlflow_rnnmod.composition import Composite
from mlflow_rnnmod.composition.translation import composite_class
from mlflow_rnnmod.decomposition.module import Module
from mlflow_rnnmod.networks import Parent
from mlflow_rnnmod.storage.bounds import MODULES as MOST
from mlflow_rnnmod.storage.files import (
    by_version,
    check_digest,
    clean_origin,
    read_document,
    write_document,
)
from mlflow_rnnmod.storage.modules import (
    ALL,
    PARENTS,
    FindParent,
    read_module,
    read_modules,
    write_modules,
)
from mlflow_rnnmod.storage.parents import read_parent, write_parent

DOCUMENT = "composition.json"
MODULES = "modules"
"""Where modules had folders of their own, before format 4."""
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
    for parent in _parents(composite).values():
        write_parent(parent, directory / PARENTS / parent.digest)
    content = {
        "modules": [
            {"label": m.label, "parent": m.parent.digest, "origin": clean_origin(m.origin)}
            for m in composite.modules
        ],
        "score": composite.score,
        "parameters": dict(composite.parameters),
        "recipe": list(composite.recipe),
        "files": {ALL: write_modules(composite.modules, directory)},
    }
    write_document(directory / DOCUMENT, "composite", content, 4)


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
    readers = {
        1: lambda found: _read_1(found, directory),
        4: lambda found: _read_4(found, directory),
    }
    return by_version(readers, body, path)


def digest_of_modules(directory: Path) -> str | None:
    """SHA-256 of ``modules.json``; ``None`` where an older version gave each module a folder."""
    path = Path(directory) / DOCUMENT
    body = read_document(path, "composite")
    readers = {1: lambda found: None, 4: lambda found: check_digest(found["files"][ALL], ALL, path)}
    return by_version(readers, body, path)


def read_folders(directory: Path) -> list[tuple[str, str]]:
    """Folders of a composite's modules and the digests of their documents, before format 4."""
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


def _read_4(body: dict[str, Any], directory: Path) -> Composite:
    sha256 = check_digest(body["files"][ALL], ALL, directory / DOCUMENT)
    modules = read_modules(directory, _finder(directory), sha256)
    named = [(entry["label"], entry["parent"]) for entry in body["modules"]]
    if named != [(module.label, module.parent.digest) for module in modules]:
        raise ValueError(
            f"{directory / DOCUMENT} names other modules than {ALL} holds:\nexpected "
            f"{named[:10]!r:.400}\nfound {[m.label for m in modules[:10]]!r:.400}."
        )
    return _composite(body, modules)


def _read_1(body: dict[str, Any], directory: Path) -> Composite:
    find_parent = _finder(directory)
    modules = tuple(
        read_module(directory / folder, find_parent, sha256)
        for folder, sha256 in _folders_1(body, directory / DOCUMENT)
    )
    return _composite(body, modules)


def _finder(directory: Path) -> FindParent:
    """Reads each of the bundled parents once."""
    parents: dict[str, Parent] = {}

    def find_parent(digest: str, reference: dict[str, Any]) -> Parent:
        if digest not in parents:
            found = read_parent(directory / PARENTS / digest, digest)
            parents[digest] = found.known_as(reference["model_id"], reference["tracking_uri"])
        return parents[digest]

    return find_parent


def _composite(body: dict[str, Any], modules: tuple[Module, ...]) -> Composite:
    return composite_class(modules)(
        modules=modules,
        score=body["score"],
        parameters=body["parameters"],
        recipe=tuple(body["recipe"]),
    )
