"""Research question 3: a module of one model replaced by that of another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.data import TextData
from benchmarks.parents import AnyTraining, trained_weights
from benchmarks.resnet import ImageTraining
from benchmarks.reuse import RULES, Workshop, parent_points, reuse_row, undone
from benchmarks.rq2 import Told, cross_pairs, crossed, mix
from benchmarks.scoring import composite_points
from mlflow_rnnmod.composition import compose, replace
from mlflow_rnnmod.composition.verbs import whole_parent

Q3_PAIRS = 2


def worst_and_best(
    workshop: Workshop, data: TextData, trainings: list[AnyTraining]
) -> tuple[AnyTraining, AnyTraining]:
    """Of the parents that are there, by their validation metric."""

    def metric(training: AnyTraining) -> float:
        if not isinstance(training, ImageTraining):
            kept = trained_weights(data, training, workshop.cache)
            if "metric" in kept:
                return kept["metric"]
        return parent_points(workshop.study(data, training).parent, data, "validation")

    ranked = sorted(trainings, key=metric)
    return ranked[0], ranked[-1]


def within(
    workshop: Workshop,
    data: TextData,
    trainings: list[AnyTraining],
    removal: float,
    done: set[tuple],
    told: Told,
) -> Iterator[dict[str, Any]]:
    """One label's module of the worst parent replaced by the best one's, for each label.

    The figure stands against the worst parent itself: a model trained from scratch.
    """
    worst, best = worst_and_best(workshop, data, trainings)
    scratch = parent_points(workshop.study(data, worst).parent, data)
    for rule in RULES:
        if all((label, rule) in done for label in data.names):
            continue
        weak = workshop.modules(data, worst, rule, removal)
        strong = workshop.modules(data, best, rule, removal)
        composite = compose(weak.values())
        unreplaced = composite_points(composite, data)
        for label in data.names:
            if (label, rule) in done:
                continue
            told(f"{label}: {rule}")
            changed = replace(composite, label, strong[label])
            yield reuse_row(
                label,
                rule,
                removal,
                changed,
                data,
                worst=f"{worst.cell} {worst.layers} seed {worst.seed}",
                best=f"{best.cell} {best.layers} seed {best.seed}",
                scratch_score=scratch,
                unreplaced_score=unreplaced,
            )


def few(
    workshop: Workshop,
    data: TextData,
    training: AnyTraining,
    share: float,
    removal: float,
    done: set[tuple],
    told: Told,
) -> Iterator[dict[str, Any]]:
    """A label's module replaced in a model that saw few of its rows, for each label.

    The new one is of a parent that saw all of them. The figures, over all labels and for rows of
    that label, stand against the weak parent itself.
    """
    for label in data.names:
        rules = undone(label, done)
        if not rules:
            continue
        told(f"{label}: weak parent")
        weak, mine = data.few(label, share), data.only([label])
        parent = whole_parent(workshop.study(weak, training).parent)
        for rule in rules:
            told(f"{label}: {rule}")
            composite = compose(workshop.modules(weak, training, rule, removal).values())
            strong = workshop.modules(data, training, rule, removal)[label]
            changed = replace(composite, label, strong)
            own = composite_points(changed, mine), composite_points(parent, mine)
            beside = {
                "scratch_score": composite_points(parent, data),
                "unreplaced_score": composite_points(composite, data),
                "label_score": own[0],
                "label_scratch_score": own[1],
                "label_delta": own[0] - own[1],
            }
            yield reuse_row(label, rule, removal, changed, data, **beside)
        workshop.forget(weak)


def across(
    workshop: Workshop,
    first: tuple[TextData, AnyTraining],
    second: tuple[TextData, AnyTraining],
    removal: float,
    done: set[tuple],
    told: Told,
) -> Iterator[dict[str, Any]]:
    """A label's module of the first parent gives way to one of the second, of another type.

    Against a model of the first one's kind that is trained from scratch on the new set of labels.
    """
    for gone, b in cross_pairs(first[0], second[0], Q3_PAIRS):
        stay = [label for label in first[0].names if label != gone]
        name = f"{gone} by {b}"
        mixed = mix(first[0], stay, second[0], b)
        yield from crossed(workshop, first, second, name, mixed, stay, removal, done, told)
