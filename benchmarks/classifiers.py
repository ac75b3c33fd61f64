"""The paper's networks as a user would write them, and their training by Lightning."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import pytorch_lightning as L
import torch
from torch import Tensor, nn

from benchmarks.data.texts import IGNORE
from mlflow_rnnmod.networks import Rows


@dataclass(frozen=True)
class Training:
    """Settings of one parent; the cache's key together with the data's name and labels.

    Args:
        cell: ``"lstm"``, ``"gru"``, ``"rnn"`` or ``"rnn_relu"``; ``"fcnn"`` for a dense network.
        layers: number of recurrent, or of hidden dense, layers.
        units: of each of them.
        embedding: length of an embedding vector.
        steps: words that a text is cut to, ``None`` for all.
        vocabulary: words of the tokenizer, at most.
        epochs: at most.
        patience: epochs without a better validation metric after which training ends.
        batch_size: rows of a batch.
        learning_rate: of Adam.
        dropout: before and after the recurrent layers.
        word_dropout: share of words that are replaced by the unknown one; without it that word is
            never seen in training, and noise to the network ever after.
        weight_decay: of Adam.
        seed: of weights, batches and dropout.
        feed: ``"steps"``, ``"flat"`` (the whole text as one step) or ``"repeat"`` (that step again
            for each output step).
        readout: what the output layer reads: the state at the last word (``"last_valid"``), the
            ``"max_valid"`` or ``"mean_valid"`` over words, or the state at ``"all_steps"``.
        words: kind of tokenizer: ``"words"``, ``"numbers"`` (all numbers are one word) or
            ``"tokens"`` (what stands between spaces).
        bucketed: whether a batch holds texts of like length.
        decay: whether the learning rate falls to a tenth, epoch by epoch.
        shuffled: whether each text's words are put in another order each time. A network that reads
            the whole text at once else learns each word at each place by itself.
        alike: whether such a network's weights start the same for each place of the text.
        embedding_scale: standard deviation of the embedding's first weights.
    """

    cell: str = "lstm"
    layers: int = 1
    units: int = 100
    embedding: int = 50
    steps: int | None = 15
    vocabulary: int = 10_000
    epochs: int = 30
    patience: int = 3
    batch_size: int = 32
    learning_rate: float = 1e-3
    dropout: float = 0.0
    word_dropout: float = 0.1
    weight_decay: float = 0.0
    seed: int = 0
    feed: str = "steps"
    readout: str = "last_valid"
    words: str = "words"
    bucketed: bool = False
    decay: bool = False
    shuffled: bool = False
    alike: bool = False
    embedding_scale: float = 1.0

    def key(self) -> dict[str, Any]:
        """What the cache knows these settings by: newer ones only where they are not the default.

        Without that, parents trained before a setting was there would be trained again.
        """
        defaults = {f.name: f.default for f in fields(self)}
        found = asdict(self)
        return {k: v for k, v in found.items() if k not in _NEWER or v != defaults[k]}

    def scratch(self, least: int) -> Training:
        """The settings of a model that learns some labels alone, for at least so many epochs."""
        return replace(self, epochs=max(self.epochs, least))


_NEWER = (
    "feed",
    "readout",
    "words",
    "bucketed",
    "decay",
    "shuffled",
    "alike",
    "embedding_scale",
)


class RecurrentClassifier(nn.Module):
    """Embedding, recurrent layers, output layer: one answer a text, or one a step.

    Args:
        vocabulary: number of token ids; 0 is padding, 1 the unknown word.
        labels: number of labels.
        settings: sizes, and how the network is fed and read out.
        output_steps: number of steps that ``feed="repeat"`` repeats the text for.
    """

    def __init__(
        self, vocabulary: int, labels: int, settings: Training, output_steps: int | None = None
    ) -> None:
        super().__init__()
        self.steps, self.output_steps = settings.steps or 0, output_steps or 1
        self.feed, self.readout = settings.feed, settings.readout
        kind = {"lstm": nn.LSTM, "gru": nn.GRU}.get(settings.cell, nn.RNN)
        extra = {"nonlinearity": "relu"} if settings.cell == "rnn_relu" else {}
        size = settings.embedding * (1 if self.feed == "steps" else self.steps)
        self.embedding = nn.Embedding(vocabulary, settings.embedding, padding_idx=0)
        self.recurrent = kind(size, settings.units, settings.layers, batch_first=True, **extra)
        self.dropout = nn.Dropout(settings.dropout)
        self.head = nn.Linear(settings.units, labels)
        if settings.embedding_scale != 1.0:
            self.embedding.weight.detach().mul_(settings.embedding_scale)
        if settings.alike:
            weight = self.recurrent.weight_ih_l0.detach()
            weight.copy_(weight[:, : settings.embedding].repeat(1, self.steps))

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Logits ``(rows, labels)`` or ``(rows, steps, labels)`` of token ids ``(rows, steps)``."""
        if self.feed != "steps":
            x = nn.functional.pad(x, (0, self.steps - x.shape[1]))
        embedded = self.dropout(self.embedding(x))
        if self.feed != "steps":
            embedded = embedded.flatten(1).unsqueeze(1)
        if self.feed == "repeat":
            embedded = embedded.expand(-1, self.output_steps, -1)
        out, _ = self.recurrent(embedded)
        return self.head(self.dropout(self._read(out, lengths)))

    def _read(self, out: Tensor, lengths: Tensor) -> Tensor:
        if self.readout == "all_steps":
            return out
        if self.feed == "flat":
            return out[:, -1]
        if self.readout == "last_valid":
            return out[torch.arange(len(out)), lengths - 1]
        valid = (torch.arange(out.shape[1]) < lengths[:, None]).unsqueeze(2)
        if self.readout == "mean_valid":
            return (out * valid).sum(1) / lengths[:, None]
        return out.masked_fill(~valid, -torch.inf).amax(1)


