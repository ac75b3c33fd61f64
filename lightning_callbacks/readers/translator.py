"""Encoder-decoders: models that translate, and sentences out of their dataloaders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lightning_callbacks.batches import Batch, describe
from lightning_callbacks.forwards import Way, find_forward, logits_in, with_arguments
from lightning_callbacks.readers.base import Given, Prepared, Reader, Settings, encoder_of
from mlflow_rnnmod.decomposition import Pairs
from mlflow_rnnmod.decomposition.pairs import padded
from mlflow_rnnmod.inputs.rows import IGNORE
from mlflow_rnnmod.networks import Parent, Rows, TextEncoder
from mlflow_rnnmod.networks.guard import undisturbed
from mlflow_rnnmod.networks.translator.parts import find_translator_parts
from mlflow_rnnmod.networks.translator.reading import (
    check_translator_parity,
    read_translator,
    read_translator_weights,
)
from mlflow_rnnmod.networks.translator.spec import TranslatorSpec


@dataclass(frozen=True, eq=False)
class PreparedTranslator(Prepared):
    """An encoder-decoder that can be read.

    Args:
        tokens: what the decoder was told, ``(rows, steps)``.
    """

    tokens: Tensor

    def network_of(self, module: nn.Module) -> Any:
        """The translator, which says the same of each next token of the batch."""
        translator = read_translator_weights(module, self.reading)
        rows = _sources(self.given.batch)
        check_translator_parity(module, translator, rows, self.tokens, lambda: self.call(module))
        return translator

    def encoders(self) -> tuple[TextEncoder | None, ...]:
        """How it reads text, and how it writes it where that is another tokenizer."""
        config, own = self.reading.config, self.given.settings
        reads = encoder_of("tokenizer", own.tokenizer, config.source_size, config)
        writes = encoder_of("target_tokenizer", own.target_tokenizer, config.target_size, config)
        tokens = 0 if reads is None else reads.tokenizer.get_vocab_size()
        if writes is None and tokens > config.target_size:
            raise ValueError(
                f"tokenizer has {tokens} tokens, and the model writes {config.target_size}; "
                "expected target_tokenizer=, too, where it writes otherwise than it reads."
            )
        return reads, writes

    def parent_of(self, network: Any) -> Parent:
        """A translator with its tokenizers."""
        return Parent.of_translator(network, *self.encoders())

    def accepted(self, rows: Pairs, parent: Parent, source: str) -> Pairs:
        """Sentences are as the parent wants them."""
        return rows

    def collected(self, batches: Iterator[Batch], source: str) -> Pairs | None:
        """All rows as sentences with a translation each, whose first token says its language."""
        config = self.reading.config
        codes = dict(zip(config.starts, config.targets, strict=True))
        sources: list[list[int]] = []
        targets: dict[str, list[list[int]]] = {code: [] for code in config.targets}
        for batch in batches:
            told = _told(batch, self.reading.spec).tolist()
            read = _contents(_sources(batch), config.pad_index, config.side)
            for values, tokens in zip(read, told, strict=True):
                if len(sources) == self.given.settings.max_rows:
                    break
                if tokens[0] not in codes:
                    raise ValueError(
                        f"The {source} has a translation that starts with token {tokens[0]}; "
                        f"expected one of the start tokens {list(codes)}, of {[*codes.values()]}."
                    )
                end = tokens.index(config.end) if config.end in tokens else len(tokens)
                body = [token for token in tokens[1:end] if token != config.pad_index]
                sources.append(values)
                for code, found in targets.items():
                    found.append(body if code == codes[tokens[0]] else [])
        if not sources:
            return None
        left = config.side == "left"
        rows = padded([ids[::-1] for ids in sources] if left else sources, config.pad_index)
        rows = replace(rows, values=rows.values.flip(1)) if left else rows
        return Pairs(rows, {code: padded(ids, config.pad_index) for code, ids in targets.items()})


class TranslatorReader(Reader):
    """Reads models that translate, if their start and end tokens are told."""

    spec = TranslatorSpec
    rows = Pairs
    least_labels = 1
    sees = False

    def spec_of(self, given: Mapping[str, Any]) -> Any:
        """Known by the tokens that a translation starts with."""
        return TranslatorSpec.from_mapping(dict(given)) if "starts" in given else None

    def problems_of_arguments(
        self, labels: Any, tokenizer: str | None, target_tokenizer: str | None, spec: Any
    ) -> list[str]:
        """What is wrong with arguments: there is a language for each start token."""
        count, problems = len(spec.starts), []
        if hasattr(labels, "__len__") and len(labels) != count:
            shown = f"labels={labels!r:.200} with {count} start tokens"
            problems.append(f"{shown}; expected a language for each")
            labels = None
        unread = target_tokenizer if tokenizer is None else None  # with the other it is welcome
        return problems + super().problems_of_arguments(labels, tokenizer, unread, spec)

    def claims(self, module: nn.Module, spec: Any) -> bool:
        """What is said to translate."""
        return isinstance(spec, self.spec)

    def problems(self, module: nn.Module, settings: Settings) -> list[str]:
        """Why the model's submodules are no encoder-decoder's."""
        try:
            find_translator_parts(module, settings.spec)
        except ValueError as error:
            return [str(error)]
        return []

    def look(self, given: Given) -> PreparedTranslator:
        """Read the translator by trying what is not said of it."""
        copy, batch, own = given.copy, given.batch, given.settings
        told = _told(batch, own.spec)
        check = partial(_token_logits, told.shape)
        with undisturbed(copy):
            call = find_forward(copy, batch, own.forward, _ways(batch, told), check)
            tokens = told[:, : _steps(call(copy), told.shape)]
        codes = list(map(str, own.spec.starts)) if own.labels is None else own.labels
        rows = _sources(batch)
        _, reading = read_translator(copy, rows, tokens, lambda: call(copy), codes, own.spec)
        return PreparedTranslator(given, call, reading, tokens)


def _sources(batch: Batch) -> Rows:
    """The sources alone."""
    return Rows(batch.rows.values, batch.rows.lengths)


def _contents(rows: Rows, pad_index: int, side: str) -> list[list[int]]:
    """Token ids of each row without its padding."""
    left, steps = side == "left", rows.values.shape[1]
    lengths = rows.lengths
    if lengths is None:
        content = rows.values != pad_index
        content = content.flip(1) if left else content
        lengths = (content * torch.arange(1, steps + 1)).amax(dim=1)
    both = zip(rows.values.tolist(), lengths.tolist(), strict=True)
    return [values[steps - length :] if left else values[:length] for values, length in both]


def _told(batch: Batch, spec: TranslatorSpec) -> Tensor:
    """Translations from their start token on, int64 ``(rows, steps)``."""
    targets = batch.rows.targets
    if targets is None or targets.ndim != 2 or targets.dtype == torch.bool or not targets.numel():
        raise ValueError(
            f"The batch's targets are {describe(targets)}; expected token ids of translations, "
            "(rows, steps), from the start token to the end token. Give split_batch=, a function "
            "from a batch to (inputs, targets) or (inputs, lengths, targets)."
        )
    return torch.where(targets == IGNORE, spec.pad_index or 0, targets)


def _ways(batch: Batch, told: Tensor) -> Iterator[Way]:
    """How a model may be given sources and translations."""
    inputs, lengths = batch.inputs, batch.lengths
    for name, tokens in (("targets without the last", told[:, :-1]), ("targets", told)):
        if lengths is not None:
            yield f"module(inputs, lengths, {name})", with_arguments(inputs, lengths, tokens)
            yield f"module(inputs, {name}, lengths)", with_arguments(inputs, tokens, lengths)
        yield f"module(inputs, {name})", with_arguments(inputs, tokens)
    yield "module(batch)", with_arguments(batch.raw)


def _token_logits(shape: Sequence[int], answer: Any) -> Tensor:
    """Logits of the tokens of some translations."""
    found = logits_in(answer, "")
    _steps(found, shape)
    return found


def _steps(logits: Tensor, shape: Sequence[int]) -> int:
    """For how many tokens of each translation there are logits: all, or all but the last."""
    rows, steps = shape
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
