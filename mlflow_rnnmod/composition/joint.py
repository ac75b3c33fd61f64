"""Scales and offsets for a composite's modules, fitted on rows of all its labels."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as changed
from typing import Any

import torch
from torch import Tensor

from mlflow_rnnmod.answers import IGNORE
from mlflow_rnnmod.answers.lists import anywhere, best_step, step_correction
from mlflow_rnnmod.composition.composite import Composite
from mlflow_rnnmod.composition.engine import How
from mlflow_rnnmod.composition.heads import ModuleOutputs
from mlflow_rnnmod.composition.scores import (
    SCORES,
    ScoreStrategy,
    fit_joint,
    part_weights,
    without_energy,
)
from mlflow_rnnmod.decomposition.repairs import fit_calibration

Fitted = Sequence[Sequence[float]]
"""For each module the scales of its parts, and then its offset."""

FEW = 5
"""Rows of a label from which on it is told if it is never found."""


@dataclass(frozen=True, eq=False)
class Parts:
    """What a composite's scores add up.

    Args:
        values: ``(rows, modules, parts)``, or ``(rows, steps, modules, parts)`` with NaN behind a
            row's steps, where answers have one for each.
        fixed: what no scale touches, ``(rows, modules)``: the correction of modules that answer
            each step, beside some that answer once.
    """

    values: Tensor
    fixed: Tensor | None


def calibrated(
    composite: Composite, inputs: Any, labels: Sequence[Any], also: Sequence[str] = ()
) -> Composite:
    """The composite with scales and an offset for each module, fitted on rows of all its labels.

    Rivals are fitted together, so that the best one is right; labels without rivals each get a
    scale and an offset of their own, fitted on whether they are among a row's labels (Platt).
    Where rows are few for so many labels, the modules of one parent share scales and offset; what
    is taken is what does best on rows that it was not fitted on.

    Args:
        composite: of modules that answer labels.
        inputs: as for :meth:`Composite.scores`.
        labels: what is right for each: a label; a collection of labels; for a label at each step as
            many as the row has steps, in order; for lists the labels in their order. Steps with a
            label that no module answers for, or ``None``, are left out.
        also: other scores that are tried in the place of the composite's, where it answers one
            label for an input.

    Raises:
        ValueError: if labels are unknown, or as many as the inputs are expected and are not there.
    """
    if len(inputs) != len(labels) or len(labels) == 0:
        raise ValueError(
            f"calibrate_on has {len(inputs)} inputs and {len(labels)} labels; expected as many of "
            "both, and at least one."
        )
    stepwise = composite.answer.stepwise and composite.rivals
    if not stepwise:
        _check_known(composite, labels)
    if composite.score == "joint":  # scales are fitted anew, on the score underneath
        parameters = {k: v for k, v in composite.parameters.items() if k not in ("base", "scales")}
        composite = changed(composite, score=composite.base, parameters=parameters)
    parts, note = parts_of(composite, inputs), dict[str, str]()
    fitted: Fitted
    if not composite.rivals:
        fitted = _fit_each(composite, parts.values[..., 0], labels)
    elif stepwise:
        targets = _step_targets(composite, parts.values[..., 0], labels)
        known = targets != IGNORE
        if not bool(known.any()):
            raise ValueError(
                "calibrate_on has no step with one of the labels "
                f"{list(composite.labels)}; expected some."
            )
        own = Parts(parts.values[known], None)
        _, fitted, note = _guarded([(composite, own)], targets[known])
    else:
        index = {label: i for i, label in enumerate(composite.labels)}
        targets = torch.tensor([index[label] for label in labels])
        others = [changed(composite, score=score) for score in also]
        given = [(composite, parts), *((other, parts_of(other, inputs)) for other in others)]
        usual = composite.score
        composite, fitted, note = _guarded(given, targets)
        if composite.score != usual:
            note = {**note, "chosen": composite.score}
    scales = {label: list(found) for label, found in zip(composite.labels, fitted, strict=True)}
    step: dict[str, Any] = {"verb": "calibrate", "rows": len(labels), **note}
    found = changed(
        composite,
        score="joint",
        parameters={**composite.parameters, "base": composite.score, "scales": scales},
    )
    if composite.rivals and not stepwise and (never := _never_right(found, inputs, labels)):
        told = ", ".join(f"{label!r} wins for none of the {n} rows" for label, n in never.items())
        warnings.warn(
            f"{told} of calibrate_on that are its own. What its card says is measured among its "
            "parent's labels alone; give more rows, or replace() the module.",
            stacklevel=3,
        )
        step["never"] = list(never)
    return changed(found, recipe=(*composite.recipe, step))


def _never_right(composite: Composite, inputs: Any, labels: Sequence[Any]) -> dict[str, int]:
    """Labels that are never found, with how many rows they are right for; of a few at least."""
    best = composite.scores(inputs).argmax(dim=1).tolist()
    hits = {label for label, i in zip(labels, best, strict=True) if label == composite.labels[i]}
    counts = {label: list(labels).count(label) for label in composite.labels}
    return {label: n for label, n in counts.items() if n >= FEW and label not in hits}


def parts_of(composite: Composite, inputs: Any) -> Parts:
    """What the composite's scores add up, a single part for most scores."""
    inputs = composite.checked(inputs)
    strategy, engine = SCORES[composite.score], composite.engine
    given = composite.settings
    runs = [strategy] if strategy.parts is None else [_part(strategy, n) for n in range(2)]
    if composite.answer.stepwise:
        tables = [engine.tables(inputs, one, given) for one in runs]
        joined = [engine.joined([scores for _, scores in table]) for table in tables]
        if strategy.likelihood:
            joined.append(composite.votes(inputs, joined[0]))
        joined = joined if strategy.network else joined[1:]
        return Parts(torch.stack(joined, dim=-1), None)
    if not strategy.network:
        return Parts(composite.votes(inputs)[..., None], None)
    if strategy.tied:
        tied = [composite.tied_parts(inputs)]
        tied += [composite.votes(inputs)[..., None]] if strategy.likelihood else []
        return Parts(torch.cat(tied, dim=-1), None)
    values, fixed = [], []
    for group in engine.groups:
        rows, size = group.parent.rows(inputs), engine.batch_size
        if group.stepwise:  # they count at the step where the label is surest
            own, _ = without_energy(strategy, given, composite.labels)
            scores = group.scores(rows, How(own, given, batch_size=size))
            step = best_step(scores)[1]
            step[group.ending] = 0
            found = [scores.gather(2, step[..., None])[..., 0]]
            found += [group.energies(rows, size)] if len(runs) > 1 else []
            correction = step_correction((~scores.isnan()).sum(dim=2)).to(scores)
            correction[group.ending] = 0.0
        else:
            found = list(group.scores(rows, How(strategy, given, batch_size=size, split=True)))
            correction = torch.zeros_like(found[0])
        values.append(torch.stack(found, dim=-1))
        fixed.append(-correction)
    stacked = [engine.joined([v[..., n] for v in values]) for n in range(len(runs))]
    if strategy.likelihood:
        stacked.append(composite.votes(inputs))
    return Parts(torch.stack(stacked, dim=-1), engine.joined(fixed))


