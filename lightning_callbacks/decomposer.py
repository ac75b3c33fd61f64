"""The work itself, whoever has it done: a model and its rows are read, taken apart, and logged."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightning_callbacks.arguments import check_arguments
from lightning_callbacks.collecting import random_state_kept
from lightning_callbacks.progress import progress_bar
from lightning_callbacks.readers import ROWS, Prepared, Settings, Spec, reader_of
from lightning_callbacks.sources import Sources, check_order, find_labels
from mlflow_rnnmod.answers.label import SeveralLabels
from mlflow_rnnmod.decomposition import (
    Decomposition,
    DecompositionConfig,
    Module,
    Team,
    decompose,
    help_decompose,
)
from mlflow_rnnmod.networks import Parent
from mlflow_rnnmod.tracking.bulk import LoggedDecomposition, log_decomposition


@dataclass(frozen=True)
class Destination:
    """A run, and the server it is on; ``None`` leaves both to MLflow's own rules."""

    run_id: str | None = None
    tracking_uri: str | None = None


def find_destination(loggers: Sequence[Any] = ()) -> Destination:
    """The run of an ``MLFlowLogger`` among ``loggers``, else the active run, else a new one.

    The logger is known by its name, as it may be of either Lightning namespace. It has no active
    run but one of its own, so modules must be told its id and server.
    """
    for logger in loggers:
        if any(kind.__name__ == "MLFlowLogger" for kind in type(logger).__mro__):
            run_id = logger.run_id
            if run_id is not None:
                return Destination(run_id, logger._tracking_uri)
    import mlflow

    active = mlflow.active_run()
    if active is not None:
        return Destination(active.info.run_id, mlflow.get_tracking_uri())
    return Destination()


def figures_dataset(rows: Any, name: str) -> Any:
    """The rows that figures come from as an MLflow dataset, which groups figures in its pages."""
    import mlflow.data

    rows = getattr(rows, "sources", rows)
    targets = None if rows.targets is None else rows.targets.cpu().numpy()
    return mlflow.data.from_numpy(rows.values.cpu().numpy(), targets=targets, name=name)  # type: ignore[attr-defined]


def only(decomposition: Decomposition, modules: Sequence[Module]) -> Decomposition:
    """A decomposition with some of its modules; figures stay those of the whole."""
    position = {id(module): index for index, module in enumerate(decomposition.modules)}
    strangers = [module for module in modules if id(module) not in position]
    if strangers:
        raise ValueError(
            f"modules_to_log returned {strangers[0]!r}, which is none of the decomposition's "
            "modules; expected some of decomposition.modules."
        )
    kept = torch.tensor([position[id(module)] for module in modules])
    overlap = decomposition.overlap[kept][:, kept]
    return replace(decomposition, modules=tuple(modules), overlap=overlap)


_METRICS = {"accuracy": "accuracy", "f1": "micro-F1", "bleu": "BLEU"}


@dataclass(frozen=True, eq=False)
class Decomposed:
    """What came of a decomposition.

    Args:
        decomposition: the parent and all of its modules, with their figures.
        modules: those that were to be logged.
        logged: where they are in MLflow; ``None`` where there were none.
    """

    decomposition: Decomposition
    modules: tuple[Module, ...]
    logged: LoggedDecomposition | None

    @property
    def summary(self) -> str:
        """What came of it, in one line."""
        found, metric = self.decomposition, self.decomposition.metric
        parts = [f"{len(found.modules)} modules"]
        known = {
            "units_kept": "units kept",
            f"parent_{metric}": f"{_METRICS[metric]} of the network",
            f"composed_{metric}": "of its modules together",
        }
        figures = found.figures
        parts += [f"{text} {figures[key]:.1%}" for key, text in known.items() if key in figures]
        parts.append("logged to MLflow" if self.logged is not None else "not logged")
        words = ", ".join(parts) + f" ({found.seconds:.1f} s to decompose)."
        page = getattr(self.logged, "page", None)
        return words if page is None else f"{words} See {page}"


