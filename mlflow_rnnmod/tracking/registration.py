"""Registering logged models, so that it can be undone as long as it is not finished."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Lock

from mlflow import MlflowClient
from mlflow.entities import LoggedModel
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    RESOURCE_ALREADY_EXISTS,
    RESOURCE_DOES_NOT_EXIST,
    ErrorCode,
)

from mlflow_rnnmod.tracking.searching import name_is, paged

_logger = logging.getLogger(__name__)

ALIAS = "champion"
ATTEMPT = "rnnmod.attempt"
"""Tag of all that one attempt to log has made: what it finds by it, it may take back."""
_VERSIONS = "mlflow.modelVersions"
_EXISTS = ErrorCode.Name(RESOURCE_ALREADY_EXISTS)
_MISSING = ErrorCode.Name(RESOURCE_DOES_NOT_EXIST)


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
        attempt: the id of what is going on, which versions and new models bear as a tag.
    """

    def __init__(self, client: MlflowClient, remote: bool, current: bool, attempt: str) -> None:
        self._client = client
        self._remote = remote
        self._by_id = remote or current
        self._attempt = attempt
        self._lock = Lock()
        # Noted before it is asked for: the answer may be lost though the request was served.
        self._intended: list[Registration] = []
        self._answered: set[str] = set()

    def register(self, what: Registration) -> str:
        """Make a version, and the registered model where there is none.

        The version gets the alias ``champion`` where the model has no alias; one that exists stays
        where it is.
        """
        with self._lock:
            self._intended.append(what)
        first = self._create(what)
        model = what.model
        version = self._client.create_model_version(
            what.name,
            f"models:/{model.model_id}" if self._by_id else model.artifact_location,
            run_id=model.source_run_id,
            tags={**what.tags, **what.version_tags, ATTEMPT: self._attempt},
            description=what.version_description,
            await_creation_for=0,
            model_id=model.model_id,
        )
        if not version.version:
            raise MlflowException(f"The registry gave no number for the version of {what.name}.")
        with self._lock:
            self._answered.add(what.name)
        if not self._remote:
            self._link(model, what.name, version.version)
        if first:
            self._client.set_registered_model_alias(what.name, ALIAS, version.version)
        return str(version.version)

    def undo(self, answers: Callable[[], bool], only_open: bool = False) -> set[str]:
        """Take back all that was registered, whether an answer said so or not.

        Args:
            answers: tells, after a failure, whether it is worth asking on.
            only_open: look only for what no answer said anything of.

        Returns:
            Ids of models that have versions still, or may have: these must stay loadable.
        """
        left: set[str] = set()
        silent = False
        for what in reversed(self._intended):
            if only_open and what.name in self._answered:
                continue
            try:
                if silent:
                    raise MlflowException("the registry does not answer")
                self._take_back(what)
            except Exception as error:  # of whatever kind: the others should still go
                left.add(what.model.model_id)
                if not silent and not only_open:
                    _logger.warning("Version of %s could not be taken back: %s", what.name, error)
                silent = silent or not answers()
        return left

    def _take_back(self, what: Registration) -> None:
        """Delete this attempt's versions of a registered model, and the model if it made it."""
        for version in self._versions_of(what):
            self._client.delete_model_version(what.name, version.version)
        try:
            model = self._client.get_registered_model(what.name)
            mine = model.tags.get(ATTEMPT) == self._attempt
            if mine and not self._client.search_model_versions(name_is(what.name), max_results=1):
                self._client.delete_registered_model(what.name)
        except Exception as error:
            if getattr(error, "error_code", None) != _MISSING:
                _logger.warning("The empty registered model %s is left: %s", what.name, error)

    def _versions_of(self, what: Registration) -> list[ModelVersion]:
        named = name_is(what.name)
        versions = paged(lambda token: self._client.search_model_versions(named, page_token=token))
        return [version for version in versions if version.tags.get(ATTEMPT) == self._attempt]

    def _link(self, model: LoggedModel, name: str, version: str) -> None:
        known = json.loads(self._client.get_logged_model(model.model_id).tags.get(_VERSIONS, "[]"))
        versions = [*known, {"name": name, "version": version}]
        self._client.set_logged_model_tags(model.model_id, {_VERSIONS: json.dumps(versions)})

    def _create(self, what: Registration) -> bool:
        """Make the registered model; whether it has no alias, so that the version to come gets it.

        An attempt that broke off may have left a version, but no alias.
        """
        tags = {**what.tags, ATTEMPT: self._attempt}
        try:
            self._client.create_registered_model(what.name, tags, what.description)
        except MlflowException as error:
            if error.error_code != _EXISTS:
                raise
            return not self._client.get_registered_model(what.name).aliases
        return True
