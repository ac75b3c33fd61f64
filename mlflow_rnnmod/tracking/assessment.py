"""How good a composite is on given rows, beside the parents that its modules come from.

Each parent is asked about rows of its own labels alone: of others it knows nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mlflow_rnnmod.answers.targets import Reliability, reliability
from mlflow_rnnmod.answers.translation import corpus_bleu, corpus_chrf
from mlflow_rnnmod.composition import Composite, whole_parent
from mlflow_rnnmod.composition.scores import SCORES
from mlflow_rnnmod.networks import Parent
from mlflow_rnnmod.pages.assessed import Assessment, OfLabel, OfParent
from mlflow_rnnmod.tracking.figures import answers_by_step, figures, set_figures

FIGURES = ("precision", "recall", "f1")
TRANSLATED = ("bleu", "chrf")


def assess(composite: Composite, evaluate_on: Any, data: str = "given rows") -> Assessment:
    """Ask a composite and its parents, and compare.

    Args:
        composite: of any kind.
        evaluate_on: inputs and what is right for them, as ``mlflow_rnnmod.compose`` takes them for
            ``calibrate_on``: a label each, a list of labels, or one for each step; of translations
            a dict of right ones by language.
        data: what the rows are, in words.
    """
    try:
        inputs, right = evaluate_on
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"evaluate_on is {evaluate_on!r:.80}; expected (inputs, what is right for each)."
        ) from error
    inputs = list(inputs)
    if not composite.answer.scored:
        return _translated(composite, inputs, right, data)
    truth = [list(y) if isinstance(y, tuple | set | frozenset) else y for y in right]
    if len(inputs) != len(truth) or not truth:
        raise ValueError(
            f"evaluate_on has {len(inputs)} inputs and {len(truth)} answers; expected as many of "
            "both, and at least one."
        )
    scores = composite.scores(inputs)
    said = composite.answers(scores)
    overall, table, pairs = _compared(composite, truth, said, composite.labels)
    parents, own, same, asked = [], {}, 0, 0
    for parent, labels in _parents(composite):
        mine = [i for i, y in enumerate(truth) if _knows(composite, parent, y)]
        if not mine:
            continue
        known = whole_parent(parent).predict([inputs[i] for i in mine])
        wanted = [truth[i] for i in mine]
        alone, of_labels, _ = _compared(composite, wanted, known, parent.labels)
        parents.append(OfParent(parent.digest, alone[composite.answer.metric], len(mine)))
        own.update({y: row for y, row in of_labels.items() if y in labels})
        belongs = [not isinstance(y, str) or y in labels for y in wanted]
        asked += sum(belongs)
        same += sum(
            said[i] == answer for i, answer, b in zip(mine, known, belongs, strict=True) if b
        )
    metric = composite.answer.metric
    rows = [
        OfLabel(y, {f: row[f] for f in FIGURES}, {f: own[y][f] for f in FIGURES if y in own},
                int(row["support"]))
        for y, row in table.items()
    ]  # fmt: skip
    names, confusion = _confusion(pairs, composite.labels)
    return Assessment(
        data=data,
        rows=len(truth),
        metric=metric,
        composed=overall[metric],
        parents=tuple(parents),
        labels=_sorted(rows),
        overall=overall,
        names=names,
        confusion=confusion,
        reliability=_reliability(composite, scores, truth),
        agreement=same / asked if asked else None,
    )


def _parents(composite: Composite) -> list[tuple[Parent, tuple[str, ...]]]:
    """Each parent, with the labels of its modules."""
    by_digest = {m.parent.digest: m.parent for m in composite.modules}
    return [
        (parent, tuple(m.label for m in composite.modules if m.parent.digest == digest))
        for digest, parent in by_digest.items()
    ]


def _knows(composite: Composite, parent: Parent, right: Any) -> bool:
    """Whether a row is one that a parent was made for."""
    if isinstance(right, str):
        return right in parent.labels
    return any(y in parent.labels for y in right) or not composite.rivals


Table = dict[str, dict[str, float]]
Pairs = tuple[list[str], list[str]]


def _compared(
    composite: Composite, truth: Sequence[Any], said: Sequence[Any], labels: Sequence[str]
) -> tuple[dict[str, float], Table, Pairs | None]:
    """Figures, a table by label, and single labels beside each other where answers are single."""
    if not isinstance(truth[0], str) and any(isinstance(y, str) for y in said):
        # A parent that answers once, among modules that do so by their best step.
        said = [[y] for y in said]
    pairs: Pairs | None = None
    if isinstance(truth[0], str):
        said = [y if isinstance(y, str) else (y[0] if len(y) == 1 else "") for y in said]
        pairs = [str(y) for y in truth], [str(y) for y in said]
    elif composite.answer.each_step:
        pairs = answers_by_step(truth, said)
    if pairs is not None:
        overall, frame = figures(*pairs, labels)
    else:
        overall, frame = set_figures(truth, said, labels, composite.end_label)
    return overall, {row["label"]: row for row in frame.to_dict(orient="records")}, pairs


def _confusion(pairs: Pairs | None, labels: Sequence[str]) -> tuple[tuple[str, ...], Tensor | None]:
    if pairs is None:
        return (), None
    place = {label: number for number, label in enumerate(labels)}
    other = len(labels)
    found = torch.zeros(other + 1, other + 1, dtype=torch.int64)
    for wanted, given in zip(*pairs, strict=True):
        found[place.get(wanted, other), place.get(given, other)] += 1
    return (*labels, "none of these"), found


def _reliability(composite: Composite, scores: Tensor, truth: Sequence[Any]) -> Reliability | None:
    """Confidence in single labels, or in whether each of several labels is right."""
    odds = SCORES[composite.score].odds
    if composite.rivals and scores.ndim == 2 and isinstance(truth[0], str):
        sure = torch.sigmoid(scores) if odds else torch.softmax(scores.double(), dim=1)
        best, index = sure.max(dim=1)
        right = [composite.labels[i] == y for i, y in zip(index.tolist(), truth, strict=True)]
        return reliability(best, torch.tensor(right))
    if not composite.rivals and scores.ndim == 2 and odds:
        wanted = torch.tensor([[y in row for y in composite.labels] for row in truth])
        sure = torch.sigmoid(scores.abs())
        return reliability(sure.flatten(), ((scores >= 0) == wanted).flatten())
    return None


def _sorted(rows: Sequence[OfLabel]) -> tuple[OfLabel, ...]:
    """Worst first: what lost most against its parent, then what is weakest."""
    return tuple(
        sorted(
            rows,
            key=lambda r: (
                r.difference if r.difference == r.difference else 0.0,
                r.module[r.main] if r.module[r.main] == r.module[r.main] else -1.0,
            ),
        )
    )


def _translated(
    composite: Composite, inputs: list[Any], right: Mapping[str, Sequence[str]], data: str
) -> Assessment:
    """BLEU and chrF into each language that right translations are given for."""
    if not isinstance(right, Mapping) or not set(right) & set(composite.labels):
        raise ValueError(
            f"evaluate_on is for translations: expected (inputs, {{language: right ones}}) with "
            f"some of {list(composite.labels)}."
        )
    signatures: dict[str, str] = {}

    def scored(model: Any, label: str) -> dict[str, float]:
        found = model.predict(inputs, target=label)
        texts = [y if isinstance(y, str) else " ".join(map(str, y)) for y in found]
        bleu, signatures["bleu"] = corpus_bleu(texts, list(right[label]))
        chrf, signatures["chrf"] = corpus_chrf(texts, list(right[label]))
        return {"bleu": bleu, "chrf": chrf}

    rows, parents = [], []
    for parent, labels in _parents(composite):
        whole, values = whole_parent(parent), []
        for label in (y for y in labels if y in right):
            alone = scored(whole, label)
            values.append(alone["bleu"])
            rows.append(OfLabel(label, scored(composite, label), alone, len(inputs)))
        if values:
            parents.append(OfParent(parent.digest, sum(values) / len(values), len(inputs)))
    means = {n: sum(r.module[n] for r in rows) / len(rows) for n in TRANSLATED}
    return Assessment(
        data=data,
        rows=len(inputs),
        metric="bleu",
        composed=means["bleu"],
        parents=tuple(parents),
        labels=_sorted(rows),
        overall=means,
        signatures=signatures,
    )
