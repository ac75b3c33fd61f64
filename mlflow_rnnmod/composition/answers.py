"""From scores to answers: a label, several labels, a label for each step, or a list of labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mlflow_rnnmod.composition.kinds import anywhere, best_step

NONE_OF_THESE = "none of these"


@dataclass(frozen=True)
class Answerer:
    """What the columns of a table of scores stand for, and how they become answers.

    Args:
        labels: one for each column.
        output: kind of answer.
        rivals: whether the best label wins; else each has a threshold.
        end_label: the label that ends a list; ``None`` where no column is for one.
        thresholds: of single labels, where labels are no rivals.
        threshold: of all others.
        single: whether a single column means yes or no, at 0.
        odds: whether scores are log-odds.

    Example:
        >>> scores = torch.tensor([[[0.5, -1.0], [-0.2, 2.0]]])  # one row, two steps, two labels
        >>> Answerer(("a", "b"), "tags")(scores)
        [['a', 'b']]
        >>> Answerer(("a", "b"), "list", end_label="b")(scores)
        [['a']]
        >>> Answerer(("a", "b"), "list", rivals=False, thresholds={"a": 2.0})(scores)
        [['b']]
    """

    labels: tuple[str, ...]
    output: str = "label"
    rivals: bool = True
    end_label: str | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)
    threshold: float = 0.0
    single: bool = False
    odds: bool = True

    def __call__(
        self,
        scores: Tensor,
        reject_below: float | None = None,
        reject_label: str = NONE_OF_THESE,
    ) -> list[Any]:
        """The answer to each row.

        Args:
            scores: ``(rows, labels)``, or ``(rows, steps, labels)`` with NaN behind a row's steps
                where the answer has one for each.
            reject_below: rows, or steps, whose best score is below this answer ``reject_label``.
            reject_label: what they answer; none of the labels.

        Returns:
            for each row a label, or a list of labels.

        Raises:
            ValueError: if ``reject_label`` is a label, or ``reject_below`` is given where labels
                are no rivals or a list says by itself where it ends.
        """
        if reject_below is not None and self.output not in ("label", "tags"):
            raise ValueError(
                f"reject_below={reject_below!r} with answers of the kind {self.output!r}, which "
                "can be no label at all; expected None. Labels without rivals have thresholds: "
                "compose(modules, thresholds={label: ...})."
            )
        if reject_below is None and self.single and self.output in ("label", "tags"):
            reject_below = 0.0
        if reject_below is not None and reject_label in self.labels:
            raise ValueError(
                f"reject_label={reject_label!r} is the label of a module; expected another text."
            )
        if len(scores) == 0:
            return []
        if self.output == "label":
            return self._best(scores, reject_below, reject_label)
        if self.output == "tags":
            return self._tags(scores, reject_below, reject_label)
        if self.rivals:
            return self._lists(scores)
        if scores.ndim == 3:
            places = scores.transpose(1, 2)
            scores = anywhere(places) if self.odds else best_step(places)[0]
        return self._several(scores)

    def _best(self, scores: Tensor, reject_below: float | None, reject_label: str) -> list[str]:
        labels = [self.labels[i] for i in scores.argmax(dim=1).tolist()]
        if reject_below is None:
            return labels
        kept = (scores.amax(dim=1) >= reject_below).tolist()
        return [label if k else reject_label for label, k in zip(labels, kept, strict=True)]

    def _tags(
        self, scores: Tensor, reject_below: float | None, reject_label: str
    ) -> list[list[str]]:
        answered = ~scores.isnan().any(dim=2)
        flat = iter(self._best(scores[answered], reject_below, reject_label))
        return [[next(flat) for _ in range(count)] for count in answered.sum(dim=1).tolist()]

    def _lists(self, scores: Tensor) -> list[list[str]]:
        """The best label of each step, up to the first that ends the list."""
        known = scores.masked_fill(scores.isnan(), -torch.inf)
        rows = known.argmax(dim=2).tolist()
        counts = (~scores.isnan()).any(dim=2).sum(dim=1).tolist()
        found = []
        for row, count in zip(rows, counts, strict=True):
            answer = [self.labels[i] for i in row[:count]]
            ends = self.end_label in answer
            found.append(answer[: answer.index(self.end_label)] if ends else answer)  # type: ignore[arg-type]
        return found

    def _several(self, scores: Tensor) -> list[list[str]]:
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
