"""Research question 2: two modules reused as a model, against one trained from scratch for both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch

from benchmarks.data import TextData
from benchmarks.parents import Training
from benchmarks.reuse import RULES, Workshop, seeded_pairs
from benchmarks.scoring import METRICS, composite_points
from mlflow_rnnmod.composition import compose

Told = Callable[[str], None]


def within(
    workshop: Workshop,
    data: TextData,
    training: Training,
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
        if all(("+".join(pair), rule) in done for rule in RULES):
            continue
        told(f"{' + '.join(pair)}: from scratch")
        part = data.only(pair)
        least = workshop.epochs(data, training)
        scratch, seconds, _ = workshop.scratch(part, training, least)
        for rule in RULES:
            told(f"{' + '.join(pair)}: {rule}")
            modules = workshop.modules(data, training, rule, removal)
            composite = compose([modules[name] for name in part.names])
            yield {
                "pair": "+".join(pair),
                "rule": rule,
                "removal": removal if rule != "none" else 0.0,
                "repairs": "all",
                "metric": METRICS[data.output],
                "scratch_score": scratch,
                "scratch_seconds": seconds,
                "score": composite_points(composite, part),
                "score_strategy": composite.score,
            }


def across(
    workshop: Workshop,
    first: tuple[TextData, Training],
    second: tuple[TextData, Training],
    removal: float,
    done: set[tuple],
    told: Told,
) -> Iterator[dict[str, Any]]:
    """A label of one data set with one of another: which of both does a text carry?

    The model from scratch is of the first one's kind. Both labels have as many texts.
    """
    for a, b in cross_pairs(first[0], second[0]):
        name = f"{a}+{b}"
        if all((name, rule) in done for rule in RULES):
            continue
        told(f"{a} + {b}: from scratch")
        mixed = mix(first[0], [a], second[0], b)
        least = workshop.epochs(*first)
        scratch, seconds, _ = workshop.scratch(mixed, first[1], least)
        for rule in RULES:
            told(f"{a} + {b}: {rule}")
            mine = workshop.modules(*first, rule, removal)[a]
            other = workshop.modules(*second, rule, removal)[b]
            composite = compose([mine, other])
            yield {
                "pair": name,
                "rule": rule,
                "removal": removal if rule != "none" else 0.0,
                "repairs": "all",
                "metric": "accuracy",
                "scratch_score": scratch,
                "scratch_seconds": seconds,
                "score": composite_points(composite, mixed),
                "score_strategy": composite.score,
            }


def cross_pairs(first: TextData, second: TextData, count: int = 6) -> list[tuple[str, str]]:
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
