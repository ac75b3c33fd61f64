"""Recurrent classifiers with more before, around and beside the cells; convolutions over words."""

from __future__ import annotations

import math
from typing import Any

import pytorch_lightning as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from benchmarks.architectures.plain import LABELS, SIZE, UNITS, WORDS


class LinearBefore(nn.Module):
    """A dense layer between embedding and LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, SIZE, padding_idx=0)
        self.project = nn.Linear(SIZE, 7)
        self.lstm = nn.LSTM(7, UNITS, batch_first=True)
        self.fc = nn.Linear(UNITS, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        out, _ = self.lstm(torch.relu(self.project(self.embedding(x))))
        return self.fc(out[:, -1])


class TanhBefore(nn.Module):
    """An activation between embedding and LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, SIZE, padding_idx=0)
        self.lstm = nn.LSTM(SIZE, UNITS, batch_first=True)
        self.fc = nn.Linear(UNITS, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        _, (h, _) = self.lstm(torch.tanh(self.embedding(x)))
        return self.fc(h[-1])


class Scaled(L.LightningModule):
    """An embedding times the root of its size, normed."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, SIZE, padding_idx=0)
        self.norm = nn.LayerNorm(SIZE)
        self.gru = nn.GRU(SIZE, UNITS, batch_first=True)
        self.fc = nn.Linear(UNITS, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        embedded = self.norm(self.embedding(x) * math.sqrt(SIZE))
        return self.fc(self.gru(embedded)[1][-1])


class TwoEmbeddings(nn.Module):
    """A fixed and a trained embedding side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.static = nn.Embedding(WORDS, SIZE, padding_idx=0)
        self.tuned = nn.Embedding(WORDS, 4, padding_idx=0)
        self.static.weight.requires_grad_(False)
        self.lstm = nn.LSTM(SIZE + 4, UNITS, batch_first=True)
        self.fc = nn.Linear(UNITS, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        both = torch.cat([self.static(x), self.tuned(x)], dim=-1)
        return self.fc(self.lstm(both)[1][0][-1])


class LearnedStart(nn.Module):
    """A first state that is learned, and packed words."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, SIZE, padding_idx=0)
        self.gru = nn.GRU(SIZE, UNITS, batch_first=True)
        self.h0 = nn.Parameter(torch.randn(1, 1, UNITS) * 0.5)
        self.fc = nn.Linear(UNITS, LABELS)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Logits."""
        h0 = self.h0.expand(-1, x.size(0), -1).contiguous()
        packed = pack_padded_sequence(
            self.embedding(x), lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        _, h = self.gru(packed, h0)
        return self.fc(h[-1])


class ZeroStart(nn.Module):
    """First states of zeros, made by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, SIZE, padding_idx=0)
        self.lstm = nn.LSTM(SIZE, UNITS, num_layers=2, batch_first=True)
        self.fc = nn.Linear(UNITS, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        h0 = torch.zeros(2, x.size(0), UNITS).to(x.device)
        c0 = torch.zeros(2, x.size(0), UNITS).to(x.device)
        out, _ = self.lstm(torch.relu(self.embedding(x)), (h0, c0))
        return self.fc(out[:, -1, :])


class EncoderState(nn.Module):
    """A second cell starts where the first one ended."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, SIZE, padding_idx=0)
        self.first = nn.LSTM(SIZE, UNITS, batch_first=True)
        self.second = nn.LSTM(SIZE, UNITS, batch_first=True)
        self.fc = nn.Linear(UNITS, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        embedded = self.embedding(x)
        _, state = self.first(embedded)
        out, _ = self.second(embedded, state)
        return self.fc(out.mean(dim=1))


class Residual(L.LightningModule):
    """Sums around LSTMs, with norms."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, UNITS, padding_idx=0)
        self.layers = nn.ModuleList([nn.LSTM(UNITS, UNITS, batch_first=True) for _ in range(2)])
        self.norms = nn.ModuleList([nn.LayerNorm(UNITS) for _ in range(2)])
        self.fc = nn.Linear(UNITS, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        h = self.embedding(x)
        for lstm, norm in zip(self.layers, self.norms, strict=True):
            h = norm(h + lstm(h)[0])
        return self.fc(h[:, -1])


class NormsBetween(nn.Module):
    """Norms and dropout between stacked cells."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, SIZE, padding_idx=0)
        self.one, self.two = (
            nn.GRU(SIZE, UNITS, batch_first=True),
            nn.GRU(UNITS, 6, batch_first=True),
        )
        self.norm, self.drop = nn.LayerNorm(UNITS), nn.Dropout(0.2)
        self.fc = nn.Linear(6, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        out, _ = self.one(self.embedding(x))
        out, h = self.two(self.drop(self.norm(out)))
        return self.fc(h[-1])


class ConvolutionBefore(nn.Module):
    """A convolution over words before the LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, SIZE, padding_idx=0)
        self.conv = nn.Conv1d(SIZE, 7, kernel_size=3, padding=1)
        self.lstm = nn.LSTM(7, UNITS, batch_first=True)
        self.fc = nn.Linear(UNITS, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        embedded = self.embedding(x).permute(0, 2, 1)
        found = F.relu(self.conv(embedded)).permute(0, 2, 1)
        return self.fc(self.lstm(found)[1][0][-1])


class PooledConvolution(L.LightningModule):
    """A convolution with batch norm and pooling before the GRU."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, SIZE, padding_idx=0)
        self.features = nn.Sequential(
            nn.Conv1d(SIZE, 8, 3, padding=1), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(2)
        )
        self.gru = nn.GRU(8, UNITS, batch_first=True)
        self.fc = nn.Linear(UNITS, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        found = self.features(self.embedding(x).transpose(1, 2)).transpose(1, 2)
        return self.fc(self.gru(found)[1].squeeze(0))


class TextCNN(L.LightningModule):
    """Kim's convolutions of several widths."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, SIZE, padding_idx=0)
        self.convs = nn.ModuleList([nn.Conv1d(SIZE, 5, k) for k in (2, 3, 4)])
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(15, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        embedded = self.embedding(x).transpose(1, 2)
        pooled = [F.relu(conv(embedded)).max(dim=2)[0] for conv in self.convs]
        return self.fc(self.dropout(torch.cat(pooled, dim=1)))


class FlatTextCNN(nn.Module):
    """The same by two-dimensional convolutions over words and numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, SIZE, padding_idx=0)
        self.convs = nn.ModuleList([nn.Conv2d(1, 5, (k, SIZE)) for k in (2, 3)])
        self.fc = nn.Linear(10, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        embedded = self.embedding(x).unsqueeze(1)
        found = [F.relu(conv(embedded)).squeeze(3) for conv in self.convs]
        pooled = [F.max_pool1d(one, one.size(2)).squeeze(2) for one in found]
        return self.fc(torch.cat(pooled, 1))


class ConvolutionBehind(nn.Module):
    """A GRU, a convolution over its states, and two pools."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, SIZE, padding_idx=0)
        self.gru = nn.GRU(SIZE, UNITS, batch_first=True, bidirectional=True)
        self.conv = nn.Conv1d(2 * UNITS, 6, kernel_size=2)
        self.fc = nn.Linear(12, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        out, _ = self.gru(self.embedding(x))
        found = self.conv(out.transpose(1, 2))
        return self.fc(torch.cat([found.mean(-1), found.amax(-1)], dim=-1))


class RecurrentConvolution(nn.Module):
    """Words beside their contexts, a dense layer and the largest (Lai et al.)."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, SIZE, padding_idx=0)
        self.lstm = nn.LSTM(SIZE, UNITS, batch_first=True, bidirectional=True)
        self.fc1 = nn.Linear(2 * UNITS + SIZE, 9)
        self.fc2 = nn.Linear(9, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        embedded = self.embedding(x)
        out, _ = self.lstm(embedded)
        found = torch.tanh(self.fc1(torch.cat((out, embedded), 2)))
        return self.fc2(torch.max(found, dim=1).values)


class Projected(nn.Module):
    """An LSTM with smaller outputs than cells."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, SIZE, padding_idx=0)
        self.lstm = nn.LSTM(SIZE, UNITS, batch_first=True, proj_size=5)
        self.fc = nn.Linear(5, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        out, (h, c) = self.lstm(self.embedding(x))
        return self.fc(h[-1])


class Positions(nn.Module):
    """Learned places added to the words."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(WORDS, SIZE, padding_idx=0)
        self.places = nn.Embedding(64, SIZE)
        self.gru = nn.GRU(SIZE, UNITS, batch_first=True)
        self.fc = nn.Linear(UNITS, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        places = torch.arange(x.size(1), device=x.device).unsqueeze(0)
        return self.fc(self.gru(self.tokens(x) + self.places(places))[1][-1])


class Tied(nn.Module):
    """The next word, by the embedding's own weights."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, UNITS)
        self.lstm = nn.LSTM(UNITS, UNITS, batch_first=True)
        self.decoder = nn.Linear(UNITS, WORDS)
        self.decoder.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        out, _ = self.lstm(self.embedding(x))
        return self.decoder(out[:, -1])


class MaskGiven(nn.Module):
    """A mask that comes with the words, as tokenizers give it."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, SIZE, padding_idx=0)
        self.lstm = nn.LSTM(SIZE, UNITS, batch_first=True)
        self.fc = nn.Linear(UNITS, LABELS)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Any]:
        """Logits."""
        out, _ = self.lstm(F.layer_norm(self.embedding(input_ids), (SIZE,)))
        mask = attention_mask.unsqueeze(-1).expand(out.size()).float()
        pooled = torch.sum(out * mask, 1) / torch.clamp(mask.sum(1), min=1e-9)
        return {"logits": self.fc(pooled)}


class SelfAttention(nn.Module):
    """Each word reads all others."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, SIZE, padding_idx=0)
        self.lstm = nn.LSTM(SIZE, UNITS, batch_first=True)
        self.q, self.k, self.v = (nn.Linear(UNITS, UNITS) for _ in range(3))
        self.fc = nn.Linear(UNITS, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        out, _ = self.lstm(self.embedding(x))
        scores = torch.matmul(self.q(out), self.k(out).transpose(-2, -1)) / math.sqrt(UNITS)
        scores = scores.masked_fill((x == 0).unsqueeze(1), -1e9)
        read = torch.matmul(scores.softmax(-1), self.v(out))
        return self.fc(read.mean(1))


class PackedResidual(L.LightningModule):
    """Packed both ways, a sum with what went in, and attention over it."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, 2 * UNITS, padding_idx=0)
        self.lstm = nn.LSTM(2 * UNITS, UNITS, batch_first=True, bidirectional=True)
        self.norm = nn.LayerNorm(2 * UNITS)
        self.score = nn.Linear(2 * UNITS, 1)
        self.fc = nn.Linear(2 * UNITS, LABELS)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Logits."""
        embedded = self.embedding(x)
        packed = pack_padded_sequence(embedded, lengths.cpu(), True, enforce_sorted=False)
        out, _ = pad_packed_sequence(self.lstm(packed)[0], True, total_length=x.size(1))
        out = self.norm(out + embedded)
        pad = torch.arange(x.size(1), device=x.device).unsqueeze(0) >= lengths.unsqueeze(1)
        weights = torch.softmax(self.score(out).squeeze(2).masked_fill(pad, -torch.inf), 1)
        return self.fc(torch.matmul(weights.unsqueeze(1), out).squeeze(1))
