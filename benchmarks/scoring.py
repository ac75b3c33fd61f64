"""How good a composite's answers to raw texts are, in points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.data import TextData
from mlflow_rnnmod.composition import Composite


def points(answers: Sequence[Any], labels: Sequence[Any], output: str) -> float:
    """The metric of a kind of output, by counting.

    Args:
        answers: a label for each text; a list of labels a text; or, for tags, a label a word.
        labels: what is right, likewise; ``None`` for words that do not count.
        output: kind of answer.
    """
    if output == "label":
        return 100 * sum(a == b for a, b in zip(answers, labels, strict=True)) / len(labels)
    if output == "tags":
        pairs = [
            (a, b)
            for row, right in zip(answers, labels, strict=True)
            for a, b in zip(row, right, strict=False)
            if b is not None
        ]
        return 100 * sum(a == b for a, b in pairs) / len(pairs)
    hits = sum(len(set(a) & set(b)) for a, b in zip(answers, labels, strict=True))
    total = sum(len(set(a)) + len(set(b)) for a, b in zip(answers, labels, strict=True))
    return 100 * 2 * hits / total if total else 100.0


def top_points(
    composite: Composite, data: TextData, split: str = "test", top: int = 5
) -> tuple[float, float]:
    """How often the right label scores highest, and how often it is among the highest ``top``."""
    scores = composite.scores(data.texts[split])
    index = {label: number for number, label in enumerate(composite.labels)}
    right = torch.tensor([index.get(label, -1) for label in data.labels[split]])
    order = scores.argsort(dim=1, descending=True, stable=True)
    among = order[:, :top] == right[:, None]
    return 100 * float(among[:, 0].double().mean()), 100 * float(among.any(1).double().mean())


def composite_points(composite: Composite, data: TextData, split: str = "test") -> float:
    """Of a composite on the raw texts of a split."""
    return points(composite.predict(data.texts[split]), data.labels[split], composite.output)
