"""What every kind of answer can be asked; columns of scores, and all that are enough."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from mlflow_rnnmod.answers.targets import (
    IGNORE,
    Draw,
    Labelled,
    Sample,
    Shown,
    Targeted,
    all_log_odds,
    log_odds,
)

REJECT = "reject_below"
"""Name, among a composite's parameters, of the score below which none of its labels is right."""

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


def check_limit(limit: Any, rejects: bool) -> None:
    """Whether a composite can carry this limit.

    ``limit``: below which the best score answers "none of these"; ``None`` for no limit.
    """
    if limit is None:
        return
    if not rejects:
        raise ValueError(
            f"{REJECT}={limit!r} with labels that are no rivals or with lists, whose answers can "
            "be no label at all; expected None. Labels without rivals have thresholds: "
            "compose(modules, thresholds={label: ...})."
        )
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not math.isfinite(limit):
        raise ValueError(f"{REJECT}={limit!r}; expected a finite number, or None.")


def check_thresholds(
    thresholds: Mapping[str, Any], labels: Sequence[str], rivals: bool
) -> dict[str, float]:
    """Thresholds as numbers, by label."""
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
            or not math.isfinite(value)
        ):
            problems.append(f"{label!r} has {value!r}, expected a finite number")
    if problems:
        raise ValueError("thresholds do not fit: " + "; ".join(problems) + ".")
    return {label: float(value) for label, value in thresholds.items()}


PREDICTION = "prediction"
"""Name of the column of answers, where those are lists or come with scores."""


class Form(NamedTuple):
    """What answers look like: in each cell a text, a list of them, or a list of token ids."""

    cell: str  # "text", "texts", "ids"
    columns: tuple[str, ...] | None  # None: a plain array


