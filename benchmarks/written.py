"""Networks over words as users write them, beyond the paper's: read by following their forward."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.classifiers import Training
from benchmarks.data import TextData
from mlflow_rnnmod.networks import Parent, Rows, TextEncoder, read_network

KERNELS = (2, 3, 4)


class AttentionClassifier(nn.Module):
    """An LSTM whose states are weighted by a score of their own, and added up.

    Args:
        vocabulary: number of token ids; 0 is padding, 1 the unknown word.
        labels: number of labels.
        settings: sizes and dropout.
        output_steps: has no meaning here.
    """

    def __init__(
        self, vocabulary: int, labels: int, settings: Training, output_steps: int | None = None
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, settings.embedding, padding_idx=0)
        self.recurrent = nn.LSTM(
            settings.embedding, settings.units, settings.layers, batch_first=True
        )
        self.score = nn.Linear(settings.units, 1)
        self.dropout = nn.Dropout(settings.dropout)
        self.head = nn.Linear(settings.units, labels)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Logits ``(rows, labels)`` of token ids ``(rows, steps)``."""
        states, _ = self.recurrent(self.dropout(self.embedding(x)))
        padding = torch.arange(x.shape[1]) >= lengths[:, None]
        scores = self.score(states).squeeze(-1).masked_fill(padding, -torch.inf)
        context = torch.bmm(scores.softmax(1).unsqueeze(1), states).squeeze(1)
        return self.head(self.dropout(context))


class ConvolutionClassifier(nn.Module):
    """Convolutions of several widths over words, and the largest of each (Kim, EMNLP 2014).

    Args:
        vocabulary, labels, settings, output_steps: as of :class:`AttentionClassifier`.
    """

    def __init__(
        self, vocabulary: int, labels: int, settings: Training, output_steps: int | None = None
    ) -> None:
        super().__init__()
        size, units = settings.embedding, settings.units
        self.embedding = nn.Embedding(vocabulary, size, padding_idx=0)
        self.convolutions = nn.ModuleList([nn.Conv1d(size, units, k, padding=k) for k in KERNELS])
        self.dropout = nn.Dropout(settings.dropout)
        self.head = nn.Linear(units * len(KERNELS), labels)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Logits ``(rows, labels)`` of token ids ``(rows, steps)``; padding is as good as none."""
        words = self.dropout(self.embedding(x)).transpose(1, 2)
        found = [convolution(words).relu().amax(2) for convolution in self.convolutions]
        return self.head(self.dropout(torch.cat(found, 1)))


WRITTEN: dict[str, type[nn.Module]] = {
    "lstm_attention": AttentionClassifier,
    "textcnn": ConvolutionClassifier,
}
"""By the names of their cells."""


def written_parent(
    weights: dict[str, Tensor], data: TextData, training: Training, encoder: TextEncoder
) -> Parent:
    """A trained network as a parent: read from its forward, as a user's is."""
    network = WRITTEN[training.cell](len(weights["embedding.weight"]), len(data.names), training)
    network.load_state_dict(weights)
    network.eval()
    rows = data.rows("validation", encoder)[:32]
    assert rows.lengths is not None
    lengths = rows.lengths.clamp(min=1)
    rows = Rows(rows.values[:, : int(lengths.max())], lengths, rows.targets)
    found, _ = read_network(network, rows, lambda: network(rows.values, rows.lengths), data.names)
    return Parent(found, encoder)
