"""Columns of tables of scores: what they stand for, the best of them, all that are enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

NONE_OF_THESE = "none of these"


@dataclass(frozen=True)
class Columns:
    """What the columns of a table of scores stand for.

    Args:
        labels: one for each column.
        end_label: the label that ends a list; ``None`` where no column is for one.
        thresholds: of single labels, where labels are no rivals.
        threshold: of all others.
        single: whether a single column means yes or no, at 0.
        odds: whether scores are log-odds.
        reject_below: rows, or steps, whose best score is below this answer ``reject_label``.
        reject_label: what they answer; none of the labels.
        familiarity: what is compared with ``reject_below`` in the place of the best score,
            ``(rows,)``.

    Example:
        >>> import torch
        >>> from mlflow_rnnmod.answers import answer_of
        >>> scores = torch.tensor([[[0.5, -1.0], [-0.2, 2.0]]])  # one row, two steps, two labels
        >>> answer_of("tags").answers(scores, Columns(("a", "b")))
        [['a', 'b']]
        >>> answer_of("list").answers(scores, Columns(("a", "b"), end_label="b"))
        [['a']]
        >>> Columns(("a", "b"), thresholds={"a": 2.0}).reached(scores[:, 1])
        [['b']]
    """

    labels: tuple[str, ...]
    end_label: str | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)
    threshold: float = 0.0
    single: bool = False
    odds: bool = True
    reject_below: float | None = None
    reject_label: str = NONE_OF_THESE
    familiarity: Tensor | None = None

    def best(self, scores: Tensor) -> list[str]:
        """The label that scores highest in each row of ``(rows, labels)``."""
        labels = [self.labels[i] for i in scores.argmax(dim=1).tolist()]
        if self.reject_below is None:
            return labels
        known = scores.amax(dim=1) if self.familiarity is None else self.familiarity
        kept = (known >= self.reject_below).tolist()
        return [y if keep else self.reject_label for y, keep in zip(labels, kept, strict=True)]

    def reached(self, scores: Tensor) -> list[list[str]]:
        """Labels that reach their threshold, in the order of the columns."""
        limits = [self.thresholds.get(label, self.threshold) for label in self.labels]
        reached = (scores >= scores.new_tensor(limits)).tolist()
        return [
            [
                label
                for label, yes in zip(self.labels, row, strict=True)
                if yes and label != self.end_label
            ]
            for row in reached
        ]


def check_thresholds(
    thresholds: Mapping[str, Any], labels: Sequence[str], rivals: bool
) -> dict[str, float]:
    """Thresholds as numbers, by label.

    Raises:
        ValueError: if the labels are rivals, one is unknown, or a threshold is no finite number.
    """
    if thresholds and rivals:
        raise ValueError(
            f"thresholds={dict(thresholds)!r:.80} of labels that compete, where the best label "
            "wins; expected none. reject_below leaves out answers that score low."
        )
    problems = []
    for label, value in thresholds.items():
        if label not in labels:
            problems.append(f"{label!r} is none of the labels {list(labels)}")
        elif (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or value != value
            or abs(value) == float("inf")
        ):
            problems.append(f"{label!r} has {value!r}, expected a finite number")
    if problems:
        raise ValueError("thresholds do not fit: " + "; ".join(problems) + ".")
    return {label: float(value) for label, value in thresholds.items()}
