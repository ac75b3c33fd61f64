"""From which score on an answer counts: found on rows, or said."""

from __future__ import annotations

import math
from dataclasses import replace as changed
from typing import Any

from mlflow_rnnmod.answers.base import REJECT, check_limit
from mlflow_rnnmod.composition.composite import Composite


def limit_at(composite: Composite, inputs: Any, share: float) -> float:
    """The limit that rejects at most a share of some rows.

    Args:
        composite: whose best scores are looked at.
        inputs: rows that should be answered, as for :meth:`Composite.scores`; none that anything
            was fitted on.
        share: from 0 to below 1, of rows (of steps, where each has an answer) that may be rejected.

    Returns:
        the score of the row that is the first to stay.
    """
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < 1:
        raise ValueError(
            f"reject_at={share!r}; expected the share of rows to reject, from 0 to below 1."
        )
    check_limit(0.0, composite.answer.rejects)
    if inputs is None or len(inputs) == 0:
        raise ValueError(
            f"reject_at={share!r} needs rows to find the limit on; expected reject_on=inputs, at "
            "least one (or calibrate_on=)."
        )
    best = composite.familiarity(inputs).nan_to_num(nan=-math.inf).flatten()
    best = best[best.isfinite()].sort().values
    if len(best) == 0:
        raise ValueError("reject_on has no row with a score; expected rows that can be answered.")
    return float(best[int(share * len(best))])


def with_limit(
    composite: Composite, reject_below: float | None, reject_at: float | None, inputs: Any
) -> Composite:
    """The composite with a limit of its own, said or found; as it was where neither is given."""
    if reject_below is not None and reject_at is not None:
        raise ValueError(
            f"reject_below={reject_below!r} and reject_at={reject_at!r}; expected one of them: the "
            "limit itself, or the share of rows that it may reject."
        )
    if reject_at is not None:
        reject_below = limit_at(composite, inputs, reject_at)
    if reject_below is None:
        return composite
    return changed(composite, parameters={**composite.parameters, REJECT: reject_below})
