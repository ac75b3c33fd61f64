"""How good answers are: figures over all rows, and of each label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    import torch


TOP = 5
"""Whether the right label is among so many is measured beside."""


def figures(
    truth: Sequence[str], answers: Sequence[str], labels: Sequence[str]
) -> tuple[dict[str, float], pd.DataFrame]:
    """Figures over all rows, and a table of each label's.

    Args:
        truth: the true label of each row; any that is none of ``labels`` counts as "none of these".
        answers: the model's label of each row, likewise.
        labels: the model's labels.

    Returns:
        ``accuracy``, the means over ``labels`` ``precision_macro``, ``recall_macro``, ``f1_macro``,
        and ``rows``; and a table with the columns ``label``, ``precision``, ``recall``, ``f1``,
        ``support``. Without rows, all shares are NaN.

    Example:
        >>> overall, table = figures(["a", "b", "x"], ["a", "a", "none of these"], ["a", "b"])
        >>> round(overall["accuracy"], 3), table["recall"].tolist()
        (0.667, [1.0, 0.0])
    """
    import torch

    # "none of these" comes last; it is answered, but is nobody's label.
    index = {label: number for number, label in enumerate(labels)}
    wanted, given = (
        torch.tensor([index.get(label, len(labels)) for label in rows], dtype=torch.int64)
        for rows in (truth, answers)
    )
    one_hot = torch.eye(len(labels) + 1, dtype=torch.bool)[:, :-1]
    _, table, means = _shares(one_hot[wanted], one_hot[given], labels)
    return {"accuracy": float((wanted == given).double().mean()), **means}, table


def top_accuracy(truth: Sequence[str], scores: pd.DataFrame, top: int = TOP) -> float:
    """How often the true label's score is among the highest; NaN without rows.

    ``truth``: the true label of each row; rows of others than the model's are misses; ``top``: how
    many are looked at; of scores that are equal the first columns'.

    Example:
        >>> import pandas as pd
        >>> table = pd.DataFrame({"a": [3.0, 0.0], "b": [2.0, 1.0], "c": [1.0, 2.0]})
        >>> top_accuracy(["b", "a"], table, top=2)
        0.5
    """
    import numpy as np

    if not len(scores):
        return float("nan")
    best = np.argsort(-scores.to_numpy(), axis=1, kind="stable")[:, :top]
    names = list(scores.columns)
    index = {label: number for number, label in enumerate(names)}
    wanted = np.array([index.get(label, -1) for label in truth])
    return float((best == wanted[:, None]).any(axis=1).mean())


def set_figures(
    truth: Sequence[Sequence[str]],
    answers: Sequence[Sequence[str]],
    labels: Sequence[str] | None = None,
    ending: str | None = None,
) -> tuple[dict[str, float], pd.DataFrame]:
    """Figures of answers that are several labels each; order and repetitions do not matter.

    Args:
        truth: the true labels of each row; those that are none of ``labels`` do not count.
        answers: the model's labels of each row, likewise.
        labels: the model's labels; by default all that are there.
        ending: the label that ends a list, which does not count.

    Returns:
        ``f1``, ``precision`` and ``recall`` over all rows and labels alike, ``exact``, the share of
        rows that are right in all labels, the means over labels ``precision_macro``,
        ``recall_macro``, ``f1_macro``, and ``rows``; and a table as :func:`figures` gives it.
        Shares of nothing are 0, without rows NaN.

    Example:
        >>> overall, table = set_figures([["a", "b"], []], [["a"], ["b"]])
        >>> overall["f1"], overall["exact"], table["recall"].tolist()
        (0.5, 0.0, [1.0, 0.0])
    """
    import torch

    for name, rows in (("true labels", truth), ("answers", answers)):
        for row, cell in enumerate(rows):
            if not isinstance(cell, list | tuple | set | frozenset):
                raise ValueError(
                    f"The {name} of row {row} are {cell!r:.60}; expected a list of labels, as in "
                    "other rows."
                )
    known = labels or sorted({y for row in [*truth, *answers] for y in row})
    names = [label for label in known if label != ending]
    wanted, given = (
        torch.tensor([[y in set(row) for y in names] for row in rows], dtype=torch.bool).view(
            len(rows), len(names)
        )
        for rows in (truth, answers)
    )
    together, table, means = _shares(wanted, given, names)
    exact = float((wanted == given).all(dim=1).double().mean())
    return {**together, "exact": exact, **means}, table


def _shares(
    wanted: torch.Tensor, given: torch.Tensor, names: Sequence[str]
) -> tuple[dict[str, float], pd.DataFrame, dict[str, float]]:
    """Precision, recall and F1 of all labels alike, by label, and the labels' means with rows.

    ``wanted``: which labels are right, bool ``(rows, labels)``.
    """
    import pandas as pd
    import torch

    hits, said, right = (t.sum(dim=0).double() for t in (wanted & given, given, wanted))

    def shares(hits: torch.Tensor, said: torch.Tensor, right: torch.Tensor) -> dict[str, Any]:
        pairs = {"precision": (hits, said), "recall": (hits, right), "f1": (2 * hits, said + right)}
        nothing = 0.0 if len(wanted) else torch.nan
        return {k: torch.where(low > 0, high / low, nothing) for k, (high, low) in pairs.items()}

    by_label = {name: values.tolist() for name, values in shares(hits, said, right).items()}
    table = pd.DataFrame({"label": list(names), **by_label, "support": right.long().tolist()})
    together = {k: float(v) for k, v in shares(hits.sum(), said.sum(), right.sum()).items()}
    means = {f"{name}_macro": float(table[name].mean()) for name in by_label}
    return together, table, {**means, "rows": float(len(wanted))}


def answers_by_step(truth: Sequence[Any], answers: Sequence[Any]) -> tuple[list[str], list[str]]:
    """True labels and answers of all steps whose true label is known."""
    wanted: list[str] = []
    given: list[str] = []
    for row, (right, said) in enumerate(zip(truth, answers, strict=True)):
        if not isinstance(right, list) or len(right) != len(said):
            raise ValueError(
                f"The true labels of row {row} are {right!r:.60} and the answers {said!r:.60}; "
                "expected as many of both, a label for each step (None where it is not known)."
            )
        pairs = [pair for pair in zip(right, said, strict=True) if pair[0] is not None]
        wanted += [str(y) for y, _ in pairs]
        given += [str(y) for _, y in pairs]
    return wanted, given
