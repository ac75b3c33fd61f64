"""A composite as people find it: where its parts have pages, its registered model, its lineage."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import LoggedModelInput, Metric
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.models.model import ModelInfo

from mlflow_rnnmod.composition import Composite
from mlflow_rnnmod.decomposition.module import Module
from mlflow_rnnmod.networks import Parent
from mlflow_rnnmod.pages import card
from mlflow_rnnmod.pages import composite as pages
from mlflow_rnnmod.pages.composite import composite_page
from mlflow_rnnmod.pages.composite_report import composite_report
from mlflow_rnnmod.pages.wording import Saved
from mlflow_rnnmod.tracking import download
from mlflow_rnnmod.tracking.assessment import Assessment, assess
from mlflow_rnnmod.tracking.cards import CARD
from mlflow_rnnmod.tracking.directory import Thing, kind
from mlflow_rnnmod.tracking.registration import ALIAS

_logger = logging.getLogger(__name__)

REPORT, PICTURE = "card/report.html", "card/lineage.svg"
_LONGEST = 1000


def places_of(
    composite: Composite,
    uri: str,
    model: tuple[str, str] | None = None,
    saved: Saved | None = None,
) -> pages.Places:
    """Where a composite's modules and parents have pages on the server in use.

    ``model``: its experiment and model id, where it is logged.
    """
    server = download.server()
    modules = {
        s["label"]: s["model_id"]
        for s in composite.sources
        if s["model_id"] and s["tracking_uri"] in (None, server)
    }
    parents = {
        m.parent.digest: m.parent.model_id
        for m in composite.modules
        if m.parent.model_id and m.parent.tracking_uri in (None, server)
    }
    found = _experiments({*modules.values(), *parents.values()})
    return pages.Places(
        uri,
        model,
        {label: (found[i], i) for label, i in modules.items() if i in found},
        {digest: (found[i], i) for digest, i in parents.items() if i in found},
        server,
        saved,
    )


def _experiments(model_ids: Iterable[str]) -> dict[str, str]:
    """Experiments of LoggedModels by id; those that are not there any more are left out."""
    client, ids = MlflowClient(), list(model_ids)

    def experiment(model_id: str) -> str | None:
        try:
            return str(client.get_logged_model(model_id).experiment_id)
        except MlflowException:
            return None

    with ThreadPoolExecutor(download.THREADS) as pool:
        found = dict(zip(ids, pool.map(experiment, ids), strict=True))
    return {model_id: place for model_id, place in found.items() if place is not None}


def write_pages(
    composite: Composite, folder: Path, places: pages.Places, found: Assessment | None
) -> None:
    """The card, the report and the picture, below a model's folder."""
    (folder / CARD).parent.mkdir(exist_ok=True)
    for name, content in (
        (CARD, pages.composite_page(composite, places, found)),
        (REPORT, composite_report(composite, found)),
        (PICTURE, pages.lineage(composite, found)),
    ):
        (folder / name).write_text(content, encoding="utf-8")


def log_figures(client: MlflowClient, run_id: str, model_id: str, found: Assessment) -> None:
    """A composite's figures, on its model; dated so that the run's own keep their place there."""
    start = client.get_run(run_id).info.start_time
    metrics = [
        Metric(name, value, start, 0, model_id=model_id, run_id=run_id)
        for name, value in found.metrics().items()
    ]
    client.log_batch(run_id, metrics=metrics)


def log_lineage(client: MlflowClient, run_id: str, composite: Composite) -> None:
    """The modules as inputs of the composing run: their pages then list it."""
    places = places_of(composite, "")
    models = [LoggedModelInput(model_id) for _, model_id in places.modules.values()]
    if not models:
        return
    try:
        client.log_inputs(run_id, models=models)
    except MlflowException as error:
        _logger.warning("The run does not list the modules that went in: %s", error)