def _guarded(
    given: Sequence[tuple[Composite, Parts]], targets: Tensor
) -> tuple[Composite, Fitted, dict[str, str]]:
    """What does best on rows that nothing was fitted on: scales, or what counts without any.

    Args:
        given: the composite by each score that is tried, the first of which it has now.
        targets: int64 ``(rows,)``, the module that is right.

    Returns:
        the composite by the score that is taken, scales and offsets, and what to note.
    """
    composite, parts = given[0]
    seen = targets.bincount(minlength=len(composite.labels))
    missing = [label for label, n in zip(composite.labels, seen.tolist(), strict=True) if not n]
    names, of_parent = parents_of(composite)
    asked = torch.zeros(len(names), dtype=torch.int64).index_add(0, of_parent, seen)
    ways = [] if missing else [torch.arange(len(of_parent))]
    if 1 < len(names) < len(of_parent) and bool((asked > 0).all()):
        ways.append(of_parent)
    before = _plain(composite, parts)
    best: tuple[float, Composite, Parts, Tensor | None] = (0.0, composite, parts, None)
    for other, own in given:
        tried: list[tuple[Tensor | None, Tensor]] = [(None, _plain(other, own))]
        tried += [(way, _cross_fitted(other, own, targets, way)) for way in ways]
        for way, after in tried:
            gain = _gain(composite, before, after, targets)
            best = (gain, other, own, way) if gain > best[0] else best
    gain, composite, parts, way = best
    note = {}
    if missing and way is None and (gain > 0 or not ways):
        note = {"note": f"no row of calibrate_on has {missing}: nothing was fitted"}
    elif gain <= 0:
        note = {"note": "scales fitted on these rows did no better than the format's: kept"}
    elif missing:
        note = {"note": f"no row of calibrate_on has {missing}: each parent has scales, no label"}
    if note:
        warnings.warn(
            f"calibrate_on with {len(targets)} answers: {note['note']}. Give more rows, of every "
            "label.",
            stacklevel=4,
        )
    if way is None:
        weights = part_weights(parts.values, composite.score, composite.settings).tolist()
        return composite, [(*weights, 0.0)] * len(of_parent), note
    return composite, fit_joint(parts.values, targets, fixed=parts.fixed, groups=way), note


def parents_of(composite: Composite) -> tuple[list[str], Tensor]:
    """The digests of a composite's parents, and each module's, int64 ``(modules,)`` in these."""
    digests = [module.parent.digest for module in composite.modules]
    place = {digest: number for number, digest in enumerate(dict.fromkeys(digests))}
    return list(place), torch.tensor([place[digest] for digest in digests])


