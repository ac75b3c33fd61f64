"""One attempt to log a decomposition; nothing is ready before what it needs."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    LoggedModel,
    LoggedModelOutput,
    LoggedModelStatus,
    Run,
)
from mlflow.models import Model

from mlflow_rnnmod.pages.card import module_card, parent_card, registered_card
from mlflow_rnnmod.pages.markdown import artifact_page, model_page, models_page
from mlflow_rnnmod.pages.report import (
    INDEX,
    PAGE,
    TABLE,
    Entry,
    summary,
    write_index,
    write_pictures,
)
from mlflow_rnnmod.storage import without_credentials
from mlflow_rnnmod.tracking import _mlflow, code, parents, record
from mlflow_rnnmod.tracking.cards import CARD
from mlflow_rnnmod.tracking.directory import (
    hidden_tags,
    model_directory,
    model_tags,
    type_of_model,
)
from mlflow_rnnmod.tracking.download import check_stored, digests_in
from mlflow_rnnmod.tracking.environment import environment_files, own_requirement
from mlflow_rnnmod.tracking.jobs import Progress, raise_first_failure, tell, wait, workers
from mlflow_rnnmod.tracking.logged import LoggedDecomposition
from mlflow_rnnmod.tracking.names import registered_name, slugs
from mlflow_rnnmod.tracking.registration import ALIAS, Registration
from mlflow_rnnmod.tracking.undo import MODULE, Ledger

if TYPE_CHECKING:
    from mlflow_rnnmod.decomposition import Decomposition
    from mlflow_rnnmod.decomposition.module import Module
    from mlflow_rnnmod.networks import Parent

_logger = logging.getLogger(__name__)

FOLDER = "rnnmod"
PARENT_RUN = "mlflow.parentRunId"
_THREADS = 8


class Attempt:
    """One attempt to log a decomposition, and what it has made so far."""

    def __init__(
        self,
        client: MlflowClient,
        uri: str,
        run: Run,
        decomposition: Decomposition,
        prefix: str | None,
        dataset: Dataset | None,
    ) -> None:
        self.client, self.uri, self.run = client, uri, run
        self.decomposition, self.prefix, self.dataset = decomposition, prefix, dataset
        self.run_id, self.experiment_id = run.info.run_id, run.info.experiment_id
        self.slugs = slugs(module.label for module in decomposition.modules)
        # Models of two parents differ in name.
        self.names = {y: f"{s}-{decomposition.parent.digest[:6]}" for y, s in self.slugs.items()}
        remote = uri.startswith(("http://", "https://", "databricks"))
        # A SQLite file takes one writer at a time: threads would only wait for each other.
        self.threads = _THREADS if remote else 1
        current = uri == mlflow.get_tracking_uri()
        self.ledger = Ledger(client, self.experiment_id, self.run_id, self.threads, remote, current)
        self.tags = {**_mlflow.resolve_tags(), **record.shared_tags(decomposition.parent)}
        self.environment = environment_files()
        self.borrows = False
        """Whether the parent's model carries the code that modules need."""
        self.figures_run: str | None = None

    def log(self, progress: Progress) -> LoggedDecomposition:
        """Log everything, in an order in which nothing is ready before what it needs."""
        with tempfile.TemporaryDirectory(prefix="rnnmod-") as folder:
            scratch, reports = Path(folder), Path(folder, FOLDER)
            reports.mkdir()
            write_pictures(self.decomposition, reports)
            parent = self._known_parent()
            models = self._create_modules(progress)
            parent = self._upload_parent(parent, scratch)
            self._upload_modules(parent, models, scratch, progress)
            self._finalize(progress)
            self._log_figures(parent, models)
            logged = self._register(parent, models, progress)
            self._log_reports(logged, reports)
        outputs = [LoggedModelOutput(model.model_id, step=0) for model in self.ledger.made]
        self.client.log_outputs(self.run_id, outputs)
        self.ledger.tidy()
        return logged

    def undo(self) -> None:
        """Leave nothing behind that can't be loaded; what can't be undone is warned of."""
        self.ledger.undo()
        if self.figures_run is not None:
            try:
                with _mlflow.brief_requests():
                    self.client.delete_run(self.figures_run)
            except Exception as error:  # of whatever kind: what went wrong before is what is raised
                _logger.warning("The run %s of figures is left: %s", self.figures_run, error)

    def _known_parent(self) -> LoggedModel | None:
        """The parent's model that this run has already, if it is ready and can be read."""
        parent = self.decomposition.parent
        found = self.client.search_logged_models(
            [self.experiment_id],
            f"source_run_id = '{self.run_id}' AND model_type = '{type_of_model(parent)}' "
            f"AND tags.`rnnmod.parent` = '{parent.digest}'",
        )
        tried: list[str] = []
        for model in found:
            if model.status == LoggedModelStatus.READY:
                if parents.is_readable(self.client, self.uri, model.model_id, parent, tried):
                    return model
                _logger.warning("A parent of this run is not used again: %s", tried[-1])
        return None

    def _create_modules(self, progress: Progress) -> dict[str, LoggedModel]:
        """A model for each module, pending; by label, in the labels' order.

        MLflow lists the newest model first, and of many models the newest alone in its list of
        runs: so the last label's is made first, and the parent after all of them.
        """
        modules = self.decomposition.modules
        models = {}
        for done, module in enumerate(reversed(modules), 1):
            params = record.module_params(module, None, self.dataset)
            models[module.label] = self._create(module, self.names[module.label], params)
            progress("create", done, len(modules))
        return {module.label: models[module.label] for module in modules}

    def _upload_parent(self, known: LoggedModel | None, scratch: Path) -> LoggedModel:
        """The parent's model with its files; the one that is known, where there is one."""
        parent = self.decomposition.parent
        if known is not None:
            tag = known.tags.get(code.TAG)
            self.borrows = tag == code.archive_digest() and own_requirement() is None
            return known
        name = f"parent-{parent.digest[:6]}"
        model = self._create(parent, name, record.parent_params(parent))
        card = parent_card(
            parent,
            f"models:/{model.model_id}",
            record.parent_figures(self.decomposition),
            self.decomposition.rows.get("figures"),
            f"runs:/{self.run_id}",
        )
        self._upload(parent, model, card, scratch)
        self.borrows = own_requirement() is None
        return model

    def _upload_modules(
        self,
        parent: LoggedModel,
        models: Mapping[str, LoggedModel],
        scratch: Path,
        progress: Progress,
    ) -> None:
        """The files of all modules, side by side; each says where its parent is."""
        known = self.decomposition.parent.known_as(parent.model_id, without_credentials(self.uri))
        link = model_page(self.experiment_id, parent.model_id)
        modules = [replace(module, parent=known) for module in self.decomposition.modules]
        with workers(self.threads) as pool:
            uploads: list[Future[None]] = []
            for module in modules:
                raise_first_failure(uploads)
                model = models[module.label]
                others = [models[y].model_id for y in models if y != module.label][:2]
                uris = [f"models:/{model_id}" for model_id in others]
                card = module_card(module, f"models:/{model.model_id}", uris, link)
                more = {"parent_model_id": parent.model_id}
                uploads.append(pool.submit(self._upload, module, model, card, scratch, more))
                tell(progress, "upload", uploads, len(modules))
            wait(uploads, "upload", progress)

    def _create(self, thing: Parent | Module, name: str, params: dict[str, str]) -> LoggedModel:
        tags = {**self.tags, **model_tags(thing), **hidden_tags(thing)}
        return self.ledger.create(name, tags, params, type_of_model(thing))

    def _upload(
        self,
        thing: Parent | Module,
        model: LoggedModel,
        card: str,
        scratch: Path,
        params: Mapping[str, str] | None = None,
    ) -> None:
        """A model's card, which names it, what came to be known of it since, and its files."""
        _mlflow.describe(self.client, model.model_id, {record.NOTE: card}, params or {})
        folder = scratch / model.model_id
        location = model.artifact_location
        model_directory(
            thing,
            folder,
            self.environment,
            Model(
                artifact_path=location,
                model_uuid=model.model_id,
                run_id=self.run_id,
                model_id=model.model_id,
            ),
            borrows=self.borrows,
        )
        (folder / CARD).parent.mkdir()
        (folder / CARD).write_text(card, encoding="utf-8")
        # The client would ask for each model's location again.
        _mlflow.get_artifact_repository(location, tracking_uri=self.uri).log_artifacts(str(folder))
        check_stored(location, digests_in(folder), f"Model {model.name}", self.uri)
        shutil.rmtree(folder)

    def _finalize(self, progress: Progress) -> None:
        """Make the models ready: the parent before what needs it."""
        made = self.ledger.made
        for model in made:
            if model.model_type != MODULE:
                self.ledger.make_ready(model)
        modules = [model for model in made if model.model_type == MODULE]
        with workers(self.threads) as pool:
            futures = [pool.submit(self.ledger.make_ready, model) for model in modules]
            wait(futures, "finalize", progress)

    def _log_figures(self, parent: LoggedModel, models: Mapping[str, LoggedModel]) -> None:
        rows = self.decomposition.rows.get("figures", "")
        if self.dataset:
            self.client.log_inputs(self.run_id, [record.dataset_input(self.dataset, rows)])
        start = self.run.info.start_time
        metrics = record.run_metrics(self.decomposition, int(time.time() * 1000))
        if parent in self.ledger.made:  # else it has them, and MLflow would refuse a second time
            metrics += record.parent_metrics(
                self.decomposition, parent.model_id, self.run_id, start, self.dataset
            )
        record.log_metrics(self.client, self.run_id, metrics)
        ids = {label: model.model_id for label, model in models.items()}
        tags = {**_mlflow.resolve_tags(), PARENT_RUN: self.run_id, "rnnmod.role": "figures"}
        name = f"figures of the modules of {self.prefix or self.decomposition.parent.digest[:6]}"
        run = self.client.create_run(self.experiment_id, tags=tags, run_name=name)
        self.figures_run = run.info.run_id
        metrics = record.module_metrics(self.decomposition, ids, self.figures_run, self.dataset)
        record.log_metrics(self.client, self.figures_run, metrics)
        self.client.set_terminated(self.figures_run)

    def _register(
        self, parent: LoggedModel, models: Mapping[str, LoggedModel], progress: Progress
    ) -> LoggedDecomposition:
        """Register the models where a prefix is given; where everything is, either way."""
        ids = {label: model.model_id for label, model in models.items()}
        logged = LoggedDecomposition(
            run_id=self.run_id,
            experiment_id=self.experiment_id,
            tracking_uri=self.uri,
            parent_model_id=parent.model_id,
            parent_uri=f"models:/{parent.model_id}",
            model_ids=ids,
            uris={label: f"models:/{model_id}" for label, model_id in ids.items()},
        )
        if self.prefix is None:
            return logged
        what = self._registration_of_parent(self.prefix, parent)
        version = self.ledger.registry.register(what)
        with workers(self.threads) as pool:
            futures = {
                module.label: pool.submit(
                    self.ledger.registry.register,
                    self._registration_of_module(self.prefix, module, models[module.label]),
                )
                for module in self.decomposition.modules
            }
            wait(list(futures.values()), "register", progress)
        names = {label: registered_name(self.prefix, self.slugs[label]) for label in ids}
        versions = {label: future.result() for label, future in futures.items()}
        return replace(
            logged,
            parent_uri=f"models:/{what.name}/{version}",
            uris={label: f"models:/{names[label]}/{versions[label]}" for label in ids},
            registered_names=names,
            versions=versions,
            parent_registered_name=what.name,
            parent_version=version,
        )

    def _registration_of_parent(self, prefix: str, model: LoggedModel) -> Registration:
        parent, name = self.decomposition.parent, registered_name(prefix)
        tags = model_tags(parent)
        shared = {"rnnmod.parent": tags.pop("rnnmod.parent")[:12]}
        size, output = parent.input_size, parent.network.config.output
        modules = [self._uri(module) for module in self.decomposition.modules[:3]]
        card = registered_card(
            None, parent.input_kind, size, f"models:/{name}@{ALIAS}", modules, output
        )
        return Registration(name, model, tags, shared, card)

    def _registration_of_module(
        self, prefix: str, module: Module, model: LoggedModel
    ) -> Registration:
        tags = model_tags(module)
        of_version = {"rnnmod.parent": tags.pop("rnnmod.parent")[:12]}
        contract = module.contract
        card = registered_card(
            module.label,
            contract.input,
            contract.input_size,
            self._uri(module),
            self._others(module),
            contract.output,
        )
        name = registered_name(prefix, self.slugs[module.label])
        return Registration(name, model, tags, of_version, card, record.version_words(module))

    def _log_reports(self, logged: LoggedDecomposition, reports: Path) -> None:
        entries = [
            Entry(
                module,
                self.names[module.label],
                logged.model_ids[module.label],
                logged.registered_names.get(module.label),
                logged.versions.get(module.label),
            )
            for module in self.decomposition.modules
        ]
        write_index(
            self.decomposition, entries, reports, self.experiment_id, logged.parent_model_id
        )
        self.client.log_artifacts(self.run_id, str(reports), FOLDER)
        words = summary(self.decomposition, self.experiment_id, logged.parent_model_id)
        words = f"{self._links(logged)}\n\n{words}"
        tags = record.run_tags(self.decomposition, self.run.data.tags, words, f"{FOLDER}/{TABLE}")
        self.client.log_batch(self.run_id, tags=tags)

    def _links(self, logged: LoggedDecomposition) -> str:
        """What the run's description begins with."""
        index, report = (
            artifact_page(self.experiment_id, self.run_id, f"{FOLDER}/{name}")
            for name in (INDEX, PAGE)
        )
        parent = model_page(self.experiment_id, logged.parent_model_id)
        return (
            f"{record.LINKS}[all, worst first]({index}) · [report]({report}) · "
            f"[the network that they are of]({parent}) · "
            f"[list of models]({models_page(self.experiment_id)})"
        )

    def _uri(self, module: Module) -> str:
        """What the registered model's page says that a module can be loaded by."""
        name = self.slugs[module.label]
        if self.prefix is None:
            return f"runs:/{self.run_id}/{self.names[module.label]}"
        return f"models:/{registered_name(self.prefix, name)}@{ALIAS}"

    def _others(self, module: Module) -> list[str]:
        """Two other modules, for a card's example."""
        others = [other for other in self.decomposition.modules if other.label != module.label]
        return [self._uri(other) for other in others[:2]]
