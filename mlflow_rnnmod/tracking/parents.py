"""Where the parent of a module that does not bundle it is looked for.

In the process, in a cache on disk, under its model id on the tracking server, and there by the tag
that holds its digest. Whatever is found is checked by its digest before it is used.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

from mlflow_rnnmod._locks import Lock
from mlflow_rnnmod.networks import Parent
from mlflow_rnnmod.storage import read_parent, without_credentials, write_parent
from mlflow_rnnmod.tracking import _mlflow, download
from mlflow_rnnmod.tracking.memory import MEMORY, Memory

_logger = logging.getLogger(__name__)

CACHE_VARIABLE = "RNNMOD_CACHE"
SERVERS_VARIABLE = "RNNMOD_SERVERS"
_MODEL_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")


class _Kept:
    """The parents that were used last, by digest; modules of one parent share one object.

    What somebody still uses is found even where the memory has no room for it.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._alive: WeakValueDictionary[tuple[str, str | None], Parent] = WeakValueDictionary()
        self._lock = Lock()

    def get(self, digest: str, tokenizer: str | None) -> Parent | None:
        with self._lock:
            found: Parent | None = self._memory.get(("parent", digest, tokenizer))
            return self._alive.get((digest, tokenizer)) if found is None else found

    def put(self, parent: Parent) -> None:
        key = (parent.digest, parent.tokenizers)
        with self._lock:
            present = self._alive.get(key)
            # The one that is there stays, so that modules go on sharing it, unless the new one
            # knows where it was logged.
            if present is not None and (present.model_id is not None or parent.model_id is None):
                parent = present
            self._alive[key] = parent
            self._memory.put(("parent", *key), parent, parent.bytes)

    def clear(self) -> None:
        with self._lock:
            self._memory.clear()
            self._alive.clear()


_kept = _Kept(MEMORY)
_one_at_a_time: defaultdict[str, Lock] = defaultdict(Lock)


def remember(parent: Parent) -> None:
    """Keep a parent in the process, for modules that will be read later."""
    _kept.put(parent)


def forget_parents() -> None:
    """Forget the parents and modules that are kept in the process; those on disk stay."""
    _kept.clear()


def is_known(reference: Mapping[str, Any]) -> bool:
    """Whether the parent that a module refers to is kept in the process."""
    return _kept.get(reference["digest"], reference.get("tokenizer")) is not None


def cache_folder() -> Path | None:
    """Where parents are cached on disk, by digest: ``$RNNMOD_CACHE/parents``.

    Without the variable in ``~/.cache/rnnmod``; ``None`` (no cache) where it is set but empty.
    """
    root = os.environ.get(CACHE_VARIABLE)
    if root is None:
        try:
            return Path.home() / ".cache" / "rnnmod" / "parents"
        except RuntimeError:  # nobody's home, as in containers with a user that is a number only
            return None
    return Path(root) / "parents" if root else None


def find_parent(digest: str, reference: dict[str, Any]) -> Parent:
    """The parent with this digest, for a module that does not bundle it.

    ``reference``: ``model_id`` and ``tracking_uri`` it was logged under, and the ``tokenizer``'s
    digest, as the module says.
    """
    tokenizer = reference.get("tokenizer")
    # Modules are loaded in threads; a parent is fetched once.
    with _one_at_a_time[digest]:
        found = _kept.get(digest, tokenizer)
        if found is not None:
            return found
        tried: list[str] = []
        found = _from_disk(digest, tokenizer, tried)
        if found is None:
            for server in servers(reference, tried):
                with patience(server):
                    found = _from_server(server, digest, reference, tried)
                if found is not None:
                    _to_disk(found)
                    break
        elif reference.get("model_id"):
            found = found.known_as(reference["model_id"], reference.get("tracking_uri"))
        if found is None:
            raise _not_found(digest, reference, tried)
        remember(found)
        return found


def _not_found(digest: str, reference: dict[str, Any], tried: list[str]) -> MlflowException:
    return MlflowException(
        "A module's parent can't be found.\n"
        f"digest: {digest}\n"
        f"model id: {reference.get('model_id')}\n"
        f"tracking server: {reference.get('tracking_uri')}\n"
        "Looked for bundled beside the module and in this process; "
        + "; ".join(tried)
        + ".\nIf it is on another server, call mlflow.set_tracking_uri first. Where the parent can "
        "still be read, mlflow_rnnmod.export(module, path) writes a module that needs no other "
        "files, as log_model(module, standalone=True) does; loading the parent itself from its "
        "folder with mlflow_rnnmod.load_model also makes it known to this process.",
        error_code=RESOURCE_DOES_NOT_EXIST,
    )


def _from_disk(digest: str, tokenizer: str | None, tried: list[str]) -> Parent | None:
    root = cache_folder()
    if root is None:
        return None
    folder = root / digest
    if not folder.is_dir():
        tried.append(f"not in the cache {root}")
        return None
    try:
        parent = read_parent(folder, digest)
    except ValueError as error:
        _logger.warning("A cached parent is removed, as it is not what was written: %s", error)
        tried.append(f"spoilt in the cache {root}")
        shutil.rmtree(folder, ignore_errors=True)
        return None
    if parent.tokenizers != tokenizer:
        tried.append(f"with another tokenizer in the cache {root}")
        return None
    return parent


