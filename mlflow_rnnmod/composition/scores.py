"""Score strategies: how modules, of one parent or of many, are compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mlflow_rnnmod.answers import Answer
from mlflow_rnnmod.answers.joining import joined
from mlflow_rnnmod.composition.coupling import Coupling
from mlflow_rnnmod.composition.evidence import space_of, why_not
from mlflow_rnnmod.composition.heads import ModuleOutputs
from mlflow_rnnmod.decomposition.module import Module

# What the parent's energy counts beside the open head: usually, and across kinds of answer, where
# it has to tell inputs of different worlds apart; chosen on validation rows (docs/decisions.md).
ENERGY_WEIGHT = 0.5
ENERGY_WEIGHT_ACROSS = 1.0
ENERGY_WEIGHTS = {"open": (ENERGY_WEIGHT, ENERGY_WEIGHT_ACROSS), "hybrid": (0.25, 0.25)}
ENERGY_WEIGHTS |= {"coupled_open": ENERGY_WEIGHTS["open"], "coupled": ENERGY_WEIGHTS["hybrid"]}
# What the open head and the energy count beside what labels that are tied say of one another, where
# no likelihood says more (see Density.beside_ties).
BESIDE_TIES = 0.1


@dataclass(frozen=True)
class ScoreStrategy:
    """How modules' outputs become the scores that a composite compares.

    Args:
        name: as users write it.
        about: one line for people.
        score: from the outputs of some modules of one parent and the composite's parameters to
            scores, ``(modules, rows)``.
        energy: whether it needs a pass of the unmasked parent.
        parts: what the score adds up, ``(parts, modules, rows)``, where rows of all labels can say
            how much each part should count; ``None`` for a score of a single part.
        count: how many parts.
        odds: whether scores are log-odds.
        likelihood: whether the likelihoods' votes are added, one for each input. They need no
            parent, so that the composite adds them; in ``parts`` they are the last.
        network: whether there is anything else in it.
        tied: whether the first part are margins that the composite ties to one another, and adds
            the other parts to (:mod:`~mlflow_rnnmod.composition.coupling`).
    """

    name: str
    about: str
    score: Callable[[ModuleOutputs, Mapping[str, Any]], Tensor]
    energy: bool = False
    parts: Callable[[ModuleOutputs], Tensor] | None = None
    count: int = 1
    odds: bool = False
    likelihood: bool = False
    network: bool = True
    tied: bool = False

    def split(self, outputs: ModuleOutputs, parameters: Mapping[str, Any]) -> Tensor:
        """The parts of the score, ``(parts, modules, rows)``: itself where it has none."""
        return self.score(outputs, parameters)[None] if self.parts is None else self.parts(outputs)


def _own(outputs: ModuleOutputs, parameters: Mapping[str, Any]) -> Tensor:
    return F.logsigmoid(outputs.open_margin)


def _open_parts(outputs: ModuleOutputs) -> Tensor:
    own = F.logsigmoid(outputs.open_margin)
    return torch.stack([own, outputs.standard_energy.expand_as(own)])


def _coupled_parts(outputs: ModuleOutputs) -> Tensor:
    return torch.cat([outputs.margin[None], _open_parts(outputs)])


def _open(outputs: ModuleOutputs, parameters: Mapping[str, Any], name: str = "open") -> Tensor:
    weight = parameters.get("energy_weight", ENERGY_WEIGHTS[name][0])
    return F.logsigmoid(outputs.open_margin) + weight * outputs.standard_energy


def _joint(outputs: ModuleOutputs, parameters: Mapping[str, Any]) -> Tensor:
    base = SCORES[parameters["base"]]
    parts = base.split(outputs, parameters)
    fitted = parts.new_tensor([parameters["scales"][m.label] for m in outputs.modules])
    scales, offset = fitted[:, : len(parts)], fitted[:, -1:]
    return (parts * scales.T[:, :, None]).sum(dim=0) + offset


SCORES: dict[str, ScoreStrategy] = {
    strategy.name: strategy
    for strategy in (
        ScoreStrategy(
            "margin",
            "calibrated log-odds of the label inside its own parent (default for one parent, and "
            "for parents of the same labels)",
            lambda outputs, parameters: outputs.margin,
            odds=True,
        ),
        ScoreStrategy(
            "open",
            "log-probability of the open head plus the parent's standardized energy (default for "
            "parents of different labels where modules have no likelihoods)",
            _open,
            energy=True,
            parts=_open_parts,
            count=2,
        ),
        ScoreStrategy(
            "hybrid",
            "log-probability of the open head, the parent's standardized energy and the label's "
            "likelihood of the input (default for parents of different labels)",
            partial(_open, name="hybrid"),
            energy=True,
            parts=_open_parts,
            count=2,
            likelihood=True,
        ),
        ScoreStrategy(
            "bayes",
            "log-probability of the label inside its parent and its likelihood of the input",
            lambda outputs, _: F.logsigmoid(outputs.margin),
            likelihood=True,
        ),
        ScoreStrategy(
            "coupled",
            "the label's log-probability among all, and a part of hybrid: inside its parent, and "
            "where that knew fewer labels, of these by what the others say of them and leave "
            "(default where all labels of such parents are answered for, or were replaced)",
            _own,
            energy=True,
            parts=_coupled_parts,
            count=3,
            likelihood=True,
            tied=True,
        ),
        ScoreStrategy(
            "coupled_open",
            "the same with a part of open (default for such parents where modules have no "
            "likelihoods)",
            _own,
            energy=True,
            parts=_coupled_parts,
            count=3,
            tied=True,
        ),
        ScoreStrategy(
            "likelihood",
            "the label's likelihood of the input alone, without any network (control)",
            lambda outputs, _: torch.zeros_like(outputs.log_odds),
            likelihood=True,
            network=False,
        ),
        ScoreStrategy(
            "joint",
            "another score with scales and an offset for each module, fitted on joint rows",
            _joint,
            energy=True,
            odds=True,
        ),
        ScoreStrategy(
            "logit",
            "the parent's raw logit (control)",
            lambda outputs, parameters: outputs.logit,
        ),
        ScoreStrategy(
            "probability",
            "the parent's probability, as in the papers (control)",
            lambda outputs, _: torch.sigmoid(outputs.log_odds),
        ),
    )
}


def without_energy(
    strategy: ScoreStrategy, parameters: Mapping[str, Any], labels: Sequence[str]
) -> tuple[ScoreStrategy, list[float] | None]:
    """The part of a score that is the label's own, and by how much the energy counts beside it.

    Gives a strategy for the first part, and a weight for each module; ``None`` where the score has
    nothing to do with the energy.
    """
    if strategy.name in ENERGY_WEIGHTS:
        usual = ENERGY_WEIGHTS[strategy.name][0]
        weights = [float(parameters.get("energy_weight", usual))] * len(labels)
        return replace(strategy, score=_own, energy=False, parts=None), weights
    if strategy.name != "joint" or parameters["base"] not in ENERGY_WEIGHTS:
        return strategy, None

    def own(outputs: ModuleOutputs, given: Mapping[str, Any]) -> Tensor:
        part = _own(outputs, given)
        fitted = part.new_tensor([given["scales"][m.label] for m in outputs.modules])
        return part * fitted[:, :1] + fitted[:, -1:]

    weights = [float(parameters["scales"][label][1]) for label in labels]
    return replace(strategy, score=own, energy=False), weights


def default_score(modules: Sequence[Module]) -> str:
    """``"margin"`` where margins mean the same to all, else what compares different worlds.

    Margins mean the same to all within one parent, without rivals, and between parents of the same
    labels: each was trained against the same others and has met all inputs (``python -m
    benchmarks.paper rq3 clinc_oos --within`` swaps such modules). Else ``"coupled"`` where all is
    there that parents of fewer labels knew; ``"hybrid"`` where it is not, or ``"open"`` where
    modules have no likelihoods that can be compared.
    """
    worlds = {frozenset(module.contract.labels) for module in modules}
    answer = joined(m.contract for m in modules)
    if len(worlds) < 2 or answer is None or not answer.rivals:
        return "margin"
    if answer.stepwise and not answer.each_step:
        return "open"
    if Coupling.of(modules) is not None:
        return "coupled_open" if space_of(modules) is None else "coupled"
    return "open" if space_of(modules, answer.stepwise) is None else "hybrid"


def other_scores(score: str) -> tuple[str, ...]:
    """What rows of all labels may prefer to a default.

    Labels of one parent may be compared best by its own margins, where there are many.
    """
    others = {"hybrid": ("bayes",), "coupled": ("hybrid", "bayes"), "coupled_open": ("open",)}
    return others.get(score, ())


def part_weights(parts: Tensor, score: str, settings: Mapping[str, Any]) -> Tensor:
    """What each part of a score, the last axis, counts where nothing was fitted: ``(parts,)``."""
    weights = parts.new_ones(parts.shape[-1])
    if score in ENERGY_WEIGHTS:
        weights[1] = settings.get("energy_weight", ENERGY_WEIGHTS[score][0])
    return weights


def note_on_default(modules: Sequence[Module], score: str) -> str | None:
    """Why modules that likelihoods would compare are compared without, where they are."""
    without = score in ("open", "coupled_open")
    if not without or all(module.likelihood is None for module in modules):
        return None
    reason = why_not(modules)
    return None if reason is None else f'{reason}: compared by "{score}", without likelihoods'


def check_score(score: str, base: str, answer: Answer, modules: Sequence[Module] = ()) -> None:
    """Whether a score can be what modules are compared by."""
    problem = score_problem(score, base, answer, modules)
    if problem is not None:
        raise ValueError(problem)


def score_problem(
    score: str, base: str, answer: Answer, modules: Sequence[Module] = ()
) -> str | None:
    """Why a score can't be what modules are compared by; ``None`` where it can."""
    if score not in SCORES:
        return f"score={score!r}, expected one of {tuple(SCORES)}."
    under = SCORES[base]
    if not answer.rivals and (base in ENERGY_WEIGHTS or under.likelihood):
        return (
            f'score="{base}" says which label is best; expected "margin", "logit" or "probability" '
            "for labels that have no rivals, each of which is compared with its own threshold."
        )
    if under.tied and modules and Coupling.of(modules) is None:
        return (
            f'score="{base}" ties a label whose parent knew fewer labels than the others to these; '
            "expected modules that answer one label for an input, most of them of one set of "
            "labels, and for each other one modules of that set for the rest of its parent's "
            'labels. Or "hybrid", "open" or "margin".'
        )
    if under.likelihood and answer.stepwise and not answer.each_step:
        return (
            f'score="{base}" is for whole inputs and for tags, and these modules answer '
            'a list; expected "margin", "open", "logit" or "probability".'
        )
    if under.likelihood and modules and (reason := why_not(modules, answer.stepwise)):
        return (
            f'score="{base}" compares likelihoods, but {reason}; expected "open" or "margin", or '
            "modules that were decomposed with likelihood=True from the same kind of input."
        )
    return None


