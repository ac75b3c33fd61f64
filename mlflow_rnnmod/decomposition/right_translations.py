"""How good translations are, against the right ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mlflow_rnnmod.answers.translation import chrf_signature, corpus_bleu, corpus_chrf
from mlflow_rnnmod.decomposition.pairs import Pairs
from mlflow_rnnmod.networks.parent import Parent

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