class Decomposer:
    """Takes trained models apart into one module for each label, and logs these to MLflow.

    It is what :class:`~lightning_callbacks.ModuleDecomposition` does at the end of a training, for
    any ``nn.Module`` and any dataloaders; Lightning is not needed.

    Args:
        labels: This and all other arguments are those of
            :class:`~lightning_callbacks.ModuleDecomposition`.
        tokenizer: See there.
        split_batch: See there.
        forward: See there.
        network_spec: See there.
        target_tokenizer: See there.
        image: See there.
        vocabulary: See there.
        config: See there.
        report_data: See there.
        registered_model_prefix: See there.
        experiment: See there.
        max_rows: See there.
        settings: See there.

    Raises:
        ValueError: naming every argument that does not fit, its value and what is accepted.

    Example:
        >>> import torch
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> class Network(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.lstm = nn.LSTM(3, 8, batch_first=True)
        ...         self.head = nn.Linear(8, 2)
        ...     def forward(self, x):
        ...         return self.head(self.lstm(x)[0][:, -1])
        >>> rows = TensorDataset(torch.randn(64, 5, 3), torch.arange(64) % 2)
        >>> train, held_out = DataLoader(rows, 16), DataLoader(rows, 16)
        >>> decomposer = Decomposer(["no", "yes"], removal=0.25)
        >>> nothing = lambda decomposition: ()  # to log all modules, leave choose= out
        >>> done = decomposer.decompose(
        ...     Network(), Sources(train, held_out), choose=nothing, progress=None
        ... )
        >>> [(module.label, module.trunk.kept) for module in done.decomposition.modules]
        [('no', 6), ('yes', 6)]
    """

    def __init__(
        self,
        labels: Sequence[str] | None = None,
        tokenizer: Any = None,
        *,
        split_batch: Callable[[Any], Any] | None = None,
        forward: Callable[[Any, Any], Any] | None = None,
        network_spec: Spec | Mapping[str, Any] | None = None,
        target_tokenizer: Any = None,
        image: Any = None,
        vocabulary: Any = None,
        config: DecompositionConfig | Mapping[str, Any] | None = None,
        report_data: Any = None,
        registered_model_prefix: str | None = None,
        experiment: str | None = None,
        max_rows: int = 100_000,
        **settings: Any,
    ) -> None:
        given = Settings(
            labels=labels,
            tokenizer=tokenizer,
            target_tokenizer=target_tokenizer,
            image=image,
            vocabulary=vocabulary,
            split_batch=split_batch,
            forward=forward,
            spec=network_spec,
            report_data=report_data,
            registered_model_prefix=registered_model_prefix,
            experiment=experiment,
            max_rows=max_rows,
        )
        # Spelled out, so that LightningCLI finds out what `settings` may hold.
        one_by_one = lambda: DecompositionConfig(**settings)  # noqa: E731
        self.settings = check_arguments(given, config, settings, one_by_one)

    def problems(self, model: nn.Module, datamodule: Any = None) -> list[str]:
        """What is wrong with a model, as far as it shows without data.

        Args:
            model: the model.
            datamodule: is asked for the labels where they are not known.
        """
        return reader_of(model, self.settings.spec).problems(model, self._for(model, datamodule))

    def prepare(self, model: nn.Module, sources: Sources) -> Prepared:
        """Read a model with one real batch; the model may then be trained, and decomposed later.

        Args:
            model: neither changed nor moved.
            sources: where the batch is from.

        Raises:
            ValueError: if there is no batch, or the model can't be read.
        """
        settings = self._for(model, sources.datamodule)
        return reader_of(model, settings.spec).prepare(model, sources, settings)

    def decompose(
        self,
        model: nn.Module,
        sources: Sources,
        checkpoint: str | Path | None = None,
        destination: Destination = Destination(),  # noqa: B008
        *,
        prepared: Prepared | None = None,
        choose: Callable[[Decomposition], Sequence[Module]] | None = None,
        progress: str | None = "tqdm",
        team: Team | None = None,
        warn: Callable[[str], Any] = warnings.warn,
    ) -> Decomposed:
        """Take a model apart and log its modules.

        Args:
            model: neither changed nor moved.
            sources: its training rows, and rows that it was not trained on.
            checkpoint: path or URL of a Lightning checkpoint, or of a file with a ``state_dict``,
                which is read without executing anything in it; ``None`` for the weights of
                ``model``.
            destination: the run to log to; by default the active one, else a new one.
            prepared: what :meth:`prepare` gave for this model.
            choose: which modules are logged; all by default, nothing for an empty list.
            progress: how it is shown, ``"tqdm"``, ``"rich"`` or not at all.
            team: processes that work together, of which this is the first.
            warn: is told what the user should know.

        Raises:
            ValueError: if it can't be read or decomposed.
        """
        if prepared is None:
            prepared = self.prepare(model, sources)
            for note in prepared.notes:
                warn(note)
        with random_state_kept(), progress_bar(progress) as show:
            prepared, parent, train, validation = self._read(
                prepared, sources, model, checkpoint, warn
            )
            for note in prepared.warnings(parent, train):
                warn(note)
            try:
                report = self._report(prepared, sources, parent)
            except SeveralLabels as error:
                # What other processes read does not tell them so.
                if prepared.several is None:
                    raise
                warn(f"{error} report_data is left out.")
                report = None
            work = decompose if team is None else partial(decompose, team=team)
            found = work(parent, train, validation, report, self.settings.config, show)
            modules = found.modules if choose is None else tuple(choose(found))
            known = {"report": report, "validation": validation, "training": train}
            name, rows = next((name, rows) for name, rows in known.items() if rows is not None)
            where = find_destination() if destination == Destination() else destination
            logged = None
            if modules:
                logged = log_decomposition(
                    only(found, modules),
                    run_id=where.run_id,
                    tracking_uri=where.tracking_uri,
                    registered_model_prefix=self.settings.registered_model_prefix,
                    dataset=figures_dataset(rows, name),
                    progress=show,
                    experiment=self.settings.experiment,
                )
        for warning in found.warnings:
            warn(warning)
        return Decomposed(found, modules, logged)

    def help(
        self,
        team: Team,
        model: nn.Module,
        sources: Sources,
        checkpoint: str | Path | None,
        prepared: Prepared,
    ) -> None:
        """What other processes than the first of a team do meanwhile: watch their share."""
        _, parent, train, validation = self._read(prepared, sources, model, checkpoint)
        help_decompose(team, parent, train, validation, config=self.settings.config)

    def _for(self, model: Any, datamodule: Any) -> Settings:
        """The settings, with the labels that a datamodule or model has where none are said."""
        if self.settings.labels is not None:
            check_order(self.settings.labels, datamodule, model)
            return self.settings
        return replace(self.settings, labels=find_labels(datamodule, model))

    def _read(
        self,
        prepared: Prepared,
        sources: Sources,
        live: nn.Module,
        checkpoint: str | Path | None,
        warn: Callable[[str], Any] = lambda message: None,
    ) -> tuple[Prepared, Parent, Any, Any]:
        """How it is read at last, the parent, and training and validation rows."""
        try:
            return prepared, *self._rows(prepared, sources, live, checkpoint)
        except SeveralLabels as error:
            if prepared.several is None:
                raise
            found = prepared.several()
            warn(f"{str(error).partition(', and the network')[0]}: read as any number a row")
        return found, *self._rows(found, sources, live, checkpoint)

    def _rows(
        self,
        prepared: Prepared,
        sources: Sources,
        live: nn.Module,
        checkpoint: str | Path | None,
    ) -> tuple[Parent, Any, Any]:
        """The parent, and training and validation rows."""
        parent = prepared.weights_of(live, checkpoint)
        train = prepared.rows(sources.train, "training dataloader")
        if train is None:
            raise ValueError("The training dataloader has no rows.")
        parent = prepared.with_room(parent, train)
        return parent, train, prepared.rows(sources.validation, "validation dataloader")

    def _report(self, prepared: Prepared, sources: Sources, parent: Parent) -> Any:
        """The rows that figures are measured on, where they are said."""
        report = self.settings.report_data
        if report is None:
            return None
        if isinstance(report, ROWS):
            return prepared.accepted(report, parent, "report_data")
        loaders = sources.test() if isinstance(report, str) else report
        return prepared.rows(loaders, "report_data")