class ClassifierTraining(L.LightningModule):
    """Trains a :class:`RecurrentClassifier`; logs ``metric``, see :func:`counts`."""

    def __init__(
        self, network: RecurrentClassifier, settings: Training, output: str, end: int | None = None
    ) -> None:
        super().__init__()
        self.network, self.settings, self.output, self.end = network, settings, output, end
        self.found = torch.zeros(2)

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        """Cross-entropy (of each label by itself for multilabel), with some words unknown."""
        x, lengths, y = batch
        drop = torch.rand(x.shape) < self.settings.word_dropout
        x = torch.where(drop & (x != 0), 1, x)
        if self.settings.shuffled:
            x = shuffle_words(x, lengths)
        logits = self.network(x, lengths)
        if self.output == "multilabel":
            return nn.functional.binary_cross_entropy_with_logits(logits, y.float())
        return nn.functional.cross_entropy(logits.flatten(0, -2), y.flatten(), ignore_index=IGNORE)

    def on_validation_epoch_start(self) -> None:
        """Count anew."""
        self.found = torch.zeros(2)

    def validation_step(self, batch: list[Tensor], _: int) -> None:
        """Count what is right."""
        x, lengths, y = batch
        self.found += counts(self.network(x, lengths), y, self.output, self.end)

    def on_validation_epoch_end(self) -> None:
        """Share of what is right."""
        self.log("metric", self.found[0] / self.found[1])

    def configure_optimizers(self) -> Any:
        """Adam, with a falling learning rate where ``decay`` says so."""
        optimizer = torch.optim.Adam(
            self.parameters(),
            self.settings.learning_rate,
            weight_decay=self.settings.weight_decay,
            fused=True,
        )
        if not self.settings.decay:
            return optimizer
        rate = 0.1 ** (1 / self.settings.epochs)
        return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, rate)]


def counts(logits: Tensor, targets: Tensor, output: str, end: int | None = None) -> Tensor:
    """Two numbers whose ratio is the metric, and which add up over batches.

    Labels and tags: how many are right, of how many that are not to be ignored. Multilabel and
    lists: twice the labels found, and the labels found, those given and those wanted added up
    (micro-F1).
    """
    if output in ("label", "tags"):
        counted = targets != IGNORE
        right = (logits.argmax(-1) == targets) & counted
        return torch.stack([right.sum(), counted.sum()]).float()
    if output == "multilabel":
        given, wanted = logits >= 0, targets.bool()
    else:
        assert end is not None
        given = listed(logits.argmax(-1), end, logits.shape[-1])
        wanted = listed(targets, end, logits.shape[-1])
    both = (given & wanted).sum()
    return torch.stack([2 * both, given.sum() + wanted.sum()]).float()


def listed(found: Tensor, end: int, labels: int) -> Tensor:
    """Which labels stand before a list's first ``end``.

    Args:
        found: int64 ``(rows, steps)``; ``IGNORE`` ends a list as well.
        end: index of the label that ends one.
        labels: how many there are.

    Returns:
        bool ``(rows, labels)``.
    """
    before = ((found == end) | (found == IGNORE)).cumsum(1) == 0
    table = torch.zeros(len(found), labels + 1, dtype=torch.bool)
    table.scatter_(1, torch.where(before, found, labels), True)
    return table[:, :labels]


def shuffle_words(x: Tensor, lengths: Tensor) -> Tensor:
    """Each row's valid tokens in a random order; padding, on the right, stays there."""
    padding = torch.arange(x.shape[1]) >= lengths[:, None]
    return x.gather(1, (torch.rand(x.shape) + padding).argsort(1))


class Batches:
    """Rows in batches, cut to the longest of each; shuffled anew at each pass where asked to.

    Args:
        rows: with lengths and targets.
        size: rows of a batch.
        shuffle: whether their order is drawn (from torch's generator).
        bucketed: whether rows of like length stand in a batch; batches still come in any order.
        tagged: whether targets have a step for each of the inputs' steps.
    """

    def __init__(
        self, rows: Rows, size: int, shuffle: bool, bucketed: bool = False, tagged: bool = False
    ) -> None:
        assert rows.lengths is not None and rows.targets is not None
        self.values, self.targets = rows.values, rows.targets
        self.lengths = rows.lengths.clamp(min=1)
        self.size, self.shuffle, self.bucketed, self.tagged = size, shuffle, bucketed, tagged

    def __len__(self) -> int:
        return -(-len(self.values) // self.size)

    def __iter__(self) -> Iterator[list[Tensor]]:
        for index in self.order():
            steps = int(self.lengths[index].max())
            targets = self.targets[index]
            yield [
                self.values[index, :steps],
                self.lengths[index],
                targets[:, :steps] if self.tagged else targets,
            ]

    def order(self) -> list[Tensor]:
        """Indices of each batch's rows."""
        count = len(self.values)
        order = torch.randperm(count) if self.shuffle else torch.arange(count)
        if not self.bucketed:
            return list(order.split(self.size))
        parts = order.split(64 * self.size)
        sorted_parts = [part[self.lengths[part].argsort(stable=True)] for part in parts]
        batches = [batch for part in sorted_parts for batch in part.split(self.size)]
        if self.shuffle:
            batches = [batches[i] for i in torch.randperm(len(batches)).tolist()]
        return batches
