"""Convolutional parents for the benchmarks: given ones, or trained here."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from benchmarks.data.pictures import DEVIATION, MEAN, ImageData
from benchmarks.resnet import ImageTraining, train_resnet
from mlflow_rnnmod.inputs.preparation import ImagePreparation

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
