"""Modules whose parent is gone: they can't be loaded, and lists should say so."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from mlflow_rnnmod.tracking.searching import logged_models

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel


def dead_modules(client: MlflowClient, models: Iterable[LoggedModel]) -> set[str]:
    """Ids of the modules among some models that refer to a parent which is not on the server.

    A module finds its parent by id, and else by digest; one that stands alone, or whose parent is
    cached somewhere, may load all the same there.

    Args:
        client: of the server that the models are on.
        models: of any kind.
    """
    referring = [m for m in models if m.params.get("parent_model_id", "bundled") != "bundled"]
    if not referring:
        return set()
    parents = list(logged_models(client, [], ("parent",)))
    alive = {model.model_id for model in parents}
    digests = {model.tags.get("rnnmod.parent") for model in parents}
    return {
        model.model_id
        for model in referring
        if model.params["parent_model_id"] not in alive
        and model.tags.get("rnnmod.parent") not in digests
    }
