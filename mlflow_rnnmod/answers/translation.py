"""A translation of the input, into the language that is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlflow_rnnmod.answers.base import PREDICTION, Answer, Form


class Translation(Answer):
    """A text; languages are no rivals, and have no scores."""

    name = "translation"
    words = "a translation"
    rivals = False
    scored = False
    metric = "bleu"
    counted = "sentences"
    task = "translate into **{label}**"
    question = (
        "A module that translates into **{label}**: a mask over the decoder of its parent, which "
        "translates into {labels} {languages}."
    )
    joins = "It translates into the language that is asked for, or into all of them."

    def nothing(self, answer: Any, reject_label: str) -> Any:
        """No text, or no tokens, in each language."""
        if isinstance(answer, dict):
            return {label: type(text)() for label, text in answer.items()}
        return type(answer)()

    def form(self, labels: Sequence[str] = (), kind_of_input: str = "text") -> Form:
        """An array of texts, or a column for each language; ids where ids come in, too."""
        cell = "text" if kind_of_input == "text" else "ids"
        if len(labels) > 1:
            return Form(cell, tuple(labels))
        return Form(cell, None if cell == "text" else (PREDICTION,))

    def example_params(self, labels: Sequence[str] = ()) -> dict[str, Any]:
        """Params for a card's example."""
        return {**({"target": labels[0]} if labels else {}), "beams": 4}


def corpus_bleu(
    translations: Sequence[str], references: Sequence[str], tokens: bool = False
) -> tuple[float, str]:
    """BLEU of some translations, and how it was computed.

    ``tokens``: whether rows are tokens with spaces between them already, and are compared so; gives
    a share from 0 to 1 (sacrebleu's score is in points), and sacrebleu's signature.

    Example:
        >>> corpus_bleu(["Das ist ein Haus ."], ["Das ist ein Haus ."])[0]
        1.0
    """
    # Imported here: nothing but a decomposition of a translator needs it.
    from sacrebleu.metrics import BLEU

    return _corpus(BLEU(tokenize="none") if tokens else BLEU(), translations, references)


def corpus_chrf(translations: Sequence[str], references: Sequence[str]) -> tuple[float, str]:
    """ChrF of some translations, and how it was computed (Popović, WMT 2015).

    Gives a share from 0 to 1, and sacrebleu's signature.

    Example:
        >>> corpus_chrf(["Das ist ein Haus."], ["Das ist ein Haus."])[0]
        1.0
    """
    from sacrebleu.metrics import CHRF

    return _corpus(CHRF(), translations, references)


def chrf_signature() -> str:
    """Sacrebleu's signature of :func:`corpus_chrf`."""
    return corpus_chrf([""], [""])[1]


def _corpus(
    metric: Any, translations: Sequence[str], references: Sequence[str]
) -> tuple[float, str]:
    """A metric of sacrebleu's as a share, and its signature."""
    if len(translations) != len(references) or not references:
        raise ValueError(
            f"{len(translations)} translations and {len(references)} references; expected as many "
            "of both, and at least one."
        )
    score = metric.corpus_score(list(translations), [list(references)]).score / 100
    return min(float(score), 1.0), str(metric.get_signature())
