"""The work itself, apart from when Lightning has it done: reading a model, collecting its rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from lightning_callbacks.batches import Batch, is_time_first
from lightning_callbacks.collecting import (
    Transfer,
    collect,
    read_batches,
)
from lightning_callbacks.forwards import ForwardFunction, find_forward
from lightning_callbacks.targets import conform
from lightning_callbacks.weights import copied, with_weights
from mlflow_rnnmod.decomposition import Decomposition, Module, Team
from mlflow_rnnmod.networks import NetworkConfig, RecurrentNetwork, Rows, TextEncoder
from mlflow_rnnmod.networks.guard import undisturbed
from mlflow_rnnmod.networks.recurrent.reading import check_parity, read_network, read_weights
from mlflow_rnnmod.networks.recurrent.spec import NetworkSpec, Reading

LEAST_ROWS = 16


@dataclass(frozen=True, eq=False)
class Prepared:
    """A model that can be read, with all that is needed to read it again.

    Args:
        copy: of the model, on the CPU.
        batch: the real batch that it was read with.
        call: the model's answers to that batch.
        reading: how it was read.
        labels: names of its outputs.
        transfer: what happens to a batch before the model sees it.
        split_batch: the user's way of taking a batch apart.
    """

    copy: nn.Module
    batch: Batch
    call: Callable[[nn.Module], Tensor]
    reading: Reading
    labels: tuple[str, ...]
    transfer: Transfer
    split_batch: Any = None

    def weights_of(self, live: nn.Module, checkpoint: str | Path | None) -> RecurrentNetwork:
        """The network with the weights of a checkpoint, or of ``live`` as they are now.

        Raises:
            ValueError: if they can't be had, or the network no longer answers as the model does.
        """
        module = with_weights(self.copy, live, checkpoint)
        network = read_weights(module, self.reading)
        check_parity(module, network, self.batch.rows, lambda: self.call(module), self.reading)
        return network

    def rows(self, loaders: Any, source: str, seed: int, max_rows: int) -> Rows | None:
        """Rows of some dataloaders, at most ``max_rows``; ``None`` where there are none."""
        batches = read_batches(
            loaders, self.transfer, self.split_batch, is_time_first(self.batch), seed, max_rows
        )
        return collect(batches, self.reading.config, source, max_rows)


def prepare(
    module: nn.Module,
    loaders: Any,
    transfer: Transfer,
    split_batch: Any = None,
    forward: ForwardFunction | None = None,
    labels: Sequence[str] | None = None,
    spec: NetworkSpec | None = None,
    seed: int = 0,
) -> Prepared:
    """Read a model with one real batch of its training data.

    Neither the model nor random state is changed.

    Args:
        module: the user's model; a copy is looked at.
        loaders: its training dataloader.
        transfer: what happens to a batch before the model sees it.
        split_batch: from a batch to its parts; ``None`` for the usual kinds.
        forward: from module and batch to logits; ``None`` for the usual ways.
        labels: names of the outputs; ``None`` to number them.
        spec: what is known of the model.
        seed: which batch.

    Raises:
        ValueError: if there is no batch, it can't be taken apart, or the model can't be read.
    """
    copy = copied(module)
    names = None if labels is None else tuple(labels)
    failure: Exception | None = None
    # A batch may be too small, or all of its rows of one length, to tell how the model reads it.
    for least in (LEAST_ROWS, 1):
        batches = read_batches(loaders, transfer, split_batch, seed=seed, least_rows=least)
        try:
            for batch in islice(batches, 3):
                try:
                    call, found, reading = _read(copy, batch, forward, names, spec)
                except ValueError as error:
                    failure = failure or error
                else:
                    return Prepared(copy, batch, call, reading, found, transfer, split_batch)
        except Exception as error:  # the user's data set and collation may raise anything
            failure = failure or error
    if failure is None:
        failure = ValueError("The training dataloader has no rows; expected at least one batch.")
    raise failure


def _read(
    copy: nn.Module,
    batch: Batch,
    forward: ForwardFunction | None,
    labels: tuple[str, ...] | None,
    spec: NetworkSpec | None,
) -> tuple[Callable[[nn.Module], Tensor], tuple[str, ...], Reading]:
    """How to call the model, the names of its outputs, and how it was read with one batch."""
    with undisturbed(copy):
        call = find_forward(copy, batch, forward)
        outputs = _count_outputs(copy, call(copy))
    names = labels or tuple(map(str, range(max(outputs, 2))))
    _, reading = read_network(copy, batch.rows, lambda: call(copy), names, spec)
    conform(batch.rows, reading.config, "training dataloader")
    return call, names, reading


def _count_outputs(module: nn.Module, answers: Tensor) -> int:
    """How many labels answers have: along an axis behind the rows that a dense layer can fill."""
    sizes = {part.out_features for part in module.modules() if isinstance(part, nn.Linear)}
    axes = [*reversed(answers.shape[1:])]
    return next((size for size in axes if size in sizes), 1 if 1 in sizes else axes[0])


def team_of(trainer: Any) -> AbstractContextManager[Team | None]:
    """The processes of a trainer, to work together; none where there is one only."""
    if trainer.world_size > 1 and dist.is_available() and dist.is_initialized():
        return Team()
    return nullcontext()


def lengthened(network: RecurrentNetwork, rows: Rows, spec: NetworkSpec | None) -> RecurrentNetwork:
    """A network that answers at each step, with room for the longest of some rows.

    Where it reads its padding, the batch that it was read with said how far rows are padded; what
    is longer would be cut, and have no answers there.

    Args:
        network: is changed and returned.
        rows: with all steps.
        spec: the user's word on the number of steps goes first.
    """
    config, longest = network.config, rows.values.shape[1]
    fixed = spec is not None and spec.steps is not None
    open_ended = config.answer.stepwise and config.feed == "steps" and config.steps is not None
    if open_ended and not fixed and longest > (config.steps or 0):
        network.config = replace(config, steps=longest)
    return network


def make_encoder(tokenizer: str | None, config: NetworkConfig) -> TextEncoder | None:
    """What turns text into token ids for a network, from a tokenizer's JSON.

    Raises:
        ValueError: if the tokenizer does not fit the network.
    """
    if tokenizer is None:
        return None
    if config.input == "features":
        raise ValueError("tokenizer is given, but the model reads float features; expected None.")
    encoder = TextEncoder(tokenizer, config.pad_index or 0, config.side)
    size = encoder.tokenizer.get_vocab_size()
    if size > config.input_size:
        raise ValueError(
            f"tokenizer has {size} tokens, and the model's embedding {config.input_size} rows; "
            "expected the tokenizer that the model was trained with."
        )
    return encoder


def only(decomposition: Decomposition, modules: Sequence[Module]) -> Decomposition:
    """A decomposition with some of its modules; figures stay those of the whole.

    Raises:
        ValueError: if one of them is none of its modules.
    """
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


def weights_dtype(module: nn.Module) -> torch.dtype | None:
    """Of a model's floating point weights, ``None`` without any."""
    return next((p.dtype for p in module.parameters() if p.is_floating_point()), None)


def find_labels(*owners: Any) -> list[str] | None:
    """Names of the labels as the first of ``owners`` has them; ``None`` where none does.

    They are looked for in attributes ``labels``, ``label_names``, ``class_names`` and ``classes``.
    """
    for owner in owners:
        for name in ("labels", "label_names", "class_names", "classes"):
            found: Any = getattr(owner, name, None)
            listed = isinstance(found, list | tuple) and len(found) > 1
            if listed and all(isinstance(label, str) for label in found):
                return list(found)
    return None
