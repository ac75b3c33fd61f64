"""Likelihoods of modules: one pass over a parent's training rows, for all labels at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mlflow_rnnmod.answers.targets import carried
from mlflow_rnnmod.decomposition.module import Module
from mlflow_rnnmod.inputs import Likelihood
from mlflow_rnnmod.inputs.likelihood import LENGTH_POWER
from mlflow_rnnmod.inputs.neighbours import StepCounts
from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.inputs.wording import valid_steps
from mlflow_rnnmod.networks.parent import Parent

ROWS_AT_ONCE = 8192


def count_inputs(parent: Parent, rows: Rows) -> Any:
    """What is seen of each label's inputs, to be merged with what other processes saw."""
    density = parent.density
    assert density is not None
    labels = len(parent.labels)
    # Where steps have a table of their own, each has half the room.
    counts = density.counts(labels, 0.5 if parent.steps_likely else 1.0)
    for part in rows.batches(ROWS_AT_ONCE):
        assert part.targets is not None
        counts.add(parent.seen(part), carried(part.targets, labels))
    return counts


def fit_likelihoods(parent: Parent, train: Rows, held_out: Rows) -> list[Likelihood | None]:
    """A likelihood for each label, ``None`` where no row has it or inputs have no density.

    ``held_out``: rows it was not trained on: what a step of such an input usually says, to tell
    strange inputs by.
    """
    density = parent.density
    if density is None:
        return [None] * len(parent.labels)
    found = count_inputs(parent, train).likelihoods()
    there = [each for each in found if each is not None]
    if not there:
        return found
    seen = parent.seen(held_out)
    each = density.stack(there)(seen) / density.sizes(seen)[:, None] ** LENGTH_POWER
    best = each.amax(dim=1).double()
    deviation = float(best.std(correction=0)) if len(best) > 1 else 1.0
    usual = [round(float(best.mean()), 6), round(max(deviation, 1e-6), 6)]
    steps = fit_steps(parent, train)
    return [
        None if one is None else replace(one, facts={**one.facts, "usual": usual}, step=step)
        for one, step in zip(found, steps, strict=True)
    ]


def fit_steps(parent: Parent, train: Rows) -> list[Likelihood | None]:
    """A likelihood of single steps for each label, where each step has an answer of its own."""
    density, network, labels = parent.density, parent.network, len(parent.labels)
    if density is None or not parent.steps_likely:
        return [None] * labels
    counts = StepCounts(labels)
    for part in network.content(train).batches(ROWS_AT_ONCE):
        assert part.targets is not None
        seen = density.steps_of_rows(part, parent.tokenizer, network.side)
        own, _ = valid_steps(Rows(part.targets, part.lengths), network.side)
        counts.add(seen, own)
    return counts.likelihoods()


def report_votes(modules: Sequence[Module], report: Rows) -> Tensor | None:
    """What likelihoods add to the votes of all labels, ``(rows, labels)``."""
    parent = modules[0].parent
    found = [module.likelihood for module in modules if module.likelihood is not None]
    density = parent.density
    if density is None or len(found) < len(modules):
        return None
    seen = parent.seen(report)
    return density.vote(density.stack(found)(seen), density.sizes(seen))


def with_likelihoods(modules: Sequence[Module], train: Rows, held_out: Rows) -> tuple[Module, ...]:
    """The modules of one parent, all of its labels in order, with likelihoods."""
    with torch.inference_mode():
        found = fit_likelihoods(modules[0].parent, train, held_out)
    pairs = zip(modules, found, strict=True)
    return tuple(replace(module, likelihood=likelihood) for module, likelihood in pairs)