def _to_disk(parent: Parent) -> None:
    """Into the cache: written aside and renamed, so that no reader sees half of it."""
    root = cache_folder()
    if root is None or (root / parent.digest).exists():
        return
    try:
        root.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=root, prefix=".new-"))
        try:
            write_parent(parent, temporary)
            temporary.rename(root / parent.digest)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:  # a full or read-only disk, or somebody else was faster
        _logger.debug("Parent %s was not cached: %s", parent.digest, error)


def servers(reference: Mapping[str, Any], tried: list[str]) -> list[str]:
    """Servers to ask for a parent: the one in use, and the one that the module names.

    The latter only where the user allows it by name, in ``$RNNMOD_SERVERS`` (URIs between commas).
    A file can name any server and any database. MLflow sends the user's credentials to the one, and
    makes its tables in the other; and whoever is asked learns that the file was opened.
    """
    current = mlflow.get_tracking_uri()
    named = reference.get("tracking_uri")
    if not isinstance(named, str) or not named or named == without_credentials(current):
        return [current]
    if named.rstrip("/") not in allowed_servers():
        tried.append(
            f"{named:.200}, which the module names, was not asked: to allow it, set "
            f"{SERVERS_VARIABLE} to it, or call mlflow.set_tracking_uri"
        )
        return [current]
    return [current, named]


def allowed_servers() -> set[str]:
    """Tracking URIs that modules may name, besides the current one: ``$RNNMOD_SERVERS``."""
    given = os.environ.get(SERVERS_VARIABLE, "").split(",")
    return {uri.strip().rstrip("/") for uri in given} - {""}


def stored_id(reference: Mapping[str, Any]) -> str | None:
    """The model id that a module names; ``None`` where it is none: it becomes part of addresses."""
    model_id = reference.get("model_id")
    return model_id if isinstance(model_id, str) and _MODEL_ID.fullmatch(model_id) else None


def patience(server: str) -> AbstractContextManager[None]:
    """One short try for a server that a file names; the usual ones for the user's own."""
    return nullcontext() if server == mlflow.get_tracking_uri() else _mlflow.brief_requests()


def _from_server(
    server: str, digest: str, reference: dict[str, Any], tried: list[str]
) -> Parent | None:
    """The parent under its id on one server, or else any model there that is tagged with it."""
    client = MlflowClient(server)
    model_id = stored_id(reference)
    shown = without_credentials(server)
    if model_id:
        parent = _logged(client, server, model_id, digest, reference, tried)
        if parent is not None:
            return parent
    try:
        others = logged_parents(client, digest)
    except Exception as error:  # whatever a store or a connection raises
        tried.append(f"{shown} can't be searched: {download.first_line(error)}")
        return None
    for other in others:
        if other != model_id:
            parent = _logged(client, server, other, digest, reference, tried)
            if parent is not None:
                return parent
    tried.append(f"no other model with tag rnnmod.parent on {shown}")
    return None


def logged_id(parent: Parent) -> str | None:
    """Id of a model on the current tracking server that holds this parent, if there is one."""
    client = MlflowClient()
    if parent.model_id is not None and parent.tracking_uri in (None, download.server()):
        try:
            tags = client.get_logged_model(parent.model_id).tags
        except MlflowException:  # deleted, or of another server
            tags = {}
        if tags.get("rnnmod.parent") == parent.digest:
            return parent.model_id
    tried: list[str] = []
    for model_id in logged_parents(client, parent.digest):
        reference = {"tokenizer": parent.tokenizers}
        uri = mlflow.get_tracking_uri()
        if _logged(client, uri, model_id, parent.digest, reference, tried) is not None:
            return model_id
    return None


def is_readable(
    client: MlflowClient, server: str, model_id: str, parent: Parent, tried: list[str]
) -> bool:
    """Whether a model on a server holds a parent, whole; ``tried`` is told why where it does not.

    That it is called ready does not say so: what stood between may have stored nothing.
    """
    reference = {"tokenizer": parent.tokenizers}
    return _logged(client, server, model_id, parent.digest, reference, tried) is not None


def logged_parents(client: MlflowClient, digest: str) -> list[str]:
    """Ids of the models that are tagged as the parent with this digest, newest first."""
    found = client.search_logged_models(
        experiment_ids=[experiment.experiment_id for experiment in download.experiments(client)],
        filter_string=f"tags.`rnnmod.parent` = '{digest}' AND tags.`rnnmod.kind` = 'parent'",
        max_results=20,
    )
    return [model.model_id for model in found]


def _logged(
    client: MlflowClient,
    server: str,
    model_id: str,
    digest: str,
    reference: dict[str, Any],
    tried: list[str],
) -> Parent | None:
    shown = f"models:/{model_id} on {without_credentials(server)}"
    try:
        location = client.get_logged_model(model_id).artifact_location
        # Found through the client, as models:/ URIs only ever lead to the current server.
        with download.downloaded(f"{location}/{download.DATA}", tracking_uri=server) as folder:
            parent = read_parent(folder, digest)
    except Exception as error:  # whatever a store, a connection or a spoilt file raises
        tried.append(f"not {shown}: {download.first_line(error)}")
        return None
    if parent.tokenizers != reference.get("tokenizer"):
        tried.append(f"with another tokenizer {shown}")
        return None
    return parent.known_as(model_id, without_credentials(server))
