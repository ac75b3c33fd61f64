"""What a reader of models does: it reads one with a real batch, and rows out of its dataloaders."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from lightning_callbacks.agreeing import (
    compare_batches,
    compare_items,
    warning_of_all,
    warnings_of_length,
)
from lightning_callbacks.batches import Batch, Layout, SplitFunction, Steps, with_one_label
from lightning_callbacks.collecting import collect, conform, read_batches
from lightning_callbacks.forwards import (
    Call,
    ForwardFunction,
    copied,
    count_outputs,
    find_forward,
    with_weights,
)
from lightning_callbacks.sources import Sources, Transfer
from mlflow_rnnmod.answers import answer_of
from mlflow_rnnmod.decomposition import DecompositionConfig
from mlflow_rnnmod.inputs import ImagePreparation, input_of
from mlflow_rnnmod.inputs.agreement import ROWS as ENOUGH
from mlflow_rnnmod.inputs.agreement import told
from mlflow_rnnmod.networks import Parent, Rows, TextEncoder
from mlflow_rnnmod.networks.guard import undisturbed

LEAST_ROWS = 16
_READ = 3  # batches that a model is tried to be read with


@dataclass(frozen=True, eq=False)
class Settings:
    """What a user says of a model and its data, checked: see the callback for each.

    Tokenizers are their JSON, a vocabulary is its name, ``image`` is an ``ImagePreparation``, and
    ``spec`` is of the class of its reader.
    """

    labels: Sequence[str] | None = None
    tokenizer: str | None = None
    target_tokenizer: str | None = None
    image: Any = None
    vocabulary: Any = None
    split_batch: SplitFunction | None = None
    forward: ForwardFunction | None = None
    spec: Any = None
    config: DecompositionConfig = DecompositionConfig()
    report_data: Any = None
    registered_model_prefix: str | None = None
    experiment: str | None = None
    max_rows: int = 100_000


@dataclass(frozen=True, eq=False)
class Given:
    """What a reader is given: a model, and a real batch of its data.

    Args:
        copy: of the model, on the CPU.
        batch: taken apart.
        settings: what the user said.
        transfer: what happens to a batch before the model sees it.
        layout: what the inputs of a batch are.
    """

    copy: nn.Module
    batch: Batch
    settings: Settings
    transfer: Transfer
    layout: Layout

    def answered(self) -> tuple[Call, tuple[str, ...]]:
        """How the model is run on the batch, and the names of what it answers."""
        with undisturbed(self.copy):
            call = find_forward(self.copy, self.batch, self.settings.forward)
            outputs = count_outputs(self.copy, call(self.copy))
        return call, tuple(self.settings.labels or map(str, range(max(outputs, 2))))


@dataclass(frozen=True, eq=False)
class Prepared(ABC):
    """A model that can be read, and read again. What is here suits models that answer with labels.

    Args:
        given: the model, and the batch that it was read with.
        call: a model's answers to that batch.
        reading: how it was read: its ``config``, and ``notes`` for the user.
        doubts: what else the user should know.
        several: reads it again, with any number of labels a row, where one a row is a guess.
    """

    given: Given
    call: Call
    reading: Any
    doubts: tuple[str, ...] = field(default=(), kw_only=True)
    several: Callable[[], Prepared] | None = field(default=None, kw_only=True)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know about how the model was read, and about its data."""
        return (*self.reading.notes, *self.doubts)

    def compared(self, batches: Iterator[Batch], loaders: Any) -> Prepared:
        """The same with what makes one doubt that its tokenizer made the ids of some batches.

        ``batches``: of training rows; no more is read of them than tells; ``loaders``: where they
        are from, and may have the texts, too.
        """
        encoder, own = self.encoders()[0], self.given.settings
        if own.vocabulary is not None and not input_of(self.reading.config.input).ids:
            raise ValueError(
                "vocabulary is given, but the model reads no token ids; expected None."
            )
        if encoder is None:
            return self
        given, config = self.given, self.reading.config
        found = compare_batches(encoder, batches, config)
        if not found.problems:
            how = given.transfer, given.settings.split_batch, given.layout.as_seen(given.batch)
            found += compare_items(encoder, loaders, config, *how)
        if found.problems:
            raise ValueError(told(found))
        return replace(self, doubts=tuple(dict.fromkeys((*self.doubts, *found.notes))))

    def warnings(self, parent: Parent, rows: Any) -> list[str]:
        """What the user should know of all training rows, with the parent that has room for them.

        A batch that a model is read with tells neither how long rows are, nor all of their ids.
        """
        found = warning_of_all(self.encoders()[0], rows, self.reading.config)
        return found + warnings_of_length(parent.network, rows, self.reading.config.steps)

    @abstractmethod
    def network_of(self, module: nn.Module) -> Any:
        """Our network with the weights of ``module``, by the reading made before."""

    def encoders(self) -> tuple[TextEncoder | None, ...]:
        """What turns text into token ids for the network."""
        config, text = self.reading.config, self.given.settings.tokenizer
        self.preparation()
        if text is not None and config.input != "tokens":
            raise ValueError(
                "tokenizer is given, but the model reads float features; expected None."
            )
        return (encoder_of("tokenizer", text, config.input_size, config),)

    def weights_of(self, live: nn.Module, checkpoint: str | Path | None) -> Parent:
        """The network as a parent, with the weights of a checkpoint, or of ``live`` as they are."""
        parent = self.parent_of(self.network_of(with_weights(self.given.copy, live, checkpoint)))
        vocabulary = self.given.settings.vocabulary
        return parent if vocabulary is None else replace(parent, vocabulary=vocabulary)

    def parent_of(self, network: Any) -> Parent:
        """A network with its tokenizers."""
        return Parent(network, self.encoders()[0], image=self.preparation())

    def preparation(self) -> ImagePreparation | None:
        """What images go through before the network reads them."""
        config, image = self.reading.config, self.given.settings.image
        if image is not None and not input_of(config.input).whole:
            raise ValueError(f"image is given, but the model reads {config.input}; expected None.")
        return None if image is None else image.fitted(config.input_size)

    def rows(self, loaders: Any, source: str) -> Any:
        """Rows of some dataloaders, at most ``max_rows``; ``None`` where there are none."""
        given, own = self.given, self.given.settings
        how = own.split_batch, given.layout.as_seen(given.batch), own.config.seed, own.max_rows
        return self.collected(read_batches(loaders, given.transfer, *how), source)

    def collected(self, batches: Iterator[Batch], source: str) -> Any:
        """All rows of some batches in one, ``None`` where there are none."""
        limit, layout = self.given.settings.max_rows, self.given.layout
        return collect(batches, self.reading.config, source, limit, layout)

    def accepted(self, rows: Any, parent: Parent, source: str) -> Any:
        """Rows that the user made, as the parent wants them."""
        return conform(rows, parent.network.config, source)

    def with_room(self, parent: Parent, rows: Any) -> Parent:
        """The parent with room for all of these rows, where what it reads depends on it."""
        return parent


