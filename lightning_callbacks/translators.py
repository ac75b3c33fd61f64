"""Encoder-decoders: reading one with a real batch, and sentences out of its dataloaders."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_callbacks.batches import Batch, describe
from lightning_callbacks.collecting import Transfer, read_batches
from lightning_callbacks.forwards import ForwardFunction
from lightning_callbacks.weights import copied, with_weights
from lightning_callbacks.work import LEAST_ROWS
from mlflow_rnnmod.decomposition import Pairs
from mlflow_rnnmod.decomposition.pairs import padded
from mlflow_rnnmod.networks import Parent, Rows, TextEncoder, Translator
from mlflow_rnnmod.networks.guard import undisturbed
from mlflow_rnnmod.networks.rows import IGNORE
from mlflow_rnnmod.networks.translator.reading import (
    check_translator_parity,
    read_translator,
    read_translator_weights,
)
from mlflow_rnnmod.networks.translator.spec import TranslatorReading, TranslatorSpec

Call = Callable[[nn.Module], Tensor]


@dataclass(frozen=True, eq=False)
class PreparedTranslator:
    """An encoder-decoder that can be read, with all that is needed to read it again.

    Args:
        copy: of the model, on the CPU.
        batch: the real batch that it was read with.
        tokens: what the decoder was told, ``(rows, steps)``.
        call: the model's answers to that batch.
        reading: how it was read.
        labels: codes of the languages.
        transfer: what happens to a batch before the model sees it.
        split_batch: the user's way of taking a batch apart.
    """

    copy: nn.Module
    batch: Batch
    tokens: Tensor
    call: Call
    reading: TranslatorReading
    labels: tuple[str, ...]
    transfer: Transfer
    split_batch: Any = None

    def weights_of(self, live: nn.Module, checkpoint: str | Path | None) -> Translator:
        """The translator with the weights of a checkpoint, or of ``live`` as they are now.

        Raises:
            ValueError: if they can't be had, or it no longer answers as the model does.
        """
        module = with_weights(self.copy, live, checkpoint)
        translator = read_translator_weights(module, self.reading)
        check_translator_parity(
            module, translator, sources_of(self.batch), self.tokens, lambda: self.call(module)
        )
        return translator

    def rows(self, loaders: Any, source: str, seed: int, max_rows: int) -> Pairs | None:
        """Sentences of some dataloaders, at most ``max_rows``; ``None`` where there are none."""
        batches = read_batches(loaders, self.transfer, self.split_batch, False, seed, max_rows)
        return collect_pairs(batches, self.reading, self.labels, source, max_rows)


def prepare_translator(
    module: nn.Module,
    loaders: Any,
    transfer: Transfer,
    split_batch: Any,
    forward: ForwardFunction | None,
    labels: Sequence[str],
    spec: TranslatorSpec,
    seed: int = 0,
) -> PreparedTranslator:
    """Read an encoder-decoder with one real batch of its training data.

    Args:
        module: the user's model; a copy is looked at.
        loaders: its training dataloader.
        transfer: what happens to a batch before the model sees it.
        split_batch: from a batch to sources, their lengths and translations; ``None`` for the usual
            kinds.
        forward: from module and batch to logits; ``None`` for the usual ways.
        labels: codes of the languages.
        spec: what is known of the model.
        seed: which batch.

    Raises:
        ValueError: if there is no batch, it can't be taken apart, or the model can't be read.
    """
    copy, failure = copied(module), None
    batches = read_batches(loaders, transfer, split_batch, seed=seed, least_rows=LEAST_ROWS)
    for batch in islice(batches, 3):
        try:
            with undisturbed(copy):
                call, steps = _find_call(copy, batch, spec, forward)
            tokens = _told(batch, spec)[:, :steps]
            _, reading = read_translator(
                copy,
                sources_of(batch),
                tokens,
                lambda call=call: call(copy),  # type: ignore[misc]
                labels,
                spec,
            )
        except ValueError as error:  # another batch may be clearer
            failure = failure or error
        else:
            found = tuple(labels)
            return PreparedTranslator(
                copy, batch, tokens, call, reading, found, transfer, split_batch
            )
    raise failure or ValueError("The training dataloader has no rows; expected at least one batch.")


def translator_parent(
    translator: Translator, tokenizer: str | None, target_tokenizer: str | None
) -> Parent:
    """A translator with its tokenizers, from their JSON.

    Raises:
        ValueError: if a tokenizer does not fit.
    """
    config = translator.config
    found = []
    for name, text, size in (
        ("tokenizer", tokenizer, config.source_size),
        ("target_tokenizer", target_tokenizer, config.target_size),
    ):
        encoder = None if text is None else TextEncoder(text, config.pad_index, config.side)
        tokens = 0 if encoder is None else encoder.tokenizer.get_vocab_size()
        if tokens > size:
            raise ValueError(
                f"{name} has {tokens} tokens, and the model's embedding {size} rows; expected the "
                "tokenizer that the model was trained with."
            )
        found.append(encoder)
    if tokenizer is not None and target_tokenizer is None and found[0] is not None:
        tokens = found[0].tokenizer.get_vocab_size()
        if tokens > config.target_size:
            raise ValueError(
                f"tokenizer has {tokens} tokens, and the model writes {config.target_size}; "
                "expected target_tokenizer=, too, where it writes otherwise than it reads."
            )
    return Parent.of_translator(translator, found[0], found[1])


def collect_pairs(
    batches: Iterator[Batch],
    reading: TranslatorReading,
    labels: Sequence[str],
    source: str,
    limit: int,
) -> Pairs | None:
    """All rows of some batches as sentences with a translation each.

    The first token of a row's translation says its language.

    Args:
        batches: taken apart: sources, and translations from their start token to their end.
        reading: of the model.
        labels: codes of the languages.
        source: what to call the data in errors.
        limit: keep no more rows than this.

    Raises:
        ValueError: if a translation starts with no start token.
    """
    config = reading.config
    sources: list[list[int]] = []
    targets: dict[str, list[list[int]]] = {code: [] for code in labels}
    codes = dict(zip(config.starts, labels, strict=True))
    for batch in batches:
        rows = sources_of(batch)
        lengths = _lengths(rows, config.pad_index, config.side)
        right = _told(batch, reading.spec).tolist()
        for values, length, tokens in zip(
            rows.values.tolist(), lengths.tolist(), right, strict=True
        ):
            if len(sources) == limit:
                break
            if tokens[0] not in codes:
                raise ValueError(
                    f"The {source} has a translation that starts with token {tokens[0]}; expected "
                    f"one of the start tokens {list(config.starts)}, of {list(labels)}."
                )
            end = tokens.index(config.end) if config.end in tokens else len(tokens)
            body = [token for token in tokens[1:end] if token != config.pad_index]
            left = config.side == "left"
            sources.append(values[len(values) - length :] if left else values[:length])
            for code, found in targets.items():
                found.append(body if code == codes[tokens[0]] else [])
    if not sources:
        return None
    read = padded(sources, config.pad_index)
    if config.side == "left":
        read = Rows(_moved_right(read), read.lengths)
    return Pairs(read, {code: padded(ids, config.pad_index) for code, ids in targets.items()})


def sources_of(batch: Batch) -> Rows:
    """The sources alone."""
    return Rows(batch.rows.values, batch.rows.lengths)


def _lengths(rows: Rows, pad_index: int, side: str) -> Tensor:
    if rows.lengths is not None:
        return rows.lengths
    content = rows.values != pad_index
    if side == "left":
        content = content.flip(1)
    return (content * torch.arange(1, rows.values.shape[1] + 1)).amax(dim=1)


def _moved_right(rows: Rows) -> Tensor:
    """Values with their padding on the left."""
    assert rows.lengths is not None
    steps = rows.values.shape[1]
    index = (torch.arange(steps) + rows.lengths[:, None]) % steps
    return rows.values.gather(1, index)


def _told(batch: Batch, spec: TranslatorSpec) -> Tensor:
    """Translations from their start token on, int64 ``(rows, steps)``.

    Raises:
        ValueError: if they are none.
    """
    targets = batch.rows.targets
    if targets is None or targets.ndim != 2 or targets.dtype == torch.bool or not targets.numel():
        raise ValueError(
            f"The batch's targets are {describe(targets)}; expected token ids of translations, "
            "(rows, steps), from the start token to the end token. Give split_batch=, a function "
            "from a batch to (inputs, targets) or (inputs, lengths, targets)."
        )
    return torch.where(targets == IGNORE, spec.pad_index or 0, targets)


def _find_call(
    module: nn.Module, batch: Batch, spec: TranslatorSpec, forward: ForwardFunction | None
) -> tuple[Call, int]:
    """How to get a model's logits, and for how many tokens of the translations.

    Raises:
        ValueError: if no way gives any; it lists what was tried.
    """
    told, raw = _told(batch, spec), batch.raw
    ways: list[tuple[str, Call]] = []
    if forward is not None:
        ways = [("forward(module, batch)", lambda module: _logits(forward(module, raw)))]
    else:
        for name, tokens in (("targets without the last", told[:, :-1]), ("targets", told)):
            for words, args in (
                (f"module(inputs, lengths, {name})", (batch.inputs, batch.lengths, tokens)),
                (f"module(inputs, {name}, lengths)", (batch.inputs, tokens, batch.lengths)),
                (f"module(inputs, {name})", (batch.inputs, tokens)),
            ):
                if all(item is not None for item in args):
                    ways.append((words, lambda m, args=args: _logits(m(*args))))  # type: ignore[misc]
        ways.append(("module(batch)", lambda module: _logits(module(raw))))
    failures = []
    for words, way in ways:
        try:
            steps = _steps(way(module), told)
        except Exception as error:  # a user's forward may raise anything
            failures.append(f"  {words}: {type(error).__name__}: {str(error)[:200]}")
        else:
            return way, steps
    raise ValueError(
        f"{type(module).__name__} could not be called on a batch. Tried:\n"
        + "\n".join(failures)
        + f"\nThe batch is {describe(batch.raw)}. Give forward=, a function "
        "(module, batch) -> logits that calls it as your training_step does."
    )


def _logits(answer: Any) -> Tensor:
    """The logits in a model's answer: itself, its ``logits``, or the first of a tuple."""
    found = getattr(answer, "logits", answer)
    if isinstance(found, tuple | list) and found:
        found = found[0]
    if not isinstance(found, Tensor) or not found.is_floating_point():
        raise ValueError(f"its answer is {describe(answer)}; expected float logits")
    return found


def _steps(logits: Tensor, told: Tensor) -> int:
    """For how many tokens of each translation there are logits: all, or all but the last."""
    rows, steps = told.shape
    for count in (steps - 1, steps):
        shapes = ((rows, count), (count, rows))
        if logits.ndim == 3 and (
            tuple(logits.shape[:2]) in shapes or (logits.shape[0], logits.shape[2]) in shapes
        ):
            return count
        if logits.ndim == 2 and len(logits) == rows * count:
            return count
    raise ValueError(
        f"its answer has shape {tuple(logits.shape)}; expected logits for each of {rows} "
        f"translations and each of {steps} or {steps - 1} tokens"
    )
