"""What lies under a URI, told from its small JSON files; weights are read when they are asked for.

Over HTTP every file is a request or two. A logged model's files stay what they are, so what was
read under a model id is kept in the process (:mod:`~mlflow_rnnmod.tracking.memory`), and so are
modules, by the digest of their ``module.json``, which holds those of their other files and of their
parent.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from mlflow.entities import LoggedModel
from mlflow.exceptions import MlflowException

from mlflow_rnnmod.composition.plan import Entry, entry_of
from mlflow_rnnmod.decomposition.module import Module
from mlflow_rnnmod.storage import composites, kind_of
from mlflow_rnnmod.storage.bounds import DOCUMENT_BYTES, read_regular
from mlflow_rnnmod.storage.modules import ALL, DOCUMENT, TENSORS, read_entries, read_entry
from mlflow_rnnmod.tracking import download, fetch
from mlflow_rnnmod.tracking.memory import MEMORY
from mlflow_rnnmod.tracking.parents import find_parent, is_known
from mlflow_rnnmod.tracking.searching import near_names
from mlflow_rnnmod.tracking.sources import modules_in

Fetch = Callable[[str], bytes]
"""Gives the content of a file by its path below a model's data."""


@dataclass(frozen=True)
class Document:
    """A module's ``module.json``, or its part of a composite's ``modules.json``.

    Args:
        content: the file; of a composite's, as many bytes as are its share.
        entry: what a plan reads in it.
        reference: to the parent, as :func:`~mlflow_rnnmod.storage.modules.read_entry` gives it.
    """

    content: bytes
    entry: Entry
    reference: Mapping[str, Any]


@dataclass(frozen=True)
class Found:
    """What lies under a URI.

    Args:
        entries: its modules, as a plan sees them.
        references: to parents that have to be looked for elsewhere.
        load: gives its modules.
    """

    entries: tuple[Entry, ...]
    references: tuple[Mapping[str, Any], ...]
    load: Callable[[], tuple[Module, ...]]


@dataclass(frozen=True)
class _Logged:
    """A logged model of this flavor, as it is kept: its kind, data, run, and documents."""

    kind: str
    data: str
    run_id: str | None
    documents: tuple[Document, ...]


@near_names()
def look(uri: str) -> Found:
    """What lies under ``uri``, told without reading weights."""
    folder = Path(uri) / download.DATA
    if folder.is_dir():
        kind = kind_of(folder)
        found = _documents(kind, uri, lambda name: read_regular(folder / name, DOCUMENT_BYTES))
        return _found(found, lambda: _whole(uri))
    origin = fetch.origin_of(uri)
    model_id = _model_id(origin)
    key = "logged", download.server(), model_id
    kept: _Logged | None = MEMORY.get(key) if model_id else None
    if model_id and (kept is None or "version" not in origin):  # one may have been deleted since
        logged = fetch.logged_model(model_id)
        if logged is None:
            return _elsewhere(uri)
        if kept is None:
            kept = _read(logged, uri)
            MEMORY.put(key, kept, sum(len(document.content) for document in kept.documents))
    if kept is None:
        return _elsewhere(uri)
    if kept.kind != "module":
        return _found(kept.documents, lambda: _whole(uri), uri)
    origin = {**origin, "model_id": model_id}
    if kept.run_id:
        origin["run_id"] = kept.run_id
    only, data = kept.documents[0], kept.data
    return _found(kept.documents, lambda: (_load_module(only, data, origin),), uri)


def _model_id(origin: dict[str, Any]) -> str | None:
    """Id of the logged model; which one a version stands for never changes."""
    if "version" not in origin:
        return fetch.model_id_of(origin)
    key = "version", download.server(), origin["name"], origin["version"]
    # An alias was just asked for, so its version is still there; another may have been deleted.
    found: str | None = MEMORY.get(key) if "@" in origin["uri"] else None
    if found is None:
        found = fetch.model_id_of(origin)
        MEMORY.put(key, found, sys.getsizeof(key))
    return found


def _found(
    documents: tuple[Document, ...], load: Callable[[], tuple[Module, ...]], uri: str | None = None
) -> Found:
    entries = [document.entry for document in documents]
    if uri is not None and len(entries) == 1:  # another URI may have led here before
        entries = [replace(entries[0], name=uri)]
    references = [d.reference for d in documents if not d.reference["bundled"]]
    return Found(tuple(entries), tuple(references), load)


def _whole(uri: str) -> tuple[Module, ...]:
    return modules_in(fetch.load(uri))