class Answer:
    """A kind of answer: what goes out of a network, a module or a composite.

    There is one object of each kind, without a state. Here is what holds for one label, whether of
    an input or of a step; other kinds say where they differ.

    Attributes:
        name: as files and users name it.
        words: what is answered, for people; empty for one label.
        stepwise: whether there are scores for each step.
        each_step: whether each step of an input has an answer of its own.
        rivals: whether labels compete and the best wins; else each has a threshold of its own.
        scored: whether there are scores to compare.
        rejects: whether an answer can be "none of these".
        ends: whether a label can be there that ends the answer.
        metric: what answers are measured by.
        beside: kinds whose modules answer like this one beside some that do.
        counted: what a label's figures are counted in.
        task, question, end_question, joins: what modules of a label do, what one asks, what one for
            the end asks, and how many are joined; Markdown, to be formatted.
    """

    name: ClassVar[str]
    words: ClassVar[str] = ""
    stepwise: ClassVar[bool] = False
    each_step: ClassVar[bool] = False
    rivals: ClassVar[bool] = True
    scored: ClassVar[bool] = True
    rejects: ClassVar[bool] = False
    ends: ClassVar[bool] = False
    metric: ClassVar[str] = "accuracy"
    beside: ClassVar[tuple[str, ...]] = ()
    counted: ClassVar[str] = "rows of this label"
    task: ClassVar[str] = "tell **{label}** from other labels"
    question: ClassVar[str]
    end_question: ClassVar[str] = ""
    joins: ClassVar[str]

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)  # copies are the same

    def __hash__(self) -> int:
        return hash(type(self))

    def conform(self, targets: Tensor, config: Any, source: str, shown: Shown) -> Tensor:
        """A user's targets in the shape that :class:`~mlflow_rnnmod.networks.Rows` wants.

        Args:
            targets: as people train with them.
            config: of the network: ``labels`` and ``end_label``.
            source: what to call the data in errors.
            shown: gives the steps that are answered, bool ``(rows, steps)``, and on which side
                there are some without a target, if there are more steps than targets.

        Raises:
            ValueError: if the targets have another shape, or hold what is no label.
        """
        raise NotImplementedError

    def checked(self, rows: Targeted, labels: int) -> Tensor:
        """The rows' targets, on the CPU: int64, or bool for several labels a row.

        Raises:
            ValueError: if there are none, or they are no targets of this kind of answer.
        """
        if rows.targets is None or len(rows.targets) == 0:
            raise ValueError("rows has no targets; expected the index of a label for every row.")
        return self._checked(rows.targets, labels)

    def _checked(self, targets: Tensor, labels: int) -> Tensor:
        raise NotImplementedError

    def known(self, targets: Tensor) -> Tensor:
        """Which observations have a target, bool ``(observations,)``."""
        return targets != IGNORE

    def positive(self, targets: Tensor, label: int) -> Tensor:
        """Which observations carry a label, bool ``(observations,)``."""
        return targets == label

    def draw(
        self, rows: Targeted, labels: int, per_label: int, seed: int, in_order: bool = False
    ) -> Sample:
        """Draw a :class:`Sample` of ``per_label`` observations of each label, or all there are.

        An observation is what carries a label: a row, or a step where every step has one.

        Args:
            rows: with targets.
            labels: how many there are.
            per_label: observations of each.
            seed: of the draw.
            in_order: take the first rows, as the papers' code does, where a row has one label:
                positives are the first ``per_label`` of the label, negatives the first ``per_label
                / (labels - 1)`` of any other.

        Raises:
            ValueError: if rows have no targets, targets outside the labels, or fewer than two
                labels.
        """
        if labels < 2:
            raise ValueError(f"labels={labels}; expected at least two: a label needs a rival.")
        generator = torch.Generator().manual_seed(seed)
        how = Draw(labels, per_label, generator, in_order)
        return self._draw(rows, self.checked(rows, labels), how)

    def _draw(self, rows: Targeted, targets: Tensor, how: Draw) -> Sample:
        raise NotImplementedError

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
        """How good scores are, as shares from 0 to 1, the metric first.

        One label a row, or one a step: ``accuracy``. Several: ``f1``, over all rows and labels
        alike (micro-average, as scikit-learn and torchmetrics have it), and ``exact``, rows whose
        labels are all right. The label that ends a list counts as none.
        """
        answers, right = self.said(scores, truth)
        if len(right) == 0:
            return {self.metric: 0.0}
        if self.metric == "accuracy":
            return {"accuracy": float((answers & right).any(dim=1).double().mean())}
        hits = float((answers & right).sum())
        total = float(answers.sum() + right.sum())
        exact = float((answers == right).all(dim=1).double().mean())
        return {"f1": 2 * hits / total if total else 1.0, "exact": exact}

    def shares(self, scores: Tensor, truth: Labelled) -> Tensor:
        """What each answer adds to the metric, float64 ``(answers,)``: their mean is the metric.

        Differences of two such tell how sure a difference of the metric is. Of F1, which is no
        mean, it is the linear part: what the metric changes by with the answer's weight.
        """
        answers, right = self.said(scores, truth)
        if self.metric == "accuracy":
            return (answers & right).any(dim=1).double()
        hits = 2 * (answers & right).sum(dim=1).double()
        total = (answers.sum(dim=1) + right.sum(dim=1)).double()
        f1 = hits.sum() / total.sum().clamp(min=1)
        return f1 + (hits - f1 * total) / total.mean().clamp(min=1e-12)

    def answers(self, scores: Tensor, columns: Columns) -> list[Any]:
        """The answer to each row: a label, or a list of labels.

        Args:
            scores: ``(rows, labels)``, or ``(rows, steps, labels)`` with NaN behind a row's steps
                where the answer has one for each.
            columns: what the table's columns stand for, and what is to be rejected.

        Raises:
            ValueError: if ``reject_label`` is a label, or ``reject_below`` is given where labels
                are no rivals or a list says by itself where it ends.
        """
        if columns.reject_below is not None and not self.rejects:
            raise ValueError(
                f"reject_below={columns.reject_below!r} with answers of the kind {self.name!r}, "
                "which can be no label at all; expected None. Labels without rivals have "
                "thresholds: compose(modules, thresholds={label: ...})."
            )
        if columns.reject_below is None and columns.single and self.rejects:
            columns = replace(columns, reject_below=0.0)
        if columns.reject_below is not None and columns.reject_label in columns.labels:
            raise ValueError(
                f"reject_label={columns.reject_label!r} is the label of a module; expected another "
                "text."
            )
        return self._answers(scores, columns) if len(scores) else []

    def _answers(self, scores: Tensor, columns: Columns) -> list[Any]:
        raise NotImplementedError

    def nothing(self, answer: Any, reject_label: str) -> Any:
        """The answer to an input that holds nothing, instead of ``answer``; by default no label.

        Networks answer nothing, too, by whatever their biases favour.
        """
        return []

    def labels_of(self, right: Any) -> Sequence[str]:
        """The labels that are right for an input, as ``calibrate_on=`` says it."""
        return right

    def step_labels(self, right: Any, steps: int, end_label: str | None, row: int) -> list[Any]:
        """What is right at each of an input's steps, as ``calibrate_on=`` says it.

        Raises:
            ValueError: if that does not fit the steps.
        """
        raise NotImplementedError

    def form(self, labels: Sequence[str] = (), kind_of_input: str = "text") -> Form:
        """What answers look like in a table or an array, by default a column of lists."""
        return Form("texts", (PREDICTION,))

    def example_params(self, labels: Sequence[str] = ()) -> dict[str, Any]:
        """Params for a card's example."""
        return {"scores": True}


def one_hot(indices: Tensor, labels: int) -> Tensor:
    """Bool ``(..., labels)``."""
    return torch.nn.functional.one_hot(indices, labels).bool()
