"""Recurrent classifiers whose states are weighted, pooled, normed and mixed before they answer."""

from __future__ import annotations

import math

import pytorch_lightning as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from benchmarks.architectures.plain import LABELS, SIZE, UNITS, WORDS


class AttentionPooling(L.LightningModule):
    """Words are weighted by a score of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, SIZE, padding_idx=0)
        self.lstm = nn.LSTM(SIZE, UNITS, batch_first=True, bidirectional=True)
        self.attention = nn.Linear(2 * UNITS, 1)
        self.dropout = nn.Dropout(0.1)
        self.fc = nn.Linear(2 * UNITS, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        mask = x != 0
        out, _ = self.lstm(self.dropout(self.embedding(x)))
        scores = self.attention(out).squeeze(-1)
        scores = scores.masked_fill(~mask, -1e9)
        weights = F.softmax(scores, dim=1)
        context = torch.bmm(weights.unsqueeze(1), out).squeeze(1)
        return self.fc(self.dropout(context))


class AdditiveAttention(nn.Module):
    """A hidden layer scores the words; the mask is made of lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, SIZE, padding_idx=0)
        self.gru = nn.GRU(SIZE, UNITS, batch_first=True)
        self.project = nn.Linear(UNITS, 5)
        self.query = nn.Parameter(torch.randn(5))
        self.fc = nn.Linear(UNITS, LABELS)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Logits."""
        h, _ = self.gru(self.embedding(x))
        scores = torch.tanh(self.project(h)) @ self.query
        valid = torch.arange(x.size(1), device=x.device)[None, :] < lengths[:, None]
        weights = scores.masked_fill(~valid, float("-inf")).softmax(dim=-1)
        return self.fc((h * weights.unsqueeze(-1)).sum(dim=1))


class DotAttention(nn.Module):
    """Words are weighted by how like the last state they are."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, SIZE, padding_idx=0)
        self.lstm = nn.LSTM(SIZE, UNITS, batch_first=True)
        self.fc = nn.Linear(2 * UNITS, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        output, (final, _) = self.lstm(self.embedding(x))
        hidden = final.squeeze(0)
        scores = torch.bmm(output, hidden.unsqueeze(2)).squeeze(2)
        weights = F.softmax(scores / math.sqrt(UNITS), 1)
        context = torch.bmm(output.transpose(1, 2), weights.unsqueeze(2)).squeeze(2)
        return self.fc(torch.cat([context, hidden], dim=1))


class EinsumAttention(nn.Module):
    """The same in Einstein's notation."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, SIZE, padding_idx=0)
        self.lstm = nn.LSTM(SIZE, UNITS, batch_first=True)
        self.score = nn.Sequential(nn.Linear(UNITS, 6), nn.Tanh(), nn.Linear(6, 1, bias=False))
        self.fc = nn.Linear(UNITS, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        out = self.lstm(self.embedding(x))[0]
        weights = torch.softmax(self.score(out)[..., 0], dim=-1)
        return self.fc(torch.einsum("bt,bth->bh", weights, out))


class LayerNormed(nn.Module):
    """LayerNorm on the last state."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, SIZE, padding_idx=0)
        self.lstm = nn.LSTM(SIZE, UNITS, batch_first=True)
        self.norm = nn.LayerNorm(UNITS)
        self.fc = nn.Linear(UNITS, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        _, (h, _) = self.lstm(self.embedding(x))
        return self.fc(self.norm(h[-1]))


class BatchNormed(L.LightningModule):
    """BatchNorm on the last state."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, SIZE, padding_idx=0)
        self.gru = nn.GRU(SIZE, UNITS, batch_first=True)
        self.bn = nn.BatchNorm1d(UNITS)
        self.fc = nn.Linear(UNITS, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        _, h = self.gru(self.embedding(x))
        return self.fc(self.bn(h[-1]))


class MeanAndMax(nn.Module):
    """Mean, largest and last side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, SIZE, padding_idx=0)
        self.gru = nn.GRU(SIZE, UNITS, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(6 * UNITS, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        mask = (x != 0).unsqueeze(2)
        out, h = self.gru(self.embedding(x))
        mean = (out * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
        largest = out.masked_fill(~mask, -1e4).max(dim=1)[0]
        return self.fc(torch.cat([mean, largest, h[-2], h[-1]], dim=1))


class GeluHead(nn.Module):
    """A head as transformers have it."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, SIZE, padding_idx=0)
        self.lstm = nn.LSTM(SIZE, UNITS, batch_first=True)
        self.head = nn.Sequential(
            nn.LayerNorm(UNITS), nn.Linear(UNITS, 9), nn.GELU(), nn.Linear(9, LABELS)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.head(self.lstm(self.embedding(x))[1][0][-1])


class Rectified(nn.Module):
    """An activation on the state itself."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, SIZE, padding_idx=0)
        self.lstm = nn.LSTM(SIZE, UNITS, batch_first=True)
        self.fc = nn.Linear(UNITS, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        _, (hn, _) = self.lstm(self.embedding(x))
        hn = hn.view(-1, UNITS)
        return self.fc(F.relu(hn))


class AllLayers(nn.Module):
    """The last states of all layers and directions in one vector."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, SIZE, padding_idx=0)
        self.lstm = nn.LSTM(SIZE, UNITS, 2, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(4 * UNITS, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        _, (h, _) = self.lstm(self.embedding(x))
        return self.fc(h.transpose(0, 1).reshape(x.size(0), -1))


class StateAndCell(nn.Module):
    """Hidden state and cell state side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, SIZE, padding_idx=0)
        self.lstm = nn.LSTM(SIZE, UNITS, batch_first=True)
        self.fc = nn.Linear(2 * UNITS, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        _, (h, c) = self.lstm(self.embedding(x))
        return self.fc(torch.cat((h[-1], c[-1]), -1))


class SummedDirections(L.LightningModule):
    """Both directions added up, normed, then averaged over the words."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, SIZE, padding_idx=0)
        self.lstm = nn.LSTM(SIZE, UNITS, batch_first=True, bidirectional=True)
        self.norm = nn.LayerNorm(UNITS)
        self.fc = nn.Linear(UNITS, LABELS)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Logits."""
        packed = pack_padded_sequence(
            self.embedding(x), lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        out, lengths = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        out = self.norm(out[:, :, :UNITS] + out[:, :, UNITS:])
        mask = torch.arange(out.size(1), device=out.device) < lengths.unsqueeze(1).to(out.device)
        return self.fc((out * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True))


class Gated(nn.Module):
    """A gate of its own on the state."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, SIZE, padding_idx=0)
        self.gru = nn.GRU(SIZE, UNITS, batch_first=True)
        self.gate = nn.Linear(UNITS, UNITS)
        self.value = nn.Linear(UNITS, UNITS)
        self.fc = nn.Linear(UNITS, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        h = self.gru(self.embedding(x))[1][-1]
        gate = torch.sigmoid(self.gate(h))
        return self.fc(gate * torch.tanh(self.value(h)) + (1 - gate) * h)


class NormedTagger(nn.Module):
    """A label for each step, of a normed and activated state."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, SIZE, padding_idx=0)
        self.lstm = nn.LSTM(SIZE, UNITS, batch_first=True, bidirectional=True)
        self.norm = nn.LayerNorm(2 * UNITS)
        self.hidden = nn.Linear(2 * UNITS, 7)
        self.fc = nn.Linear(7, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        out, _ = self.lstm(self.embedding(x))
        return self.fc(F.gelu(self.hidden(self.norm(out))))


class MultiLabel(nn.Module):
    """Several labels a text, of an average over all steps."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, SIZE, padding_idx=0)
        self.gru = nn.GRU(SIZE, UNITS, batch_first=True)
        self.norm = nn.BatchNorm1d(UNITS)
        self.fc = nn.Linear(UNITS, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        out, _ = self.gru(self.embedding(x))
        out = self.norm(out.permute(0, 2, 1))
        return torch.sigmoid(self.fc(F.adaptive_avg_pool1d(out, 1).squeeze(-1)))
