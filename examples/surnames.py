"""Surnames by language, from the lists that the Faker package ships: real data, no download."""

from __future__ import annotations

import random
from collections import Counter
from importlib import import_module

from texts import Splits, Texts, shuffled

LOCALES = {
    "Croatian": "hr_HR",
    "Dutch": "nl_NL",
    "Estonian": "et_EE",
    "Finnish": "fi_FI",
    "French": "fr_FR",
    "German": "de_DE",
    "Irish": "ga_IE",
    "Italian": "it_IT",
    "Slovak": "sk_SK",
    "Spanish": "es_ES",
    "Swedish": "sv_SE",
    "Zulu": "zu_ZA",
}


def surnames_by_language() -> dict[str, list[str]]:
    """The surnames of each language, without those that two languages share."""
    names = {
        language: {
            name.strip()
            for name in import_module(f"faker.providers.person.{locale}").Provider.last_names
        }
        for language, locale in LOCALES.items()
    }
    languages_with = Counter(name.casefold() for found in names.values() for name in found)
    return {
        language: sorted(name for name in found if languages_with[name.casefold()] == 1)
        for language, found in names.items()
    }


def load_surnames(share: float = 1.0, seed: int = 0) -> Splits:
    """Surnames of twelve languages: 70 % to train on, 15 % to validate, 15 % to test.

    Args:
        share: how much of each language to take.
        seed: of the split.
    """
    parts: tuple[list, list, list] = ([], [], [])
    for language, names in surnames_by_language().items():
        random.Random(seed).shuffle(names)
        names = names[: round(len(names) * share)]
        cuts = round(len(names) * 0.70), round(len(names) * 0.85)
        chunks = names[: cuts[0]], names[cuts[0] : cuts[1]], names[cuts[1] :]
        for part, chunk in zip(parts, chunks, strict=True):
            part += [(name, language) for name in chunk]
    train, validation, test = (shuffled(Texts.of(part), seed) for part in parts)
    return Splits(train, validation, test, tokens="characters")
