"""Sentences aligned in several languages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.data.files import read_splits

# Languages of each folder, the source first.
TATOEBA = {
    "tatoeba": ("en", "de", "fr", "it"),
    "tatoeba_uk": ("en", "de", "fr", "it", "uk"),
    "tatoeba_et": ("et", "en", "de", "it"),
    "tatoeba_et_en": ("et", "en"),
}


@dataclass(frozen=True)
class TranslationData:
    """Splits of aligned sentences: for each split and language a list, all of the same length.

    ``None`` stands where a sentence has no translation into a language.
    """

    name: str
    sentences: dict[str, dict[str, list[Any]]]
    source: str
    targets: tuple[str, ...]

    def only(self, targets: Sequence[str]) -> TranslationData:
        """The same sentences with these target languages alone."""
        return replace(self, targets=tuple(targets))

    def first(self, rows: int) -> TranslationData:
        """At most ``rows`` evenly spaced rows of each split: the data of a quick run."""
        sentences = {}
        for split, found in self.sentences.items():
            count = len(found[self.source])
            picked = range(0, count, max(1, -(-count // rows)))
            sentences[split] = {code: [v[i] for i in picked] for code, v in found.items()}
        return replace(self, name=f"{self.name}/{rows}", sentences=sentences)

    def sources(self, split: str) -> list[str]:
        """Sentences to translate."""
        return self.sentences[split][self.source]

    def references(self, split: str, target: str) -> list[Any]:
        """Their translations."""
        return self.sentences[split][target]

    def with_more(self, other: TranslationData) -> TranslationData:
        """Another set's train sentences that are not in this one, with what translations it has.

        Validation and test splits are this one's.
        """
        known = set(self.sources("train"))
        new = [i for i, text in enumerate(other.sources("train")) if text not in known]
        train = {}
        for code, texts in self.sentences["train"].items():
            more = other.sentences["train"].get(code, [None] * len(other.sources("train")))
            train[code] = texts + [more[i] for i in new]
        name = f"{self.name} with {other.name}"
        return replace(self, name=name, sentences={**self.sentences, "train": train})


def load_tatoeba(data_dir: Path, folder: str = "tatoeba") -> TranslationData:
    """One of Tatoeba's four sets.

    Raises:
        ValueError: if ``folder`` is not one of them.
        FileNotFoundError: if it is not in ``data_dir``.
    """
    if folder not in TATOEBA:
        raise ValueError(f"folder={folder!r}; expected one of {tuple(TATOEBA)}.")
    source, *targets = TATOEBA[folder]
    splits = read_splits(data_dir / folder)
    sentences = {
        split: {code: list(found[code]) for code in TATOEBA[folder]}
        for split, found in splits.items()
    }
    return TranslationData(folder, sentences, source, tuple(targets))
