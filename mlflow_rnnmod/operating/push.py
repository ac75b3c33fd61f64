"""A model to another server: with its figures, its tags, its parent and its modules.

What was pushed before is found there by where it came from, and not pushed again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, Metric
from mlflow.exceptions import MlflowException

from mlflow_rnnmod.composition import Composite
from mlflow_rnnmod.decomposition.module import Module
from mlflow_rnnmod.tracking import download, fetch, record
from mlflow_rnnmod.tracking.all_or_nothing import log_or_leave_nothing
from mlflow_rnnmod.tracking.directory import kind
from mlflow_rnnmod.tracking.names import check_registered_name
from mlflow_rnnmod.tracking.searching import logged_models, model_id_of, registered_versions
from mlflow_rnnmod.tracking.servers import asks

if TYPE_CHECKING:
    from mlflow_rnnmod.tracking.directory import Thing

FROM = "rnnmod.pushed_from"
"""Tag of a pushed model: model id and server that it came from."""
_KEPT = ("rnnmod.gate", "rnnmod.stale")
_OWN = ("rnnmod.", "mlflow.")


@dataclass(frozen=True)
class Pushed:
    """What became of one model.

    Args:
        kind: ``"parent"``, ``"module"`` or ``"composite"``.
        source: its URI on the first server.
        uri: its URI on the other one; ``None`` where that was only said (``dry_run``).
        new: whether it was pushed now; else it was there.
    """

    kind: str
    source: str
    uri: str | None
    new: bool

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return dict(vars(self))


@dataclass(frozen=True)
class _Source:
    """What the first server knows of a model."""

    thing: Thing
    model: LoggedModel
    registered: str | None
    description: str | None
    tags: dict[str, str]

    @property
    def mark(self) -> str:
        return f"{self.model.model_id} {download.server()}"[:1000]


@asks()
def push(uri: str, to: str, register: str | None = None, dry_run: bool = False) -> list[Pushed]:
    """Copy a model to another server.

    A module takes its parent along, a composite its modules: what they came from there are the
    copies. Registered models keep their names; aliases stay where they are.

    Args:
        uri: on the server in use.
        to: the other tracking server.
        register: name of its registered model there, instead of the one it has.
        dry_run: say what would be pushed.

    Returns:
        what was pushed, or was there: parents, then modules, then what was asked for.

    Raises:
        MlflowException: if something can't be found, or the other server refuses it. What was
            begun there is taken back; models that were pushed whole stay.
    """
    if register is not None:
        check_registered_name(register, "register")
    if to.rstrip("/") == mlflow.get_tracking_uri().rstrip("/"):
        raise MlflowException.invalid_parameter_value(
            f"to={to!r} is the server that {uri} is on; expected another one."
        )
    main = _source(uri)
    if register is not None:
        main = replace(main, registered=register)
    parts = _parts(main.thing)
    if dry_run:
        every = [*parts.values(), main]
        return [Pushed(kind(s.thing), f"models:/{s.model.model_id}", None, True) for s in every]
    marks = {label: source.mark for label, source in parts.items()}
    mark = main.mark
    done = []
    with _server(to):
        moved: dict[str, Module] = {}
        for label, source in parts.items():
            pushed = _pushed(source, marks[label])
            done.append(pushed)
            assert pushed.uri is not None
            moved[label] = fetch.load(pushed.uri)  # type: ignore[assignment]
        if isinstance(main.thing, Composite):
            modules = tuple(
                replace(m, origin=moved[m.label].origin, parent=moved[m.label].parent)
                if m.label in moved
                else m
                for m in main.thing.modules
            )
            main = replace(main, thing=replace(main.thing, modules=modules))
        done.append(_pushed(main, mark))
    return done


def _parts(thing: Thing) -> dict[str, _Source]:
    """Modules of a composite that are on the first server, by label."""
    if not isinstance(thing, Composite):
        return {}
    found = {}
    for source in thing.sources:
        if source["model_id"]:
            try:
                found[source["label"]] = _source(f"models:/{source['model_id']}")
            except MlflowException:  # gone; the composite has it bundled
                continue
    return found


def _source(uri: str) -> _Source:
    client = MlflowClient()
    thing = fetch.load(uri)
    origin = fetch.origin_of(uri)
    model_id = fetch.model_id_of(origin)
    if model_id is None:
        raise MlflowException.invalid_parameter_value(
            f"{uri} is no logged model; expected models:/..."
        )
    model = client.get_logged_model(model_id)
    known = registered_versions(client).get(model_id, [])
    if "version" in origin:
        known = [
            v for v in known if (v.name, str(v.version)) == (origin["name"], origin["version"])
        ]
    version = known[-1] if known else None
    tags = {k: v for k, v in (version.tags if version else {}).items() if k in _KEPT}
    tags |= {k: v for k, v in model.tags.items() if not k.startswith(_OWN)}
    name = None if version is None else version.name
    return _Source(thing, model, name, version.description if version else None, tags)


def _pushed(source: _Source, mark: str) -> Pushed:
    """Push one model to the server in use, unless it is there."""
    client = MlflowClient()
    what, first = kind(source.thing), f"models:/{source.model.model_id}"
    for model in logged_models(client, kinds=[what]):
        if model.tags.get(FROM) == mark:
            return Pushed(what, first, _uri_of(client, model.model_id), False)
    name = source.model.name or what
    with mlflow.start_run(run_name=f"push {name}", tags={"rnnmod.role": "push", FROM: mark}) as run:
        tags = {FROM: mark, **source.tags}
        info = log_or_leave_nothing(source.thing, name, source.registered, tags)
        _log_figures(client, run.info.run_id, info.model_id, source.model)
    if source.registered is None:
        return Pushed(what, first, info.model_uri, True)
    version = str(info.registered_model_version)
    if source.description:
        client.update_model_version(source.registered, version, source.description)
    return Pushed(what, first, f"models:/{source.registered}/{version}", True)


def _log_figures(client: MlflowClient, run_id: str, model_id: str, model: LoggedModel) -> None:
    now = int(time.time() * 1000)
    metrics = [
        Metric(
            m.key,
            m.value,
            m.timestamp or now,
            m.step or 0,
            model_id=model_id,
            run_id=run_id,
            dataset_name=m.dataset_name,
            dataset_digest=m.dataset_digest,
        )
        for m in model.metrics or ()
    ]
    record.log_metrics(client, run_id, metrics)


def _uri_of(client: MlflowClient, model_id: str) -> str:
    for version in registered_versions(client).get(model_id, []):
        if model_id_of(version) == model_id:
            return f"models:/{version.name}/{version.version}"
    return f"models:/{model_id}"


@contextmanager
def _server(uri: str) -> Iterator[None]:
    """Another server in the place of the one in use, for models and for the registry."""
    before, registry = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    try:
        mlflow.set_tracking_uri(uri)
        if registry != before:
            mlflow.set_registry_uri(uri)
        yield
    finally:
        mlflow.set_tracking_uri(before)
        if registry != before:
            mlflow.set_registry_uri(registry)
