"""From a label's trunk to its module's heads: refit, calibrate, and the guards of both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mlflow_rnnmod._locks import cached_property
from mlflow_rnnmod.answers import Labelled, Sample
from mlflow_rnnmod.decomposition.config import DecompositionConfig
from mlflow_rnnmod.decomposition.module import Energy, Head
from mlflow_rnnmod.decomposition.observations import run_readouts
from mlflow_rnnmod.decomposition.repairs import (
    cross_fitted_loss,
    fit_calibration,
    fit_logistic,
    log_loss,
)
from mlflow_rnnmod.networks.parent import Parent
from mlflow_rnnmod.networks.protocol import view
from mlflow_rnnmod.networks.rows import Rows
from mlflow_rnnmod.networks.trunk import Trunk

PENALTY = 1e-3
OPEN_PENALTY = 1e-3
FEW_POSITIVES = 10
MAX_FIT_ROWS = 6000


@dataclass(frozen=True, eq=False)
class Readouts:
    """A trunk's readouts on what heads are fitted and measured on, ``(observations, size)``.

    What was not asked for has no rows.
    """

    fit: Tensor
    calibration: Tensor
    report: Tensor
    background: Tensor
    calibration_background: Tensor


@dataclass(frozen=True, eq=False)
class Material:
    """Rows that heads are fitted on, the same for every label, trunk and rule.

    Args:
        parent: whose modules are made.
        fit: training rows, balanced over labels, with weights.
        calibration: rows the parent was not trained on, with targets.
        report: rows that give the figures; nothing is fitted on them. With targets.
        background: made-up rows; as many for each label's calibration as ``calibration`` has.
        calibration_background: the same, made of calibration rows.
        energy: of the unmasked parent on calibration rows.
    """

    parent: Parent
    fit: Sample
    calibration: Rows
    report: Rows
    background: Rows
    calibration_background: Rows
    energy: Energy
    batch_size: int = 512

    @cached_property
    def fitted_on(self) -> Labelled:
        """Observations of the training rows."""
        return Labelled(self.fit.rows, self.parent.network)

    @cached_property
    def calibrated_on(self) -> Labelled:
        """Observations of the calibration rows."""
        return Labelled(self.calibration, self.parent.network)

    @cached_property
    def reported_on(self) -> Labelled:
        """Observations of the report rows."""
        return Labelled(self.report, self.parent.network)

    @cached_property
    def fit_weights(self) -> Tensor:
        """How many training observations each observation stands for, ``(observations,)``."""
        weights = self.fit.weights
        return weights if weights.ndim == 1 else weights[self.fitted_on.answered]

    @cached_property
    def whole(self) -> Readouts:
        """Readouts of the full trunk, run once for all labels."""
        return _run(self, Trunk.whole(self.parent.network.units), None, True, True)


def prepare_material(
    parent: Parent, sample: Sample, calibration: Rows, report: Rows, config: DecompositionConfig
) -> Material:
    """Make the background and measure the parent's energy."""
    network = parent.network
    # Where every step is an observation, a few rows have many.
    stepwise = network.config.answer.stepwise
    count = min(len(sample.rows), 300 if stepwise else 3000)
    lengths = Rows(sample.rows.values, network.lengths(sample.rows))
    background = parent.background(lengths, count, config.seed)
    lengths = Rows(calibration.values, network.lengths(calibration))
    count = min(len(calibration), 300) if stepwise else len(calibration)
    held_out = parent.background(lengths, count, config.seed + 1)
    readouts = run_readouts(network.readout, calibration, config.batch_size, network)
    energies = torch.logsumexp(network.logits(readouts.to(network.device)), dim=1)
    deviation = float(energies.std(correction=0)) if len(energies) > 1 else 1.0
    energy = Energy(float(energies.mean()), max(deviation, 1e-6))
    return Material(
        parent, sample, calibration, report, background, held_out, energy, config.batch_size
    )


