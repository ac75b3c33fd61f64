"""One offset for each parent, found from inputs without labels."""

from __future__ import annotations

import math
from dataclasses import replace as changed
from typing import Any

import torch

from mlflow_rnnmod.composition.composite import Composite
from mlflow_rnnmod.composition.joint import parents_of
from mlflow_rnnmod.composition.scores import SCORES

STEPS = 100
LARGEST = 4.0
"""Bound of an offset, in nats."""


def shifted(composite: Composite, inputs: Any) -> Composite:
    """The composite with an offset for each parent, so that a mixture of them fits the inputs.

    How often inputs are each parent's is a weight of a mixture, whose likelihood expectation
    maximization raises (Saerens, Latinne and Decaestecker, Neural Computation 14(1), 2002): a
    parent that claims much gets more, one that claims little less. Scores of several parents are
    log-probabilities, up to a constant, where likelihoods are among them.

    ``composite``: of modules that compete, compared by a score with likelihoods.
    """
    problem = None
    if len(inputs) == 0:
        problem = "unlabelled is empty; expected some inputs"
    elif not composite.likely:
        problem = (
            f"unlabelled is given with score={composite.score!r}, which has no likelihoods; "
            f"expected one of {tuple(s.name for s in SCORES.values() if s.likelihood)}"
        )
    names, which = parents_of(composite)
    if problem is None and len(names) < 2:
        problem = "unlabelled is given with modules of one parent; expected several parents"
    if problem is not None:
        raise ValueError(f"{problem}.")
    parameters = {k: v for k, v in composite.parameters.items() if k != "offsets"}
    scores = changed(composite, parameters=parameters).scores(inputs).double()
    counts = torch.bincount(which, minlength=len(names)).double()
    said = torch.stack(
        [scores[:, which == i].logsumexp(dim=1) - counts[i].log() for i in range(len(names))], dim=1
    )
    start = counts / counts.sum()
    share = start
    for _ in range(STEPS):
        # One row more, shared out as before, keeps a parent that is never asked from vanishing.
        claimed = (said + share.log()).softmax(dim=1).sum(dim=0) + start
        share = claimed / claimed.sum()
    offset = (share / start).log()
    offset = (offset - offset.mean()).clamp(-LARGEST, LARGEST)
    offsets = {
        m.label: round(float(offset[i]), 6) for m, i in zip(composite.modules, which, strict=True)
    }
    shares = {name[:12]: round(float(s), 4) for name, s in zip(names, share, strict=True)}
    step = {"verb": "shift", "rows": len(inputs), "shares": shares}
    assert all(math.isfinite(value) for value in offsets.values())
    return changed(
        composite,
        parameters={**parameters, "offsets": offsets},
        recipe=(*composite.recipe, step),
    )
