"""The paper's two scenarios: a language is added to a translator; a weak one is replaced."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.published import SCENARIOS as PUBLISHED
from benchmarks.translation.parents import Translators
from benchmarks.translation.questions import RULES, Done, Studies, Told, common
from benchmarks.translation.study import Bleu, bleu
from mlflow_rnnmod.composition import add, compose, replace, whole_parent


@dataclass(frozen=True)
class Scenario:
    """What is there, what comes in, and what it stands against.

    Args:
        folder: the data set whose test split gives the figures.
        base: languages of the translator that is there.
        language: the one that comes in.
        sources: translators that its module is taken from, by name: data set and languages.
        everything: data sets of the model that is trained again, on all languages.
    """

    folder: str
    base: tuple[str, ...]
    language: str
    sources: dict[str, tuple[str, tuple[str, ...]]]
    everything: str

    @property
    def languages(self) -> tuple[str, ...]:
        """Of what comes out."""
        return tuple(dict.fromkeys((*self.base, self.language)))


SCENARIOS = {
    "tatoeba_uk": Scenario(
        "tatoeba_uk",
        ("de", "fr", "it"),
        "uk",
        {
            "uk from en > uk": ("tatoeba_uk", ("uk",)),
            "uk from en > it, uk": ("tatoeba_uk", ("it", "uk")),
        },
        "tatoeba_uk",
    ),
    "tatoeba_et": Scenario(
        "tatoeba_et",
        ("en", "de", "it"),
        "en",
        {"en from et > en": ("tatoeba_et_en", ("en",))},
        "tatoeba_et+tatoeba_et_en",
    ),
}


def scenario_rows(
    scenario: Scenario,
    translators: Translators,
    studies: Studies,
    removal: float,
    cell: str,
    layers: int,
    seed: int,
    done: Done,
    told: Told,
) -> Iterator[dict[str, Any]]:
    """A row for each source of the module, and rule, that is not in ``done``.

    ``new_seconds`` is what the module's own translator took to train; the translator that it comes
    to was there, and took ``base_seconds``.
    """
    folder, languages = scenario.folder, scenario.languages
    wanted = [(pair, rule) for pair in scenario.sources for rule in RULES]
    if all(key in done for key in wanted):
        return
    told("the translator that is there")
    base = translators.trained(folder, scenario.base, cell, layers, seed)
    told("everything again")
    again = translators.trained(scenario.everything, languages, cell, layers, seed)
    data = translators.data(folder, languages)
    right = bleu(whole_parent(again.parent), data, languages)
    others = [code for code in languages if code != scenario.language]
    retrained, new, known = PUBLISHED[folder], {}, {}
    for pair, rule in wanted:
        if (pair, rule) in done:
            continue
        if pair not in new:
            told(f"{pair}: training")
            source, targets = scenario.sources[pair]
            new[pair] = translators.trained(source, targets, cell, layers, seed)
        told(f"{pair}: {rule}")
        module = studies.modules(new[pair], rule, removal)[scenario.language]
        if rule not in known:
            composite = compose(studies.modules(base, rule, removal).values())
            known[rule] = (composite, bleu(composite, data, others).languages)
        composite, unchanged = known[rule]
        if scenario.language in scenario.base:
            composite = replace(composite, scenario.language, module)
        else:
            composite = add(composite, module)
        # Each language is answered by its own module: only this one's translations are new.
        own = bleu(composite, data, [scenario.language])
        scores = unchanged | own.languages
        found = Bleu({code: scores[code] for code in languages}, own.signature)
        yield {
            "pair": pair,
            **common(rule, removal, found),
            "scratch_score": right.mean,
            "scratch_languages": right.languages,
            "base_languages": studies.of(base).parent_bleu.languages,
            "scratch_seconds": again.seconds,
            "new_seconds": new[pair].seconds,
            "base_seconds": base.seconds,
            "decomposition_seconds": studies.of(new[pair]).seconds + studies.of(base).seconds,
            "paper_deltas": [figure - retrained[0] for figure in retrained[1:]],
        }
