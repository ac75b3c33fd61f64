"""Networks that answer at each step, with lists, or with several labels, as people write them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tests.networks.recurrent.user_networks import make_rows

__all__ = ["AtOnce", "SeveralLabels", "Tagger", "arranged", "make_rows"]

ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh, "identity": lambda x: x}
ENDS = {
    "logits": lambda z: z,
    "log_softmax": lambda z: z.log_softmax(-1),
    "sigmoid": lambda z: z.sigmoid(),
}


def arranged(answers: Tensor, axes: str) -> Tensor:
    """Answers ``(rows, steps, labels)`` as a network may give them."""
    return {
        "rows_steps_labels": answers,
        "rows_labels_steps": answers.transpose(1, 2),
        "steps_rows_labels": answers.transpose(0, 1),
        "flattened": answers.reshape(-1, answers.shape[-1]),
    }[axes]


class Dense(nn.Module):
    """Hidden layers with dropout between them, and an output layer."""

    def __init__(self, sizes: tuple[int, ...], activation: str) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True)
        )
        self.dropout = nn.Dropout(0.4)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = self.dropout(self.activation(layer(x)))
        return self.layers[-1](x)


class Tagger(nn.Module):
    """A label for each step; ``forward(values, lengths)``."""

    def __init__(
        self,
        cell: type[nn.RNNBase] = nn.LSTM,
        units: int = 8,
        labels: int = 3,
        packed: bool = False,
        total: bool = True,
        tokens: bool = True,
        hidden: tuple[int, ...] = (),
        activation: str = "relu",
        end: str = "logits",
        axes: str = "rows_steps_labels",
        masked: float | None = None,
        **cell_options: object,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 6, padding_idx=0) if tokens else None
        self.rnn = cell(6, units, batch_first=True, **cell_options)  # type: ignore[arg-type]
        size = units * (2 if self.rnn.bidirectional else 1)
        self.dense = Dense((size, *hidden, labels), activation)
        self.packed, self.total, self.masked = packed, total, masked
        self.axes, self.end = axes, ENDS[end]

    def forward(self, values: Tensor, lengths: Tensor) -> Tensor:
        x = values if self.embedding is None else self.embedding(values)
        steps = x.shape[1]
        if self.packed:
            x = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        out, _ = self.rnn(x)
        if self.packed:
            length = steps if self.total else None
            out, _ = pad_packed_sequence(out, batch_first=True, total_length=length)
        answers = self.end(self.dense(out))
        if self.masked is not None:
            padding = torch.arange(answers.shape[1]) >= lengths[:, None]
            answers = answers.masked_fill(padding[..., None], self.masked)
        return arranged(answers, self.axes)


class AtOnce(nn.Module):
    """Reads its input at once, flattened: as one step, or repeated for each of some steps."""

    def __init__(
        self,
        cell: type[nn.RNNBase] = nn.GRU,
        steps: int = 9,
        output_steps: int | None = None,
        stepwise: bool = False,
        labels: int = 3,
        tokens: bool = True,
        hidden: tuple[int, ...] = (),
        activation: str = "relu",
        end: str = "logits",
        axes: str = "rows_steps_labels",
        **cell_options: object,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 6, padding_idx=0) if tokens else None
        self.rnn = cell(6 * steps, 8, batch_first=True, **cell_options)  # type: ignore[arg-type]
        size = 8 * (2 if self.rnn.bidirectional else 1)
        self.dense = Dense((size, *hidden, labels), activation)
        self.output_steps, self.stepwise = output_steps, stepwise
        self.axes, self.end = axes, ENDS[end]

    def forward(self, values: Tensor, lengths: Tensor | None = None) -> Tensor:
        x = values if self.embedding is None else self.embedding(values)
        x = x.flatten(1)[:, None].repeat(1, self.output_steps or 1, 1)
        out, _ = self.rnn(x)
        if not self.stepwise:
            return self.end(self.dense(out[:, -1]))
        return arranged(self.end(self.dense(out)), self.axes)


class SeveralLabels(nn.Module):
    """A number, or a probability, for each of several labels."""

    def __init__(self, readout: str = "mean", end: str = "logits", labels: int = 3) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 6, padding_idx=0)
        self.rnn = nn.LSTM(6, 8, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(16, labels)
        self.readout, self.end = readout, ENDS[end]

    def forward(self, values: Tensor, lengths: Tensor | None = None) -> Tensor:
        out, (h_n, _) = self.rnn(self.embedding(values))
        x = out.mean(1) if self.readout == "mean" else torch.cat((h_n[-2], h_n[-1]), 1)
        return self.end(self.fc(x))
