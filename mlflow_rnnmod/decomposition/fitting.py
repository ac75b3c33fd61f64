"""From labels' trunks to their modules' heads: refit, calibrate, and the guards of both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mlflow_rnnmod.decomposition.calibrating import calibrate_together, calibrated_by
from mlflow_rnnmod.decomposition.material import Material, pick_fit_rows
from mlflow_rnnmod.decomposition.module import Calibration, Head
from mlflow_rnnmod.decomposition.repairs import fit_calibrations, fit_logistics
from mlflow_rnnmod.networks.trunk import Trunk

PENALTY = 1e-3
OPEN_PENALTY = 1e-3
# Numbers that fits of several labels hold at once: readouts, and margins.
_READ, _MARGINS, _FITTED = 2**24, 2**22, 2**23

# What a refit found, to start the next one of the same label from.
Fit = tuple[Tensor, float]
Told = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class FittedHeads:
    """A label's heads, which repairs were kept, and its uncalibrated margins.

    Margins are those of all answered observations, whether they have a target or not.

    Args:
        head, open_head: the open one is as ``head`` where it was not asked for.
        kept: the repairs that are in use.
        margins: on calibration rows, before calibration, ``(observations,)``.
        held_out: on the same rows, each through a calibration that was fitted without it.
        report_margins: on report rows, likewise; none where they were not asked for.
        positive: which calibration observations with a target have the label.
        known: which calibration observations have a target, bool ``(observations,)``.
        fit: the refit, whether it was kept or not.
    """

    head: Head
    open_head: Head
    kept: tuple[str, ...]
    margins: Tensor
    held_out: Tensor
    report_margins: Tensor
    positive: Tensor
    known: Tensor
    fit: Fit | None = None


def fit_all(
    material: Material,
    trunks: Mapping[int, Trunk],
    repairs: tuple[str, ...],
    start: Mapping[int, Fit] | None = None,
    told: Told | None = None,
) -> dict[int, FittedHeads]:
    """Refit and calibrate the heads of labels' modules, each repair only as far as it helps.

    How much of the refits is taken, and the calibrations, are chosen for all labels together, by
    the loss on rows that calibrations were not fitted on (:mod:`~.calibrating`). Where labels have
    no rivals, a module answers when its score reaches 0, and of these heads the one with the best
    F1 there is taken: a lower loss can mean fewer right answers.

    Args:
        material: the rows.
        trunks: what each label's module keeps, by the label's index.
        repairs: which to try.
        start: earlier refits of the labels, from which these begin.
        told: called with labels done and labels in all.

    Returns:
        by label, without open heads and without margins on report rows.
    """
    margins: dict[int, Tensor] = {}
    refitted: dict[int, Tensor] = {}
    fits: dict[int, Fit] = {}
    shared = _shared(trunks)
    for labels in _blocks(material, trunks):
        for y in labels:
            margins[y] = material.margins(trunks[y], "calibration", y, trunks[y] in shared)
        if "refit" in repairs:
            cases = [_case(material, trunks[y], y, trunks[y] in shared, False) for y in labels]
            started = [(start or {}).get(y) for y in labels]
            for y, fit in zip(labels, _refit(material, cases, PENALTY, started), strict=True):
                fits[y] = fit
                readouts = material.readouts(trunks[y], "calibration")
                refitted[y] = Head(*fit).raw(readouts, margins[y])
        if told:
            told(len(margins), len(trunks))
    return _settled(material, margins, refitted, fits, repairs)


def fit_report(
    material: Material, trunks: Mapping[int, Trunk], heads: Mapping[int, FittedHeads]
) -> dict[int, FittedHeads]:
    """Labels' heads with their margins on report rows."""
    shared, found = _shared(trunks), {}
    for label, fitted in heads.items():
        trunk = trunks[label]
        own = material.margins(trunk, "report", label, trunk in shared)
        margins = fitted.head.raw(material.readouts(trunk, "report"), own)
        found[label] = replace(fitted, report_margins=margins)
    return found


