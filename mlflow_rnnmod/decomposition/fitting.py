"""From labels' trunks to their modules' heads: refit, calibrate, and the guards of both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mlflow_rnnmod.decomposition.material import Material, pick_fit_rows
from mlflow_rnnmod.decomposition.module import Calibration, Head
from mlflow_rnnmod.decomposition.repairs import (
    calibrated_losses,
    cross_fitted_loss,
    cross_fitted_losses,
    fit_calibration,
    fit_calibrations,
    fit_logistics,
    log_loss,
    log_losses,
)
from mlflow_rnnmod.networks.trunk import Trunk

PENALTY = 1e-3
OPEN_PENALTY = 1e-3
FEW_POSITIVES = 10
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
        report_margins: on report rows, likewise; none where they were not asked for.
        positive: which calibration observations with a target have the label.
        known: which calibration observations have a target, bool ``(observations,)``.
        fit: the refit, whether it was kept or not.
    """

    head: Head
    open_head: Head
    kept: tuple[str, ...]
    margins: Tensor
    report_margins: Tensor
    positive: Tensor
    known: Tensor
    fit: Fit | None = None

    @property
    def own(self) -> bool:
        """Whether there are enough observations for a calibration of its own."""
        return bool(_enough(self.positive))

    @property
    def known_margins(self) -> Tensor:
        """Margins of the calibration observations with a target."""
        return self.margins[self.known]


def fit_all(
    material: Material,
    trunks: Mapping[int, Trunk],
    repairs: tuple[str, ...],
    start: Mapping[int, Fit] | None = None,
    told: Told | None = None,
) -> dict[int, FittedHeads]:
    """Refit and calibrate the heads of labels' modules, each repair only where it helps.

    A refit is kept where the calibrated log-loss on calibration rows falls; a calibration where it
    falls on rows that it was not fitted on. Where labels have no rivals, a module answers when its
    score reaches 0, and of these heads the one with the best F1 there is taken: a lower loss can
    mean fewer right answers.

    Args:
        material: the rows.
        trunks: what each label's module keeps, by the label's index.
        repairs: which to try.
        start: earlier refits of the labels, from which these begin.
        told: called with labels done and labels in all.

    Returns:
        by label, without open heads and without margins on report rows.
    """
    found: dict[int, FittedHeads] = {}
    for labels in _blocks(material, trunks):
        found.update(_fit_block(material, trunks, labels, repairs, start or {}))
        if told:
            told(len(found), len(trunks))
    return found


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


def _fit_block(
    material: Material,
    trunks: Mapping[int, Trunk],
    labels: Sequence[int],
    repairs: tuple[str, ...],
    start: Mapping[int, Fit],
) -> dict[int, FittedHeads]:
    shared, known = _shared(trunks), material.calibrated_on.known
    positive = torch.stack([material.calibrated_on.positive(y)[known] for y in labels])
    margins = torch.stack(
        [material.margins(trunks[y], "calibration", y, trunks[y] in shared) for y in labels]
    )
    count = len(labels)
    # What each label was offered: uncalibrated margins, and scales and offsets.
    offered = [margins]
    refitted = torch.zeros(count, dtype=torch.bool)
    fits: list[Fit | None] = [None] * count
    losses, scales, offsets = calibrated_losses(margins[:, known], positive)
    if "refit" in repairs:
        cases = [_case(material, trunks[y], y, trunks[y] in shared, False) for y in labels]
        fits = [*_refit(material, cases, PENALTY, [start.get(y) for y in labels])]
        candidates = torch.stack(
            [
                Head(*fit).raw(material.readouts(trunks[y], "calibration"), own)  # type: ignore[misc]
                for y, fit, own in zip(labels, fits, margins, strict=True)
            ]
        )
        lower, *suited = calibrated_losses(candidates[:, known], positive)
        refitted = lower < losses
        margins = torch.where(refitted[:, None], candidates, margins)
        scales, offsets = (
            torch.where(refitted, new, old)
            for new, old in zip(suited, (scales, offsets), strict=True)
        )
        offered.append(margins)
    calibrated = torch.zeros(count, dtype=torch.bool)
    if "calibrate" in repairs:
        own = margins[:, known]
        calibrated = _enough(positive) & (
            cross_fitted_losses(own, positive) < log_losses(own, positive)
        )
    if not material.parent.network.config.answer.rivals:
        through = margins * scales[:, None].to(margins) + offsets[:, None].to(margins)
        scores = torch.stack([_f1(m[:, known] >= 0, positive) for m in (*offered, through)])
        scores[-1] = torch.where(calibrated, scores[-1], -1.0)
        # The last of equals: the one with the lowest loss.
        best = len(scores) - 1 - scores.flip(0).argmax(0)
        calibrated &= best == len(scores) - 1
        refitted &= best > 0
        margins = torch.where(refitted[:, None], margins, offered[0])
    folded = ("fold",) if "fold" in repairs else ()
    found = {}
    for i, label in enumerate(labels):
        calibration = Calibration(float(scales[i]), float(offsets[i]))
        given = fits[i] if refitted[i] else None
        head = Head() if given is None else Head(*given)
        kept = folded + ("refit",) * bool(refitted[i]) + ("calibrate",) * bool(calibrated[i])
        if calibrated[i]:
            head = replace(head, calibration=calibration)
        none = margins.new_zeros(0)
        found[label] = FittedHeads(head, head, kept, margins[i], none, positive[i], known, fits[i])
    return found


def _f1(answered: Tensor, positive: Tensor) -> Tensor:
    """Of each label, from bool ``(labels, rows)``; 1 where there is nothing to find or found."""
    total = answered.sum(1) + positive.sum(1)
    return torch.where(total > 0, 2 * (answered & positive).sum(1) / total.clamp(min=1), 1.0)


def _enough(positive: Tensor) -> Tensor:
    """Whether there are enough of both kinds to calibrate on."""
    found: Tensor = torch.minimum(positive.sum(-1), (~positive).sum(-1)) >= FEW_POSITIVES
    return found


def calibrated_loss(margins: Tensor, positive: Tensor) -> float:
    """Log-loss of margins ``(rows,)`` through the scale and offset that suit them best."""
    return float(calibrated_losses(margins[None], positive[None])[0])


def pool_calibrations(heads: list[FittedHeads], repairs: tuple[str, ...]) -> list[FittedHeads]:
    """Labels with fewer than 10 positives share one calibration, fitted on all their margins."""
    few = [i for i, found in enumerate(heads) if not _enough(found.positive)]
    if not few or "calibrate" not in repairs:
        return heads
    margins = torch.cat([heads[i].known_margins for i in few])
    positive = torch.cat([heads[i].positive for i in few])
    if not _enough(positive) or cross_fitted_loss(margins, positive) >= log_loss(margins, positive):
        return heads
    pooled = fit_calibration(margins, positive)
    result = list(heads)
    for i in few:
        head = replace(heads[i].head, calibration=pooled)
        result[i] = replace(heads[i], head=head, kept=(*heads[i].kept, "calibrate"))
    return result


def report_table(heads: list[FittedHeads]) -> Tensor:
    """Calibrated margins of all labels on the report rows, float ``(observations, labels)``."""
    return torch.stack([h.head.calibration(h.report_margins) for h in heads], dim=1)


def calibration_table(heads: list[FittedHeads]) -> Tensor:
    """Calibrated margins of all labels on calibration rows, float ``(observations, labels)``."""
    return torch.stack([h.head.calibration(h.margins) for h in heads], dim=1)
