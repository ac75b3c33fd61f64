"""Hot swap: a served model that follows an alias.

A new version is loaded beside the one that answers, and takes its place between two requests: each
request takes hold of one model and asks nothing else. What can't be loaded, or reads another kind
of input than is being served, is said once, and the old version goes on answering.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mlflow_rnnmod.tracking import fetch
from mlflow_rnnmod.tracking.aliases import Alias
from mlflow_rnnmod.tracking.directory import answer_in, input_kind
from mlflow_rnnmod.tracking.pyfunc import RnnmodModel
from mlflow_rnnmod.tracking.servers import asks

_logger = logging.getLogger(__name__)

SECONDS = 5.0
"""How often the registry is asked where the alias points."""


@dataclass(frozen=True)
class Served:
    """A version and what answers for it."""

    version: str
    model: RnnmodModel


class FollowingModel:
    """A model behind an alias, which changes as the alias moves.

    It has what :class:`~mlflow_rnnmod.tracking.pyfunc.RnnmodModel` has, so that
    ``mlflow.pyfunc`` and its server take it as any other.

    Args:
        target: ``models:/<name>@<alias>``.
        seconds: how often the registry is asked; 0 for only when :meth:`look` is called.
        model_config: ``device`` and ``batch_size`` of each version.

    Raises:
        MlflowException: if there is no such alias, or its version can't be loaded.
    """

    def __init__(
        self,
        target: str,
        seconds: float = SECONDS,
        model_config: Mapping[str, Any] | None = None,
    ) -> None:
        self._alias = Alias.of(target, "follow")
        self._config = dict(model_config or {})
        self._client = MlflowClient()
        self._looking = threading.Lock()
        self._told: str | None = None
        version = self._alias.version(self._client)
        if version is None:
            raise MlflowException.invalid_parameter_value(
                f"follow={target!r}: there is no such alias on this registry."
            )
        self._served = self._loaded(version)
        self._stop = threading.Event()
        if seconds > 0:
            # Without a reference to it, so that a model that nobody holds any more is let go.
            arguments = weakref.ref(self), self._stop, seconds
            threading.Thread(target=_follow, args=arguments, daemon=True, name="rnnmod").start()
            weakref.finalize(self, self._stop.set)

    @property
    def version(self) -> str:
        """Which version answers now."""
        return self._served.version

    def get_raw_model(self) -> Any:
        """The parent, module or composite that answers now."""
        return self._served.model.get_raw_model()

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:
        """As :meth:`RnnmodModel.predict`, by one version from the first row to the last."""
        return self._served.model.predict(data, params)

    def look(self) -> bool:
        """Ask the registry, and change the model where the alias has moved.

        Returns:
            Whether another version answers from now on. What went wrong is logged, once, and the
            old version stays.
        """
        with self._looking:
            try:
                version = self._alias.version(self._client)
                if version == self.version:
                    return False
                if version is None:
                    raise MlflowException(f"{self._alias.uri} is gone")
                new = self._loaded(version)
                self._check(new)
            except Exception as error:  # whatever a registry, a connection or a file raises
                self._say(str(error))
                return False
            old, self._served, self._told = self._served, new, None
        _logger.info("%s: version %s answers, no longer %s", self._alias.uri, version, old.version)
        return True

    def stop(self) -> None:
        """Follow no more."""
        self._stop.set()

    def _loaded(self, version: str) -> Served:
        thing = fetch.load(f"models:/{self._alias.name}/{version}")
        model = RnnmodModel(thing, self._config)
        return Served(version, model)

    def _check(self, new: Served) -> None:
        """Whether clients can go on asking as they do."""
        before, after = (s.model.get_raw_model() for s in (self._served, new))
        if (input_kind(before), answer_in(before)) != (input_kind(after), answer_in(after)):
            raise MlflowException(
                f"version {new.version} reads {input_kind(after)} and answers "
                f"{answer_in(after).name}, and version {self.version} {input_kind(before)} and "
                f"{answer_in(before).name}"
            )

    def _say(self, problem: str) -> None:
        if problem != self._told:
            self._told = problem
            _logger.warning(
                "%s is not followed, version %s goes on answering: %s",
                self._alias.uri,
                self.version,
                problem,
            )


def _follow(
    model: weakref.ReferenceType[FollowingModel], stop: threading.Event, seconds: float
) -> None:
    while not stop.wait(seconds):
        here = model()
        if here is None:
            return
        here.look()
        del here


@asks()
def follow(target: str, seconds: float = SECONDS, **model_config: Any) -> FollowingModel:
    """A model in this process that follows an alias.

    Args:
        target: ``models:/<name>@<alias>``.
        seconds: how often the registry is asked.
        model_config: ``device`` and ``batch_size``.

    Returns:
        What has ``predict(data, params=None)`` as models of ``mlflow.pyfunc`` have, ``version``,
        ``look()`` and ``stop()``. ``mlflow models serve -m`` serves the same under the URI
        ``rnnmod:/?follow=models:/names@champion``.

    Raises:
        MlflowException: if there is no such alias, or its version can't be loaded.

    Example::

        model = mlflow_rnnmod.follow("models:/names@champion")
        model.predict(["Oberhauser"]), model.version
    """
    return FollowingModel(target, seconds, model_config)
