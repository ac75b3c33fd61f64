"""How good translations are: corpus BLEU, as sacrebleu computes it."""

from __future__ import annotations

from collections.abc import Sequence


def corpus_bleu(
    translations: Sequence[str], references: Sequence[str], tokens: bool = False
) -> tuple[float, str]:
    """BLEU of some translations, and how it was computed.

    Args:
        translations: one a row.
        references: the right one of each row.
        tokens: whether rows are tokens with spaces between them already, and are compared so.

    Returns:
        a share from 0 to 1 (sacrebleu's score is in points), and sacrebleu's signature.

    Raises:
        ValueError: if there are not as many of both, or none.

    Example:
        >>> corpus_bleu(["Das ist ein Haus ."], ["Das ist ein Haus ."])[0]
        1.0
    """
    # Imported here: nothing but a decomposition of a translator needs it.
    from sacrebleu.metrics import BLEU

    if len(translations) != len(references) or not references:
        raise ValueError(
            f"{len(translations)} translations and {len(references)} references; expected as many "
            "of both, and at least one."
        )
    metric = BLEU(tokenize="none") if tokens else BLEU()
    score = metric.corpus_score(list(translations), [list(references)]).score / 100
    return min(float(score), 1.0), str(metric.get_signature())
