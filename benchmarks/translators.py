"""Encoder-decoders trained by Lightning, their BLEU, and the parents made of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as L
import sacrebleu
import torch
from torch import Tensor, nn

from benchmarks.data import TranslationData, subword_tokenizer
from benchmarks.encoder_decoder import END, PAD, UNKNOWN, EncoderDecoder, TranslatorTraining
from benchmarks.parents import cached, fit
from mlflow_rnnmod.networks import Parent, TextEncoder, Translator, TranslatorConfig

VALIDATION_ROWS = 1000
# Tokens of a sentence that is trained on, at most: a handful have hundreds.
LONGEST = 50
LOG = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Pairs:
    """One split as tokens: sources, and their translations with start and end tokens.

    Args:
        source: int64 ``(rows, steps)``.
        lengths: int64 ``(rows,)``.
        targets: for each language int64 ``(rows, steps)``: start, translation, end, padding;
            nothing but padding where there is no translation.
    """

    source: Tensor
    lengths: Tensor
    targets: list[Tensor]

    @classmethod
    def of(
        cls, data: TranslationData, split: str, source: TextEncoder, target: TextEncoder
    ) -> Pairs:
        """The split's sentences through both tokenizers."""
        read = source(data.sources(split))
        assert read.lengths is not None
        targets = []
        for code in data.targets:
            start = target.tokenizer.token_to_id(start_token(code))
            texts = data.references(split, code)
            found = target(texts)
            assert found.lengths is not None
            rows = len(found.values)
            room = torch.full((rows, found.values.shape[1] + 2), PAD)
            room[:, 0] = start
            room[:, 1:-1] = found.values
            room[torch.arange(rows), found.lengths + 1] = END
            room[torch.tensor([not text for text in texts])] = PAD
            targets.append(room)
        return cls(read.values, read.lengths.clamp(min=1), targets)

    def shorter(self, steps: int) -> Pairs:
        """The rows whose source and translations have at most so many tokens, cut to that."""
        keep = self.lengths <= steps
        for target in self.targets:
            keep &= (target != PAD).sum(1) <= steps
        targets = [
            nn.functional.pad(t[keep, :steps], (0, max(0, steps - t.shape[1])), value=PAD)
            for t in self.targets
        ]
        return Pairs(self.source[keep, :steps], self.lengths[keep], targets)