def fit_open_heads(
    material: Material,
    trunks: Mapping[int, Trunk],
    heads: Mapping[int, FittedHeads],
    told: Told | None = None,
) -> dict[int, FittedHeads]:
    """Labels' heads with open ones: the same fits with a background among the negatives.

    They are fitted and calibrated whatever the repairs: without its background an open head would
    be none.
    """
    found, shared = dict(heads), _shared(trunks)
    known = material.calibrated_on.known
    done = 0
    for labels in _blocks(material, trunks):
        cases = [_case(material, trunks[y], y, trunks[y] in shared, True) for y in labels]
        fits = _refit(material, cases, OPEN_PENALTY, [heads[y].fit for y in labels])
        margins, positive = [], []
        for label, (weight, bias) in zip(labels, fits, strict=True):
            trunk, raw = trunks[label], Head(weight, bias).raw
            own = [
                raw(
                    material.readouts(trunk, kind),
                    material.margins(trunk, kind, label, trunk in shared),
                )
                for kind in ("calibration", "calibration_background")
            ]
            margins.append(torch.cat([own[0][known], own[1]]))
            strange = torch.zeros(len(own[1]), dtype=torch.bool)
            positive.append(torch.cat([heads[label].positive, strange]))
        scales, offsets = fit_calibrations(torch.stack(margins), torch.stack(positive))
        for label, (weight, bias), scale, offset in zip(labels, fits, scales, offsets, strict=True):
            head = Head(weight, bias, Calibration(float(scale), float(offset)))
            found[label] = replace(heads[label], open_head=head)
        done += len(labels)
        if told:
            told(done, len(trunks))
    return found


def _shared(trunks: Mapping[int, Trunk]) -> set[Trunk]:
    """Trunks of several labels."""
    return {trunk for trunk, count in Counter(trunks.values()).items() if count > 1}


def _blocks(material: Material, trunks: Mapping[int, Trunk]) -> Iterator[list[int]]:
    """Labels that are fitted together, those of one trunk side by side; memory is bounded."""
    order: dict[Trunk, list[int]] = {}
    for label, trunk in trunks.items():
        order.setdefault(trunk, []).append(label)
    rows = len(material.calibrated_on.known)
    size = rows * material.parent.network.config.readout_size
    block: list[int] = []
    held = 0
    for labels in order.values():
        for label in labels:
            held += size if label == labels[0] else 0
            if block and (held > _READ or (len(block) + 1) * rows > _MARGINS):
                yield block
                block, held = [], size
            block.append(label)
    if block:
        yield block


@dataclass(frozen=True, eq=False)
class _Case:
    """What a refit of one label goes by: ``(rows, size)`` and ``(rows,)``."""

    readouts: Tensor
    margins: Tensor
    positive: Tensor
    weights: Tensor


def _case(material: Material, trunk: Trunk, label: int, shared: bool, open_head: bool) -> _Case:
    index, weights = pick_fit_rows(material, label)
    readouts, margins = material.picked(trunk, label, index, shared)
    positive = material.fitted_on.positive(label)[index]
    if not open_head:
        return _Case(readouts, margins, positive, weights)
    made_up = material.readouts(trunk, "background")
    more = material.margins(trunk, "background", label, shared)
    # Both kinds of negatives together weigh as much as all rows: neither drowns the other.
    share = float(weights.sum()) / len(made_up)
    return _Case(
        torch.cat([readouts, made_up]),
        torch.cat([margins, more]),
        torch.cat([positive, torch.zeros(len(made_up), dtype=torch.bool)]),
        torch.cat([weights, torch.full((len(made_up),), share)]),
    )


