"""Rows that heads are fitted and measured on, and what trunks make of them: each is run once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from mlflow_rnnmod.answers import Labelled, Sample
from mlflow_rnnmod.decomposition.config import DecompositionConfig
from mlflow_rnnmod.decomposition.module import Energy
from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.networks.parent import Parent
from mlflow_rnnmod.networks.protocol import Network, fastest
from mlflow_rnnmod.networks.trunk import Trunk


@dataclass(frozen=True, eq=False)
class Batches:
    """Rows made ready to be run, through one trunk after the other.

    Args:
        parts: without needless steps, where the network is.
        answered: which of their steps are answered, or None where rows are.
        places: what puts the observations of all parts into the order of rows and steps.
    """

    parts: list[Rows]
    answered: list[Tensor | None]
    places: Tensor

    @classmethod
    def of(cls, rows: Rows, batch_size: int, network: Network) -> Batches:
        """All ``rows``; those of like length are run together where padding does not count."""
        batch_size = network.rows_at_once(batch_size)
        order = network.order(rows) if len(rows) > batch_size else torch.arange(len(rows))
        parts, known, owners = [], [], []
        for start in range(0, len(rows), batch_size):
            index = order[start : start + batch_size]
            batch = rows[index]
            batch = network.trimmed(Rows(batch.values, batch.lengths)).to(network.device)
            answered = network.answered(batch)
            if answered is not None:
                index = index.repeat_interleave(answered.sum(dim=1).cpu())
            parts.append(batch)
            known.append(answered)
            owners.append(index)
        return cls(parts, known, torch.cat(owners).argsort(stable=True))

    @torch.inference_mode()
    def run(self, readout: Callable[[Rows], Tensor]) -> Tensor:
        """Readouts through some trunk, on the CPU: float ``(observations, readout size)``."""
        found = []
        for batch, answered in zip(self.parts, self.answered, strict=True):
            values = readout(batch)
            found.append((values if answered is None else values[answered]).cpu())
        return torch.cat(found)[self.places]


# Observations that a label's heads are fitted on: so many times its own, within these limits.
TIMES_ITS_OWN = 4
MIN_FIT_ROWS, MAX_FIT_ROWS = 2000, 6000
# Calibration rows that are all looked at, and else so many, where a few tell as much.
ALL_ROWS, SOME_ROWS = 2000, 1000
# Numbers that are kept of readouts, and of the weights of trunks that were cut out.
KEPT = 2**25
# Labels whose choice of training observations is kept.
PICKS = 500


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
    def _refitting(self) -> Callable[[Trunk], Trunk]:
        return self.parent.network.refitting(self.fit.rows)

    @cached_property
    def _refits(self) -> dict[str, Trunk]:
        """Trunks that were fitted to training rows, by the digest that they had before."""
        return {}

    def refitted(self, trunk: Trunk) -> Trunk:
        """A trunk with weights fitted to it, as its network has it; the last ones are kept."""
        found = self._refits.pop(trunk.digest, None) or self._refitting(trunk)
        self._refits[trunk.digest] = found
        while sum(map(_numbers, self._refits.values())) > KEPT and len(self._refits) > 1:
            del self._refits[next(iter(self._refits))]
        return found

    @cached_property
    def fit_weights(self) -> Tensor:
        """How many training observations each observation stands for, ``(observations,)``."""
        weights = self.fit.weights
        return weights if weights.ndim == 1 else weights[self.fitted_on.answered]

    @cached_property
    def some(self) -> tuple[str, Labelled]:
        """Calibration rows that tell as much as all: their kind, and their observations."""
        if len(self.calibration) <= ALL_ROWS:
            return "calibration", self.calibrated_on
        return "some_rows", Labelled(self.some_rows, self.parent.network)

    @cached_property
    def some_rows(self) -> Rows:
        """Some calibration rows."""
        return self.calibration[torch.linspace(0, len(self.calibration) - 1, SOME_ROWS).long()]

    @cached_property
    def full(self) -> Trunk:
        """The trunk that removes nothing."""
        return Trunk.whole(self.parent.network.units)

    def readouts(self, trunk: Trunk, kind: str) -> Tensor:
        """A trunk's readouts of all rows of a kind, float ``(observations, size)``, on the CPU.

        ``kind``: ``"fit"``, or the name of one of the fields that are rows.
        """
        return self._known((trunk, kind), lambda: self._prepared(kind).run(self._view(trunk)))

    def margins(self, trunk: Trunk, kind: str, label: int, shared: bool) -> Tensor:
        """The parent's margins of a label on :meth:`readouts`, ``(observations,)``.

        ``shared``: whether other labels have the same trunk: then all of them are taken at once.
        """
        readouts = self.readouts(trunk, kind)
        if not (shared or trunk.full):
            return self._odds(readouts, label)
        return self._known((trunk, kind, "margins"), lambda: self._all_odds(readouts))[:, label]

    def picked(
        self, trunk: Trunk, label: int, index: Tensor, shared: bool
    ) -> tuple[Tensor, Tensor]:
        """Readouts and margins of those training observations that a label's heads are fitted on.

        ``shared``: as for :meth:`margins`; then the trunk is run on all rows, once.
        """
        if shared or trunk.full:
            margins = self.margins(trunk, "fit", label, True)
            return self.readouts(trunk, "fit")[index], margins[index]
        if self.parent.network.config.answer.stepwise:
            found = self.readouts(trunk, "fit")[index]
        else:
            rows = self.fit.rows[index]

            def run() -> Tensor:
                batches = Batches.of(rows, self.batch_size, self.parent.network)
                return batches.run(self._view(trunk))

            found = self._known((trunk, "picked", label), run)
        return found, self._odds(found, label)

    def _odds(self, readouts: Tensor, label: int) -> Tensor:
        network = self.parent.network
        with torch.inference_mode():
            logits = network.logits(readouts.to(network.device))
            return network.config.answer.margins(logits, label).cpu()  # type: ignore[no-any-return]

    def _all_odds(self, readouts: Tensor) -> Tensor:
        """Margins of all labels, ``(observations, labels)``."""
        network, found = self.parent.network, []
        with torch.inference_mode():
            for part in readouts.split(2**14):
                logits = network.logits(part.to(network.device))
                found.append(network.config.answer.all_margins(logits).cpu())
        return torch.cat(found)

    def doubts(self, label: int) -> Tensor:
        """How unsure the parent is of each training observation, ``(observations,)``, 0 to 1/2.

        What a fit can learn from an observation goes with it.
        """
        return torch.sigmoid(-self.margins(self.full, "fit", label, True).abs())

    def _prepared(self, kind: str) -> Batches:
        if kind not in self._batches:
            rows = self.fit.rows if kind == "fit" else getattr(self, kind)
            self._batches[kind] = Batches.of(rows, self.batch_size, self.parent.network)
        return self._batches[kind]

    def _view(self, trunk: Trunk) -> Callable[[Rows], Tensor]:
        if trunk not in self._views:
            network = self.parent.network
            most = KEPT // max(sum(weight.numel() for weight in network.parameters()), 1)
            while len(self._views) > most:
                del self._views[next(iter(self._views))]
            self._views[trunk] = fastest(network, trunk)
        return self._views[trunk]

    def _known(self, key: tuple[Any, ...], run: Callable[[], Tensor]) -> Tensor:
        """What was run before, or is run now; the oldest of what is masked is forgotten first."""
        if key not in self._found:
            found = self._found[key] = run()
            held = [(k, t.numel()) for k, t in self._found.items() if not k[0].full]
            total = sum(size for _, size in held)
            for old, size in held:
                if total <= KEPT or old == key:
                    break
                del self._found[old]
                total -= size
            return found
        return self._found[key]

    @cached_property
    def picks(self) -> dict[int, tuple[Tensor, Tensor]]:
        """What :func:`pick_fit_rows` chose."""
        return {}

    @cached_property
    def _batches(self) -> dict[str, Batches]:
        return {}

    @cached_property
    def _views(self) -> dict[Trunk, Callable[[Rows], Tensor]]:
        return {}

    @cached_property
    def _found(self) -> dict[tuple[Any, ...], Tensor]:
        return {}


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
    rows = calibration, report, background, held_out
    found = Material(parent, sample, *rows, Energy(), config.batch_size)
    readouts = found.readouts(found.full, "calibration")
    energies = torch.logsumexp(network.logits(readouts.to(network.device)), dim=1)
    deviation = float(energies.std(correction=0)) if len(energies) > 1 else 1.0
    object.__setattr__(found, "energy", Energy(float(energies.mean()), max(deviation, 1e-6)))
    return found


def pick_fit_rows(material: Material, label: int) -> tuple[Tensor, Tensor]:
    """Training observations that a label's heads are fitted on: so many times as it has own ones.

    Its own first; of the others rather those that the parent doubts, from which a fit learns
    (local case-control sampling: Fithian and Hastie, 2014), and some of all.

    Gives their numbers, and weights that undo the choice.
    """
    if label not in material.picks:
        found = _pick(material, label)
        if len(material.picks) >= PICKS:
            return found
        material.picks[label] = found
    return material.picks[label]


def _pick(material: Material, label: int) -> tuple[Tensor, Tensor]:
    known, weights = material.fitted_on.known, material.fit_weights
    own = material.fitted_on.positive(label)[known]
    rows = known.nonzero()[:, 0]
    mine = int(own.sum())
    most = min(max(TIMES_ITS_OWN * mine, MIN_FIT_ROWS), MAX_FIT_ROWS)
    if len(rows) <= most:
        return rows, weights[rows]
    generator = torch.Generator().manual_seed(label)
    room = min(mine, max(most // 2, most - (len(rows) - mine)))
    picked, undo = [], []
    for side, most_here in ((own, room), (~own, most - room)):
        found = rows[side]
        if len(found) <= most_here:
            picked.append(found)
            undo.append(weights[found])
            continue
        doubt = material.doubts(label)[found].double() + 1e-12
        chance = most_here * (doubt / doubt.sum() + 1 / len(found)) / 2
        chance = chance.clamp(max=1.0)
        drawn = torch.rand(len(found), generator=generator, dtype=torch.float64) < chance
        picked.append(found[drawn])
        undo.append(weights[found[drawn]] / chance[drawn].float())
    order = torch.cat(picked).argsort()
    return torch.cat(picked)[order], torch.cat(undo)[order]


def _numbers(trunk: Trunk) -> int:
    """That were fitted to it."""
    return sum(kernel.numel() for kernel in trunk.windows.values())