# What pulls scales and offsets back, and steps of L-BFGS at the most.
_PENALTY, _STEPS = 0.1, 200


def fit_joint(
    parts: Tensor,
    targets: Tensor,
    fixed: Tensor | None = None,
    groups: Tensor | None = None,
) -> list[tuple[float, ...]]:
    """Scales and an offset for each module, so that a softmax over scores fits joint rows.

    Convex: multinomial logistic loss plus a penalty that pulls every scale towards its common level
    and every offset to 0, which is what few rows of a label leave them with.

    Args:
        parts: ``(rows, modules)``, or ``(rows, modules, parts)`` for scores that are made of
            several parts, each of which gets a scale.
        targets: int64 ``(rows,)``, the column that is right.
        fixed: what is added to the scores afterwards, ``(rows, modules)``; nothing where missing.
        groups: of the modules, int64 ``(modules,)`` from 0 on: those of one group have the same
            scales and offset. Each module has its own where this is missing.

    Returns:
        for each module its scales, one for each part, and then its offset.
    """
    x = parts.detach().double()
    x = x[..., None] if x.ndim == 2 else x
    centre = x.mean(dim=(0, 1))
    spread = x.flatten(0, 1).std(dim=0, correction=0).clamp(min=1e-6)
    x = (x - centre) / spread
    modules, count = x.shape[1:]
    groups = torch.arange(modules) if groups is None else groups
    # A scale below 0 would turn a module's word around: such scales are fixed at 0 and the rest is
    # fitted again, or offsets would be left that only went with them.
    free = torch.ones(int(groups.max()) + 1, count, dtype=torch.bool)
    added = torch.zeros(()) if fixed is None else fixed.detach()
    while True:
        scale, offset = _fit_free(x, targets, free, groups, added.to(x))
        below = free & (scale < 0)
        if not below.any():
            break
        free &= ~below
    scale = (scale / spread).clamp(min=1e-6)
    shift = offset - (scale * centre).sum(-1)
    found = [(*map(float, scales), float(b)) for scales, b in zip(scale, shift, strict=True)]
    return [found[group] for group in groups.tolist()]


