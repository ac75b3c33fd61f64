"""Surnames by language, from the lists that the Faker package ships: nothing to download."""

from __future__ import annotations

import random
from collections import Counter
from importlib import import_module
from pathlib import Path

from benchmarks.data.texts import TextData

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


def load_surnames(_: Path, seed: int = 0) -> TextData:
    """Surnames of twelve languages, as the quickstart has them: 70 % to train on, 15 % to validate.

    Names that two languages share are left out.
    """
    found = {
        language: {
            name.strip()
            for name in import_module(f"faker.providers.person.{locale}").Provider.last_names
        }
        for language, locale in LOCALES.items()
    }
    times = Counter(name.casefold() for names in found.values() for name in names)
    rows: dict[str, list[tuple[str, str]]] = {"train": [], "validation": [], "test": []}
    for language, names in found.items():
        own = sorted(name for name in names if times[name.casefold()] == 1)
        random.Random(seed).shuffle(own)
        ends = [round(len(own) * share) for share in (0.0, 0.70, 0.85, 1.0)]
        for split, low, high in zip(rows, ends, ends[1:], strict=False):
            rows[split] += [(name, language) for name in own[low:high]]
    for part in rows.values():
        random.Random(seed).shuffle(part)
    return TextData(
        "surnames",
        {split: [name for name, _ in part] for split, part in rows.items()},
        {split: [language for _, language in part] for split, part in rows.items()},
        tuple(sorted(LOCALES)),
    )
