"""Research question 1: a parent taken apart and put together again, against the parent itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from benchmarks.study import Study
from mlflow_rnnmod.decomposition.rules import RULES
from mlflow_rnnmod.networks.trunk import Trunk, overlap_matrix

DRAWS = 3
REPAIRS = ("none", "calibrate", "all")

Points = dict[str, dict[str, float]]


def rq1_rows(
    study: Study,
    fixed: dict[str, Any],
    rules: Sequence[str],
    removals: Sequence[float],
    wanted: Sequence[str],
    done: set[tuple],
    told: Callable[[str, int, int], None],
    draws: int = DRAWS,
) -> Iterator[dict[str, Any]]:
    """One row for each rule, removal and repairs, with its controls; rows in ``done`` are skipped.

    Args:
        study: the parent and its rows.
        fixed: what all rows have in common (data set, cell, seed ...).
        rules: names of rules; ``"random"`` rows stand beside each of them anyway.
        removals: shares of the units.
        wanted: names of repairs.
        done: keys ``(rule, removal, repairs, matched)`` of rows that exist already.
        told: called with a stage, steps done and steps in all.
        draws: random masks that a random row is the mean of.
    """
    parent, metric = study.parent_scores, study.metric
    nothing = study.removed("none", 0.0)
    started = time.perf_counter()
    control, trunks = study.measured(nothing, wanted, partial(told, "nothing removed"))
    seconds = time.perf_counter() - started

    def rows(
        rule: str,
        removal: float,
        matched: str | None,
        points: Points,
        sizes: dict[str, float],
        seconds: float,
    ) -> Iterator[dict[str, Any]]:
        for repairs, found in points.items():
            score, others = found[metric], {k: v for k, v in found.items() if k != metric}
            nothing_removed = control[repairs][metric]
            yield {
                **fixed,
                "rule": rule,
                "removal": removal,
                "matched": matched,
                "actual_removal": 1 - sizes["units_kept"],
                "repairs": repairs,
                "metric": metric,
                "parent_score": parent[metric],
                "score": score,
                "delta": score - parent[metric],
                "control_delta": nothing_removed - parent[metric],
                "net": score - nothing_removed,
                **others,
                **{f"parent_{name}": value for name, value in parent.items() if name in others},
                **sizes,
                "seconds": seconds,
            }

    if any(("none", 0.0, name, None) not in done for name in wanted):
        yield from rows("none", 0.0, None, control, sizes_of(study, trunks), seconds)
    # Rules that remove as many units of each layer and label share their random controls.
    drawn: dict[tuple, tuple[Points, dict[str, float], float]] = {}
    for rule in rules:
        if RULES[rule].published and study.parent.network.ranks_together:
            if (rule, 0.0, "none", None) not in done:
                started = time.perf_counter()
                found, on = study.positions()
                seconds = time.perf_counter() - started
                sizes = {"units_kept": on, "weights_kept": 1.0, "multiply_adds_kept": 1.0}
                control.setdefault("none", parent)
                yield from rows(rule, 0.0, None, {"none": found}, sizes, seconds)
            continue
        for share in removals:
            stage = f"{rule} {share:.0%}"
            removed = study.removed(rule, share)
            if any((rule, share, name, None) not in done for name in wanted):
                started = time.perf_counter()
                found, trunks = study.measured(removed, wanted, partial(told, stage))
                seconds = time.perf_counter() - started
                yield from rows(rule, share, None, found, sizes_of(study, trunks), seconds)
            if all(("random", share, name, rule) in done for name in wanted):
                continue
            counts = tuple(int(mask.sum()) for units in removed for mask in units.values())
            if counts not in drawn:
                started = time.perf_counter()
                parts = []
                for draw in range(draws):
                    like = study.random(removed, 1000 * draw)
                    parts.append(study.measured(like, wanted, partial(told, f"random {share:.0%}")))
                means = {name: _mean([points[name] for points, _ in parts]) for name in wanted}
                seconds = (time.perf_counter() - started) / draws
                drawn[counts] = (means, sizes_of(study, parts[0][1]), seconds)
            yield from rows("random", share, rule, *drawn[counts])


def _mean(found: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: sum(f[name] for f in found) / len(found) for name in found[0]}


def sizes_of(study: Study, trunks: list[Trunk]) -> dict[str, float]:
    """Mean shares kept, and mean Jaccard index between modules."""
    network = study.parent.network
    shares = [network.shares_kept(trunk) for trunk in trunks]
    found = {name: sum(s[name] for s in shares) / len(shares) for name in shares[0]}
    overlap = overlap_matrix(trunks)
    count = len(trunks)
    off_diagonal = float(overlap.sum() - overlap.diagonal().sum())
    return {**found, "jaccard": off_diagonal / max(count * (count - 1), 1)}
