"""What an attempt to log makes, noted before it is asked for, and how it is unmade.

An answer can be lost though the request was served. So each attempt has an id, which everything
that it makes bears as a tag, and what is to be undone is what is *found* by that tag.

The order is what makes every point safe to be stopped at. A parent is ready before its modules, and
they are before their versions. Undoing goes the other way: versions are taken back, then modules
are marked as failed, then they are deleted, and the parent goes last - and only if nothing that is
ready needs it.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelStatus
from mlflow.exceptions import MlflowException

from mlflow_rnnmod.tracking import _mlflow
from mlflow_rnnmod.tracking.download import first_line
from mlflow_rnnmod.tracking.registration import ATTEMPT, Registry
from mlflow_rnnmod.tracking.searching import paged

_logger = logging.getLogger(__name__)
MODULE = "rnnmod-module"


class Ledger:
    """The models and versions of one attempt.

    Args:
        client: of the server that is logged to.
        experiment_id: of the run.
        run_id: the run.
        threads: requests at once.
        remote: see :class:`~mlflow_rnnmod.tracking.registration.Registry`.
        current: see there.
    """

    def __init__(
        self,
        client: MlflowClient,
        experiment_id: str,
        run_id: str,
        threads: int,
        remote: bool,
        current: bool,
    ) -> None:
        self._client = client
        self._experiment_id, self._run_id, self._threads = experiment_id, run_id, threads
        self.id = uuid.uuid4().hex
        self.registry = Registry(client, remote, current, self.id)
        self.made: list[LoggedModel] = []
        self._silent = False

    def create(
        self, name: str, tags: Mapping[str, str], params: dict[str, str], model_type: str
    ) -> LoggedModel:
        """Make a LoggedModel, pending, which bears the attempt's id."""
        model = self._client.create_logged_model(
            self._experiment_id,
            name,
            source_run_id=self._run_id,
            tags={**tags, ATTEMPT: self.id},
            params=params,
            model_type=model_type,
        )
        self.made.append(model)
        return model

    def make_ready(self, model: LoggedModel) -> None:
        """Finalize a model."""
        found = self._client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        if found is None or found.status != LoggedModelStatus.READY:
            raise MlflowException(
                f"The model {model.model_id} was finalized, and the server answers with "
                f"{getattr(found, 'status', found)}; expected READY."
            )

    def tidy(self) -> None:
        """Delete models that were made without an answer, and then made again."""
        known = {model.model_id for model in self.made}
        found = self._found(self._mine) or ()
        strays = [model for model in found if model.model_id not in known]
        self._each(self._fail, strays, "marked as failed")
        self._each(self._delete, strays, "deleted")

    def undo(self) -> None:
        """Leave nothing behind that can't be loaded; what can't be undone is warned of."""
        with _mlflow.brief_requests():
            needed = self.registry.undo(self._answers)
            known = {model.model_id: model for model in self.made}
            known.update({model.model_id: model for model in self._found(self._mine) or ()})
            modules = [m for m in known.values() if m.model_type == MODULE]
            parents = [m for m in known.values() if m.model_type != MODULE]
            going = [model for model in modules if model.model_id not in needed]
            failed = self._each(self._fail, going, "marked as failed")
            deleted = self._each(self._delete, going, "deleted")
            gone = {model.model_id for model in [*failed, *deleted]}
            # A version whose answer was lost may have come into being only now.
            needed |= self.registry.undo(self._answers, only_open=True)
            left = [m.model_id for m in modules if m.model_id not in gone]
            for parent in parents:
                found = ["its version"] if parent.model_id in needed else self._needing(parent)
                needs = [*left, *needed] if found is None else found
                if needs:
                    _logger.warning(
                        "The parent %s is left, as what may be ready needs it: %s",
                        parent.model_id,
                        ", ".join(needs),
                    )
                    continue
                self._each(self._fail, [parent], "marked as failed")
                self._each(self._delete, [parent], "deleted")

    @property
    def _mine(self) -> str:
        return f"tags.`{ATTEMPT}` = '{self.id}'"

    def _needing(self, parent: LoggedModel) -> list[str] | None:
        """Models that need a parent: those that are ready, and those of another attempt.

        ``None`` where the server does not say.
        """
        digest = parent.tags.get("rnnmod.parent")
        found = self._found(
            f"source_run_id = '{self._run_id}' AND model_type = '{MODULE}' "
            f"AND tags.`rnnmod.parent` = '{digest}'"
        )
        if found is None:
            return None
        return [
            model.model_id
            for model in found
            if model.params.get("parent_model_id") == parent.model_id
            and model.status != LoggedModelStatus.FAILED
            and (model.status == LoggedModelStatus.READY or model.tags.get(ATTEMPT) != self.id)
        ]

    def _found(self, query: str) -> list[LoggedModel] | None:
        """Models that a search gives; ``None`` where it is not answered."""
        where, search = [self._experiment_id], self._client.search_logged_models
        try:
            return list(paged(lambda token: search(where, query, page_token=token)))
        except Exception as error:  # of whatever kind
            _logger.warning("Models of this attempt can't be searched: %s", first_line(error))
            return None

    def _each(
        self, undo: Callable[[LoggedModel], None], models: Sequence[LoggedModel], what: str
    ) -> list[LoggedModel]:
        """Those for which it worked."""

        def one(model: LoggedModel) -> LoggedModel | None:
            try:
                if self._silent:
                    raise MlflowException("the server does not answer")
                undo(model)
            except Exception as error:  # of whatever kind: the others should still go
                _logger.warning(
                    "Model %s could not be %s: %s", model.model_id, what, first_line(error)
                )
                self._answers()
                return None
            return model

        with ThreadPoolExecutor(self._threads) as pool:
            return [model for model in pool.map(one, reversed(models)) if model is not None]

    def _answers(self) -> bool:
        """Whether the server answers at all, after it failed to: else nothing more is asked."""
        if not self._silent:
            try:
                self._client.get_experiment(self._experiment_id)
            except Exception:
                self._silent = True
        return not self._silent

    def _fail(self, model: LoggedModel) -> None:
        found = self._client.finalize_logged_model(model.model_id, LoggedModelStatus.FAILED)
        if found is not None and found.status != LoggedModelStatus.FAILED:
            raise MlflowException(f"the server answers that it is {found.status}")

    def _delete(self, model: LoggedModel) -> None:
        self._client.delete_logged_model(model.model_id)