def dress(
    client: MlflowClient,
    name: str,
    version: str,
    composite: Composite,
    found: Assessment | None,
    first_alias: bool = True,
) -> None:
    """Description, tags and the first alias of a composite's registered model, and its version.

    What others wrote is left as it is; what can't be written is a warning: the version is there.
    """
    try:
        model = client.get_registered_model(name)
        if first_alias:
            name_first(client, name, version)
        for key, value in registered_tags(composite).items():
            if model.tags.get(key) != value:
                client.set_registered_model_tag(name, key, value)
        if not model.description:
            page = pages.registered_page_of(composite, f"models:/{name}@{ALIAS}")
            client.update_registered_model(name, page)
        client.update_model_version(name, version, pages.version_line(composite, found))
    except MlflowException as error:
        _logger.warning("%s/%s is registered, but its page is not whole: %s", name, version, error)


def name_first(client: MlflowClient, name: str, version: str) -> None:
    """Give a version the alias ``champion``, if its registered model has no alias yet.

    An attempt that broke off may have used up the number 1.
    """
    if not client.get_registered_model(name).aliases:
        client.set_registered_model_alias(name, ALIAS, version)


def registered_tags(composite: Composite) -> dict[str, Any]:
    """Tags of a composite's registered model, which the list of models shows."""
    labels = ", ".join(composite.labels)
    return {
        "rnnmod.kind": "composite",
        "rnnmod.labels": labels if len(labels) <= _LONGEST else f"{labels[: _LONGEST - 1]}…",
    }


def write_card(
    thing: Thing,
    path: Path,
    saved_as: Model | None,
    standalone: bool,
    found: Assessment | None,
    saved: Saved | None,
) -> None:
    """The card as a file beside the model; of a composite the report and the picture, too."""
    model_id = getattr(saved_as, "model_id", None)
    uri = f"models:/{model_id}" if model_id else str(path)
    if isinstance(thing, Composite):
        places = places_of(thing, uri, _own_page(model_id), saved)
        write_pages(thing, path, places, found)
        return
    (path / CARD).parent.mkdir(exist_ok=True)
    text = card_of(thing, uri, model_id, standalone)
    (path / CARD).write_text(text, encoding="utf-8")


def card_of(
    thing: Thing,
    uri: str,
    model_id: str | None = None,
    standalone: bool = False,
    found: Assessment | None = None,
    saved: Saved | None = None,
) -> str:
    """The description of a model on its page in MLflow, which its file ``card/README.md`` is, too.

    ``model_id``: of the LoggedModel that is being made of it; ``saved``: of a composite, what
    making it emitted, where that was measured.
    """
    if isinstance(thing, Parent):
        return card.parent_card(thing, uri)
    if isinstance(thing, Module):
        return card.module_card(thing, uri, standalone=standalone, server=download.server())
    return composite_page(thing, places_of(thing, uri, _own_page(model_id), saved), found)


def _own_page(model_id: str | None) -> tuple[str, str] | None:
    """Experiment and id of a LoggedModel that is being made."""
    if model_id is None:
        return None
    try:
        return MlflowClient().get_logged_model(model_id).experiment_id, model_id
    except MlflowException:
        return None


def assessed(thing: Thing, evaluate_on: Any, evaluated_on: str) -> Assessment | None:
    """How good a composite is on given rows; ``None`` without any."""
    if evaluate_on is None:
        return None
    if not isinstance(thing, Composite):
        raise MlflowException.invalid_parameter_value(
            f"evaluate_on is given, and the model is a {kind(thing)}; expected None: composites "
            "have figures on given rows. mlflow.models.evaluate measures any model."
        )
    try:
        return assess(thing, evaluate_on, evaluated_on)
    except (TypeError, ValueError) as error:
        raise MlflowException.invalid_parameter_value(str(error)) from error


def present(
    composite: Composite,
    info: ModelInfo,
    found: Assessment | None,
    name: str | None,
    first_alias: bool,
) -> None:
    """What people find of a composite besides its own page."""
    client = MlflowClient()
    run_id = info.run_id
    if run_id:
        log_lineage(client, run_id, composite)
        if found is not None:
            log_figures(client, run_id, info.model_id, found)
    if name is not None and info.registered_model_version is not None:
        version = str(info.registered_model_version)
        dress(client, name, version, composite, found, first_alias)
