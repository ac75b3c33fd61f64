"""Dense networks as a user would write them, their training, and their reading as parents."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as L
import torch
from torch import Tensor, nn

from benchmarks.classifiers import Batches, ClassifierTraining, Training
from benchmarks.data import TextData
from mlflow_rnnmod.networks import Parent, Rows
from mlflow_rnnmod.networks.graph.reading import read_graph

CELL = "fcnn"


class DenseClassifier(nn.Module):
    """Hidden dense layers with ReLU and an output layer: an answer a vector.

    Args:
        inputs: numbers in a vector.
        labels: number of labels.
        settings: number of layers and of units.
    """

    def __init__(self, inputs: int, labels: int, settings: Training) -> None:
        super().__init__()
        sizes = (inputs, *(settings.units,) * settings.layers)
        layers = (nn.Linear(a, b) for a, b in zip(sizes, sizes[1:], strict=False))
        self.hidden = nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU())))
        self.dropout = nn.Dropout(settings.dropout)
        self.head = nn.Linear(settings.units, labels)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Logits ``(rows, labels)`` of vectors; their lengths say nothing."""
        return self.head(self.dropout(self.hidden(x)))


def train_dense(data: TextData, training: Training, fit: Any, min_epochs: int) -> dict[str, Any]:
    """Weights of a trained :class:`DenseClassifier`, as the cache keeps them."""
    L.seed_everything(training.seed, verbose=False)
    train, validation = (_with_lengths(data.rows(split)) for split in ("train", "validation"))
    network = DenseClassifier(train.values.shape[1], len(data.names), training)
    best = fit(
        ClassifierTraining(network, training, data.output),
        Batches(train, training.batch_size, True),
        Batches(validation, 2048, False),
        training.epochs,
        training.patience,
        min_epochs,
    )
    return best.found("network.")


def dense_parent(weights: dict[str, Tensor], data: TextData, training: Training) -> Parent:
    """A trained classifier as a parent: read from its forward, as a user's network is."""
    inputs = weights["hidden.0.weight"].shape[1]
    network = DenseClassifier(inputs, len(data.names), training).eval()
    network.load_state_dict(weights)
    generator = torch.Generator().manual_seed(0)
    rows = Rows(torch.rand(16, inputs, generator=generator))
    return Parent(read_graph(network, rows, lambda: network(rows.values), data.names)[0])


def _with_lengths(rows: Rows) -> Rows:
    return Rows(rows.values, torch.full((len(rows),), rows.values.shape[1]), rows.targets)