class Reader(ABC):
    """Reads models of one architecture. What is here suits models that answer with labels."""

    spec: ClassVar[type]
    """What a user may say of such a model."""
    rows: ClassVar[type] = Rows
    """What its rows are."""
    layout: ClassVar[Layout] = Steps()
    """What the inputs of its batches are."""
    least_labels: ClassVar[int] = 2
    sees: ClassVar[bool] = True
    """Whether its inputs may be images."""

    def spec_of(self, given: Mapping[str, Any]) -> Any:
        """The spec that a mapping of its arguments makes; ``None`` where it is another reader's."""
        return self.spec(**given)

    def problems_of_arguments(
        self, labels: Any, tokenizer: str | None, target_tokenizer: str | None, spec: Any
    ) -> list[str]:
        """What is wrong with arguments, whatever the model is."""
        problems = label_problems(labels, self.least_labels)
        if target_tokenizer is not None:
            problems.append(
                "target_tokenizer is given; expected it with tokenizer= and a TranslatorSpec alone"
            )
        return problems

    @abstractmethod
    def claims(self, module: nn.Module, spec: Any) -> bool:
        """Whether this reader is the one for a model, and for what is said of it."""

    @abstractmethod
    def problems(self, module: nn.Module, settings: Settings) -> list[str]:
        """What is wrong with a model, as far as it shows without data."""

    @abstractmethod
    def look(self, given: Given) -> Prepared:
        """Read a model with one batch."""

    def prepare(self, module: nn.Module, sources: Sources, settings: Settings) -> Prepared:
        """Read a model with one real batch of its training data.

        Neither the model nor random state is changed.
        """
        copy, transfer = copied(module), sources.transfer(module)
        failure: Exception | None = None
        # A batch may be too small, or its rows of one length, to tell how the model reads it.
        for least in (LEAST_ROWS, 1):
            how = settings.split_batch, self.layout, settings.config.seed
            batches = read_batches(sources.train, transfer, *how, least_rows=least)
            prepared = None
            try:
                batches, single = _with_one_label(batches, settings.spec)
                for batch in islice(batches, _READ):
                    for each in (with_one_label(batch) if single else None, batch):
                        if each is None or prepared is not None:
                            continue
                        try:
                            given = Given(copy, each, settings, transfer, self.layout)
                            found = self.look(given)
                        except ValueError as error:
                            failure = failure or error
                        else:
                            same = each is batch or _is_as_wide(batch, found.reading.config)
                            prepared = found if same else None
                    if prepared is not None:
                        prepared.encoders()  # before any work is lost: whether they fit
                        if single and prepared.given.batch is not batch:
                            guessed = getattr(settings.spec, "kind", None) is None
                            again = partial(self.look, replace(given, batch=batch))
                            several = again if guessed else None
                            prepared = replace(prepared, doubts=single, several=several)
                        break
            except Exception as error:  # the user's data set and collation may raise anything
                prepared, failure = None, failure or error
            if prepared is not None:
                return prepared.compared(chain([prepared.given.batch], batches), sources.train)
        raise failure or ValueError(
            "The training dataloader has no rows; expected at least one batch."
        )


