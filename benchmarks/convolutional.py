"""Convolutional parents for the benchmarks: given ones, or trained here."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from benchmarks.data.pictures import DEVIATION, MEAN, ImageData
from benchmarks.resnet import ImageTraining, resnet, train_resnet
from mlflow_rnnmod.inputs.preparation import ImagePreparation
from mlflow_rnnmod.networks import Parent, Rows
from mlflow_rnnmod.networks.graph.reading import read_graph

PREPARATION = ImagePreparation(size=32, mean=MEAN, std=DEVIATION)
LOG = logging.getLogger(__name__)


def image_weights(data: ImageData, training: ImageTraining, state: Path | None) -> dict[str, Any]:
    """Weights of a network of images, as the cache keeps them."""
    begin = None
    if training.begin:
        begin = load_file(data.folder / training.begin / f"{training.cell}.safetensors")
    weights = train_resnet(
        data.images("train"),
        data.targets("train", 0),
        len(data.names),
        PREPARATION.scaled,
        training,
        begin,
        state,
    )
    return {"weights": weights, "epochs": training.epochs}


def given_weights(data: ImageData, training: ImageTraining) -> dict[str, Tensor] | None:
    """Weights that lie beside the images; ``None`` where a network of this kind is trained here."""
    file = data.given.get(training.cell)
    return None if file is None or training.seed else load_file(file)


def image_parent(weights: dict[str, Tensor], data: ImageData, training: ImageTraining) -> Parent:
    """A trained network as a parent: read from its forward, as a user's network is."""
    network = resnet(training.cell, weights)
    rows = Rows(PREPARATION.scaled(data.images("test")[:16]))
    graph, _ = read_graph(network, rows, lambda: network(rows.values), data.names)
    return Parent(graph, image=PREPARATION)