class PairBatches:
    """Batches of sources of one length, so that nothing is packed, each with all translations."""

    def __init__(self, pairs: Pairs, size: int) -> None:
        self.pairs, self.size = pairs, size
        # Sources of a batch have translations of like length as well.
        self.room = torch.stack([(t != PAD).sum(1) for t in pairs.targets]).sum(0)

    def __len__(self) -> int:
        counts = self.pairs.lengths.bincount()
        return int((-(-counts // self.size)).sum())

    def __iter__(self) -> Iterator[list[Tensor]]:
        batches = []
        order = torch.randperm(len(self.pairs.lengths))
        for length in self.pairs.lengths.unique().tolist():
            same = order[self.pairs.lengths[order] == length]
            for part in same.split(16 * self.size):
                by_room = part[self.room[part].argsort()]
                batches += [(length, batch) for batch in by_room.split(self.size)]
        for i in torch.randperm(len(batches)).tolist():
            length, rows = batches[i]
            targets = [t[rows] for t in self.pairs.targets]
            steps = max(int((t != PAD).sum(1).max()) for t in targets)
            yield [
                self.pairs.source[rows, :length],
                torch.cat([t[:, :steps] for t in targets]),
            ]


class TranslatorLearning(L.LightningModule):
    """Trains an :class:`EncoderDecoder`; logs validation's mean BLEU as ``metric``."""

    def __init__(
        self,
        network: EncoderDecoder,
        settings: TranslatorTraining,
        data: TranslationData,
        source: TextEncoder,
        target: TextEncoder,
    ) -> None:
        super().__init__()
        self.network, self.settings, self.data = network, settings, data
        self.encoders = (source, target)

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        """Cross-entropy of each next token."""
        source, target = batch
        inputs, wanted = target[:, :-1], target[:, 1:]
        if self.settings.word_dropout:
            source = self._unknown(source)
            inputs = torch.cat([inputs[:, :1], self._unknown(inputs[:, 1:])], dim=1)
        lengths = torch.full((len(source),), source.shape[1])
        counted = wanted != PAD
        # Half precision halves the time.
        with torch.autocast("cpu", torch.bfloat16):
            state = self.network.encode(source, lengths)
            copies = len(target) // len(source)
            if isinstance(state, tuple):
                state = tuple(part.repeat(1, copies, 1) for part in state)
            else:
                state = state.repeat(1, copies, 1)
            out, _ = self.network.decode(inputs, state)
            logits = self.network.output(out[counted])
        return nn.functional.cross_entropy(logits.float(), wanted[counted])

    def _unknown(self, tokens: Tensor) -> Tensor:
        drop = torch.rand(tokens.shape) < self.settings.word_dropout
        return torch.where(drop & (tokens != PAD), UNKNOWN, tokens)

    def validation_step(self, batch: Any, _: int) -> None:
        """Translate a part of the validation split, and compare."""
        part = self.data.first(VALIDATION_ROWS)
        found = bleu_scores(self.network, part, "validation", *self.encoders)
        LOG.info("%s", {code: round(score, 2) for code, score in found.items()})
        self.log("metric", sum(found.values()) / len(found), batch_size=1)

    def configure_optimizers(self) -> Any:
        """Adam, with a learning rate that falls to a tenth."""
        optimizer = torch.optim.Adam(self.parameters(), self.settings.learning_rate, fused=True)
        rate = 0.1 ** (1 / self.settings.epochs)
        return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, rate)]


def start_token(code: str) -> str:
    """The token that tells a decoder to answer in this language."""
    return f"[{code}]"


def translations(
    network: EncoderDecoder,
    sentences: Sequence[str],
    code: str,
    source: TextEncoder,
    target: TextEncoder,
    batch_size: int = 256,
) -> list[str]:
    """Greedy translations of some sentences into one language."""
    rows = source(sentences)
    assert rows.lengths is not None
    lengths = rows.lengths.clamp(min=1)
    start = target.tokenizer.token_to_id(start_token(code))
    found: dict[int, list[int]] = {}
    for index in lengths.argsort(stable=True).split(batch_size):
        steps = int(lengths[index].max())
        answers = network.translate(rows.values[index, :steps], lengths[index], start)
        found.update(zip(index.tolist(), answers, strict=True))
    return target.tokenizer.decode_batch([found[i] for i in range(len(sentences))])


def bleu_scores(
    network: EncoderDecoder,
    data: TranslationData,
    split: str,
    source: TextEncoder,
    target: TextEncoder,
) -> dict[str, float]:
    """Corpus BLEU by sacrebleu (0 to 100) of each language's greedy translations of one split."""
    was = network.training
    network.eval()
    found = {}
    for code in data.targets:
        right = data.references(split, code)
        known = [i for i, text in enumerate(right) if text]
        sentences = [data.sources(split)[i] for i in known]
        answers = translations(network, sentences, code, source, target)
        found[code] = sacrebleu.corpus_bleu(answers, [[right[i] for i in known]]).score
    network.train(was)
    return found


def trained_translator(
    data: TranslationData,
    training: TranslatorTraining,
    cache: Path | None,
    min_epochs: int | None = None,
) -> dict[str, Any]:
    """What the cache holds of a translator, which is trained first where it is not there.

    Returns:
        ``weights`` of an :class:`EncoderDecoder`, ``source_tokenizer`` and ``target_tokenizer``
        (their JSON), ``seconds``, ``metric`` (BLEU on part of validation), ``epochs`` and ``key``.
    """
    key = ["translator", data.name, data.source, data.targets, asdict(training), min_epochs]
    return cached(key, cache, lambda: _train(data, training, min_epochs or 0))


def _train(data: TranslationData, training: TranslatorTraining, min_epochs: int) -> dict[str, Any]:
    L.seed_everything(training.seed, verbose=False)
    source, target = learn_tokenizers(data, training)
    network = EncoderDecoder(
        source.tokenizer.get_vocab_size(), target.tokenizer.get_vocab_size(), training
    )
    best = fit(
        TranslatorLearning(network, training, data, source, target),
        PairBatches(Pairs.of(data, "train", source, target).shorter(LONGEST), training.batch_size),
        [0],
        training.epochs,
        training.patience,
        min_epochs,
    )
    tokenizers = {"source_tokenizer": source.json, "target_tokenizer": target.json}
    return {**best.found("network."), **tokenizers}


def translator_parent(
    data: TranslationData,
    training: TranslatorTraining,
    cache: Path | None,
    min_epochs: int | None = None,
) -> tuple[Parent, float]:
    """A translator as a parent, and the seconds that its training took (when it took place)."""
    kept = trained_translator(data, training, cache, min_epochs)
    return to_translator(kept, data.targets, training), kept["seconds"]


def to_translator(
    kept: dict[str, Any], targets: Sequence[str], training: TranslatorTraining
) -> Parent:
    """A trained :class:`EncoderDecoder` as a parent whose labels are the target languages."""
    weights = kept["weights"]
    source, target = (TextEncoder(kept[f"{name}_tokenizer"]) for name in ("source", "target"))
    units, size = training.units, training.embedding
    config = TranslatorConfig(
        cell="rnn_tanh" if training.cell == "rnn" else training.cell,  # type: ignore[arg-type]
        source_size=len(weights["source_embedding.weight"]),
        source_embedding=size,
        target_size=len(weights["target_embedding.weight"]),
        target_embedding=size,
        encoder=((units, units),),
        decoder=(units,) * training.layers,
        targets=tuple(targets),
        starts=tuple(target.tokenizer.token_to_id(start_token(code)) for code in targets),
        end=END,
        pad_index=PAD,
        bridge="linear",
        bridge_activation="tanh",
        packed=True,
    )
    found = {
        "encoder.embedding.weight": weights["source_embedding.weight"],
        "embedding.weight": weights["target_embedding.weight"],
        "output.weight": weights["output.weight"],
        "output.bias": weights["output.bias"],
    }
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        for direction, suffix in (("fwd", ""), ("bwd", "_reverse")):
            source_name = f"encoder.{name}_l0{suffix}"
            found[f"encoder.recurrent.0.{direction}.{name}_l0"] = weights[source_name]
        for layer in range(training.layers):
            found[f"decoder.{layer}.{name}_l0"] = weights[f"decoder.{name}_l{layer}"]
    for part, state in enumerate(("h", "c") if training.cell == "lstm" else ("h",)):
        for layer in range(training.layers):
            for name in ("weight", "bias"):
                number = part * training.layers + layer
                found[f"bridge.{layer}.{state}.{name}"] = weights[f"bridge.{number}.{name}"]
    translator = Translator(config)
    translator.load_state_dict({name: w.detach().clone() for name, w in found.items()})
    return Parent.of_translator(translator, source, target)


def learn_tokenizers(
    data: TranslationData, training: TranslatorTraining
) -> tuple[TextEncoder, TextEncoder]:
    """One for the source language, and one that all target languages share."""
    source = subword_tokenizer(data.sources("train"), training.source_vocabulary)
    texts = [text for code in data.targets for text in data.references("train", code) if text]
    starts = [start_token(code) for code in data.targets]
    target = subword_tokenizer(texts, training.vocabulary * len(data.targets), starts)
    return TextEncoder(source), TextEncoder(target)
