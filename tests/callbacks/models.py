"""Small classifiers, as people write them, and data that they learn in a moment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.data import DataLoader, Dataset, TensorDataset

LABELS = ["low", "middle", "high"]
VOCABULARY = 14


def token_data(rows: int = 96, seed: int = 0, steps: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids padded on the right with 0, lengths, and labels: which third most tokens are of."""
    draw = torch.Generator().manual_seed(seed)
    targets = torch.randint(3, (rows,), generator=draw)
    lengths = torch.randint(1, steps + 1, (rows,), generator=draw)
    x = targets[:, None] * 4 + torch.randint(1, 6, (rows, steps), generator=draw)
    x[torch.arange(steps)[None, :] >= lengths[:, None]] = 0
    return x, lengths, targets


def feature_data(rows: int = 64, seed: int = 0, steps: int = 6) -> tuple[Tensor, Tensor]:
    """Float features and the label that their mean has to do with."""
    draw = torch.Generator().manual_seed(seed)
    targets = torch.randint(3, (rows,), generator=draw)
    x = torch.randn(rows, steps, 4, generator=draw) + targets[:, None, None] - 1.0
    return x, targets


def token_loader(rows: int = 96, seed: int = 0, shuffle: bool = True, **options: Any) -> DataLoader:
    x, _, y = token_data(rows, seed)
    return DataLoader(TensorDataset(x, y), batch_size=16, shuffle=shuffle, **options)


def loaders() -> tuple[DataLoader, DataLoader]:
    """For training, shuffled, and for validation."""
    return token_loader(), token_loader(64, seed=1, shuffle=False)


class ListDataset(Dataset):
    """Items from a list."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


def layers(module: nn.Module, cell: type[nn.RNNBase] = nn.GRU, labels: int = 3) -> None:
    """Give a model its layers."""
    module.embedding = nn.Embedding(VOCABULARY, 5, padding_idx=0)
    module.recurrent = cell(5, 8, batch_first=True)
    module.dropout = nn.Dropout(0.2)
    module.head = nn.Linear(8, labels)


class Trained:
    """How a model of any of the two Lightning namespaces is trained; ``(x, y)`` batches."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.loss(batch)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.loss(batch))

    def loss(self, batch: Any) -> Tensor:
        x, y = batch
        return nn.functional.cross_entropy(self(x), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 0.02)


class Classifier(Trained, pl.LightningModule):
    """Reads token ids; lengths are found by the padding."""

    def __init__(self, cell: type[nn.RNNBase] = nn.GRU, labels: int = 3) -> None:
        super().__init__()
        layers(self, cell, labels)

    def forward(self, x: Tensor) -> Tensor:
        lengths = (x != 0).sum(1).clamp(min=1).cpu()
        embedded = self.dropout(self.embedding(x))
        packed = pack_padded_sequence(embedded, lengths, batch_first=True, enforce_sorted=False)
        state = self.recurrent(packed)[1]
        state = state[0] if isinstance(state, tuple) else state
        return self.head(self.dropout(state[-1]))


class WithLengths(Classifier):
    """Batches ``(x, lengths, y)``; without the lengths its answers are others."""

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        out, _ = self.recurrent(self.embedding(x))
        if lengths is None:
            return self.head(out[:, -1])
        return self.head(out[torch.arange(len(x)), lengths - 1])

    def loss(self, batch: Any) -> Tensor:
        x, lengths, y = batch
        return nn.functional.cross_entropy(self(x, lengths), y)


class WithMask(Classifier):
    """Batches as `transformers` has them, left-padded; the mean over the valid steps."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None):
        out, _ = self.recurrent(self.embedding(input_ids))
        mask = attention_mask[..., None].float()
        return {"logits": self.head((out * mask).sum(1) / mask.sum(1))}

    def loss(self, batch: Any) -> Tensor:
        logits = self(batch["input_ids"], batch["attention_mask"])["logits"]
        return nn.functional.cross_entropy(logits, batch["labels"])


class TakesBatch(Classifier):
    """A forward that is given the whole batch, of keys that nobody else uses."""

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return self.head(self.recurrent(self.embedding(batch["ids"]))[0].amax(dim=1))

    def loss(self, batch: Any) -> Tensor:
        return nn.functional.cross_entropy(self(batch), batch["class"])


class Features(Classifier):
    """Float features instead of token ids."""

    def __init__(self) -> None:
        super().__init__()
        del self.embedding
        self.recurrent = nn.LSTM(4, 8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.recurrent(x)[0].mean(dim=1))


class TimeFirst(Classifier):
    """Steps before rows, in its batches too."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.GRU(5, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.recurrent(self.embedding(x))[0].mean(dim=0))


class TwoRecurrent(Classifier):
    """Two recurrent layers of which one is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.LSTM(5, 8)


class Single(Classifier):
    """One output for two labels."""

    def __init__(self) -> None:
        super().__init__(labels=1)

    def loss(self, batch: Any) -> Tensor:
        x, y = batch
        return nn.functional.binary_cross_entropy_with_logits(self(x)[:, 0], y)


class Attentive(Classifier):
    """Has an attention that no reading covers."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.recurrent(self.embedding(x))
        return self.head((out * self.attention(out).softmax(dim=1)).sum(dim=1))


def masked_left(rows: int = 64, seed: int = 0) -> DataLoader:
    """Batches of mappings, padded on the left."""
    x, lengths, y = token_data(rows, seed)
    items = []
    for row, length, target in zip(x, lengths.tolist(), y, strict=True):
        ids = torch.cat([row[length:], row[:length]])
        mask = torch.arange(len(row)) >= len(row) - length
        items.append({"input_ids": ids, "attention_mask": mask.long(), "labels": target})
    return DataLoader(ListDataset(items), batch_size=16, shuffle=True)


def collated(collate: Callable[[list[Any]], Any], rows: int = 64, size: int = 16) -> DataLoader:
    """Batches made by ``collate`` from ``(x, length, y)``."""
    x, lengths, y = token_data(rows)
    return DataLoader(
        ListDataset(list(zip(x, lengths, y, strict=True))),
        batch_size=size,
        shuffle=True,
        collate_fn=collate,
    )
