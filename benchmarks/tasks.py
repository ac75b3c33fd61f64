"""The data sets by name, and the settings that their parents are trained with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.classifiers import Training
from benchmarks.data import (
    TextData,
    TranslationData,
    load_brown,
    load_clinc,
    load_fashion_mnist,
    load_images,
    load_math_qa,
    load_pictures,
    load_surnames,
    load_tatoeba,
    load_toxicity,
)
from benchmarks.dense import CELL
from benchmarks.parents import AnyTraining
from benchmarks.resnet import BLOCKS, ImageTraining
from benchmarks.translators import TranslatorTraining
from benchmarks.written import WRITTEN

CELLS = ("lstm", "gru", "rnn", "rnn_relu")


@dataclass(frozen=True)
class Task:
    """A data set of labels as one of the paper's types of network reads it.

    Args:
        io_type: the paper's name for the type.
        load: name of the loader, with what it is told beside the folder.
        settings: those of :class:`~benchmarks.classifiers.Training` that are not the default.
            They were chosen on the validation split.
        cells: kinds of network that read it, the first where another one is asked for.
        few: share of one label's rows that the weak parents of rq3 saw; ``None`` where the worst
            of the parents of several cells and seeds is the weak one.
    """

    io_type: str
    load: tuple[Any, ...]
    settings: dict[str, Any]
    cells: tuple[str, ...] = CELLS
    few: float | None = None

    def data(self, data_dir: Path) -> TextData:
        """The data set."""
        loader, *rest = self.load
        return loader(data_dir, *rest)

    def cell(self, wanted: str) -> str:
        """The kind of network that is wanted, or the task's own where it is of none of its."""
        return wanted if wanted in self.cells else self.cells[0]

    def training(self, cell: str = "lstm", layers: int = 1, seed: int = 0) -> AnyTraining:
        """The settings of a parent."""
        return Training(self.cell(cell), layers, seed=seed, **self.settings)

    def several(self, layers: int = 1) -> list[AnyTraining]:
        """Parents among which are a worst and a best one."""
        return [self.training(cell, layers, seed) for cell in CELLS[:3] for seed in (0, 1)]


@dataclass(frozen=True)
class ImageTask(Task):
    """A data set of images, read by residual networks."""

    cells: tuple[str, ...] = tuple(BLOCKS)

    def training(self, cell: str = "resnet20", layers: int = 1, seed: int = 0) -> AnyTraining:
        """The settings of a parent, and of models from scratch beside it."""
        return ImageTraining(self.cell(cell), seed=seed, **self.settings)

    def several(self, layers: int = 1) -> list[AnyTraining]:
        """One of each kind."""
        return [self.training(cell) for cell in self.cells]


APART = {
    "surnames": Task(
        "many-to-one",
        (load_surnames,),
        {
            "words": "characters",
            "steps": None,
            "units": 96,
            "embedding": 48,
            "epochs": 12,
            "batch_size": 64,
            "learning_rate": 4e-3,
            "dropout": 0.3,
            "decay": True,
        },
    ),
}
"""Sets that only parents trained apart are measured on: the paper has none like them."""
DENSE = {"units": 49, "batch_size": 128, "word_dropout": 0.0, "epochs": 20}
TASKS = {
    "clinc_oos": Task("many-to-one", (load_clinc, "domain"), {}, (*CELLS, *WRITTEN)),
    "clinc_oos/intent": Task("many-to-one", (load_clinc, "intent"), {}),
    "math_qa": Task(
        "one-to-one",
        (load_math_qa,),
        {
            "feed": "flat",
            "readout": "last_step",
            "words": "numbers",
            "steps": 60,
            "epochs": 10,
            "batch_size": 64,
            "dropout": 0.3,
        },
    ),
    "wiki_toxicity/list": Task(
        "one-to-many",
        (load_toxicity, "list"),
        {
            "feed": "repeat",
            "readout": "all_steps",
            "steps": 100,
            "vocabulary": 20_000,
            "embedding": 20,
            "embedding_scale": 0.05,
            "epochs": 8,
            "batch_size": 64,
            "learning_rate": 2e-3,
            "dropout": 0.2,
            "shuffled": True,
            "alike": True,
            "decay": True,
        },
    ),
    "wiki_toxicity/multilabel": Task(
        "many-to-one",
        (load_toxicity, "multilabel"),
        {
            "readout": "max_valid",
            "steps": 100,
            "vocabulary": 20_000,
            "epochs": 8,
            "batch_size": 64,
            "learning_rate": 2e-3,
            "dropout": 0.2,
            "bucketed": True,
            "decay": True,
        },
    ),
    "brown_pos": Task(
        "many-to-many",
        (load_brown,),
        {
            "readout": "all_steps",
            "words": "tokens",
            "steps": None,
            "vocabulary": 20_000,
            "epochs": 8,
            "batch_size": 64,
            "learning_rate": 3e-3,
            "bucketed": True,
            "decay": True,
        },
    ),
    "mnist": Task("dense", (load_images, "mnist"), DENSE, (CELL,), 0.02),
    "fashion_mnist": Task("dense", (load_fashion_mnist,), DENSE, (CELL,), 0.02),
    "cifar10": ImageTask("images", (load_pictures, "cifar10"), {}),
    "cifar100": ImageTask("images", (load_pictures, "cifar100"), {"begin": "cifar10"}),
    "tiny_imagenet32": ImageTask(
        "images",
        (load_pictures, "tiny_imagenet32"),
        {"epochs": 24, "learning_rate": 0.1, "begin": "cifar100"},
        ("resnet20",),
    ),
    "emnist_letters": Task("dense", (load_images, "emnist_letters"), DENSE, (CELL,), 0.1),
}


def translation_data(data_dir: Path, folder: str = "tatoeba") -> TranslationData:
    """One of the four sets of aligned sentences."""
    return load_tatoeba(data_dir, folder)


def translator_training(cell: str = "lstm", seed: int = 0, **other: Any) -> TranslatorTraining:
    """The settings of a translator."""
    return replace(TranslatorTraining(cell, seed=seed), **other)
