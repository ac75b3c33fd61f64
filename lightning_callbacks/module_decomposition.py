"""Takes a trained recurrent network apart into one module for each label, in MLflow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from lightning_callbacks._lightning import (
    Callback,
    checkpoint_of,
    failure_message,
    interruptions,
    leave_finished,
    meet,
    misconfiguration,
    rank_zero_info,
    rank_zero_warn,
    spared_by_observers,
    team_of,
    trainer_problems,
)
from lightning_callbacks.collecting import random_state_kept
from lightning_callbacks.decomposer import Decomposer, Destination, find_destination
from lightning_callbacks.progress import bar_style
from lightning_callbacks.readers import Prepared, Spec
from lightning_callbacks.sources import Sources, is_overridden
from mlflow_rnnmod.decomposition import Decomposition, DecompositionConfig, Module, Team

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from torch import nn

    from mlflow_rnnmod.tracking.bulk import LoggedDecomposition


class ModuleDecomposition(Callback):  # type: ignore[misc]
    """Takes the network apart at the end of ``Trainer.fit``: one module for each label, in MLflow.

    The model may be any ``LightningModule`` with recurrent layers (``nn.RNN``, ``nn.LSTM``,
    ``nn.GRU``) that reads a sequence and answers with one label, with any number of labels, with a
    label for each step, or with a list of labels; a convolutional or dense one (``nn.Conv2d``,
    ``nn.Linear``) that reads pictures or vectors and answers with one or any number of labels; or
    an encoder-decoder that translates into one or more languages, if its start and end tokens are
    told. It is not retrained and not changed, and training goes on bit for bit as it would without
    this callback:

    - In ``setup`` arguments and the model's structure are checked.
    - In ``on_train_start``, before the first step, one real batch is taken apart, and the model is
      read into a network that can be taken apart; both must give the same answers to that batch.
    - In ``on_fit_end`` training and validation rows are collected, the network is decomposed, and
      its modules are logged, with their figures and a report.

    Whatever is wrong up to the first step raises a ``MisconfigurationException``. Afterwards
    nothing here makes the training fail: a decomposition that turns out impossible is a warning
    which says why and how to repeat it with :meth:`decompose_checkpoint`, and the MLflow run is
    finished as usual (see ``strict``). Ctrl-C stops the decomposition, with the same warning; a
    second Ctrl-C leaves, with what was begun undone and the run finished.

    The modules go to the run of the trainer's ``MLFlowLogger``; without one to the active MLflow
    run; without either to a run of their own.

    Args:
        labels: Names of the labels, in the order of the model's outputs. By default the datamodule
            or model is asked for ``labels``, ``label_names``, ``class_names`` or ``classes``, and
            else the outputs are numbered.
        tokenizer: The ``tokenizers.Tokenizer`` that the model's texts went through, its JSON, or
            the path of a file with its JSON. With it modules take raw text, without it token ids.
        split_batch: From a batch to ``(inputs, targets)`` or ``(inputs, lengths, targets)``; in the
            place of lengths a mask ``(rows, steps)`` will do, where the network is given one. By
            default batches of these shapes are understood, and mappings with usual keys such as
            ``input_ids``, ``attention_mask``, ``lengths`` and ``labels``. Targets are a label index
            for each row ``(rows,)``, or for each step ``(rows, steps)``, negative (as -100) where a
            step has none; or zeros and ones, as floats or bools, for any number of labels a row
            ``(rows, labels)``: where each row has exactly one 1, for one label a row.
        forward: From the model and a batch (as the dataloader gives it) to logits, as
            ``training_step`` does it. By default the ways that fit the signature of the model's
            ``forward`` are tried.
        network_spec: What is known of the network, where it is not found or more than one reading
            fits: a :class:`~mlflow_rnnmod.NetworkSpec` or a mapping of its arguments.
            The label that ends a list is said here: ``{"end_label": "none"}``. An encoder-decoder
            needs a :class:`~mlflow_rnnmod.TranslatorSpec` or a mapping of
            its arguments: ``{"starts": [3, 4], "end": 2}``, a start token for each of ``labels``.
            The targets of its batches are translations from their start token to the end token.
        weights: ``"last"`` for the weights at the end of training (after weight averaging, where
            there is one), or ``"best"`` for those of the best checkpoint.
        config: Settings of the decomposition, a
            :class:`~mlflow_rnnmod.decomposition.DecompositionConfig` or a mapping of its
            arguments. They can also be given one by one: see ``settings``.
        report_data: Rows that every figure is measured on: a dataloader, a
            :class:`~mlflow_rnnmod.networks.Rows`, or ``"test"`` for the test dataloader. By default
            it is that half of the validation rows that nothing was fitted on.
        registered_model_prefix: Registers the network under this name and modules as
            ``<prefix>.<label>``. ``None`` registers nothing.
        experiment: Name of an MLflow experiment for the modules alone, made where it is missing.
            With many labels they would hide other models in MLflow's list of runs. By default they
            go to the training's own run.
        target_tokenizer: The tokenizer that an encoder-decoder writes with, where it is not the one
            that it reads with.
        image: What the model's images went through: an :class:`~mlflow_rnnmod.ImagePreparation`, a
            mapping of its arguments, or the transforms of torchvision that validation images go
            through, where they are ``Resize``, ``ToTensor`` and ``Normalize``. With it modules take
            files of images (PNG or JPEG) and uint8 arrays, without it arrays as the model takes
            them.
        vocabulary: Of a model that reads token ids, without ``tokenizer``, what these mean: a name
            of your own, a list of tokens, ids by token, or a tokenizer. Modules carry it (a
            digest), and those of two vocabularies are not composed.
        max_rows: At most so many rows of each dataloader are read; chosen at random, with the
            decomposition's seed, where the data set can be indexed.
        strict: Raise what goes wrong in ``on_fit_end`` instead of warning. It marks the MLflow run
            as failed.
        settings: ``rule``, ``removal``, ``repairs``, ``tolerance``, ``trunks``, ``max_cost``,
            ``variant``, ``gates``, ``unrolled_steps``, ``rows_per_label``, ``seed``,
            ``batch_size``, ``share_of`` or ``from_layer`` of the decomposition.

    Raises:
        MisconfigurationException: in ``setup`` or ``on_train_start``, if an argument, the model or
            the data does not fit; all that is wrong at once.

    Example::

        from lightning_callbacks import ModuleDecomposition

        modules = ModuleDecomposition(labels=languages, tokenizer=tokenizer)
        logger = MLFlowLogger(experiment_name="surnames", tracking_uri=mlflow.get_tracking_uri())
        trainer = Trainer(callbacks=[modules], logger=logger)
        trainer.fit(model, datamodule)
        modules.decomposition.figures["composed_accuracy"]

    Note:
        Dataloaders are not iterated themselves: their data sets are read again, with the same
        collation, without workers and in an order of our own. An iterable data set (or an iterable
        that is no ``DataLoader``) is iterated one more time before and after the training; it must
        start afresh each time.

    Note:
        The work is done on the CPU, on a copy of the model, wherever the training ran.
        With several devices every rank reads the data and watches its share of the sample; rank
        zero goes on alone and logs, and the others wait: on a large network set the process
        group's timeout accordingly. Strategies that spread one model's weights over devices
        are refused. With ``fast_dev_run`` everything is checked, and nothing decomposed or logged.
        With spawned processes (``ddp_spawn``) :attr:`decomposition` and :attr:`logged` stay in the
        process that made them; read the modules from MLflow.
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
        weights: str = "last",
        config: DecompositionConfig | Mapping[str, Any] | None = None,
        report_data: Any = None,
        registered_model_prefix: str | None = None,
        experiment: str | None = None,
        max_rows: int = 100_000,
        strict: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__()
        self._arguments: dict[str, Any] = {
            "labels": labels,
            "tokenizer": tokenizer,
            "split_batch": split_batch,
            "forward": forward,
            "network_spec": network_spec,
            "target_tokenizer": target_tokenizer,
            "image": image,
            "vocabulary": vocabulary,
            "config": config,
            "report_data": report_data,
            "registered_model_prefix": registered_model_prefix,
            "experiment": experiment,
            "max_rows": max_rows,
        }
        self._settings = settings
        self._weights, self._strict = weights, strict
        self._decomposer: Decomposer | None = None
        self._prepared: Prepared | None = None
        self._destination = Destination()
        self.decomposition: Decomposition | None = None
        """What the last decomposition gave; ``None`` before one, and where it failed."""
        self.logged: LoggedDecomposition | None = None
        """Where its modules are in MLflow; ``None`` where they are not."""

    @property
    @override
    def state_key(self) -> str:
        prefix = self._arguments["registered_model_prefix"]
        return self._generate_state_key(
            weights=self._weights, prefix=prefix, settings=self._settings
        )

    def modules_to_log(self, decomposition: Decomposition) -> Sequence[Module]:
        """Which modules are logged; override it to choose. Nothing is logged for an empty list.

        Args:
            decomposition: with its modules in the order of the labels.
        """
        return decomposition.modules

    def on_modules_ready(self, modules: Sequence[Module]) -> None:
        """Called on rank zero when the modules are made and logged; override it to go on with them.

        Args:
            modules: those that :meth:`modules_to_log` chose.
        """

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Check arguments and the model's structure."""
        if stage != "fit":
            return
        self._decomposer, self._prepared = None, None
        self.decomposition, self.logged = None, None
        problems = trainer_problems(trainer, self._weights)
        try:
            found = self._checked()
            if not is_overridden("configure_model", pl_module):  # else layers may be made later
                datamodule = trainer.datamodule  # type: ignore[attr-defined]
                problems += found.problems(pl_module, datamodule)
        except ValueError as error:
            problems.insert(0, str(error))
        if problems:
            raise misconfiguration("ModuleDecomposition: " + "; ".join(problems), trainer)

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Read the model with one real batch, before the first step."""
        try:
            self._prepared = self._prepare(pl_module, Sources.of_trainer(trainer, pl_module))
        except Exception as error:  # the user's data set and forward may raise anything
            raise misconfiguration(
                f"ModuleDecomposition can't take {type(pl_module).__name__} apart: {error}", trainer
            ) from error

    @override
    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Decompose and log, on rank zero; other ranks help to watch the sample."""
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            rank_zero_info("ModuleDecomposition: checked; nothing is decomposed in a fast_dev_run.")
            return
        team = team_of(trainer)
        try:
            with spared_by_observers():
                failure = self._try(trainer, pl_module, team)
                meet(trainer, team, "ModuleDecomposition.on_fit_end")
            if failure is not None and interruptions(failure) > 1:
                raise failure
        except BaseException:  # Ctrl-C again, at whatever point: the training is finished still
            leave_finished(trainer)
            raise
        if failure is not None and self._strict and trainer.is_global_zero:
            if not isinstance(failure, Exception):
                leave_finished(trainer)
            raise failure

    def _try(self, trainer: Any, model: Any, team: Team | None) -> BaseException | None:
        """The work, and what went wrong, told already.

        Nothing that happens here may cost anyone a training: neither Ctrl-C, nor ``SystemExit``,
        nor the panics of libraries in Rust, which are no ``Exception``.
        """
        try:
            with team or nullcontext(), random_state_kept():
                self._work_for(trainer, model, team)
        except BaseException as error:
            if not self._strict:
                made = self.decomposition is not None
                told = failure_message(error, trainer, model, self._weights, made, self.logged)
                rank_zero_warn(told)
                if isinstance(error, KeyboardInterrupt):
                    rank_zero_info("ModuleDecomposition: stopped. Press Ctrl-C again to leave.")
            return error
        return None

    def decompose_checkpoint(
        self,
        checkpoint: str | Path | None,
        model: nn.Module,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        datamodule: Any = None,
        run_id: str | None = None,
        tracking_uri: str | None = None,
    ) -> Decomposition:
        """Do the work of ``on_fit_end`` later, or again, without training.

        Args:
            checkpoint: Path or URL of a Lightning checkpoint, read without executing anything in
                it; ``None`` to take ``model`` with the weights that it has.
            model: The model; neither changed nor moved.
            train_dataloaders: As for ``Trainer.fit``.
            val_dataloaders: As for ``Trainer.fit``; without, a part of the training rows is held
                out.
            datamodule: Instead of dataloaders. It is set up for fitting.
            run_id: MLflow run to log to. By default the one that the last training had, else the
                active one, else a new one.
            tracking_uri: Where that run is.

        Returns:
            The decomposition; :attr:`decomposition` and :attr:`logged` hold it too.

        Raises:
            MisconfigurationException: if an argument, the model or the data does not fit.
            ValueError: if it can't be decomposed.
        """
        try:
            self._checked()
            sources = Sources.of_arguments(model, train_dataloaders, val_dataloaders, datamodule)
            prepared = self._prepare(model, sources)
        except Exception as error:
            raise misconfiguration(f"ModuleDecomposition: {error}", model) from error
        given = Destination(run_id, tracking_uri)
        destination = self._destination if given == Destination() else given
        with random_state_kept():
            return self._work(model, sources, checkpoint, destination, prepared=prepared)

    def _checked(self) -> Decomposer:
        """What does the work, once all arguments are found to fit; else a ``ValueError``."""
        if self._decomposer is None:
            problems = []
            if self._weights not in ("last", "best"):
                problems.append(f"weights={self._weights!r}, expected 'last' or 'best'")
            try:
                found = Decomposer(**self._arguments, **self._settings)
            except ValueError as error:
                problems.insert(0, str(error))
            if problems:
                raise ValueError("; ".join(problems))
            self._decomposer = found
        return self._decomposer

    def _prepare(self, model: nn.Module, sources: Sources) -> Prepared:
        prepared = self._checked().prepare(model, sources)
        for note in prepared.notes:
            _warn(note)
        return prepared

    def _work_for(self, trainer: Any, model: nn.Module, team: Team | None) -> None:
        """The work for a trainer; anything may be raised."""
        if trainer.is_global_zero:
            self._destination = find_destination(trainer.loggers)
        checkpoint = checkpoint_of(trainer, self._weights)
        sources = Sources.of_trainer(trainer, model)
        # A training that was finished when it was resumed never started.
        prepared = self._prepared or self._prepare(model, sources)
        if trainer.is_global_zero:
            how = {"progress": bar_style(trainer), "team": team}
            self._work(model, sources, checkpoint, self._destination, prepared=prepared, **how)
        elif team is not None:
            self._checked().help(team, model, sources, checkpoint, prepared)

    def _work(self, *where: Any, **how: Any) -> Decomposition:
        self.decomposition, self.logged = None, None
        done = self._checked().decompose(*where, choose=self._chosen, warn=_warn, **how)
        self.logged = done.logged
        rank_zero_info(f"ModuleDecomposition: {done.summary}")
        self.on_modules_ready(list(done.modules))
        return done.decomposition

    def _chosen(self, decomposition: Decomposition) -> Sequence[Module]:
        self.decomposition = decomposition  # it is there even where logging fails
        return self.modules_to_log(decomposition)


def _warn(message: str) -> None:
    rank_zero_warn(f"ModuleDecomposition: {message}")
