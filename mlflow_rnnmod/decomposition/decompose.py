"""The whole decomposition: from a trained parent and its data to one module for each label."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor

from mlflow_rnnmod.decomposition.config import DecompositionConfig
from mlflow_rnnmod.decomposition.head_job import HeadJob
from mlflow_rnnmod.decomposition.likelihoods import with_likelihoods
from mlflow_rnnmod.decomposition.module import Module
from mlflow_rnnmod.decomposition.pairs import Pairs
from mlflow_rnnmod.decomposition.routed_job import RoutedJob
from mlflow_rnnmod.decomposition.rules import RULES, random_like
from mlflow_rnnmod.decomposition.sizing import Job, Made, Progress
from mlflow_rnnmod.decomposition.splitting import share_out
from mlflow_rnnmod.decomposition.statistics import ActivationStatistics
from mlflow_rnnmod.decomposition.team import Team
from mlflow_rnnmod.decomposition.watching import collect, moments_of
from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.networks.parent import Parent
from mlflow_rnnmod.networks.trunk import overlap_matrix

# Labels that have pictures, and how many each.
_PICTURED, _EACH = 20, 6
_SHARES_KEPT = ("units_kept", "weights_kept", "recurrent_weights_kept", "multiply_adds_kept")


@dataclass(frozen=True, eq=False)
class Decomposition:
    """A parent's modules, and how good they are.

    Args:
        parent: what was taken apart.
        modules: one for each label, in the order of the parent's labels.
        config: the settings.
        figures: shares from 0 to 1 on the report rows: ``parent_accuracy``; ``composed_accuracy``,
            of all modules together, and ``delta_accuracy``, the difference;
            ``control_accuracy``, of a composite with the same repairs and nothing removed, and
            ``net``, composed minus control: what removal cost; ``random_accuracy``, with as many
            units removed at random; ``bayes_accuracy``, with the modules' likelihoods added, and
            ``likelihood_accuracy``, by these alone, where there are some; with another
            :attr:`metric` its name in the place of ``accuracy``, and for several labels
            ``parent_exact`` and ``composed_exact``; means over
            modules of ``units_kept``, ``weights_kept``, ``recurrent_weights_kept``, of
            convolutions ``multiply_adds_kept``, and ``mean_jaccard``; counts ``modules``, ``rows``,
            ``trunks``; the ``removal`` used; and ``cost``, the estimated passes of the parent that
            all modules together take.
        sizing: the settings that were tried: ``removal``, ``trunks``, ``accuracy``,
            ``control_accuracy``, the standard ``error`` of their difference, ``weights_kept``,
            ``cost``.
        rows: in words, which rows were used for what: ``fitted``, ``calibrated``, ``figures``.
        overlap: Jaccard index of the units kept by every two modules, ``(modules, modules)``.
        warnings: what the user should be told.
        seconds: how long it took.
        metric: what figures and sizing are measured by: ``accuracy``, ``f1`` or ``bleu``.
        timing: seconds of each stage: ``watching``, ``sizing``, ``fitting``, ``controls``,
            ``figures``.
        pictures: by label a few of the rows that give the figures, as PNGs; of inputs that show
            themselves as pictures, and of the first labels.
    """

    parent: Parent
    modules: tuple[Module, ...]
    config: DecompositionConfig
    figures: Mapping[str, float]
    sizing: tuple[Mapping[str, float], ...]
    rows: Mapping[str, str]
    overlap: Tensor
    warnings: tuple[str, ...]
    seconds: float
    metric: str = "accuracy"
    timing: Mapping[str, float] = field(default_factory=dict)
    pictures: Mapping[str, tuple[bytes, ...]] = field(default_factory=dict)


def decompose(
    parent: Parent,
    train: Rows | Pairs,
    validation: Rows | Pairs | None = None,
    report: Rows | Pairs | None = None,
    config: DecompositionConfig | None = None,
    progress: Progress | None = None,
    team: Team | None = None,
) -> Decomposition:
    """Take a trained network apart into one module for each label, without retraining.

    The method is Imtiaz et al. (ICSE 2023), section III: concern identification finds the units
    that a label can do without, channeling makes its output a yes or no. We differ in the ranking
    (``sensitivity``), in composing log-odds, and in repairs fitted on frozen readouts.

    Args:
        parent: it is read, never changed.
        train: rows it was trained on, with targets (see :class:`Rows`); of a translator sentences
            with their translations (see :class:`Pairs`), as for the next two. Statistics and refits
            use at most ``rows_per_label`` of each label.
        validation: rows it was not trained on. Without ``report``, half of them, by a seeded hash,
            sizes and calibrates, and the other half gives every figure. Without validation rows a
            fifth of the training rows is held out, and a warning says so.
        report: rows for the figures alone.
        config: the settings; ``None`` for the defaults.
        progress: called with a stage's name, steps done and steps in all.
        team: processes that watch the sample together; the others call :func:`help_decompose`.

    Raises:
        TypeError: if a translator is given rows, or another network pairs.
        ValueError: if there are no rows, their targets are no indices of the parent's labels, or
            there is no layer ``from_layer``.

    Example:
        >>> import torch
        >>> from mlflow_rnnmod.networks import NetworkConfig, RecurrentNetwork
        >>> structure = NetworkConfig("features", 2, None, "gru", ((8,),), ("a", "b"))
        >>> parent = Parent(RecurrentNetwork(structure))
        >>> rows = Rows(torch.randn(60, 4, 2), targets=torch.arange(60) % 2)
        >>> found = decompose(parent, rows, rows, config=DecompositionConfig(removal=0.25))
        >>> [module.trunk.kept for module in found.modules]
        [6, 6]
    """
    started = time.perf_counter()
    config = config or DecompositionConfig()
    told: Progress = progress or (lambda stage, done, total: None)
    kind = _job_of(parent)
    _check(parent, config)
    given = share_out(parent, kind.examples, train, validation, report, config)
    sample = kind.sample(parent, given.train, config)
    warnings = [*given.warnings, *kind.warnings(parent, given.train, sample, config.rule)]
    watch, before = _watchers(parent, config, told)
    network = parent.network
    statistics = watch(sample) if team is None else team.watch(network, sample, watch, before)
    assert statistics is not None
    job = kind.start(parent, statistics, config, told, sample, given.calibration, given.report)
    clock = _Clock(started, config.max_seconds)
    clock.lap("watching")
    share, groups, sizing = job.choose(clock.late)
    if clock.late():
        told_late = "no larger share was tried" if sizing else "no share was tried"
        warnings.append(f"max_seconds={config.max_seconds:g} were over while sizing: {told_late}")
    warnings += too_few_rows(sizing, share, config, job.metric, given.words)
    clock.lap("sizing")
    made = job.make(job.removed(share, groups), "fitting modules", last=True)
    clock.lap("fitting")
    control = job.reported(job.make(job.removed(0.0, groups), "control"))[job.metric]
    random: float | None = control
    if clock.late():
        random = None
        warnings.append(f"max_seconds={config.max_seconds:g} were over: no random control")
    elif not all(trunk.full for trunk in made.trunks):
        # Labels that share a trunk share a random one too.
        seeds = {label: config.seed + group[0] for group in groups for label in group}
        drawn = [random_like(units, seeds[i]) for i, units in enumerate(made.removed)]
        random = job.reported(job.make(drawn, "random control"))[job.metric]
    clock.lap("controls")
    overlap = overlap_matrix(made.trunks)
    modules = job.modules(made, share, given.words, overlap)
    if config.likelihood and job.answer.scored:
        modules = with_likelihoods(modules, given.train, given.calibration)
        told("likelihoods", 1, 1)
    figures = {
        **_figures(job, made, modules),
        f"control_{job.metric}": control,
        **({} if random is None else {f"random_{job.metric}": random}),
        **job.likely(made, modules),
        "removal": share,
        "trunks": float(len(set(made.trunks))),
        **job.cost(made.trunks),
        **(job.isolated_cost(share) if share > 0 and len(groups) < len(parent.labels) else {}),
    }
    figures["net"] = figures[f"composed_{job.metric}"] - control
    clock.lap("figures")
    warnings += broken_promise(figures["net"], share, config, given.words)
    return Decomposition(
        parent=parent,
        modules=modules,
        config=config,
        figures=figures,
        sizing=sizing,
        rows=given.words,
        overlap=overlap,
        warnings=tuple(warnings),
        seconds=time.perf_counter() - started,
        metric=job.metric,
        timing=clock.laps,
        pictures=_pictures(parent, given.report),
    )


class _Clock:
    """How long each stage took, and whether the time that was given is over."""

    def __init__(self, started: float, most: float | None) -> None:
        self.started, self.most, self.laps = started, most, dict[str, float]()

    def lap(self, stage: str) -> None:
        """A stage has ended."""
        spent = time.perf_counter() - self.started
        self.laps[stage] = spent - sum(self.laps.values())

    def late(self) -> bool:
        """Whether it is over."""
        return self.most is not None and time.perf_counter() - self.started > self.most


def help_decompose(
    team: Team,
    parent: Parent,
    train: Rows | Pairs,
    validation: Rows | Pairs | None = None,
    report: Rows | Pairs | None = None,
    config: DecompositionConfig | None = None,
) -> None:
    """What other processes do while the first one decomposes: watch their share of the sample."""
    config, kind = config or DecompositionConfig(), _job_of(parent)
    given = share_out(parent, kind.examples, train, validation, report, config)
    watch, before = _watchers(parent, config, lambda stage, done, total: None)
    team.watch(parent.network, kind.sample(parent, given.train, config), watch, before)


def _check(parent: Parent, config: DecompositionConfig) -> None:
    """Raises where the settings do not suit the network."""
    layers = len(parent.network.layers)
    if config.from_layer >= layers:
        raise ValueError(
            f"from_layer={config.from_layer}, expected 0 to {layers - 1}: the network has {layers} "
            "layers."
        )
    if RULES[config.rule].published and parent.network.ranks_together:
        raise ValueError(
            f"rule={config.rule!r}: the published code switches single positions of convolutions "
            "off, of which no module can be made that saves anything; expected another rule. "
            "`python -m benchmarks.paper rq1 --rules reference` compares with it."
        )


def broken_promise(
    net: float, share: float, config: DecompositionConfig, words: Mapping[str, str]
) -> list[str]:
    """What to say where removal cost more on the report rows than it was chosen to cost at most.

    ``net``: composed minus control, as shares, on the report rows.
    """
    if config.removal != "auto" or -100 * net <= config.tolerance:
        return []
    return [
        f"removing {100 * share:g} % of the units cost {-100 * net:.1f} points on "
        f"{words['figures']}; on {words['calibrated']} it was chosen to cost at most "
        f"{config.tolerance:g}. With more rows to choose on, a smaller removal= or tolerance= it "
        "would cost less"
    ]


def too_few_rows(
    sizing: Sequence[Mapping[str, float]],
    share: float,
    config: DecompositionConfig,
    metric: str,
    words: Mapping[str, str],
) -> list[str]:
    """What to say where more would have been removed, had there been rows to tell what it costs."""
    unsure = []
    for tried in sizing:
        lost = 100 * (tried[f"control_{metric}"] - tried[metric])
        error = 100 * tried.get("error", 0.0)
        if tried["removal"] > share and lost <= config.tolerance < lost + error:
            unsure.append((tried["removal"], lost, error))
    if config.removal != "auto" or not unsure:
        return []
    removal, lost, error = min(unsure)
    return [
        f"removing {100 * removal:g} % of the units cost {lost:.1f} points on "
        f"{words['calibrated']}, give or take {error:.1f}: these rows can't tell whether it costs "
        f"more than {config.tolerance:g}, so {100 * share:g} % were removed. More validation rows, "
        "or a larger tolerance=, remove more"
    ]


def _job_of(parent: Parent) -> type[HeadJob | RoutedJob]:
    """How modules of this parent are made."""
    return HeadJob if parent.network.config.answer.scored else RoutedJob


def _watchers(
    parent: Parent, config: DecompositionConfig, told: Progress
) -> tuple[Callable[..., ActivationStatistics], Callable[..., ActivationStatistics] | None]:
    """What gives the statistics that a rule needs of some rows, and what it must know before."""
    rule = RULES[config.rule]
    before = None
    if rule.gradients and parent.network.ranks_together:
        before = partial(moments_of, parent.network, batch_size=config.batch_size)
    watch = partial(
        collect,
        parent.network,
        histograms=rule.histograms,
        gradients=rule.gradients,
        variant=config.variant,
        gates=config.gates,
        unrolled_steps=config.unrolled_steps,
        exact=rule.published,
        last_step=rule.published,
        batch_size=config.batch_size,
        progress=partial(told, "watching units"),
    )
    return watch, before


def _pictures(parent: Parent, rows: Any) -> dict[str, tuple[bytes, ...]]:
    """A few rows of each label that can be looked at."""
    found: dict[str, tuple[bytes, ...]] = {}
    if not isinstance(rows, Rows) or rows.targets is None or not len(rows):
        return found
    if parent.input.picture(rows.values[0], parent.encoder) is None:
        return found
    for number, label in enumerate(parent.labels[:_PICTURED]):
        own = parent.network.config.answer.positive(rows.targets, number).nonzero()[:_EACH, 0]
        shown = [parent.input.picture(rows.values[i], parent.encoder) for i in own.tolist()]
        found[label] = tuple(each for each in shown if each is not None)
    return found


def _figures(job: Job, made: Made, modules: tuple[Module, ...]) -> dict[str, float]:
    parents, composed = job.parent_reported, job.reported(made)
    means = {
        name: sum(m.figures[name] for m in modules) / len(modules)
        for name in (*_SHARES_KEPT, "jaccard")
        if name in modules[0].figures
    }
    means["mean_jaccard"] = means.pop("jaccard")
    return {
        **{f"parent_{name}": value for name, value in parents.items()},
        **{f"composed_{name}": value for name, value in composed.items()},
        **{f"delta_{name}": value - parents[name] for name, value in composed.items()},
        **means,
        "modules": float(len(modules)),
        "rows": float(job.rows),
    }
