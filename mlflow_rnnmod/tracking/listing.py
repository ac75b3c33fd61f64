"""What lists show of models, read without ``import mlflow``, which takes two seconds of CPU.

Over HTTP MLflow's interface is asked as its client does. A SQLite database is read where its schema
is a revision known here. All else - other databases, log-ins, workspaces, whatever is refused -
goes through MLflow, which also says what is wrong.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from mlflow_rnnmod.tracking import servers

KINDS = ("module", "parent", "composite")
REVISIONS = frozenset({"dc11669786a5"})
"""Of MLflow's schema, as its migrations name it, that ``_from_sqlite`` was tried with."""
_SECONDS = 120.0
# One of our models that is ready, in an experiment that is there.
_FOUND = """WITH found AS (
    SELECT m.model_id, m.name, m.creation_timestamp_ms AS made
    FROM logged_models m
    JOIN experiments e ON e.experiment_id = m.experiment_id
    JOIN logged_model_tags t ON t.model_id = m.model_id AND t.tag_key = 'rnnmod.kind'
    WHERE m.status = 2 AND m.lifecycle_stage = 'active' AND e.lifecycle_stage = 'active'
        AND e.workspace = 'default' AND (:name IS NULL OR e.name = :name)
        AND t.tag_value IN (:module, :parent, :composite)
) """


@dataclass(frozen=True)
class Listed:
    """A model as lists show it; ``figures`` are its metrics, the last of each."""

    model_id: str
    name: str
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)


def listed(kinds: Sequence[str] = KINDS, experiment: str | None = None) -> list[Listed]:
    """Models of this flavor on the tracking server that are ready, newest first.

    Args:
        kinds: which of ``KINDS``.
        experiment: name of the only one to look in.

    Raises:
        MlflowException: if there is no such experiment.
    """
    uri, found = servers.tracking_uri(), None
    scheme = urlsplit(uri).scheme
    if _needs_mlflow():
        pass
    elif scheme in ("http", "https"):
        found = _over_http(uri.rstrip("/"), kinds, experiment)
    elif scheme == "sqlite":
        found = _from_sqlite(uri, kinds, experiment)
    return list(_by_mlflow(kinds, experiment)) if found is None else found


def dead_modules(models: Iterable[Listed], parents: Iterable[Listed]) -> set[str]:
    """Ids of the modules among some models that refer to a parent which is not on the server.

    A module finds its parent by id, and else by digest; one that stands alone, or whose parent is
    cached somewhere, may load all the same there.
    """
    parents = list(parents)
    alive = {model.model_id for model in parents}
    digests = {model.tags.get("rnnmod.parent") for model in parents}
    return {
        model.model_id
        for model in models
        if model.params.get("parent_model_id", "bundled") not in {"bundled", *alive}
        and model.tags.get("rnnmod.parent") not in digests
    }


def model_filter(kinds: Sequence[str], conditions: Sequence[str] = ()) -> str:
    """A filter of MLflow's for models of some kinds."""
    chosen = ", ".join(f"'{name}'" for name in kinds)
    return " AND ".join([f"tags.`rnnmod.kind` IN ({chosen})", *conditions])


def _needs_mlflow() -> bool:
    """Whether there is more to know than an address: who asks, certificates, a workspace."""
    given = {name for name in os.environ if name.startswith("MLFLOW_")} - {"MLFLOW_TRACKING_URI"}
    own = any(name.startswith("MLFLOW_TRACKING_") or "WORKSPACE" in name for name in given)
    return own or Path("~/.mlflow/credentials").expanduser().is_file()


def _over_http(uri: str, kinds: Sequence[str], experiment: str | None) -> list[Listed] | None:
    """By MLflow's interface; None where it does not answer as expected."""
    import requests

    def pages(what: str, key: str, **asked: Any) -> Iterator[dict[str, Any]]:
        while True:
            url = f"{uri}/api/2.0/mlflow/{what}/search"
            with session.post(url, json=asked, timeout=_SECONDS) as answer:
                answer.raise_for_status()
                page = answer.json()
            yield from page.get(key, ())
            if not page.get("next_page_token"):
                return
            asked["page_token"] = page["next_page_token"]

    def pairs(items: Iterable[dict[str, Any]]) -> dict[str, str]:
        return {item["key"]: item.get("value", "") for item in items}

    try:
        with requests.Session() as session:
            known = list(
                pages("experiments", "experiments", max_results=1000, view_type="ACTIVE_ONLY")
            )
            where = [e["experiment_id"] for e in known if experiment in (None, e["name"])]
            if not where:
                return None
            asked = {"experiment_ids": where, "filter": model_filter(kinds)}
            found = list(pages("logged-models", "models", max_results=100, **asked))
        return [
            Listed(
                info["model_id"],
                info["name"],
                pairs(info.get("tags", ())),
                pairs(data.get("params", ())),
                {m["key"]: float(m.get("value", 0)) for m in data.get("metrics", ())},
            )
            for info, data in ((model["info"], model.get("data", {})) for model in found)
            if info["status"] == "LOGGED_MODEL_READY"
        ]
    except (requests.RequestException, LookupError, TypeError, ValueError):
        return None


def _from_sqlite(uri: str, kinds: Sequence[str], experiment: str | None) -> list[Listed] | None:
    """From MLflow's tables; None where their revision is not known, or they can't be read."""
    given = {kind: kind if kind in kinds else None for kind in KINDS} | {"name": experiment}
    path = quote(urlsplit(uri).path[1:])
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:

            def rows(query: str) -> list[Any]:
                return database.execute(query, given).fetchall()

            if {row[0] for row in rows("SELECT version_num FROM alembic_version")} - REVISIONS:
                return None
            order = "SELECT model_id, name FROM found ORDER BY made DESC, model_id"
            found = {model_id: Listed(model_id, name) for model_id, name in rows(_FOUND + order)}
            for kind in ("tag", "param"):
                for model_id, key, value in rows(
                    f"{_FOUND}SELECT model_id, {kind}_key, {kind}_value "
                    f"FROM logged_model_{kind}s JOIN found USING (model_id)"
                ):
                    getattr(found[model_id], f"{kind}s")[key] = value
            for model_id, key, value in rows(
                f"{_FOUND}SELECT model_id, metric_name, metric_value FROM logged_model_metrics "
                "JOIN found USING (model_id) ORDER BY metric_timestamp_ms, metric_step"
            ):
                found[model_id].figures[key] = value
    except sqlite3.Error:
        return None
    # An experiment that is not there, MLflow says; and no model may mean that there is none.
    return list(found.values()) if found or experiment is None else None


def _by_mlflow(kinds: Sequence[str], experiment: str | None) -> Iterator[Listed]:
    from mlflow import MlflowClient

    from mlflow_rnnmod.tracking.searching import logged_models

    for model in logged_models(MlflowClient(), [], kinds, experiment):
        figures = {metric.key: metric.value for metric in model.metrics or ()}
        yield Listed(model.model_id, model.name, model.tags, model.params, figures)
