"""Registering logged models, so that it can be undone as long as it is not finished."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock

from mlflow import MlflowClient
from mlflow.entities import LoggedModel
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode

_logger = logging.getLogger(__name__)

ALIAS = "champion"
_VERSIONS = "mlflow.modelVersions"
_EXISTS = ErrorCode.Name(RESOURCE_ALREADY_EXISTS)


@dataclass(frozen=True)
class Registration:
    """What becomes one version of one registered model.

    Args:
        name: the registered model's.
        model: the LoggedModel, which is ready.
        tags: of the registered model, where it is new, and of the version.
        version_tags: of the version only.
        description: Markdown, of the registered model where it is new.
        version_description: one line, of the version.
    """

    name: str
    model: LoggedModel
    tags: Mapping[str, str] = field(default_factory=dict)
    version_tags: Mapping[str, str] = field(default_factory=dict)
    description: str | None = None
    version_description: str | None = None


class Registry:
    """Makes registered models and versions, and remembers which, to be able to unmake them.

    Args:
        client: of the server that the models were logged to.
        remote: whether that is a server. A database that is written to directly leaves two things
            to its client: to link a model's page to its versions, and to find out where
            ``models:/<id>`` is, for which it asks the process's own tracking URI.
        current: whether that is where ``client`` writes to, too.
    """

    def __init__(self, client: MlflowClient, remote: bool, current: bool) -> None:
        self._client = client
        self._remote = remote
        self._by_id = remote or current
        self._lock = Lock()
        self._names: list[str] = []
        self._versions: list[tuple[str, str]] = []

    def register(self, what: Registration) -> str:
        """Make a version, and the registered model where there is none.

        A model's first version gets the alias ``champion``; an alias that exists stays where it is.

        Returns:
            The version.
        """
        first = self._create(what)
        model = what.model
        version = self._client.create_model_version(
            what.name,
            f"models:/{model.model_id}" if self._by_id else model.artifact_location,
            run_id=model.source_run_id,
            tags={**what.tags, **what.version_tags},
            description=what.version_description,
            await_creation_for=0,
            model_id=model.model_id,
        )
        with self._lock:
            self._versions.append((what.name, version.version))
        if not self._remote:
            self._link(model, what.name, version.version)
        if first:
            self._client.set_registered_model_alias(what.name, ALIAS, version.version)
        return str(version.version)

    def undo(self) -> bool:
        """Take back all that was registered.

        Returns:
            Whether none of the versions is left; models with versions must stay loadable.
        """
        left = False
        for name, version in reversed(self._versions):
            try:
                self._client.delete_model_version(name, version)
            except Exception as error:  # of whatever kind: the others should still go
                left = True
                _logger.warning(
                    "Version %s of %s could not be taken back: %s", version, name, error
                )
        for name in self._names:
            try:
                if not self._client.search_model_versions(_named(name), max_results=1):
                    self._client.delete_registered_model(name)
            except Exception as error:
                _logger.warning("The empty registered model %s is left: %s", name, error)
        return not left

    def _link(self, model: LoggedModel, name: str, version: str) -> None:
        known = json.loads(self._client.get_logged_model(model.model_id).tags.get(_VERSIONS, "[]"))
        versions = [*known, {"name": name, "version": version}]
        self._client.set_logged_model_tags(model.model_id, {_VERSIONS: json.dumps(versions)})

    def _create(self, what: Registration) -> bool:
        """Make the registered model; whether the version to come is its first."""
        try:
            self._client.create_registered_model(what.name, dict(what.tags), what.description)
        except MlflowException as error:
            if error.error_code != _EXISTS:
                raise
            return not self._client.get_registered_model(what.name).latest_versions
        with self._lock:
            self._names.append(what.name)
        return True


def _named(name: str) -> str:
    """A filter for exactly this name, whichever quotes it holds."""
    return f'name="{name}"' if "'" in name else f"name='{name}'"
