"""Searches on a tracking server, page after page; without torch, and without files of models."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Experiment, LoggedModel, LoggedModelStatus
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import ErrorCode

from mlflow_rnnmod.tracking.listing import KINDS, model_filter

_MODEL_ID = re.compile(r"models:/(m-[^/@]+)/?")


def paged(ask: Callable[[str | None], Any]) -> Iterator[Any]:
    """What is on all pages of a search, asked for one by one by their tokens."""
    token = None
    while True:
        page = ask(token)
        yield from page
        token = page.token
        if not token:
            return


def experiments(client: MlflowClient, name: str | None = None) -> list[Experiment]:
    """All experiments, or the one with a name: searching models asks to name them."""
    found = list(paged(lambda token: client.search_experiments(page_token=token)))
    if name is None:
        return found
    chosen = [one for one in found if one.name == name]
    if not chosen:
        raise MlflowException.invalid_parameter_value(
            f"experiment={name!r} is not on this tracking server."
            + suggestion(name, [one.name for one in found])
        )
    return chosen


def logged_models(
    client: MlflowClient,
    conditions: Sequence[str] = (),
    kinds: Sequence[str] = KINDS,
    experiment: str | None = None,
) -> Iterator[LoggedModel]:
    """Models of this flavor that are ready, newest first."""
    filters = model_filter(kinds, conditions)
    where = [found.experiment_id for found in experiments(client, experiment)]
    if where:
        models = paged(lambda token: client.search_logged_models(where, filters, page_token=token))
        yield from (model for model in models if model.status == LoggedModelStatus.READY)


def quoted(value: str) -> str:
    """A value as MLflow's filters take it: with the quotes that it does not hold itself.

    Example:
        >>> print(quoted("o'clock"), quoted("names"))
        "o'clock" 'names'
    """
    return f'"{value}"' if "'" in value else f"'{value}'"


def name_is(name: str) -> str:
    """A filter for registered models, or versions of one, of exactly this name."""
    return f"name={quoted(name)}"


def model_id_of(version: ModelVersion) -> str | None:
    """Id of a registered version's model: a database does not fill in the field for it."""
    found = _MODEL_ID.fullmatch(version.source or "")
    return version.model_id or (found[1] if found else None)


def registered_versions(client: MlflowClient) -> dict[str, list[ModelVersion]]:
    """Registered versions by model id, with their aliases, which a search leaves out."""
    found: dict[str, list[ModelVersion]] = defaultdict(list)
    aliases: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, known in registered_aliases(client).items():
        for alias, number in known.items():
            aliases[name, number].append(alias)
    for version in paged(
        lambda token: client.search_model_versions(page_token=token, max_results=10_000)
    ):
        if model_id := model_id_of(version):
            version.aliases = aliases.get((version.name, str(version.version)), [])
            found[model_id].append(version)
    return found


def registered_names(client: MlflowClient) -> list[str]:
    """Names of all registered models."""
    return list(registered_aliases(client))


def registered_aliases(client: MlflowClient) -> dict[str, dict[str, str]]:
    """Versions by alias, of all registered models by name."""
    models = paged(
        lambda token: client.search_registered_models(page_token=token, max_results=1000)
    )
    return {m.name: {a: str(v) for a, v in m.aliases.items()} for m in models}


def near_model(text: str) -> str:
    """What is there, after MLflow's error about a registered model or version that is not."""
    if "Did you mean" in text or "It has" in text:
        return ""
    try:
        if named := _UNKNOWN.search(text):
            return suggestion(named[1], registered_names(MlflowClient()))
        if named := _NO_VERSION.search(text):
            return versions_there(MlflowClient(), named[1])
    except Exception:  # there is an error to tell already
        pass
    return ""


def versions_there(client: MlflowClient, name: str) -> str:
    """A sentence on a registered model's aliases and newest versions."""
    found = client.search_model_versions(name_is(name), max_results=5)
    versions = ", ".join(str(version.version) for version in found) or "no version"
    aliases = client.get_registered_model(name).aliases
    named = "".join(f", @{alias} is {version}" for alias, version in sorted(aliases.items()))
    return f" It has {versions}{named}."


@contextmanager
def near_names() -> Iterator[None]:
    """MLflow's error about a registered model that is not there, with what is there."""
    try:
        yield
    except MlflowException as error:
        text = error.message or str(error)
        if near := near_model(text):
            code = int(ErrorCode.Value(error.error_code))
            raise MlflowException(f"{text}.{near}", error_code=code) from error
        raise


_NO_VERSION = re.compile(r"Model Version \(name=(\S+), version=\S+\) not found")
_UNKNOWN = re.compile(r"Registered Model with name=(\S+) not found")


def suggestion(word: str, known: Sequence[str]) -> str:
    """A question after an error, where something that is there has a similar name.

    Example:
        >>> suggestion("surname.irish", ["surnames.irish", "names"])
        " Did you mean 'surnames.irish'?"
        >>> suggestion("x", ["names"])
        ''
    """
    from difflib import get_close_matches

    near = get_close_matches(word, known, 3, 0.6)
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
