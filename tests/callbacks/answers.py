"""Models that tag, list, or answer with several labels, and data that they learn in a moment."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.data import DataLoader, TensorDataset

from tests.callbacks.models import VOCABULARY, Trained, token_data

LABELS = ["low", "middle", "high"]
LISTED = [*LABELS, "end"]
STEPS = 7


def third_of(x: Tensor) -> Tensor:
    """Which label a token stands for."""
    return ((x - 1).clamp(min=0) // 5).clamp(max=2)


def tag_data(rows: int = 96, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, lengths, and the label of each one or, at every other step, of the one before it."""
    draw = torch.Generator().manual_seed(seed)
    _, lengths, _ = token_data(rows, seed)
    x = torch.randint(1, VOCABULARY, (rows, STEPS), generator=draw)
    y = third_of(x)
    y[:, 1::2] = y[:, 0:-1:2]
    padding = torch.arange(STEPS) >= lengths[:, None]
    return x.masked_fill(padding, 0), lengths, y.masked_fill(padding, -100)


def several_data(rows: int = 96, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Tokens, and which labels they stand for."""
    x, lengths, _ = tag_data(rows, seed)
    valid = torch.arange(STEPS) < lengths[:, None]
    hits = nn.functional.one_hot(third_of(x), 3) * valid[..., None]
    return x, hits.amax(dim=1).float()


def list_data(rows: int = 96, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Tokens, and the list of labels that they stand for, then its end, to the end."""
    x, several = several_data(rows, seed)
    y = torch.full((rows, 4), 3)
    for row, hits in enumerate(several):
        found = hits.nonzero()[:, 0]
        y[row, : len(found)] = found
    return x, y


def one_data(rows: int = 96, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Tokens, and one label."""
    x, _, y = token_data(rows, seed)
    return x, y


def loaders_of(make: Any) -> tuple[DataLoader, DataLoader]:
    """For training and for validation."""
    return (
        DataLoader(TensorDataset(*make(160)), batch_size=32, shuffle=True),
        DataLoader(TensorDataset(*make(80, 1)), batch_size=32),
    )


class Tagger(Trained, pl.LightningModule):
    """Packed, in both directions; answers ``(rows, labels, steps)``, as the loss wants them."""

    def __init__(self, labels: int = 3) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 5, padding_idx=0)
        self.recurrent = nn.LSTM(5, 10, batch_first=True, bidirectional=True)
        self.head = nn.Linear(20, labels)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(
            self.embedding(x), lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        out, _ = pad_packed_sequence(
            self.recurrent(packed)[0], batch_first=True, total_length=x.shape[1]
        )
        return self.head(out).transpose(1, 2)

    def loss(self, batch: Any) -> Tensor:
        x, lengths, y = batch
        return nn.functional.cross_entropy(self(x, lengths), y)


class Several(Trained, pl.LightningModule):
    """A number for each of several labels."""

    def __init__(self, labels: int = 3) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 5, padding_idx=0)
        self.recurrent = nn.GRU(5, 12, batch_first=True)
        self.head = nn.Linear(12, labels)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.recurrent(self.embedding(x))[0].amax(dim=1))

    def loss(self, batch: Any) -> Tensor:
        x, y = batch
        return nn.functional.binary_cross_entropy_with_logits(self(x), y)


class Lister(Trained, pl.LightningModule):
    """Reads its input at once, and again for each of four labels."""

    def __init__(self, labels: int = 4) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 5, padding_idx=0)
        self.recurrent = nn.LSTM(5 * STEPS, 16, batch_first=True)
        self.head = nn.Linear(16, labels)

    def forward(self, x: Tensor) -> Tensor:
        whole = self.embedding(x).flatten(1)
        return self.head(self.recurrent(whole[:, None].repeat(1, 4, 1))[0])

    def loss(self, batch: Any) -> Tensor:
        x, y = batch
        return nn.functional.cross_entropy(self(x).transpose(1, 2), y)


class AtOnce(Trained, pl.LightningModule):
    """Reads its input in one step."""

    def __init__(self, labels: int = 3) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 5, padding_idx=0)
        self.recurrent = nn.GRU(5 * STEPS, 12, batch_first=True)
        self.hidden = nn.Linear(12, 9)
        self.head = nn.Linear(9, labels)

    def forward(self, x: Tensor) -> Tensor:
        whole = self.embedding(x).reshape(len(x), 1, -1)
        return self.head(self.hidden(self.recurrent(whole)[0][:, 0]).relu())
