"""Pictures in shades of grey, each as one vector of numbers from 0 to 1."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.data.texts import TextData
from mlflow_rnnmod.networks import Rows

SIDE, IN_A_ROW = 28, 32
FASHION = Path("/usr/share/datasets/fashion-mnist")
CLOTHES = ("T-shirt", "trousers", "pullover", "dress", "coat")
CLOTHES += ("sandal", "shirt", "sneaker", "bag", "ankle boot")
# One of so many training rows is held out: to stop, to calibrate, to choose settings.
HELD_OUT = 6


class NotInstalled(FileNotFoundError):
    """A data set that comes as a package is not there; benchmarks go on without it."""


@dataclass(frozen=True)
class VectorData(TextData):
    """A data set whose ``texts`` are float vectors: networks read them as they are."""

    def rows(self, split: str, encoder: Any = None) -> Rows:
        """One split as rows with targets."""
        return Rows(torch.stack(self.texts[split]), None, self.targets(split, 0))


def load_images(data_dir: Path, name: str) -> VectorData:
    """Grey pictures of ``<data_dir>/images/<name>``: ``"mnist"`` or ``"emnist_letters"``.

    Raises:
        FileNotFoundError: if that folder is not there.
    """
    folder = data_dir / "images" / name
    if not folder.is_dir():
        raise FileNotFoundError(f"No such data: {folder}; expected --data-dir to hold images/.")
    names = tuple(json.loads((folder / "classes.json").read_text()))
    return vector_data(name, names, *(_tiles(folder, split) for split in ("train", "test")))


def load_fashion_mnist(_: Path, folder: Path = FASHION) -> VectorData:
    """Fashion-MNIST as Debian's package ``dataset-fashion-mnist`` installs it.

    Raises:
        NotInstalled: if it is not there.
    """
    if not folder.is_dir():
        raise NotInstalled(f"{folder} is not there: it is Debian's package dataset-fashion-mnist.")
    splits = []
    for split in ("train", "t10k"):
        pixels = gzip.decompress((folder / f"{split}-images-idx3-ubyte.gz").read_bytes())
        labels = gzip.decompress((folder / f"{split}-labels-idx1-ubyte.gz").read_bytes())
        images = np.frombuffer(pixels, np.uint8, offset=16).reshape(-1, SIDE * SIDE)
        splits.append((images, list(labels[8:])))
    return vector_data("fashion_mnist", CLOTHES, *splits)


def vector_data(
    name: str,
    names: tuple[str, ...],
    train: tuple[np.ndarray, list[int]],
    test: tuple[np.ndarray, list[int]],
) -> VectorData:
    """Splits of pictures, uint8 ``(rows, pixels)`` with class numbers; every sixth is held out."""
    rows = {"test": (_scaled(test[0]), test[1])}
    images, held = _scaled(train[0]), torch.arange(len(train[1])) % HELD_OUT == 0
    for split, which in (("train", ~held), ("validation", held)):
        at = which.nonzero()[:, 0].tolist()
        rows[split] = (images[which], [train[1][i] for i in at])
    order = ("train", "validation", "test")
    texts = {split: list(rows[split][0]) for split in order}
    return VectorData(name, texts, {s: [names[y] for y in rows[s][1]] for s in order}, names)


def _scaled(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images.astype(np.float32) / 255)


def _tiles(folder: Path, split: str) -> tuple[np.ndarray, list[int]]:
    """One split: tiles of pictures, row by row, and class numbers; the last tile is filled up."""
    labels = json.loads((folder / f"{split}.json").read_text())
    return np.concatenate(list(_pixels(folder, split)))[: len(labels)], labels


def _pixels(folder: Path, split: str) -> Iterator[np.ndarray]:
    from PIL import Image

    for file in sorted(folder.glob(f"{split}-*.webp")):
        with Image.open(file) as tile:
            pixels = np.asarray(tile.convert("L")).reshape(-1, SIDE, IN_A_ROW, SIDE)
        yield pixels.swapaxes(1, 2).reshape(-1, SIDE * SIDE)
