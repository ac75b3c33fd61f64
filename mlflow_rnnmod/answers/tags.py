"""A label for each step: at each, the best one wins."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from mlflow_rnnmod.answers.columns import Columns
from mlflow_rnnmod.answers.steps import Stepwise


class Tags(Stepwise):
    """A label for each step of the input."""

    name = "tags"
    words = "a label for each step"
    each_step = True
    rejects = True
    counted = "steps with this label"

    def _answers(
        self, scores: Tensor, columns: Columns, reject_below: float | None, reject_label: str
    ) -> list[list[str]]:
        answered = ~scores.isnan().any(dim=2)
        flat = iter(columns.best(scores[answered], reject_below, reject_label))
        return [[next(flat) for _ in range(count)] for count in answered.sum(dim=1).tolist()]

    def step_labels(self, right: Any, steps: int, end_label: str | None, row: int) -> list[Any]:
        """One label for each step."""
        found = list(right)
        if len(found) != steps:
            raise ValueError(
                f"calibrate_on: row {row} has {len(found)} labels and {steps} steps; expected a "
                "label for each step (a token of the tokenizer), None where it is not known."
            )
        return found

    def question(self, label: str, labels: int, ends: bool = False) -> str:
        """What a module is for, in Markdown."""
        return (
            f"A module for one label: is a step of the input **{label}**, or another of its "
            f"parent's {labels - 1} labels?"
        )

    def joined_words(
        self, score: str, mixed: bool = False, end: str | None = None, limits: str = ""
    ) -> str:
        """How a composite comes to its answers, in Markdown."""
        return f"At each step, the label with the best score wins {score}."
