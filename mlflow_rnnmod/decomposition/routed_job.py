"""Modules that are routed to: a trunk over a decoder each, and how well they translate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from mlflow_rnnmod._locks import cached_property
from mlflow_rnnmod.answers import Sample
from mlflow_rnnmod.answers.translation import chrf_signature, corpus_bleu, corpus_chrf
from mlflow_rnnmod.decomposition.config import DecompositionConfig
from mlflow_rnnmod.decomposition.folding import make_trunk
from mlflow_rnnmod.decomposition.module import Energy, Head, Module, make_contract
from mlflow_rnnmod.decomposition.pairs import Pairs, draw_pairs, forced_sample
from mlflow_rnnmod.decomposition.rules import RULES
from mlflow_rnnmod.decomposition.sizing import Job, Made, Progress
from mlflow_rnnmod.decomposition.splitting import PairExamples
from mlflow_rnnmod.decomposition.statistics import ActivationStatistics
from mlflow_rnnmod.networks.parent import Parent
from mlflow_rnnmod.networks.trunk import Trunk

PARTS = 10
"""Of sentences, to tell how sure a difference is."""


@dataclass(frozen=True, eq=False)
class TranslationScores:
    """BLEU of each language, and the translations it is of."""

    texts: Sequence[Sequence[str]]
    bleu: Sequence[float]

    @property
    def mean(self) -> float:
        """Over the languages that have right translations; 0 without any."""
        found = [bleu for bleu in self.bleu if bleu == bleu]
        return sum(found) / len(found) if found else 0.0


class RightTranslations:
    """The right translations of some sources, to compare others with."""

    def __init__(self, parent: Parent, pairs: Pairs) -> None:
        self.parent, self.pairs, self.signature = parent, pairs, ""
        self.chrf_signature = chrf_signature()
        self.right = [references(parent, pairs, code) for code in parent.labels]
        # Tokens are compared as they are.
        self.tokens = [
            code not in pairs.references and parent.writer is None for code in parent.labels
        ]

    def of(self, texts: Sequence[Sequence[str]]) -> TranslationScores:
        """BLEU of translations into all languages; NaN where no right ones are known."""
        found = []
        for mine, right, tokens in zip(texts, self.right, self.tokens, strict=True):
            bleu = float("nan")
            if right:
                bleu, self.signature = corpus_bleu(mine, right, tokens)
            found.append(bleu)
        return TranslationScores(texts, found)

    def parts(self, scores: TranslationScores) -> list[float]:
        """Mean BLEU of each tenth of the sentences: how far it is a matter of which these are."""
        found = []
        for part in range(PARTS):
            own = [texts[part::PARTS] for texts in scores.texts]
            right = [texts[part::PARTS] for texts in self.right]
            each = [
                corpus_bleu(mine, theirs, tokens)[0]
                for mine, theirs, tokens in zip(own, right, self.tokens, strict=True)
                if theirs
            ]
            found += [sum(each) / len(each)] if each else []
        return found

    def chrf(self, index: int, own: Sequence[str], parents: Sequence[str]) -> dict[str, float]:
        """ChrF of a language's translations, and of its parent's; nothing without right ones."""
        right = self.right[index]
        if not right:
            return {}
        found = {"chrf": own, "parent_chrf": parents}
        return {name: corpus_chrf(texts, right)[0] for name, texts in found.items()}


def known_rows(pairs: Pairs, code: str) -> Tensor:
    """Numbers of the rows that have a translation into a language."""
    if code not in pairs.targets:
        return torch.zeros(0, dtype=torch.int64)
    return pairs.known(code).nonzero()[:, 0]


def references(parent: Parent, pairs: Pairs, code: str) -> list[str]:
    """The right translations into a language, as text, of the rows that have one."""
    rows = known_rows(pairs, code)
    if code in pairs.references:
        return [pairs.references[code][i] for i in rows.tolist()]
    if len(rows) == 0:
        return []
    found = pairs.targets[code][rows]
    assert found.lengths is not None
    lengths = found.lengths.tolist()
    return written(parent, [v[:n].tolist() for v, n in zip(found.values, lengths, strict=True)])


def written(parent: Parent, ids: Sequence[Sequence[int]]) -> list[str]:
    """Translations as text; without a tokenizer, token ids with spaces between them."""
    if parent.writer is not None:
        return parent.writer.decode(ids)
    return [" ".join(map(str, row)) for row in ids]


# Sources that sizes are tried on: each takes a translation into every language.
SIZING_ROWS = 1000


@dataclass(frozen=True, eq=False)
class RoutedJob(Job):
    """Modules that translate, one for each language.

    A module is a mask over the decoder, with guesses for what is removed folded in, and the
    language's start token. Encoder, bridge, embeddings and output layer are the parent's; there is
    nothing to channel, to refit or to calibrate: of the repairs only ``fold`` does something.

    Args:
        calibration: sentences that sizes are tried on.
        report: sentences that give the figures.
    """

    calibration: RightTranslations
    report: RightTranslations

    examples = PairExamples()
    """What such networks are decomposed with."""

    @classmethod
    def start(
        cls,
        parent: Parent,
        statistics: ActivationStatistics,
        config: DecompositionConfig,
        told: Progress,
        sample: Sample,
        calibration: Pairs,
        report: Pairs,
    ) -> RoutedJob:
        """The job, with what is right."""
        draw = torch.Generator().manual_seed(config.seed)
        few = calibration[torch.randperm(len(calibration), generator=draw)[:SIZING_ROWS]]
        right = RightTranslations(parent, few), RightTranslations(parent, report)
        return cls(parent, statistics, config, told, *right)

    @staticmethod
    def sample(parent: Parent, train: Pairs, config: DecompositionConfig) -> Sample:
        """The translations to watch: at most so many into each language."""
        if config.trunks not in ("label", "auto"):
            raise ValueError(
                f'trunks={config.trunks!r}; expected "label" or "auto": languages are told apart '
                "by the decoder alone, whose pass they can't share."
            )
        return forced_sample(draw_pairs(train, config.rows_per_label, config.seed), parent.labels)

    @staticmethod
    def warnings(parent: Parent, train: Pairs, sample: Sample, rule: str) -> list[str]:
        """What the user should be told of the training sentences."""
        found = []
        missing = [
            code
            for code in parent.labels
            if code not in train.targets or not train.known(code).any()
        ]
        if missing:
            found.append(
                f"no training sentences in {missing}: their modules know nothing of their language"
            )
        if RULES[rule].histograms and len(parent.labels) == 1:
            found.append(
                f"rule {rule!r} contrasts a language with the others, and there is one only: "
                "nothing may be removed"
            )
        return found

    def make(self, removed: Sequence[Mapping[str, Tensor]], stage: str, last: bool = False) -> Made:
        """Trunks of all languages; what is guessed is guessed for each by itself."""
        fold = "fold" in self.config.repairs
        return Made(language_trunks(removed, self.statistics, fold), stage, removed)

    def sized(self, made: Made) -> float:
        """Mean BLEU on the sentences that sizes are tried on."""
        return self._scores(self.calibration, made.trunks, made.rest).mean

    def error(self, made: Made, other: Made) -> float:
        """Of the mean BLEU of some parts of the sentences, each translated by both."""
        one, two = (
            torch.tensor(self.calibration.parts(self._scores(self.calibration, m.trunks, m.rest)))
            for m in (made, other)
        )
        return float((one - two).std()) / len(one) ** 0.5 if len(one) > 1 else 0.0

    def reported(self, made: Made) -> dict[str, float]:
        """Mean BLEU on the report sentences."""
        return {"bleu": self._scores(self.report, made.trunks, made.rest).mean}

    @cached_property
    def parent_sized(self) -> float:
        """Mean BLEU of the parent on the sentences that sizes are tried on."""
        return self._scores(self.calibration, self._whole, "parent").mean

    @cached_property
    def parent_reported(self) -> dict[str, float]:
        """Mean BLEU of the parent on the report sentences."""
        return {"bleu": self._scores(self.report, self._whole, "parent").mean}

    @property
    def _whole(self) -> list[Trunk]:
        return [Trunk.whole(self.parent.network.units)] * len(self.parent.labels)

    @cached_property
    def _known(self) -> dict[tuple[int, tuple[str, ...]], TranslationScores]:
        return {}

    def _scores(
        self, right: RightTranslations, trunks: Sequence[Trunk], stage: str
    ) -> TranslationScores:
        """BLEU of all sentences translated through some trunks; nothing is translated twice."""
        key = id(right), tuple(trunk.digest for trunk in trunks)
        if key not in self._known:
            self._known[key] = right.of(self._translated(right.pairs, trunks, stage))
        return self._known[key]

    def _translated(self, pairs: Pairs, trunks: Sequence[Trunk], stage: str) -> list[list[str]]:
        """Translations of all sources into each language through its trunk, as text."""
        network = self.parent.network
        found = []
        # Each language gets its own batch: where sources have translations into few of them.
        for code, trunk in zip(self.parent.labels, trunks, strict=True):
            target = network.target(code)
            assert target is not None
            sources, told = pairs.sources[known_rows(pairs, code)], f"translating into {code}"
            job = network.writer(trunk), target["start"]
            progress = partial(self.told, f"{told}: {stage}")
            found.append(written(self.parent, network.write(sources, [job], progress=progress)[0]))
        return found

    @property
    def rows(self) -> int:
        """Number of report sentences."""
        return len(self.report.pairs)

    def modules(
        self, made: Made, share: float, words: Mapping[str, str], overlap: Tensor
    ) -> tuple[Module, ...]:
        """The modules, with their figures on the report sentences."""
        parent, config = self.parent, self.config
        composed = self._scores(self.report, made.trunks, made.rest)
        of_parent = self._scores(self.report, self._whole, "parent")
        how = {
            "rule": config.rule,
            "removal": share,
            "seed": config.seed,
            "rows": dict(words),
            "bleu": self.report.signature,
            "chrf": self.report.chrf_signature,
            "repairs": [repair for repair in config.repairs if repair == "fold"],
        }
        modules = []
        for index, (label, trunk) in enumerate(zip(parent.labels, made.trunks, strict=True)):
            own = composed.texts[index]
            others = torch.cat([overlap[index, :index], overlap[index, index + 1 :]])
            same = [a == b for a, b in zip(own, of_parent.texts[index], strict=True)]
            figures = {
                "bleu": composed.bleu[index],
                "parent_bleu": of_parent.bleu[index],
                **self.report.chrf(index, own, of_parent.texts[index]),
                "agreement": sum(same) / len(same) if same else float("nan"),
                "support": float(len(own)),
                **parent.network.shares_kept(trunk),
                "jaccard": float(others.mean()),
            }
            contract = make_contract(parent, label, trunk)
            rest = (Head(), Head(), Energy(), contract, figures, how)
            modules.append(Module(parent, trunk, *rest))
        return tuple(modules)


def language_trunks(
    removed: Sequence[Mapping[str, Tensor]], statistics: ActivationStatistics, fold: bool
) -> list[Trunk]:
    """The trunk of each language; what is guessed is guessed for each by itself.

    ``removed``: for each language, what its trunk leaves out, as :func:`make_trunk` takes it.
    """
    return [make_trunk(units, statistics.of(label), fold) for label, units in enumerate(removed)]
