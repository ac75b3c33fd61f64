"""Recurrent classifiers as tutorials have them: an embedding, a cell, what is left at the end."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as L
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

WORDS, SIZE, UNITS, LABELS = 40, 6, 8, 3


class LastState(nn.Module):
    """The hidden state that the LSTM hands over."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, SIZE, padding_idx=0)
        self.lstm = nn.LSTM(SIZE, UNITS, batch_first=True)
        self.fc = nn.Linear(UNITS, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        _, (h, _) = self.lstm(self.embedding(x))
        return self.fc(h[-1])


class LastOutput(L.LightningModule):
    """The output at the last step, whatever stands there."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, SIZE)
        self.rnn = nn.RNN(SIZE, UNITS, batch_first=True)
        self.out = nn.Linear(UNITS, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        out, _ = self.rnn(self.embed(x))
        return self.out(out[:, -1, :])


class PackedState(nn.Module):
    """A packed GRU's last state."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, SIZE, padding_idx=0)
        self.gru = nn.GRU(SIZE, UNITS, batch_first=True)
        self.fc = nn.Linear(UNITS, LABELS)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Logits."""
        packed = pack_padded_sequence(
            self.embedding(x), lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        _, h = self.gru(packed)
        return self.fc(h.squeeze(0))


class PackedBothWays(L.LightningModule):
    """Both directions' last states side by side, packed, two layers with dropout between."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, SIZE, padding_idx=0)
        self.lstm = nn.LSTM(SIZE, UNITS, 2, batch_first=True, bidirectional=True, dropout=0.3)
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(2 * UNITS, LABELS)

    def forward(self, text: Tensor, text_lengths: Tensor) -> Tensor:
        """Logits."""
        embedded = self.dropout(self.embedding(text))
        packed = pack_padded_sequence(
            embedded, text_lengths.to("cpu"), batch_first=True, enforce_sorted=False
        )
        _, (hidden, _) = self.lstm(packed)
        hidden = self.dropout(torch.cat((hidden[-2, :, :], hidden[-1, :, :]), dim=1))
        return self.fc(hidden)


class LastValid(nn.Module):
    """The output at each row's last word, by gather."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, SIZE, padding_idx=0)
        self.rnn = nn.GRU(SIZE, UNITS, batch_first=True)
        self.fc = nn.Linear(UNITS, LABELS)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Logits."""
        out, _ = self.rnn(self.embedding(x))
        index = (lengths - 1).view(-1, 1, 1).expand(-1, 1, out.size(2))
        return self.fc(out.gather(1, index).squeeze(1))


class LastByNumber(nn.Module):
    """The same, by numbers of rows and steps, with lengths that are counted."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, SIZE, padding_idx=0)
        self.lstm = nn.LSTM(SIZE, UNITS, batch_first=True)
        self.fc = nn.Linear(UNITS, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        lengths = (x != 0).sum(dim=1).clamp(min=1)
        out, _ = self.lstm(self.embedding(x))
        return self.fc(out[torch.arange(x.size(0)), lengths - 1])


class MaskedMean(nn.Module):
    """The mean over words, by a mask made from the ids."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, SIZE, padding_idx=0)
        self.lstm = nn.LSTM(SIZE, UNITS, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(2 * UNITS, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        mask = (x != 0).unsqueeze(-1).float()
        out, _ = self.lstm(self.embedding(x))
        return self.fc((out * mask).sum(1) / mask.sum(1).clamp(min=1.0))


class MaxPooled(nn.Module):
    """The largest over all steps, and a hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, SIZE, padding_idx=0)
        self.lstm = nn.LSTM(SIZE, UNITS, batch_first=True)
        self.head = nn.Sequential(
            nn.Linear(UNITS, 7), nn.ReLU(), nn.Dropout(0.2), nn.Linear(7, LABELS)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        out, _ = self.lstm(self.embedding(x))
        return self.head(out.max(dim=1).values)


class StepsFirst(nn.Module):
    """Steps before rows, as the cells have it by default."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, SIZE)
        self.lstm = nn.LSTM(SIZE, UNITS)
        self.fc = nn.Linear(UNITS, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        embedded = self.embedding(x.t())
        out, (h, c) = self.lstm(embedded)
        return torch.log_softmax(self.fc(out[-1]), dim=1)


class OneHot(nn.Module):
    """No embedding: a one-hot vector for each character."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(WORDS, UNITS, batch_first=True)
        self.fc = nn.Linear(UNITS, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        out, h = self.gru(nn.functional.one_hot(x, WORDS).float())
        return self.fc(h[0])


class Stacked(nn.Module):
    """Two layers of their own, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, SIZE)
        self.first = nn.LSTM(SIZE, UNITS, batch_first=True)
        self.second = nn.LSTM(UNITS, 6, batch_first=True)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(6, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        out, _ = self.first(self.embedding(x))
        out, _ = self.second(self.dropout(out))
        return self.fc(out[:, -1])


class Tagger(nn.Module):
    """A label for each step."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, SIZE, padding_idx=0)
        self.lstm = nn.LSTM(SIZE, UNITS, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(2 * UNITS, LABELS)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Logits."""
        packed = pack_padded_sequence(
            self.embedding(x), lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        out, _ = pad_packed_sequence(self.lstm(packed)[0], True, total_length=x.shape[1])
        return self.fc(out)


class Features(nn.Module):
    """Floats at each step, of which each row has its own number."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(SIZE, UNITS, batch_first=True)
        self.fc = nn.Linear(UNITS, LABELS)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Logits."""
        out, _ = self.lstm(x)
        return self.fc(out[torch.arange(len(x)), lengths - 1])


class Single(L.LightningModule):
    """One output for two labels."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, SIZE, padding_idx=0)
        self.gru = nn.GRU(SIZE, UNITS, batch_first=True)
        self.fc = nn.Linear(UNITS, 1)

    def forward(self, x: Tensor) -> Any:
        """Logits."""
        _, h = self.gru(self.embedding(x))
        return self.fc(h[-1]).squeeze(-1)