def _run(
    material: Material, trunk: Trunk, fit_rows: Tensor | None, refit: bool, open_head: bool
) -> Readouts:
    """Run a trunk over what its heads need; ``fit_rows`` are the observations to use, or all."""
    network = material.parent.network
    through = view(network, trunk)

    def run(rows: Rows, wanted: bool = True) -> Tensor:
        if not wanted:
            return torch.zeros(0, network.config.readout_size)
        return run_readouts(through.readout, rows, material.batch_size, network)

    def run_fit() -> Tensor:
        rows, wanted = material.fit.rows, refit or open_head
        if fit_rows is None or not wanted:
            return run(rows, wanted)
        return run(rows)[fit_rows] if network.config.answer.stepwise else run(rows[fit_rows])

    return Readouts(
        run_fit(),
        run(material.calibration),
        run(material.report),
        run(material.background, open_head),
        run(material.calibration_background, open_head),
    )


def shared_readouts(material: Material, trunk: Trunk) -> Readouts:
    """A trunk's readouts on all of the material, for several labels."""
    return material.whole if trunk.full else _run(material, trunk, None, True, True)


def pick_fit_rows(material: Material, label: int) -> tuple[Tensor, Tensor]:
    """Training observations that one label's heads are fitted on: its own, and others that fit in.

    Returns:
        their numbers, and weights that undo the choice.
    """
    known, weights = material.fitted_on.known, material.fit_weights
    own = material.fitted_on.positive(label)[known]
    rows = known.nonzero()[:, 0]
    if len(rows) <= MAX_FIT_ROWS:
        return rows, weights[rows]
    generator = torch.Generator().manual_seed(label)
    picked, undo = [], []
    mine = int(own.sum())
    if material.parent.network.config.answer.stepwise:  # samples hold all steps of their rows
        mine = min(mine, max(MAX_FIT_ROWS // 2, MAX_FIT_ROWS - int((~own).sum())))
    for side, room in ((own, mine), (~own, max(MAX_FIT_ROWS - mine, MAX_FIT_ROWS // 2))):
        found = rows[side]
        chosen = found
        if len(found) > room:
            chosen = found[torch.randperm(len(found), generator=generator)[:room]]
        picked.append(chosen)
        undo.append(weights[chosen] * (len(found) / max(len(chosen), 1)))
    order = torch.cat(picked).argsort()
    return torch.cat(picked)[order], torch.cat(undo)[order]


@dataclass(frozen=True, eq=False)
class FittedHeads:
    """A label's heads, which repairs were kept, and its uncalibrated margins.

    Margins are those of all answered observations, whether they have a target or not.

    Args:
        head, open_head: the open one is as ``head`` where it was not asked for.
        kept: the repairs that are in use.
        margins: on calibration rows, before calibration, ``(observations,)``.
        report_margins: on report rows, likewise.
        positive: which calibration observations with a target have the label.
        known: which calibration observations have a target, bool ``(observations,)``.
    """

    head: Head
    open_head: Head
    kept: tuple[str, ...]
    margins: Tensor
    report_margins: Tensor
    positive: Tensor
    known: Tensor

    @property
    def known_margins(self) -> Tensor:
        """Margins of the calibration observations with a target."""
        return self.margins[self.known]


def fit_heads(
    material: Material,
    trunk: Trunk,
    label: int,
    repairs: tuple[str, ...],
    open_head: bool = True,
    shared: Readouts | None = None,
) -> FittedHeads:
    """Refit and calibrate the heads of one label's module, each repair only where it helps.

    A refit is kept where the calibrated log-loss on calibration rows falls; a calibration where it
    falls on rows that it was not fitted on. Where labels have no rivals, a module answers when its
    score reaches 0, and of these heads the one with the best F1 there is taken: a lower loss can
    mean fewer right answers. The open head is fitted and calibrated whatever the
    repairs, since without its background it would be no open head.

    Args:
        material: the rows.
        trunk: what the label's module keeps.
        label: its index.
        repairs: which to try.
        open_head: whether to fit one.
        shared: the trunk's readouts on all of the material (:func:`shared_readouts`), where other
            labels have the same trunk.
    """
    network = material.parent.network
    fit_rows, weights = pick_fit_rows(material, label)
    if trunk.full and shared is None:
        shared = material.whole
    if shared is not None:
        found = replace(shared, fit=shared.fit[fit_rows])
    else:
        found = _run(material, trunk, fit_rows, "refit" in repairs, open_head)

    def odds(readout: Tensor) -> Tensor:
        with torch.inference_mode():
            logits = network.logits(readout.to(network.device))
            return network.config.answer.margins(logits, label).cpu()

    fit_positive = material.fitted_on.positive(label)[fit_rows]
    known = material.calibrated_on.known
    positive = material.calibrated_on.positive(label)[known]
    whole = found.calibration
    found = replace(found, calibration=whole[known])
    own = odds(found.calibration)
    head, kept = Head(), ["fold"] if "fold" in repairs else []
    tried = [(head, tuple(kept))]
    if "refit" in repairs:
        weight, bias = fit_logistic(found.fit, odds(found.fit), fit_positive, weights, PENALTY)
        candidate = Head(weight, bias)
        before = calibrated_loss(head.raw(found.calibration, own), positive)
        if calibrated_loss(candidate.raw(found.calibration, own), positive) < before:
            head, kept = candidate, [*kept, "refit"]
            tried.append((head, tuple(kept)))
    margins = head.raw(found.calibration, own)
    if "calibrate" in repairs and _enough(positive) and _calibration_helps(margins, positive):
        head = replace(head, calibration=fit_calibration(margins, positive))
        kept.append("calibrate")
        tried.append((head, tuple(kept)))
    if not network.config.answer.rivals:
        scores = [_f1(option(found.calibration, own) >= 0, positive) for option, _ in tried]
        # The last of equals: the one with the lowest loss.
        best = max(range(len(tried)), key=lambda i: (scores[i], i))
        head, kept = tried[best][0], list(tried[best][1])
    return FittedHeads(
        head,
        _fit_open_head(found, odds, fit_positive, weights, positive) if open_head else head,
        tuple(kept),
        head.raw(found.calibration, own) if known.all() else head.raw(whole, odds(whole)),
        head.raw(found.report, odds(found.report)),
        positive,
        known,
    )


def _f1(answered: Tensor, positive: Tensor) -> float:
    total = int(answered.sum()) + int(positive.sum())
    return 2 * int((answered & positive).sum()) / total if total else 1.0


def _enough(positive: Tensor) -> bool:
    return min(int(positive.sum()), int((~positive).sum())) >= FEW_POSITIVES


def _calibration_helps(margins: Tensor, positive: Tensor) -> bool:
    return cross_fitted_loss(margins, positive) < log_loss(margins, positive)


def calibrated_loss(margins: Tensor, positive: Tensor) -> float:
    """Log-loss of margins through the scale and offset that suit them best."""
    return log_loss(fit_calibration(margins, positive)(margins), positive)


def _fit_open_head(
    found: Readouts,
    odds: Callable[[Tensor], Tensor],
    fit_positive: Tensor,
    weights: Tensor,
    positive: Tensor,
) -> Head:
    """The open head: the same fit with a background among the negatives."""
    made_up = len(found.background)
    # Both kinds of negatives together weigh as much as all rows: neither drowns the other.
    share = float(weights.sum()) / made_up
    readouts = torch.cat([found.fit, found.background])
    weight, bias = fit_logistic(
        readouts,
        odds(readouts),
        torch.cat([fit_positive, torch.zeros(made_up, dtype=torch.bool)]),
        torch.cat([weights, torch.full((made_up,), share)]),
        OPEN_PENALTY,
    )
    head = Head(weight, bias)
    readouts = torch.cat([found.calibration, found.calibration_background])
    strange = torch.zeros(len(found.calibration_background), dtype=torch.bool)
    margins = head.raw(readouts, odds(readouts))
    return replace(head, calibration=fit_calibration(margins, torch.cat([positive, strange])))


def pool_calibrations(heads: list[FittedHeads], repairs: tuple[str, ...]) -> list[FittedHeads]:
    """Labels with fewer than 10 positives share one calibration, fitted on all their margins."""
    few = [i for i, found in enumerate(heads) if not _enough(found.positive)]
    if not few or "calibrate" not in repairs:
        return heads
    margins = torch.cat([heads[i].known_margins for i in few])
    positive = torch.cat([heads[i].positive for i in few])
    if not _enough(positive) or not _calibration_helps(margins, positive):
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