def _plain(composite: Composite, parts: Parts) -> Tensor:
    """Scores where nothing was fitted, ``(rows, modules)``."""
    found = (parts.values * part_weights(parts.values, composite.score, composite.settings)).sum(-1)
    return found if parts.fixed is None else found + parts.fixed.to(found)


def _cross_fitted(composite: Composite, parts: Parts, targets: Tensor, way: Tensor) -> Tensor:
    """Scores of each half of the rows by scales that were fitted on the other one.

    A half that the other says nothing of stays as it is.
    """
    values = parts.values
    found = _plain(composite, parts).clone()
    extra = torch.zeros_like(values[..., 0]) if parts.fixed is None else parts.fixed.to(values)
    even = torch.arange(len(targets)) % 2 == 0
    for mine in (even, ~even):
        if not bool(mine.any()) or not bool((~mine).any()):
            continue
        scales = values.new_tensor(
            fit_joint(values[~mine], targets[~mine], fixed=extra[~mine], groups=way)
        )
        scores = (values[mine] * scales[:, :-1]).sum(-1) + scales[:, -1] + extra[mine]
        found[mine] = scores.to(found)
    return found


def _gain(composite: Composite, before: Tensor, after: Tensor, targets: Tensor) -> float:
    """By how much scores do better than others, above 0 where that is sure enough.

    They have to lower the log-loss, as every repair has. Likelihoods leave little to be fitted, and
    few rows fit it badly: there they have to answer more rows right, by more than the standard
    error of the difference.
    """
    if not composite.likely:
        loss = torch.nn.functional.cross_entropy
        return float(loss(before, targets) - loss(after, targets))
    plain, found = (scores.argmax(dim=1) == targets for scores in (before, after))
    gained, lost = int((found & ~plain).sum()), int((plain & ~found).sum())
    sure: float = gained - lost - (gained + lost) ** 0.5
    return float(gained - lost) if sure > 0 else 0.0


def _part(strategy: ScoreStrategy, number: int) -> ScoreStrategy:
    """A strategy whose score is one part of another's."""

    def part(outputs: ModuleOutputs, given: Mapping[str, Any]) -> Tensor:
        return strategy.split(outputs, given)[number]

    return changed(strategy, score=part)


def _check_known(composite: Composite, labels: Sequence[Any]) -> None:
    found = {y for row in labels for y in composite.answer.labels_of(row)}
    unknown = sorted(str(y) for y in found if y not in composite.labels)
    if unknown:
        raise ValueError(
            f"calibrate_on has the labels {unknown}, which no module answers for; expected some of "
            f"{list(composite.labels)}."
        )


def _fit_each(composite: Composite, scores: Tensor, labels: Sequence[Any]) -> list[list[float]]:
    """A scale and an offset for each label, from whether it is among a row's."""
    fitted = []
    for column, label in enumerate(composite.labels):
        positive = torch.tensor([label in row for row in labels])
        if scores.ndim == 3:
            fitted.append(_fit_anywhere(scores[..., column], positive))
        else:
            found = fit_calibration(scores[:, column], positive)
            fitted.append([found.scale, found.offset])
    return fitted


def _fit_anywhere(scores: Tensor, positive: Tensor) -> list[float]:
    """A scale and an offset for each place of a list, ``(rows, steps)``, as of Platt's method.

    Gives the identity where there are not both positives and negatives.
    """
    count, rows = int(positive.sum()), len(positive)
    if count in (0, rows):
        return [1.0, 0.0]
    targets = torch.where(positive, (count + 1) / (count + 2), 1 / (rows - count + 2)).double()
    x = scores.detach().double()
    x = x.masked_fill(x.isnan(), -1e4)  # as good as never
    found = torch.zeros(2, dtype=torch.float64, requires_grad=True)  # log of the scale, offset
    optimizer = torch.optim.LBFGS([found], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        margins = anywhere(x * found[0].clamp(-5.0, 5.0).exp() + found[1])
        value = torch.nn.functional.binary_cross_entropy_with_logits(margins, targets)
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)  # type: ignore[arg-type]
    return [float(found[0].detach().clamp(-5.0, 5.0).exp()), float(found[1].detach())]


def _step_targets(composite: Composite, scores: Tensor, labels: Sequence[Any]) -> Tensor:
    """The module that is right at each step, int64 ``(rows, steps)``; ``IGNORE`` where none is."""
    index = {label: i for i, label in enumerate(composite.labels)}
    counts = (~scores.isnan().any(dim=2)).sum(dim=1).tolist()
    targets = torch.full(scores.shape[:2], IGNORE)
    for row, (count, wanted) in enumerate(zip(counts, labels, strict=True)):
        right = composite.answer.step_labels(wanted, count, composite.end_label, row)
        targets[row, : len(right)] = torch.tensor([index.get(y, IGNORE) for y in right])
    return targets
