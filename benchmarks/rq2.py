"""Research question 2: two modules reused as a model, against one trained from scratch for both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch

from benchmarks.data import TextData
from benchmarks.parents import AnyTraining
from benchmarks.resnet import ImageTraining
from benchmarks.reuse import (
    PAIRS,
    Workshop,
    reuse_row,
    seeded_pairs,
    undone,
    with_likelihood,
)
from benchmarks.scoring import composite_points
from mlflow_rnnmod.composition import compose

# Texts of all labels that a composite is also calibrated on, beside.
JOINT_ROWS = 300
# As many as the paper on convolutional networks has.
IMAGE_PAIRS = 16
Told = Callable[[str], None]


def within(
    workshop: Workshop,
    data: TextData,
    training: AnyTraining,
    removal: float,
    done: set[tuple],
    told: Told,
) -> Iterator[dict[str, Any]]:
    """Pairs of labels of one data set.

    Yields:
        a row for each pair and rule that is not in ``done`` (keys ``(pair, rule)``).
    """
    ends = {data.end_label} - {None}
    pairs = seeded_pairs([name for name in data.names if name not in ends])
    for pair in pairs:
        name = "+".join(pair)
        rules = undone(name, done)
        if not rules:
            continue
        told(f"{name}: from scratch")
        part = data.only(pair)
        least = workshop.epochs(data, training)
        scratch, seconds, _ = workshop.scratch(part, training, least)
        beside = {"scratch_score": scratch, "scratch_seconds": seconds}
        for rule in rules:
            told(f"{name}: {rule}")
            modules = workshop.modules(data, training, rule, removal)
            composite = compose([modules[label] for label in part.names])
            yield reuse_row(name, rule, removal, composite, part, **beside)


def across(
    workshop: Workshop,
    first: tuple[TextData, AnyTraining],
    second: tuple[TextData, AnyTraining],
    removal: float,
    done: set[tuple],
    told: Told,
) -> Iterator[dict[str, Any]]:
    """A label of one data set with one of another: which of both does a text carry?

    The model from scratch is of the first one's kind. Both labels have as many texts.
    """
    count = IMAGE_PAIRS if isinstance(first[1], ImageTraining) else PAIRS
    for a, b in cross_pairs(first[0], second[0], count):
        mixed = mix(first[0], [a], second[0], b)
        yield from crossed(workshop, first, second, f"{a}+{b}", mixed, [a], removal, done, told)


def together(
    workshop: Workshop,
    first: tuple[TextData, AnyTraining],
    second: tuple[TextData, AnyTraining],
    removal: float,
    done: set[tuple],
    told: Told,
) -> Iterator[dict[str, Any]]:
    """All labels of both data sets, against one network that learns them all."""
    both, mine = joined(first[0], second[0]), list(first[0].names)
    yield from crossed(workshop, first, second, "all", both, mine, removal, done, told)


def crossed(
    workshop: Workshop,
    first: tuple[TextData, AnyTraining],
    second: tuple[TextData, AnyTraining],
    name: str,
    mixed: TextData,
    stay: list[str],
    removal: float,
    done: set[tuple],
    told: Told,
) -> Iterator[dict[str, Any]]:
    """Modules for ``stay`` of one parent, and for the other labels of ``mixed`` of another one.

    The model from scratch is of the first one's kind, and learns the texts of all these labels.
    ``joint_score`` is that of the same modules calibrated on a few validation texts of all labels.
    """
    rules = undone(name, done)
    if not rules:
        return
    told(f"{name}: from scratch")
    scratch, seconds, parent = workshop.scratch(mixed, first[1], workshop.epochs(*first))
    helped = composite_points(with_likelihood(parent, mixed), mixed)
    for rule in rules:
        told(f"{name}: {rule}")
        mine = workshop.modules(*first, rule, removal)
        theirs = workshop.modules(*second, rule, removal)
        others = mixed.names[len(stay) :]
        modules = [*(mine[label] for label in stay), *(theirs[label] for label in others)]
        composite, joint = compose(modules), compose(modules, calibrate_on=joint_rows(mixed))
        beside = {"scratch_score": scratch, "scratch_seconds": seconds}
        beside["joint_score"] = composite_points(joint, mixed)
        beside["scratch_likelihood_score"] = helped
        for score in ("open", "likelihood"):
            beside[f"{score}_score"] = composite_points(compose(modules, score=score), mixed)
        yield reuse_row(name, rule, removal, composite, mixed, **beside)


def joint_rows(data: TextData) -> tuple[list[str], list[str]]:
    """A few validation texts and their labels, that composites can be calibrated on."""
    split = "joint" if "joint" in data.texts else "validation"
    texts, labels = data.texts[split], data.labels[split]
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(0)).tolist()
    return [texts[i] for i in order[:JOINT_ROWS]], [labels[i] for i in order[:JOINT_ROWS]]


def cross_pairs(first: TextData, second: TextData, count: int = PAIRS) -> list[tuple[str, str]]:
    """Some pairs of a label of each set, the same for every run."""
    names = [name for name in second.names if name != second.end_label]
    generator = torch.Generator().manual_seed(0)
    a = torch.randperm(len(first.names), generator=generator).tolist()
    b = torch.randperm(len(names), generator=generator).tolist()
    return [(first.names[a[i % len(a)]], names[b[i % len(b)]]) for i in range(count)]


def mix(first: TextData, labels: list[str], second: TextData, other: str) -> TextData:
    """Texts of ``first`` with one of ``labels``, and as many of ``second`` that carry ``other``.

    As many as the first set has of a label in the mean; fewer where there are not enough.
    """
    generator = torch.Generator().manual_seed(0)
    texts, found = {}, {}
    part = first.only(labels)
    for split in part.texts:
        carry = [
            text
            for text, own in zip(second.texts[split], second.labels[split], strict=True)
            if other in own
        ]
        count = min(len(carry), len(part.texts[split]) // len(labels))
        order = torch.randperm(len(carry), generator=generator)[:count].tolist()
        texts[split] = part.texts[split] + [carry[i] for i in order]
        found[split] = part.labels[split] + [other] * count
    return replace(
        part,
        name=f"{first.name} with {second.name}",
        texts=texts,
        labels=found,
        names=(*labels, other),
    )


def joined(first: TextData, second: TextData) -> TextData:
    """All rows of both data sets; where rows are counted, as many of one as of the other."""
    name = f"{first.name} and {second.name}"
    texts, labels = dict(first.texts), dict(first.labels)
    for split, more in second.texts.items():
        found = first if split == "train" else first.first(len(more))
        texts[split] = found.texts[split] + more
        labels[split] = found.labels[split] + second.labels[split]
    return replace(first, name=name, texts=texts, labels=labels, names=first.names + second.names)
