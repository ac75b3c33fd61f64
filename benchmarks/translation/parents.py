"""The translators that the questions need, by name, with the settings they are trained with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.data import TranslationData, load_tatoeba
from benchmarks.translators import TranslatorTraining, to_translator, trained_translator
from mlflow_rnnmod.networks import Parent

CELLS = ("lstm", "gru", "rnn")
# A few hundred or thousand sentences: a small network, many short epochs.
SMALL = {
    "units": 128,
    "embedding": 128,
    "source_vocabulary": 1500,
    "vocabulary": 1000,
    "epochs": 30,
    "batch_size": 8,
    "learning_rate": 2e-3,
    "dropout": 0.3,
}
SMALL_SETS = ("tatoeba_et", "tatoeba_et_en")
# An LSTM learns far more slowly than a GRU, and gains by more steps; chosen on validation.
LSTM = {"batch_size": 12}
# BLEU on validation still rises after the default's epochs; chosen there.
LONGER = {"tatoeba": {"epochs": 18}}
QUICK_ROWS = 1500
QUICK = {"units": 96, "embedding": 96, "source_vocabulary": 500, "vocabulary": 400, "epochs": 6}


@dataclass(frozen=True, eq=False)
class Trained:
    """A translator with what it was trained on and what that took."""

    parent: Parent
    data: TranslationData
    seconds: float
    metric: float
    cell: str
    seed: int

    @property
    def name(self) -> str:
        """Its languages, as ``"en > de, fr"``."""
        return f"{self.data.source} > {', '.join(self.data.targets)}"


@dataclass(frozen=True)
class Translators:
    """Makes them, or finds them in the cache.

    Args:
        data_dir: folder of the data sets.
        cache: folder of trained translators.
        quick: tiny ones on a few sentences, that translate nothing well.
    """

    data_dir: Path
    cache: Path | None
    quick: bool = False

    def data(self, folder: str, targets: Sequence[str] | None = None) -> TranslationData:
        """One of Tatoeba's sets, or ``"one+other"``; a part of it where it is quick.

        Validation and test splits are the first one's.
        """
        first, *others = (load_tatoeba(self.data_dir, name) for name in folder.split("+"))
        for other in others:
            first = first.with_more(other)
        if self.quick:
            first = first.first(QUICK_ROWS)
        return first if targets is None else first.only(targets)

    def trained(
        self,
        folder: str,
        targets: Sequence[str] | None = None,
        cell: str = "lstm",
        layers: int = 1,
        seed: int = 0,
        scratch: bool = False,
    ) -> Trained:
        """A translator.

        Args:
            folder: see :meth:`data`.
            targets: languages; ``None`` for all of the set.
            cell: of encoder and decoder.
            layers: of the decoder.
            seed: of weights, batches and dropout.
            scratch: whether it stands against modules of a translator with the same settings, and
                is trained for as many epochs as that at the most.

        Raises:
            ValueError: if there is no translator of these cells.
        """
        if cell not in CELLS:
            raise ValueError(f"cell={cell!r}; expected one of {CELLS} for translators.")
        data = self.data(folder, targets)
        training = TranslatorTraining(cell, layers, seed=seed)
        if cell == "lstm":
            training = replace(training, **LSTM)
        if folder.split("+")[0] in SMALL_SETS:
            training = replace(training, **SMALL)
        training = replace(training, **LONGER.get(folder, {}))
        if self.quick:
            training = replace(training, **QUICK)
        least = training.epochs if scratch else None
        kept = trained_translator(data, training, self.cache, least)
        parent = to_translator(kept, data.targets, training)
        return Trained(parent, data, kept["seconds"], kept["metric"], cell, seed)
