"""One translator under study: modules of any rule and size, and the BLEU of what they compose."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from benchmarks.data import TranslationData
from benchmarks.translation.parents import Trained
from mlflow_rnnmod.answers.translation import corpus_bleu
from mlflow_rnnmod.composition import compose, whole_parent
from mlflow_rnnmod.composition.translation import TranslatingComposite
from mlflow_rnnmod.decomposition.config import DecompositionConfig
from mlflow_rnnmod.decomposition.module import Energy, Head, Module, make_contract
from mlflow_rnnmod.decomposition.pairs import Pairs, draw_pairs, forced_sample
from mlflow_rnnmod.decomposition.routed_job import language_trunks
from mlflow_rnnmod.decomposition.rules import RULES, random_like, removed_units
from mlflow_rnnmod.decomposition.statistics import ActivationStatistics
from mlflow_rnnmod.decomposition.watching import collect
from mlflow_rnnmod.networks.trunk import Trunk, overlap_matrix

Removed = list[dict[str, Tensor]]


@dataclass(frozen=True)
class Bleu:
    """How good translations into some languages are, in points.

    Args:
        languages: BLEU by language.
        signature: sacrebleu's: how it was computed.
    """

    languages: dict[str, float]
    signature: str

    @property
    def mean(self) -> float:
        """Over the languages."""
        return sum(self.languages.values()) / len(self.languages)


@dataclass(frozen=True, eq=False)
class TranslationStudy:
    """A translator with its statistics; the test split gives every figure."""

    trained: Trained
    statistics: ActivationStatistics
    seconds: float

    @classmethod
    def start(
        cls, trained: Trained, seed: int = 0, variant: str = "rolled", gates: str = "joint"
    ) -> TranslationStudy:
        """Watch the decoder's units, once for all rules and sizes."""
        started = time.perf_counter()
        parent, data = trained.parent, trained.data
        references = {code: data.references("train", code) for code in parent.labels}
        pairs = Pairs.from_texts(parent, data.sources("train"), references)
        per_label = DecompositionConfig().rows_per_label
        sample = forced_sample(draw_pairs(pairs, per_label, seed), parent.labels)
        statistics = collect(parent.network, sample, variant=variant, gates=gates)
        return cls(trained, statistics, time.perf_counter() - started)

    @cached_property
    def parent_bleu(self) -> Bleu:
        """Of the unmasked translator."""
        return bleu(whole_parent(self.trained.parent), self.trained.data)

    def removed(self, rule: str, share: float) -> Removed:
        """Units that ``rule`` removes, for each language; ``"random"``: as many at random."""
        labels = range(len(self.trained.parent.labels))
        if rule == "random":
            return self.random(self.removed("sensitivity", share), draws=1)[0]
        return [removed_units(RULES[rule], self.statistics, y, share) for y in labels]

    @staticmethod
    def random(removed: Removed, draws: int) -> list[Removed]:
        """Masks that remove as many units of each layer and language, at random."""
        return [
            [random_like(units, 1000 * draw + label) for label, units in enumerate(removed)]
            for draw in range(draws)
        ]

    def modules(self, removed: Removed, fold: bool = True) -> dict[str, Module]:
        """A module for each language, as ``decompose`` makes them."""
        parent, found = self.trained.parent, {}
        trunks = language_trunks(removed, self.statistics, fold)
        for label, trunk in zip(parent.labels, trunks, strict=True):
            contract = make_contract(parent, label, trunk)
            found[label] = Module(parent, trunk, Head(), Head(), Energy(), contract)
        return found

    def composed(self, removed: Removed, fold: bool = True) -> Bleu:
        """What is composed of all modules, on the test split."""
        return bleu(compose(self.modules(removed, fold).values()), self.trained.data)

    def sizes(self, trunks: Sequence[Trunk]) -> list[dict[str, float]]:
        """For each language the shares of the decoder kept, and the mean overlap with others."""
        overlap, found = overlap_matrix(list(trunks)), []
        for index, trunk in enumerate(trunks):
            others = [float(overlap[index, i]) for i in range(len(trunks)) if i != index]
            jaccard = sum(others) / len(others) if others else 1.0
            shares = self.trained.parent.network.shares_kept(trunk)
            found.append({**shares, "jaccard": jaccard})
        return found


def bleu(
    composite: TranslatingComposite,
    data: TranslationData,
    languages: Sequence[str] | None = None,
    split: str = "test",
) -> Bleu:
    """Of greedy translations of one split, by languages.

    Args:
        composite: what translates.
        data: sentences, in its languages at least.
        languages: those that are asked for; ``None`` for all of the composite's.
        split: sentences without a translation are left out.
    """
    found, signature = {}, ""
    for code in languages or composite.labels:
        right = data.references(split, code)
        rows = [i for i, text in enumerate(right) if text]
        sources = data.sources(split)
        answers = composite.predict([sources[i] for i in rows], target=code)
        score, signature = corpus_bleu(answers, [right[i] for i in rows])
        found[code] = 100 * score
    return Bleu(found, signature)
