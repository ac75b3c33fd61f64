"""Folding: what stands in for a removed unit, from the units that stay, where that helps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mlflow_rnnmod.decomposition.material import Material
from mlflow_rnnmod.decomposition.repairs import calibrated_losses
from mlflow_rnnmod.decomposition.statistics import RIDGE, ActivationStatistics, LayerStatistics
from mlflow_rnnmod.networks.parts import split_name, stacked
from mlflow_rnnmod.networks.trunk import Trunk


def make_trunk(
    removed: Mapping[str, Tensor], statistics: ActivationStatistics, fold: bool
) -> Trunk:
    """The trunk that leaves out ``removed`` (bool ``(units,)`` by layer), guessed for if ``fold``.

    Guesses come from the valid steps of the whole sample, never from one label's rows, so that a
    trunk depends on its mask alone. Where steps are told apart a unit's mean at that step stands in
    for it, where gates are, what makes the gate sit at its mean.

    ``removed``: by the names of the statistics; steps that nobody saw are left out.
    """
    kinds = [split_name(name) for name in removed]
    unrolled = any(step is not None for _, step, _ in kinds)
    separate = any(gate is not None for *_, gate in kinds)
    if unrolled:
        first = next(layer for layer, step, _ in kinds if step is not None)
        seen = {s for n, (layer, s, _) in zip(removed, kinds, strict=True)
                if layer == first and statistics.layers[n].count > 0}  # fmt: skip
        last = max((s for s in seen if s is not None), default=0)
        removed = {n: m for n, m in removed.items() if (split_name(n)[1] or 0) <= last}
    keep = stacked({name: ~mask for name, mask in removed.items()}, statistics.groups)
    variant, gates = "unrolled" if unrolled else "rolled", "separate" if separate else "joint"
    if not fold:
        return Trunk(keep, variant=variant, gates=gates)
    if unrolled or separate:
        constants = {
            name: _constant(statistics, name, statistics.layers[name].mean).float()
            for name in removed
        }
        return Trunk(keep, stacked(constants, statistics.groups), variant=variant, gates=gates)
    constants, weights = {}, {}
    for name, mask in keep.items():
        constants[name], weights[name] = best_guess(statistics.layers[name], mask)
    return Trunk(keep, constants, weights)


def make_trunks(
    removed: Sequence[Mapping[str, Tensor]], statistics: ActivationStatistics, fold: bool
) -> list[Trunk]:
    """:func:`make_trunk` of each; labels that share what is removed share the trunk."""
    made = {id(units): units for units in removed}
    trunks = {key: make_trunk(units, statistics, fold) for key, units in made.items()}
    return [trunks[id(units)] for units in removed]


def _constant(statistics: ActivationStatistics, name: str, mean: Tensor) -> Tensor:
    """What stands in for a removed unit or gate: its mean, or what goes in where that comes out."""
    group, gate = statistics.group(name), split_name(name)[2]
    return mean if gate is None else group.gates[group.gate(gate)].reaching(mean)


def best_guess(statistics: LayerStatistics, keep: Tensor) -> tuple[Tensor, Tensor]:
    """The linear guess of removed units' outputs with the least squared error (ridge regression).

    A unit's best linear guess from the kept units costs no more to run than its mean, since both
    fold into weights that are there already, and takes away most of the damage (``python -m
    benchmarks.paper``, rows with and without ``fold``).

    Gives constants ``(units,)`` and weights ``(units, units)``, as :class:`Trunk` takes them.
    """
    units = len(keep)
    mean, covariance = statistics.mean, statistics.covariance
    if keep.all():
        return torch.zeros(units), torch.zeros(units, units)
    inner = covariance[keep][:, keep]
    ridge = RIDGE * inner.diagonal().mean().clamp(min=1e-12)
    inner = inner + ridge * torch.eye(len(inner), dtype=inner.dtype)
    found = torch.linalg.solve(inner, covariance[keep][:, ~keep]).T
    # The constants must fit the weights as they will be kept.
    found = found.to(torch.float16).double()
    rows = torch.zeros(units, units, dtype=torch.float64)
    rows[~keep[:, None] & keep[None, :]] = found.flatten()
    constants = torch.where(keep, 0.0, mean - rows @ mean)
    return constants.float(), rows.float()


# About so many labels are looked at, and such with trunks of their own: whether guesses help is a
# matter of the network more than of a label.
LABELS, APART = 10, 4
# Share of the loss by which guesses must do worse, and standard errors of the difference, too: less
# than that is chance, the more so where labels have few rows.
CLEARLY, ERRORS = 0.01, 2.0


def guarded_trunks(
    material: Material,
    statistics: ActivationStatistics,
    removed: Sequence[Mapping[str, Tensor]],
    repairs: Sequence[str],
) -> tuple[list[Trunk], tuple[str, ...]]:
    """A trunk for each label, folded unless that clearly raises the log-loss on calibration rows.

    A guess that is right on average can still lead a network astray step after step, as it did a
    tanh RNN that answers with lists of toxicity labels, where others gain by guesses.

    ``removed``: for each label what its trunk leaves out, as :func:`make_trunk` takes it; gives the
    trunks, and the repairs without ``"fold"`` where it does not help.
    """
    plain = make_trunks(removed, statistics, fold=False)
    if "fold" not in repairs:
        return plain, tuple(repairs)
    folded = [material.refitted(trunk) for trunk in make_trunks(removed, statistics, fold=True)]
    if all(trunk.full for trunk in folded):
        return folded, tuple(repairs)
    with_guesses, without = _losses(material, folded), _losses(material, plain)
    more = with_guesses - without
    error = float(more.std(correction=0)) / max(len(more), 1) ** 0.5
    if float(more.mean()) <= max(CLEARLY * float(without.mean()), ERRORS * error):
        return folded, tuple(repairs)
    return plain, tuple(name for name in repairs if name != "fold")


def _losses(material: Material, trunks: Sequence[Trunk]) -> Tensor:
    """Calibrated log-losses of some calibration observations, added up over some labels."""
    kind, truth = material.some
    known, shared = truth.known, len(set(trunks)) < len(trunks)
    labels = range(0, len(trunks), max(1, len(trunks) // (LABELS if shared else APART)))
    margins = [material.margins(trunks[y], kind, y, shared)[known] for y in labels]
    positive = [truth.positive(y)[known] for y in labels]
    return calibrated_losses(torch.stack(margins), torch.stack(positive)).sum(0)
