"""Floor 1: what goes out. One object for each kind of answer; whoever needs one has it by name.

Adding a kind is adding a file with a class (see :class:`Answer`) and a row to :data:`ANSWERS`.
"""

from __future__ import annotations

from mlflow_rnnmod.answers.base import NONE_OF_THESE, PREDICTION, Answer, Columns, Form
from mlflow_rnnmod.answers.label import Label
from mlflow_rnnmod.answers.lists import List
from mlflow_rnnmod.answers.multilabel import Multilabel
from mlflow_rnnmod.answers.tags import Tags
from mlflow_rnnmod.answers.targets import IGNORE, Labelled, Sample, Targeted
from mlflow_rnnmod.answers.translation import Translation

ANSWERS: dict[str, Answer] = {
    answer.name: answer for answer in (Label(), Multilabel(), Tags(), List(), Translation())
}
"""Kinds of answer by their names."""

__all__ = [
    "ANSWERS",
    "IGNORE",
    "NONE_OF_THESE",
    "PREDICTION",
    "Answer",
    "Columns",
    "Form",
    "Labelled",
    "Sample",
    "answer_of",
    "draw_sample",
]


def answer_of(name: str) -> Answer:
    """The kind of answer of a name.

    Raises:
        ValueError: if there is none.

    Example:
        >>> answer_of("tags").words
        'a label for each step'
    """
    if name not in ANSWERS:
        raise ValueError(f"output={name!r}, expected one of {tuple(ANSWERS)}.")
    return ANSWERS[name]


def draw_sample(
    rows: Targeted,
    labels: int,
    per_label: int,
    seed: int,
    output: str = "label",
    in_order: bool = False,
) -> Sample:
    """:meth:`Answer.draw` of the kind of answer ``output``."""
    return answer_of(output).draw(rows, labels, per_label, seed, in_order)