def _fit_free(
    x: Tensor, targets: Tensor, free: Tensor, groups: Tensor, fixed: Tensor
) -> tuple[Tensor, Tensor]:
    """Scales ``(groups, parts)``, 0 where not ``free``, and offsets ``(groups,)``."""
    level = torch.ones(free.shape[1], dtype=x.dtype, requires_grad=True)
    own = torch.zeros(free.shape, dtype=x.dtype, requires_grad=True)
    offset = torch.zeros(len(free), dtype=x.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [level, own, offset], max_iter=_STEPS, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        scale = ((level + own) * free)[groups]
        value = F.cross_entropy((x * scale).sum(-1) + offset[groups] + fixed, targets)
        value = value + _PENALTY * ((own**2).sum() + (offset**2).sum()) / len(groups)
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)  # type: ignore[arg-type]
    return ((level + own) * free).detach(), offset.detach()


def check_scores(scores: Tensor, stepwise: bool) -> None:
    """Whether scores are numbers: of NaN, the first label would be the best.

    ``scores``: ``(rows, modules)``, or ``(rows, steps, modules)`` with NaN behind the last step.
    """
    wrong = scores.isnan()
    if not bool(wrong.any()):
        return
    if stepwise:  # behind the last step all are NaN
        wrong = wrong & ~wrong.all(dim=-1, keepdim=True)
    rows = wrong.flatten(1).any(dim=1).nonzero()
    if len(rows):
        raise ValueError(
            f"The scores of inputs[{int(rows[0])}] are NaN: its numbers are too large for the "
            "network, or the network's weights are not finite. Nothing can be answered."
        )
