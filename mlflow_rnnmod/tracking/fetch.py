"""From a URI to the parent, the module or the composite that is logged under it."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import LoggedModel
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.models.model import MLMODEL_FILE_NAME
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

from mlflow_rnnmod.composition import Composite
from mlflow_rnnmod.decomposition.module import Module
from mlflow_rnnmod.networks import Parent
from mlflow_rnnmod.storage import kind_of, read_composite, read_module, read_parent
from mlflow_rnnmod.storage.bounds import MODEL_BYTES, read_regular
from mlflow_rnnmod.tracking import _mlflow, download
from mlflow_rnnmod.tracking.code import FLAVOR_NAME
from mlflow_rnnmod.tracking.parents import find_parent, remember
from mlflow_rnnmod.tracking.searching import near_names, versions_there

_FOLDER = re.compile(r"[A-Za-z0-9_-]{1,100}")
_MODEL_ID = re.compile(r"models:/(m-[^/@]+)/?")


@near_names()
def load(uri: str | os.PathLike[str], dst_path: str | None = None) -> Parent | Module | Composite:
    """What is logged under a URI, with its origin.

    Args:
        uri: ``models:/name/version``, ``models:/name@alias``, ``models:/m-...``,
            ``runs:/run/name``, or the folder of a saved model.
        dst_path: where to download to; by default the files are gone after reading.
    """
    uri = os.fspath(uri)
    with download.quiet_downloads():
        origin = origin_of(uri)
        found_id = model_id_of(origin) if dst_path is None else None
        logged = None if found_id is None else logged_model(found_id)
        if logged is not None:
            # Its data alone, a third of the files: over HTTP each is a request or two.
            model_id: str | None = logged.model_id
            run_id: str | None = logged.source_run_id
            with download.downloaded(f"{logged.artifact_location}/{download.DATA}") as path:
                thing = read(path, uri)
        else:
            # What was resolved is what is read: an alias may move in between.
            if "version" in origin:
                uri = f"models:/{origin['name']}/{origin['version']}"
            with download.downloaded(uri, dst_path) as path:
                data, model_id, run_id = _described(path, uri)
                thing = read(data, uri)
    found = {"model_id": model_id, "run_id": run_id}
    origin.update({name: value for name, value in found.items() if value})
    if isinstance(thing, Module):
        return replace(thing, origin=origin)
    if isinstance(thing, Parent) and model_id:
        thing = thing.known_as(model_id, download.server())
        remember(thing)
    return thing


def read(data: str | os.PathLike[str], uri: str | None = None) -> Parent | Module | Composite:
    """What a model's data folder holds; the parents of modules are looked for.

    ``uri``: what led there, where it is a copy that will be gone.
    """
    folder = Path(data)
    try:
        kind = kind_of(folder)
        if kind == "composite":
            composite = read_composite(folder)
            for module in composite.modules:
                remember(module.parent)
            return composite
        if kind == "module":
            module = read_module(folder, find_parent)
            remember(module.parent)
            return module
        parent = read_parent(folder)
        remember(parent)
        return parent
    except ValueError as error:
        raise MlflowException.invalid_parameter_value(told(error, folder, uri)) from error


def told(error: BaseException, folder: Path, uri: str | None) -> str:
    """What went wrong with a file, by the URI that led to it: a copy will be gone."""
    words = str(error)
    if uri is None or uri in words:
        return words
    return f"{uri}: {words.replace(f'{folder}{os.sep}', '')}"


def _described(path: Path, uri: str) -> tuple[Path, str | None, str | None]:
    """Where a model's data are, its model id and its run, as its ``MLmodel`` says."""
    _check_model(path, uri)
    try:
        read_regular(path / MLMODEL_FILE_NAME, MODEL_BYTES)
        configuration = _mlflow.get_flavor_configuration(str(path), FLAVOR_NAME)
        saved = Model.load(str(path))
        data = configuration["data"]
        if not isinstance(data, str) or not _FOLDER.fullmatch(data):
            raise ValueError(f"its data are in {data!r:.100}; expected a folder beside it")
        found = (saved.model_id, saved.run_id)
        if any(not isinstance(each, str | None) for each in found):
            raise ValueError(f"its model and run are {found!r:.200}; expected texts")
    except MlflowException as error:
        code = ErrorCode.Value(error.error_code)
        words = f"{uri}: the file {MLMODEL_FILE_NAME} does not fit: {error.message}"
        raise MlflowException(words, error_code=code) from error
    except (Exception, RecursionError) as error:  # whatever YAML and MLflow make of it
        raise MlflowException.invalid_parameter_value(
            f"{uri}: the file {MLMODEL_FILE_NAME} can't be read: {type(error).__name__}: {error}"
        ) from error
    return path / data, *found


def _check_model(path: Path, uri: str) -> None:
    """MLflow's own message names neither the folder nor what should be in it."""
    if not (path / MLMODEL_FILE_NAME).exists():
        raise MlflowException(
            f"{uri} holds no file {MLMODEL_FILE_NAME}; expected the folder or URI of a model that "
            "save_model, log_model or export has written.",
            error_code=RESOURCE_DOES_NOT_EXIST,
        )


def origin_of(uri: str) -> dict[str, Any]:
    """Where ``uri`` leads, with the version that an alias or ``latest`` stands for now."""
    origin: dict[str, Any] = {"uri": uri}
    if uri.startswith("models:/"):
        client, (name, at, _) = (
            MlflowClient(),
            uri.removeprefix("models:/").strip("/").partition("@"),
        )
        try:
            found = _mlflow.get_model_name_and_version(client, uri)
        except MlflowException as error:
            if not at or "alias" not in str(error):
                raise
            # MLflow names the alias alone.
            words = f"{uri} is not there: {error.message}{versions_there(client, name)}"
            code = ErrorCode.Value(error.error_code)
            raise MlflowException(words, error_code=code) from error
        if len(found) == 2:
            origin.update(name=found[0], version=str(found[1]))
    if "://" in uri or ":/" in uri:
        origin["tracking_uri"] = download.server()
    return origin


def model_id_of(origin: dict[str, Any]) -> str | None:
    """Id of the logged model behind a ``models:/`` URI; ``None`` where there is none."""
    source = origin["uri"]
    if "version" in origin:
        try:
            version = MlflowClient().get_model_version(origin["name"], origin["version"])
        except MlflowException:  # MLflow itself says what is wrong, when it is asked for the files
            return None
        source = version.source or ""
    found = _MODEL_ID.fullmatch(source)
    return found.group(1) if found else None


def logged_model(model_id: str) -> LoggedModel | None:
    """The logged model with this id if it is of this flavor."""
    try:
        logged = MlflowClient().get_logged_model(model_id)
    except MlflowException:
        return None
    return logged if "rnnmod.kind" in logged.tags else None
