"""How good answers are: from scores to what is said, and how much of that is right."""

from __future__ import annotations

import torch
from torch import Tensor

from mlflow_rnnmod.decomposition.observations import Labelled

METRICS = {"label": "accuracy", "tags": "accuracy", "multilabel": "f1", "list": "f1"}
"""What each kind of output is measured by."""


def said(scores: Tensor, truth: Labelled) -> tuple[Tensor, Tensor]:
    """What scores answer and what is right, both bool ``(answers, labels)``.

    An answer is a row's set of labels, or the label of a step that has one: the label that scores
    highest; with several labels a row, those that score at least 0; for lists, the highest at each
    step up to the end of the list, and without it.

    Args:
        scores: float ``(observations, labels)``.
        truth: their rows.
    """
    config, targets = truth.network.config, truth.targets
    labels = scores.shape[1]
    if config.output == "multilabel":
        return scores >= 0, targets
    best = scores.argmax(dim=1)
    if config.output == "list":
        end = -1 if config.end_label is None else config.labels.index(config.end_label)
        return _sets(best, truth, labels, end), _sets(targets, truth, labels, end)
    known = truth.known
    return _one_hot(best[known], labels), _one_hot(targets[known], labels)


def _one_hot(indices: Tensor, labels: int) -> Tensor:
    return torch.nn.functional.one_hot(indices, labels).bool()


def _sets(indices: Tensor, truth: Labelled, labels: int, end: int) -> Tensor:
    """Labels on each row's list before its end, bool ``(rows, labels)``; negative ones are none."""
    steps = truth.by_row(indices, -1)
    read = (steps >= 0) & ~((steps == end).cumsum(dim=1) > 0)
    hits = _one_hot(steps.clamp(min=0), labels) & read[..., None]
    return hits.any(dim=1)


def measure(scores: Tensor, truth: Labelled) -> dict[str, float]:
    """How good scores are, as shares from 0 to 1, the metric of the kind of output first.

    One label a row, or one a step: ``accuracy``. Several: ``f1``, over all rows and labels alike
    (micro-average, as scikit-learn and torchmetrics have it), and ``exact``, rows whose labels are
    all right. The label that ends a list counts as none.
    """
    answers, right = said(scores, truth)
    if len(right) == 0:
        return {METRICS[truth.network.config.output]: 0.0}
    if METRICS[truth.network.config.output] == "accuracy":
        return {"accuracy": float((answers & right).any(dim=1).double().mean())}
    hits = float((answers & right).sum())
    total = float(answers.sum() + right.sum())
    exact = float((answers == right).all(dim=1).double().mean())
    return {"f1": 2 * hits / total if total else 1.0, "exact": exact}
