"""Pictures in colour: CIFAR-10, CIFAR-100, and the CNN paper's own copy of Tiny ImageNet."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from benchmarks.data.texts import TextData
from mlflow_rnnmod.networks import Rows

SIDE, IN_A_ROW = 32, 32
# Rows of each split that modules are made with and rq1 measures, by how many labels a set has: what
# a hundred trunks are run over is what takes time.
MOST = {"fit": (2500, 5000), "validation": (2500, 2500), "test": (2500, 2500)}
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# The last tenth of the training rows, which are shuffled, is held out of training.
HELD_OUT = 10

Split: TypeAlias = "tuple[np.ndarray, list[int]]"


@dataclass(frozen=True)
class ImageData(TextData):
    """A data set whose ``texts`` are images, uint8 ``(channels, height, width)``.

    Networks are trained on the split ``train``, modules are fitted on ``fit``, and on ``joint``
    composites are calibrated; the other two are as everywhere.

    Args:
        given: trained weights that lie beside the images, by the name of the network.
        folder: of all sets of images.
    """

    given: dict[str, Path] = field(default_factory=dict)
    folder: Path = Path()

    def only(self, names: Sequence[str]) -> TextData:
        """As :meth:`TextData.only`; trained weights answer for all labels, so they are gone."""
        return replace(super().only(names), given={})  # type: ignore[call-arg]

    def few(self, name: str, share: float) -> TextData:
        """As :meth:`TextData.few`, without the weights that have seen all rows."""
        return replace(super().few(name, share), given={})  # type: ignore[call-arg]

    def images(self, split: str) -> Tensor:
        """One split's images, uint8 ``(rows, channels, height, width)``."""
        return torch.stack(list(self.texts[split]))

    def rows(self, split: str, encoder: Any = None) -> Rows:
        """One split as a network reads it; of ``train`` the rows that modules are fitted on.

        ``encoder`` is the network's preparation.
        """
        assert encoder is not None, "images need a preparation"
        split = "fit" if split == "train" else split
        most = slice(MOST[split][len(self.names) > 20])
        values = encoder(self.texts[split][most]).values
        return Rows(values, None, self.targets(split, 0)[most])


def load_pictures(data_dir: Path, name: str) -> ImageData:
    """``<data_dir>/images/<name>``: ``"cifar10"``, ``"cifar100"`` or ``"tiny_imagenet32"``.

    CIFAR-10's trained networks have seen all training rows, which they know by heart: every other
    row of the test split is held out, to fit and to calibrate on, and the rest of it reports. The
    others hold out a tenth of the training rows to calibrate on, and fit on some of the rest.

    Raises:
        FileNotFoundError: if that folder is not there.
    """
    folder = data_dir / "images" / name
    if not folder.is_dir():
        raise FileNotFoundError(f"No such data: {folder}; expected --data-dir to hold images/.")
    classes = json.loads((folder / "classes.json").read_text())
    names = _unique([each if isinstance(each, str) else each[1].split(",")[0] for each in classes])
    train, test = (_tiles(folder, split) for split in ("train", "test"))
    if name == "cifar10":
        held = _part(test, slice(0, None, 2))
        splits = {
            "train": train,
            "fit": _part(held, slice(0, None, 2)),
            "validation": _part(held, slice(1, None, 2)),
            "joint": held,
            "test": _part(test, slice(1, None, 2)),
        }
    else:
        count = len(train[1]) - len(train[1]) // HELD_OUT
        splits = {
            "train": _part(train, slice(count)),
            "fit": _part(train, slice(count)),
            "validation": _part(train, slice(count, None)),
            "joint": _part(train, slice(count - 2 * len(train[1]) // HELD_OUT, None)),
            "test": test,
        }
    return ImageData(
        name,
        {split: list(torch.from_numpy(pixels)) for split, (pixels, _) in splits.items()},
        {split: [names[y] for y in targets] for split, (_, targets) in splits.items()},
        names,
        given={file.stem: file for file in sorted(folder.glob("*.safetensors"))},
        folder=folder.parent,
    )


def _unique(names: list[str]) -> tuple[str, ...]:
    """Two of ImageNet's classes may share a first word: the later one gets its number."""
    seen: list[str] = []
    for name in names:
        seen.append(name if name not in seen else f"{name} ({len(seen)})")
    return tuple(seen)


def _part(split: Split, which: slice) -> Split:
    return split[0][which], split[1][which]


def _tiles(folder: Path, split: str) -> tuple[np.ndarray, list[int]]:
    """One split: uint8 ``(rows, 3, 32, 32)`` of tiles of pictures, and class numbers."""
    from PIL import Image

    labels = json.loads((folder / f"{split}.json").read_text())
    parts = []
    for file in sorted(folder.glob(f"{split}-*.webp")):
        with Image.open(file) as tile:
            pixels = np.asarray(tile.convert("RGB")).reshape(-1, SIDE, IN_A_ROW, SIDE, 3)
        parts.append(pixels.transpose(0, 2, 4, 1, 3).reshape(-1, 3, SIDE, SIDE))
    return np.concatenate(parts)[: len(labels)], labels
