"""Which composites hold a module: told by a tag for each of a composite's modules.

``rnnmod.uses.<slug of the label>`` is the registered version that the module came from, as
``more.irish/1``, or its model id where it had none. It needs neither torch nor the models' files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mlflow_rnnmod.tracking.names import marked_slug, slug, slugs
from mlflow_rnnmod.tracking.searching import (
    logged_models,
    model_id_of,
    name_is,
    quoted,
    registered_versions,
)
from mlflow_rnnmod.tracking.servers import asks

if TYPE_CHECKING:
    from mlflow_rnnmod.composition import Composite

USES = "rnnmod.uses."
_VERSION = re.compile(r"models:/+(?P<name>[^/@]+)(?:/(?P<version>[^/@]+)|@(?P<alias>[^/@]+))?/?")
_MODEL_ID = re.compile(r"models:/+(m-[0-9a-f]{32})/?")


@dataclass(frozen=True)
class Use:
    """A composite that holds a module.

    Args:
        uri: of the composite: its registered version, or its model id.
        label: that the module answers for.
        module: version or model id of the module.
        aliases: of the composite's version.
        model_id: of the composite.
    """

    uri: str
    label: str
    module: str
    aliases: tuple[str, ...]
    model_id: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {**vars(self), "aliases": list(self.aliases)}


def uses_tags(composite: Composite) -> dict[str, str]:
    """Tags of a composite, one for each module that came from somewhere."""
    names = slugs(composite.labels)
    found = {s["label"]: used(s) for s in composite.sources}
    return {f"{USES}{names[label]}": value for label, value in found.items() if value is not None}


def used(source: Mapping[str, Any]) -> str | None:
    """What a tag says of a module that came from ``source``."""
    if source.get("name") and source.get("version"):
        return f"{source['name']}/{source['version']}"
    return source.get("model_id")


@asks()
def where_used(uri: str) -> list[Use]:
    """Composites on the tracking server that hold a module, the newest first.

    Args:
        uri: of the module: ``models:/name/version``, ``models:/name@alias``, ``models:/name`` for
            all its versions, or ``models:/m-...``.

    Returns:
        a :class:`Use` for each registered version of a composite, and for each composite that was
        logged and not registered.

    Raises:
        MlflowException: if there is no such module.

    Example::

        mlflow_rnnmod.where_used("models:/more.irish/1")
    """
    client = MlflowClient()
    wanted = _wanted(client, uri)
    by_key = {key: label for label in wanted.labels for key in (slug(label), marked_slug(label))}
    found: dict[str, Use] = {}
    versions = registered_versions(client)
    for key, label in by_key.items():
        for value in wanted.values:
            for model in logged_models(client, [f"tags.`{USES}{key}` {_condition(value)}"]):
                for use in _uses(model, label, model.tags[f"{USES}{key}"], versions):
                    found.setdefault(use.uri, use)
    return list(found.values())


def _condition(value: str) -> str:
    sign = "LIKE" if value.endswith("/%") else "="
    return f"{sign} {quoted(value)}"


@dataclass(frozen=True)
class _Wanted:
    labels: tuple[str, ...]
    values: tuple[str, ...]


def _wanted(client: MlflowClient, uri: str) -> _Wanted:
    """Labels of the module, and what tags may call it."""
    by_id = _MODEL_ID.fullmatch(uri)
    if by_id is not None:
        model = client.get_logged_model(by_id[1])
        known = [f"{v['name']}/{v['version']}" for v in _versions_tag(model)]
        return _Wanted((_label(model, uri),), (by_id[1], *known))
    named = _VERSION.fullmatch(uri)
    if named is None:
        raise MlflowException.invalid_parameter_value(
            f"uri={uri!r}; expected models:/name/version, models:/name@alias, models:/name or "
            "models:/m-..."
        )
    name, version, alias = named["name"], named["version"], named["alias"]
    if alias is not None:
        version = str(client.get_model_version_by_alias(name, alias).version)
    if version is not None:
        model_id = model_id_of(client.get_model_version(name, version)) or ""
        model = client.get_logged_model(model_id)
        return _Wanted((_label(model, uri),), (f"{name}/{version}", model_id))
    client.get_registered_model(name)  # says what is wrong where there is none
    every = client.search_model_versions(name_is(name))
    labels = {v.tags["rnnmod.label"] for v in every if "rnnmod.label" in v.tags}
    return _Wanted(tuple(sorted(labels)), (f"{name}/%", *filter(None, map(model_id_of, every))))


def _label(model: Any, uri: str) -> str:
    if model.tags.get("rnnmod.kind") != "module":
        raise MlflowException.invalid_parameter_value(
            f"{uri} is a {model.tags.get('rnnmod.kind', 'model of another flavor')}; expected a "
            "module."
        )
    return str(model.tags["rnnmod.label"])


def _versions_tag(model: Any) -> list[dict[str, Any]]:
    import json

    return list(json.loads(model.tags.get("mlflow.modelVersions", "[]")))


def _uses(model: Any, label: str, module: str, versions: Mapping[str, list[Any]]) -> Iterator[Use]:
    known = versions.get(model.model_id, [])
    for version in known:
        uri = f"models:/{version.name}/{version.version}"
        yield Use(uri, label, module, tuple(version.aliases), model.model_id)
    if not known:
        yield Use(f"models:/{model.model_id}", label, module, (), model.model_id)
