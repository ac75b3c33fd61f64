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
    load_math_qa,
    load_tatoeba,
    load_toxicity,
)
from benchmarks.translators import TranslatorTraining


@dataclass(frozen=True)
class Task:
    """A data set of labels as one of the paper's types of network reads it.

    Args:
        io_type: the paper's name for the type.
        load: name of the loader, with what it is told beside the folder.
        settings: those of :class:`~benchmarks.classifiers.Training` that are not the default.
            They were chosen on the validation split.
    """

    io_type: str
    load: tuple[Any, ...]
    settings: dict[str, Any]

    def data(self, data_dir: Path) -> TextData:
        """The data set."""
        loader, *rest = self.load
        return loader(data_dir, *rest)

    def training(self, cell: str = "lstm", layers: int = 1, seed: int = 0) -> Training:
        """The settings of a parent."""
        return Training(cell, layers, seed=seed, **self.settings)


TASKS = {
    "clinc_oos": Task("many-to-one", (load_clinc, "domain"), {}),
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
}


def translation_data(data_dir: Path, folder: str = "tatoeba") -> TranslationData:
    """One of the four sets of aligned sentences."""
    return load_tatoeba(data_dir, folder)


def translator_training(cell: str = "lstm", seed: int = 0, **other: Any) -> TranslatorTraining:
    """The settings of a translator."""
    return replace(TranslatorTraining(cell, seed=seed), **other)