def _read(logged: LoggedModel, uri: str) -> _Logged:
    data, kind = f"{logged.artifact_location}/{download.DATA}", logged.tags["rnnmod.kind"]
    found = _documents(kind, uri, lambda name: download.content(data, name))
    return _Logged(kind, data, logged.source_run_id, found)


def _documents(kind: str, uri: str, content: Fetch) -> tuple[Document, ...]:
    """Those of a model's modules."""
    if kind == "module":
        return (_document(content(DOCUMENT), uri),)
    if kind != "composite":
        raise MlflowException.invalid_parameter_value(
            f"{uri} is a {kind}; expected a module or a composite. A parent becomes modules by "
            "mlflow_rnnmod.decompose."
        )
    opening = {composites.DOCUMENT: content(composites.DOCUMENT)}
    with _folder_of(opening, uri) as folder:
        together = composites.digest_of_modules(folder)
        parts = [] if together else composites.read_folders(folder)
    if together:
        data = content(ALL)
        with _folder_of({ALL: data}, uri) as folder:
            entries = read_entries(folder, uri, together)
        size = len(data) // max(len(entries), 1)  # what one of them takes, counted once in all
        return tuple(
            Document(data[:size], entry, {**reference, "bundled": True})
            for entry, reference in entries
        )
    with ThreadPoolExecutor(download.THREADS) as pool:
        contents = list(pool.map(content, (f"{part}/{DOCUMENT}" for part, _ in parts)))
    found = []
    for data, (_, sha256) in zip(contents, parts, strict=True):
        one = _document(data, uri, sha256)
        entry = replace(one.entry, name=f"{uri} ({one.entry.contract.label})")
        found.append(Document(data, entry, {**one.reference, "bundled": True}))
    return tuple(found)


def _document(content: bytes, name: str, sha256: str | None = None) -> Document:
    with _folder_of({DOCUMENT: content}, name) as folder:
        entry, reference = read_entry(folder, name, sha256)
    return Document(content, entry, reference)


def _elsewhere(uri: str) -> Found:
    """What MLflow finds under a URI that leads to no logged model of this flavor."""
    try:
        with download.downloaded(f"{uri.rstrip('/')}/{download.DATA}/{DOCUMENT}") as file:
            documents = _documents("module", uri, lambda name: file.read_bytes())
    except Exception:  # whatever a store raises where there is no such file: a composite, say
        modules = _whole(uri)
        return Found(tuple(entry_of(module) for module in modules), (), lambda: modules)
    return _found(documents, lambda: _whole(uri))


@contextmanager
def _folder_of(files: Mapping[str, bytes], uri: str) -> Iterator[Path]:
    """A folder with some files; what is wrong with them is told by the URI that led to them."""
    with tempfile.TemporaryDirectory(prefix="rnnmod-") as temporary:
        folder = Path(temporary)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        try:
            yield folder
        except ValueError as error:
            raise ValueError(fetch.told(error, folder, uri)) from error


def _load_module(document: Document, data: str, origin: Mapping[str, Any]) -> Module:
    """The module of a document, whose other files are at ``data``."""
    reference = dict(document.reference)
    key = "module", hashlib.sha256(document.content).hexdigest()
    parts = MEMORY.get(key)
    if parts is not None and (is_known(reference) or not reference["bundled"]):
        return Module(parent=find_parent(reference["digest"], reference), origin=origin, **parts)
    if reference["bundled"]:
        with download.downloaded(data) as folder:
            module = fetch.read(folder, origin["uri"])
    else:
        files = {DOCUMENT: document.content, TENSORS: download.content(data, TENSORS)}
        with _folder_of(files, origin["uri"]) as folder:
            module = fetch.read(folder, origin["uri"])
    assert isinstance(module, Module)
    # Without its parent, which is kept by itself: it is much larger, and others share it.
    names = [field.name for field in fields(Module) if field.name not in ("parent", "origin")]
    MEMORY.put(key, {name: getattr(module, name) for name in names}, _size(module))
    return replace(module, origin=origin)


def _size(module: Module) -> int:
    """About how many bytes it takes: of its tensors."""
    trunk, heads = module.trunk, (module.head, module.open_head)
    tensors = [*trunk.keep.values(), *trunk.fold.values(), *trunk.mix.values()]
    tensors += [*trunk.windows.values(), *trunk.shifts.values()]
    tensors += [head.weight for head in heads if head.weight is not None]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
