"""Aliases of registered models: where they point, what they pointed at before, moved one at a time.

A registry knows no "move it if it is still there". So that two that move an alias at once do not
undo each other, each says first that it is about to (a tag of the registered model with a name of
its own), then looks whether anybody else says so, and moves the alias only where nobody does: of
two at least one sees the other.
"""

from __future__ import annotations

import logging
import random
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INVALID_STATE,
    RESOURCE_DOES_NOT_EXIST,
    ErrorCode,
)

_logger = logging.getLogger(__name__)

BEFORE = "rnnmod.before."
"""Tag of a version: what the alias behind the dot pointed at before it came here."""
_CLAIM = "rnnmod.moving."
_STALE = 60.0  # seconds after which a claim is taken for that of a process that died
_TRIES = 8
_TARGET = re.compile(r"models:/+(?P<name>[^/@]+)@(?P<alias>[^/@]+)/?")
_MISSING = {ErrorCode.Name(code) for code in (RESOURCE_DOES_NOT_EXIST,)}


@dataclass(frozen=True)
class Alias:
    """An alias of a registered model, as ``models:/<name>@<alias>`` names it."""

    name: str
    alias: str

    @property
    def uri(self) -> str:
        """``models:/<name>@<alias>``."""
        return f"models:/{self.name}@{self.alias}"

    @classmethod
    def of(cls, uri: str, argument: str = "target") -> Alias:
        """The alias that a URI names.

        Example:
            >>> Alias.of("models:/names@champion")
            Alias(name='names', alias='champion')
        """
        found = _TARGET.fullmatch(str(uri))
        if found is None:
            raise MlflowException.invalid_parameter_value(
                f"{argument}={uri!r}; expected models:/<name>@<alias>, as models:/names@champion."
            )
        return cls(**found.groupdict())

    def version(self, client: MlflowClient) -> str | None:
        """The version it points at; ``None`` where there is no such alias, or no such model."""
        try:
            return str(client.get_model_version_by_alias(self.name, self.alias).version)
        except MlflowException as error:
            if self._is_missing(client, error):
                return None
            raise

    def _is_missing(self, client: MlflowClient, error: MlflowException) -> bool:
        """Whether an error says that the alias is not there: stores have several codes for it."""
        if error.error_code in _MISSING:
            return True
        try:
            return self.alias not in client.get_registered_model(self.name).aliases
        except MlflowException as other:
            if other.error_code in _MISSING:
                return True
            raise error from other

    def move(
        self,
        client: MlflowClient,
        version: str,
        expected: str | None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Point it at ``version``, if it still points at ``expected``."""
        with self._claimed(client, sleep):
            found = self.version(client)
            if found == version:
                return
            if found != expected:
                raise MlflowException(
                    f"{self.uri} points at version {found} by now, and not at {expected} any more: "
                    "somebody else moved it in the meantime. Nothing was changed; try again.",
                    error_code=INVALID_STATE,
                )
            client.set_registered_model_alias(self.name, self.alias, version)

    @contextmanager
    def _claimed(self, client: MlflowClient, sleep: Callable[[float], None]) -> Iterator[None]:
        own = f"{_CLAIM}{self.alias}.{uuid.uuid4().hex[:12]}"
        try:
            for attempt in range(_TRIES):
                client.set_registered_model_tag(self.name, own, f"{time.time():.3f}")
                others = self._others(client, own)
                if not others:
                    break
                client.delete_registered_model_tag(self.name, own)
                # Both may have seen each other: who waits longer finds the other one gone.
                sleep(random.uniform(0.1, 0.3) * 2 ** min(attempt, 3))
            else:
                raise MlflowException(
                    f"Somebody else is moving {self.uri} (tag {others[0]} of {self.name}). Nothing "
                    f"was changed; try again. A tag that a dead process left counts for {_STALE:g} "
                    "seconds.",
                    error_code=INVALID_STATE,
                )
            yield
        finally:
            # What can't be taken back counts for a while and is then passed over.
            with suppress(Exception):
                client.delete_registered_model_tag(self.name, own)

    def _others(self, client: MlflowClient, own: str) -> list[str]:
        now, found = time.time(), []
        for key, value in client.get_registered_model(self.name).tags.items():
            if key.startswith(f"{_CLAIM}{self.alias}.") and key != own:
                if now - _number(value) < _STALE:
                    found.append(key)
                else:
                    with suppress(Exception):
                        client.delete_registered_model_tag(self.name, key)
        return found


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