def _refit(
    material: Material, cases: Sequence[_Case], penalty: float, starts: Sequence[Fit | None]
) -> list[Fit]:
    """The refits of some labels, those of like numbers of rows side by side."""
    device = material.parent.device if material.parent.device.type == "cuda" else "cpu"
    found: dict[int, Fit] = {}
    order = sorted(range(len(cases)), key=lambda i: -len(cases[i].weights))
    while order:
        first = cases[order[0]].readouts
        part = order[: max(_FITTED // max(first.numel(), 1), 1)]
        order = order[len(part) :]
        x, margins, positive, row_weights = (
            pad_sequence([getattr(cases[i], name) for i in part], batch_first=True).to(device)
            for name in ("readouts", "margins", "positive", "weights")
        )
        zero = first.new_zeros(first.shape[1]), 0.0
        begun = [starts[i] or zero for i in part]
        start = torch.stack([w for w, _ in begun]), torch.tensor([b for _, b in begun])
        given = start if any(starts[i] for i in part) else None
        weights, biases = fit_logistics(x, margins, positive, row_weights, penalty, given)
        found.update(zip(part, zip(weights.cpu(), biases.tolist(), strict=True), strict=True))
    return [found[i] for i in range(len(cases))]


def _settled(
    material: Material,
    margins: Mapping[int, Tensor],
    refitted: Mapping[int, Tensor],
    fits: Mapping[int, Fit],
    repairs: tuple[str, ...],
) -> dict[int, FittedHeads]:
    """The heads, with as much of the refits and of calibrations as helps all labels."""
    known = material.calibrated_on.known
    own = torch.stack([margins[y] for y in margins])
    new = torch.stack([refitted[y] for y in margins]) if refitted else None
    positive = torch.stack([material.calibrated_on.positive(y)[known] for y in margins])
    calibrated = calibrate_together(
        own[:, known], None if new is None else new[:, known], positive, "calibrate" in repairs
    )
    share, held_out = calibrated.share, calibrated.held_out
    mixed = own if new is None else torch.lerp(own, new, share)
    ones = torch.ones(len(own), dtype=torch.float64)
    scales, offsets = calibrated.calibrations or (ones, 0 * ones)
    steps = torch.full((len(own),), 2 if calibrated.calibrations else 1)
    if not material.parent.network.config.answer.rivals:
        offered = (own, mixed, calibrated_by((scales, offsets), mixed))[: int(steps[0]) + 1]
        scores = torch.stack([_f1(m[:, known] >= 0, positive) for m in offered])
        # The last of equals: the one with the lowest loss.
        steps = len(scores) - 1 - scores.flip(0).argmax(0)
    folded = ("fold",) if "fold" in repairs else ()
    found = {}
    for i, label in enumerate(margins):
        head, kept, raw, unseen = Head(), folded, own[i], own[i, known]
        if steps[i] >= 1 and share:
            weight, bias = fits[label]
            head, kept = Head(share * weight, share * bias), (*kept, "refit")
            raw, unseen = mixed[i], mixed[i, known]
        if steps[i] == 2:
            calibration = Calibration(float(scales[i]), float(offsets[i]))
            head, kept = replace(head, calibration=calibration), (*kept, "calibrate")
            unseen = held_out[i]
        judged = head.calibration(raw)
        judged[known] = unseen
        none = raw.new_zeros(0)
        found[label] = FittedHeads(
            head, head, kept, raw, judged, none, positive[i], known, fits.get(label)
        )
    return found


def _f1(answered: Tensor, positive: Tensor) -> Tensor:
    """Of each label, from bool ``(labels, rows)``; 1 where there is nothing to find or found."""
    total = answered.sum(1) + positive.sum(1)
    return torch.where(total > 0, 2 * (answered & positive).sum(1) / total.clamp(min=1), 1.0)


def report_table(heads: list[FittedHeads]) -> Tensor:
    """Calibrated margins of all labels on the report rows, float ``(observations, labels)``."""
    return torch.stack([h.head.calibration(h.report_margins) for h in heads], dim=1)


def calibration_table(heads: list[FittedHeads]) -> Tensor:
    """Calibrated margins of all labels on calibration rows, float ``(observations, labels)``."""
    return torch.stack([h.head.calibration(h.margins) for h in heads], dim=1)
