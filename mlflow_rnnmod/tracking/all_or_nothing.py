"""Logging and registering one model so that all of it is taken back where it fails."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow import MlflowClient

from mlflow_rnnmod.composition import Composite
from mlflow_rnnmod.tracking import flavor
from mlflow_rnnmod.tracking.registration import ATTEMPT
from mlflow_rnnmod.tracking.searching import experiments, name_is

if TYPE_CHECKING:
    from mlflow.models.model import ModelInfo

    from mlflow_rnnmod.tracking.directory import Thing
    from mlflow_rnnmod.tracking.given import Given

_logger = logging.getLogger(__name__)


def log_or_leave_nothing(
    thing: Thing,
    name: str,
    registered: str | None = None,
    tags: Mapping[str, str] | None = None,
    rows: Given | None = None,
) -> ModelInfo:
    """Log a model, and register it; what is interrupted leaves nothing behind."""
    attempt = Attempt(MlflowClient())
    try:
        return attempt.log(thing, name, registered, tags, rows)
    except BaseException:  # Ctrl-C too
        attempt.undo()
        raise


class Attempt:
    """One attempt, and what it has made so far."""

    def __init__(self, client: MlflowClient) -> None:
        self.client = client
        self._token = uuid.uuid4().hex
        self._undo: list[tuple[str, Callable[[], Any]]] = []

    def log(
        self,
        thing: Thing,
        name: str,
        registered: str | None,
        tags: Mapping[str, str] | None = None,
        rows: Given | None = None,
        first_alias: bool = True,
    ) -> ModelInfo:
        """Log and register it; the first version gets ``champion`` now, or it is left for later."""
        # Until it is known what was made, it is found by a tag, wherever this is interrupted.
        if registered is not None and not self._is_known(registered):
            self.later(f"model {registered}", self._delete_empty, registered)
        self.later("the new model", self._delete_tagged)
        marked = {**(tags or {}), ATTEMPT: self._token}
        figures: dict[str, Any] = {}
        if rows is not None and rows.targets and isinstance(thing, Composite):
            figures = {"evaluate_on": rows.pair, "evaluated_on": rows.name}
        own = mlflow.active_run() is None
        info = flavor.log_model(
            thing,
            name=name,
            registered_model_name=registered,
            tags=marked,
            first_alias=first_alias,
            **figures,
        )
        self._undo.pop()
        if own and info.run_id:
            self.later("its run", self.client.delete_run, info.run_id)
        self.later("the new model", self.client.delete_logged_model, info.model_id)
        if registered is not None:
            version = str(info.registered_model_version)
            what = f"version {version} of {registered}"
            self.later(what, self.client.delete_model_version, registered, version)
            self.client.delete_model_version_tag(registered, version, ATTEMPT)
        self.client.delete_logged_model_tag(info.model_id, ATTEMPT)
        return info

    def _is_known(self, registered: str) -> bool:
        return bool(self.client.search_registered_models(name_is(registered)))

    def _delete_empty(self, registered: str) -> None:
        """Delete a registered model that was made here and has no version."""
        if self._is_known(registered) and not self.client.search_model_versions(
            name_is(registered), max_results=1
        ):
            self.client.delete_registered_model(registered)

    def _delete_tagged(self) -> None:
        tag = f"tags.`{ATTEMPT}` = '{self._token}'"
        for version in self.client.search_model_versions(tag):
            self.client.delete_model_version(version.name, version.version)
        where = [e.experiment_id for e in experiments(self.client)]
        for model in self.client.search_logged_models(where, tag):
            self.client.delete_logged_model(model.model_id)

    def later(self, what: str, undo: Callable[..., Any], *arguments: Any) -> None:
        """Remember how something is taken back."""
        self._undo.append((what, lambda: undo(*arguments)))

    def undo(self) -> None:
        """Take back what was written, the last thing first; what can't be is warned of."""
        for what, undo in reversed(self._undo):
            try:
                undo()
            except Exception as error:  # of whatever kind: the others should still go
                _logger.warning("%s could not be taken back: %s", what, error)