def _with_one_label(batches: Iterator[Batch], spec: Any) -> tuple[Iterator[Batch], tuple[str, ...]]:
    """The batches, and what to say where each row has one label, as zeros and a one.

    A softmax over labels is often trained with such rows, and a sigmoid for each label hardly ever.
    """
    kind, seen, count = getattr(spec, "kind", None), list[Batch](), 0
    if kind is not None and answer_of(kind).rivals and not answer_of(kind).stepwise:
        return batches, ("targets are zeros and a one: read as the label of each row",)
    if kind is not None:
        return batches, ()
    for batch in batches:
        # Beyond the first ones, token ids alone are compared with anything: images are large.
        if len(seen) < _READ or not batch.rows.values.is_floating_point():
            seen.append(batch)
        if with_one_label(batch) is None:
            rest = batches if batch is seen[-1] else chain([batch], batches)
            return chain(seen, rest), ()
        count += len(batch.rows)
        if count >= ENOUGH:
            break
    told = (
        f"each of {count} training rows has exactly one 1 in its targets: read as one label a row. "
        "Give network_spec={'kind': 'multilabel'} where it may have any number of labels"
    )
    return chain(seen, batches), (told,) if seen else ()


def _is_as_wide(batch: Batch, config: Any) -> bool:
    """Whether there is a zero or a one for each label."""
    targets = batch.rows.targets
    return targets is not None and targets.shape[1] == len(config.labels)


def encoder_of(name: str, text: str | None, size: int, config: Any) -> TextEncoder | None:
    """What turns text into token ids, from a tokenizer's JSON."""
    if text is None:
        return None
    encoder = TextEncoder(text, config.pad_index or 0, config.side)
    tokens = encoder.tokenizer.get_vocab_size()
    if tokens > size:
        raise ValueError(
            f"{name} has {tokens} tokens, and the model's embedding {size} rows; expected the "
            "tokenizer that the model was trained with."
        )
    return encoder


def label_problems(labels: Any, least: int) -> list[str]:
    """What is wrong with the names of labels, of which there must be so many."""
    if labels is None:
        return []
    if isinstance(labels, str) or not isinstance(labels, Sequence):
        return [f"labels={labels!r:.200}, expected a list of texts, in the order of the outputs"]
    wrong = [label for label in labels if not isinstance(label, str)]
    if wrong:
        return [f"labels holds {wrong[0]!r}, a {type(wrong[0]).__name__}; expected texts"]
    twice = sorted({label for label in labels if list(labels).count(label) > 1})
    if len(labels) < least or twice:
        extra = f" ({twice!r} more than once)" if twice else ""
        many = "at least two, all different" if least > 1 else "languages, all different"
        return [f"labels={list(labels)!r:.200}, expected {many}{extra}"]
    return []
