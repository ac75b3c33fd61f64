"""What every kind of answer can be asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor

from mlflow_rnnmod.answers.columns import NONE_OF_THESE, Columns
from mlflow_rnnmod.answers.margins import all_log_odds, log_odds
from mlflow_rnnmod.answers.observations import Labelled
from mlflow_rnnmod.answers.sample import Sample
from mlflow_rnnmod.answers.targets import IGNORE, Targeted

PREDICTION = "prediction"
"""Name of the column of answers, where those are lists or come with scores."""


@dataclass(frozen=True)
class Form:
    """What a table of answers looks like.

    Args:
        cell: ``"text"``, ``"texts"`` (a list of them) or ``"ids"`` (a list of token ids).
        columns: their names; ``None`` for a plain array, where each answer is one text.
    """

    cell: str
    columns: tuple[str, ...] | None = None


class Answer:
    """A kind of answer: what goes out of a network, a module or a composite.

    There is one object of each kind, without a state. Here is what holds for one label an input;
    others say where they differ.
    """

    name: ClassVar[str]
    """As files and users name it."""
    words: ClassVar[str] = ""
    """What is answered, for people; empty for one label."""
    stepwise: ClassVar[bool] = False
    """Whether there are scores for each step."""
    each_step: ClassVar[bool] = False
    """Whether each step of the input has an answer of its own, in its order."""
    rivals: ClassVar[bool] = True
    """Whether labels compete, so that the best wins; else each has a threshold of its own."""
    scored: ClassVar[bool] = True
    """Whether there are scores to compare."""
    rejects: ClassVar[bool] = False
    """Whether an answer can be "none of these"."""
    ends: ClassVar[bool] = False
    """Whether a label can be there that ends the answer."""
    metric: ClassVar[str] = "accuracy"
    """What answers are measured by."""
    beside: ClassVar[tuple[str, ...]] = ()
    """Kinds whose modules answer like this one beside some that do."""
    counted: ClassVar[str] = "rows of this label"
    """What a label's figures are counted in."""

    def __repr__(self) -> str:
        return f"<answer {self.name}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))

    def _lacks(self, what: str) -> NoReturn:
        raise NotImplementedError(f"Answers of the kind {self.name!r} have no {what}.")

    # --- targets ---

    def conform(
        self,
        targets: Tensor,
        config: Any,
        source: str,
        answered: Callable[[], Tensor],
        side: str = "right",
    ) -> Tensor:
        """A user's targets in the shape that :class:`~mlflow_rnnmod.networks.Rows` wants.

        Args:
            targets: as people train with them.
            config: of the network: ``labels`` and ``end_label``.
            source: what to call the data in errors.
            answered: gives the steps that are answered, bool ``(rows, steps)``.
            side: where steps without a target stand, if there are more steps than targets.

        Raises:
            ValueError: if the targets have another shape, or hold what is no label.
        """
        self._lacks("targets by row")

    def checked(self, rows: Targeted, labels: int) -> Tensor:
        """The rows' targets, on the CPU: int64, or bool for several labels a row.

        Raises:
            ValueError: if there are none, or they are no targets of this kind of answer.
        """
        targets = rows.targets
        if targets is None or len(targets) == 0:
            raise ValueError("rows has no targets; expected the index of a label for every row.")
        return self._checked(targets, labels)

    def _checked(self, targets: Tensor, labels: int) -> Tensor:
        self._lacks("targets by row")

    def known(self, targets: Tensor) -> Tensor:
        """Which observations have a target, bool ``(observations,)``."""
        return targets != IGNORE

    def positive(self, targets: Tensor, label: int) -> Tensor:
        """Which observations carry a label, bool ``(observations,)``."""
        return targets == label

    # --- sampling ---

    def draw(
        self, rows: Targeted, labels: int, per_label: int, seed: int, in_order: bool = False
    ) -> Sample:
        """A sample of rows (see :func:`~mlflow_rnnmod.answers.draw_sample`)."""
        if labels < 2:
            raise ValueError(f"labels={labels}; expected at least two: a label needs a rival.")
        targets = self.checked(rows, labels)
        generator = torch.Generator().manual_seed(seed)
        return self._draw(rows, targets, labels, per_label, generator, in_order)

    def _draw(
        self,
        rows: Targeted,
        targets: Tensor,
        labels: int,
        per_label: int,
        generator: torch.Generator,
        in_order: bool,
    ) -> Sample:
        self._lacks("sample")

    # --- margins ---

    def margins(self, logits: Tensor, index: int) -> Tensor:
        """What a parent says for label ``index``: log-odds, or its logit where it has no rivals.

        Args:
            logits: ``(..., labels)``.
            index: which label.

        Returns:
            ``(...)``.
        """
        return log_odds(logits, index)

    def all_margins(self, logits: Tensor) -> Tensor:
        """:meth:`margins` of every label at once, ``(..., labels)``."""
        return all_log_odds(logits)

    # --- the metric ---

    def said(self, scores: Tensor, truth: Labelled) -> tuple[Tensor, Tensor]:
        """What scores answer and what is right, both bool ``(answers, labels)``.

        An answer is a row's set of labels, or the label of a step that has one: the label that
        scores highest; with several labels a row, those that score at least 0; for lists, the
        highest at each step up to the end of the list, and without it.

        Args:
            scores: float ``(observations, labels)``.
            truth: their rows.
        """
        known, labels = truth.known, scores.shape[1]
        return one_hot(scores.argmax(dim=1)[known], labels), one_hot(truth.targets[known], labels)

    def measure(self, scores: Tensor, truth: Labelled) -> dict[str, float]:
        """How good scores are, as shares from 0 to 1, the :attr:`metric` first.

        One label a row, or one a step: ``accuracy``. Several: ``f1``, over all rows and labels
        alike (micro-average, as scikit-learn and torchmetrics have it), and ``exact``, rows whose
        labels are all right. The label that ends a list counts as none.
        """
        answers, right = self.said(scores, truth)
        return self._figures(answers, right) if len(right) else {self.metric: 0.0}

    def _figures(self, answers: Tensor, right: Tensor) -> dict[str, float]:
        return {"accuracy": float((answers & right).any(dim=1).double().mean())}

    # --- from scores to answers ---

    def answers(
        self,
        scores: Tensor,
        columns: Columns,
        reject_below: float | None = None,
        reject_label: str = NONE_OF_THESE,
    ) -> list[Any]:
        """The answer to each row.

        Args:
            scores: ``(rows, labels)``, or ``(rows, steps, labels)`` with NaN behind a row's steps
                where the answer has one for each.
            columns: what the table's columns stand for.
            reject_below: rows, or steps, whose best score is below this answer ``reject_label``.
            reject_label: what they answer; none of the labels.

        Returns:
            for each row a label, or a list of labels.

        Raises:
            ValueError: if ``reject_label`` is a label, or ``reject_below`` is given where labels
                are no rivals or a list says by itself where it ends.
        """
        if reject_below is not None and not self.rejects:
            raise ValueError(
                f"reject_below={reject_below!r} with answers of the kind {self.name!r}, which "
                "can be no label at all; expected None. Labels without rivals have thresholds: "
                "compose(modules, thresholds={label: ...})."
            )
        if reject_below is None and columns.single and self.rejects:
            reject_below = 0.0
        if reject_below is not None and reject_label in columns.labels:
            raise ValueError(
                f"reject_label={reject_label!r} is the label of a module; expected another text."
            )
        if len(scores) == 0:
            return []
        return self._answers(scores, columns, reject_below, reject_label)

    def _answers(
        self, scores: Tensor, columns: Columns, reject_below: float | None, reject_label: str
    ) -> list[Any]:
        self._lacks("scores")

    # --- rows that fit joint scales ---

    def labels_of(self, right: Any) -> Sequence[str]:
        """The labels that are right for an input, as ``calibrate_on=`` says it."""
        return right

    def step_labels(self, right: Any, steps: int, end_label: str | None, row: int) -> list[Any]:
        """What is right at each of an input's steps, as ``calibrate_on=`` says it.

        Raises:
            ValueError: if that does not fit the steps.
        """
        self._lacks("steps")

    # --- what people and MLflow see ---

    def form(self, labels: Sequence[str] = (), kind_of_input: str = "text") -> Form:
        """What a table of answers looks like: a column ``prediction`` of lists."""
        return Form("texts", (PREDICTION,))

    def example_params(self, labels: Sequence[str] = ()) -> dict[str, Any]:
        """Params for a card's example."""
        return {"scores": True}

    def task(self, label: str) -> str:
        """What modules of a label do."""
        return f"tell **{label}** from other labels"

    def question(self, label: str, labels: int, ends: bool = False) -> str:
        """What a module is for, in Markdown.

        Args:
            label: its label.
            labels: how many its parent has.
            ends: whether the label ends lists.
        """
        self._lacks("question")

    def joined_words(
        self, score: str, mixed: bool = False, end: str | None = None, limits: str = ""
    ) -> str:
        """How a composite comes to its answers, in Markdown.

        Args:
            score: which score is compared, in brackets.
            mixed: whether modules of several kinds answer.
            end: the label that ends lists, if there is one.
            limits: thresholds of labels, where they are not 0.
        """
        self._lacks("scores")


def one_hot(indices: Tensor, labels: int) -> Tensor:
    """Bool ``(..., labels)``."""
    return torch.nn.functional.one_hot(indices, labels).bool()


def set_figures(answers: Tensor, right: Tensor) -> dict[str, float]:
    """Micro-F1 of sets of labels, bool ``(answers, labels)``, and the share that is all right."""
    hits = float((answers & right).sum())
    total = float(answers.sum() + right.sum())
    exact = float((answers == right).all(dim=1).double().mean())
    return {"f1": 2 * hits / total if total else 1.0, "exact": exact}


def threshold_words(score: str, limits: str) -> str:
    """How labels without rivals are answered, in Markdown."""
    return f"Each label whose score reaches its threshold is answered {score}; " + (
        f"thresholds are 0, but: {limits}." if limits else "all thresholds are 0."
    )
