"""The whole decomposition: from a trained parent and its data to one module for each label."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from mlflow_rnnmod.answers import Labelled, Sample
from mlflow_rnnmod.decomposition.config import DecompositionConfig
from mlflow_rnnmod.decomposition.fitting import (
    FittedHeads,
    Material,
    prepare_material,
    report_table,
)
from mlflow_rnnmod.decomposition.module import Module, make_contract
from mlflow_rnnmod.decomposition.overlap import overlap_matrix
from mlflow_rnnmod.decomposition.pairs import Pairs
from mlflow_rnnmod.decomposition.rules import RULES, random_like
from mlflow_rnnmod.decomposition.sharing import estimated_cost
from mlflow_rnnmod.decomposition.sizing import Job, Progress
from mlflow_rnnmod.decomposition.splitting import share_out
from mlflow_rnnmod.decomposition.statistics import ActivationStatistics
from mlflow_rnnmod.decomposition.team import Team
from mlflow_rnnmod.decomposition.watching import collect
from mlflow_rnnmod.networks.parent import Parent
from mlflow_rnnmod.networks.rows import Rows
from mlflow_rnnmod.networks.trunk import Trunk


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
            units removed at random; with another :attr:`metric` its name in the place of
            ``accuracy``, and for several labels ``parent_exact`` and ``composed_exact``; means over
            modules of ``units_kept``, ``weights_kept``,
            ``recurrent_weights_kept``, and ``mean_jaccard``; counts ``modules``, ``rows``,
            ``trunks``; the ``removal`` used; and ``cost``, the estimated passes of the parent that
            all modules together take.
        sizing: the settings that were tried: ``removal``, ``trunks``, ``accuracy``,
            ``control_accuracy``, ``weights_kept``, ``cost``.
        rows: in words, which rows were used for what: ``fitted``, ``calibrated``, ``figures``.
        overlap: Jaccard index of the units kept by every two modules, ``(modules, modules)``.
        warnings: what the user should be told.
        seconds: how long it took.
        metric: what figures and sizing are measured by: ``accuracy``, ``f1`` or ``bleu``.
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
        ValueError: if there are no rows, or their targets are no indices of the parent's labels.

    Example:
        >>> from mlflow_rnnmod.networks import NetworkConfig, RecurrentNetwork
        >>> structure = NetworkConfig("features", 2, None, "gru", ((8,),), ("a", "b"))
        >>> parent = Parent(RecurrentNetwork(structure))
        >>> rows = Rows(torch.randn(60, 4, 2), targets=torch.arange(60) % 2)
        >>> found = decompose(parent, rows, rows, config=DecompositionConfig(removal=0.25))
        >>> [module.trunk.kept for module in found.modules]
        [6, 6]
    """
    if parent.translates:
        from mlflow_rnnmod.decomposition.translation import decompose_translator

        return decompose_translator(parent, train, validation, report, config, progress)
    started = time.perf_counter()
    config = config or DecompositionConfig()
    told: Progress = progress or (lambda stage, done, total: None)
    network, labels = parent.network, parent.labels
    train, calibration, figures_rows, words, warnings = share_out(
        parent, train, validation, report, config
    )
    sample = _drawn(parent, train, config)
    seen = Labelled(sample.rows, network)
    missing = [label for i, label in enumerate(labels) if not seen.positive(i).any()]
    if missing:
        warnings.append(
            f"no training rows for {missing}: their modules know nothing of their label"
        )
    watch = _watcher(parent, config, told)
    statistics = watch(sample) if team is None else team.watch(network, sample, watch)
    assert statistics is not None
    material = prepare_material(parent, sample, calibration, figures_rows, config)
    job = Job(material, statistics, config, told)
    share, groups, sizing = job.choose()
    removed = job.removed(share, groups)
    trunks, heads = job.fit(removed, "fitting modules", open_head=True)
    control = job.measure(job.fit(job.removed(0.0, groups), "control", open_head=False)[1])
    none_removed = all(trunk.full for trunk in trunks)
    # Labels that share a trunk share a random one too.
    seeds = {label: config.seed + group[0] for group in groups for label in group}
    drawn = [random_like(units, seeds[i]) for i, units in enumerate(removed)]
    random = (
        control
        if none_removed
        else job.measure(job.fit(drawn, "random control", open_head=False)[1])
    )
    overlap = overlap_matrix(trunks)
    modules = _modules(material, trunks, heads, config, share, words, overlap)
    figures = {
        **_figures(material, modules, heads, overlap),
        f"control_{job.metric}": control,
        f"random_{job.metric}": random,
        "removal": share,
        "trunks": float(len(set(trunks))),
        "cost": estimated_cost(network, trunks),
    }
    figures["net"] = figures[f"composed_{job.metric}"] - control
    return Decomposition(
        parent=parent,
        modules=modules,
        config=config,
        figures=figures,
        sizing=sizing,
        rows=words,
        overlap=overlap,
        warnings=tuple(warnings),
        seconds=time.perf_counter() - started,
        metric=job.metric,
    )


def help_decompose(
    team: Team,
    parent: Parent,
    train: Rows | Pairs,
    validation: Rows | Pairs | None = None,
    report: Rows | Pairs | None = None,
    config: DecompositionConfig | None = None,
) -> None:
    """What other processes do while the first one decomposes: watch their share of the sample.

    Args:
        team: as the first process has it.
        parent: the same network; and the same data and settings as in :func:`decompose`.
        train: see there.
        validation: see there.
        report: see there.
        config: see there.
    """
    if parent.translates or not isinstance(train, Rows):
        return  # the first process does that alone
    config = config or DecompositionConfig()
    train = share_out(parent, train, validation, report, config)[0]
    watch = _watcher(parent, config, lambda stage, done, total: None)
    team.watch(parent.network, _drawn(parent, train, config), watch)


def _drawn(parent: Parent, train: Rows, config: DecompositionConfig) -> Sample:
    answer, published = parent.network.config.answer, RULES[config.rule].published
    return answer.draw(train, len(parent.labels), config.rows_per_label, config.seed, published)


def _watcher(
    parent: Parent, config: DecompositionConfig, told: Progress
) -> Callable[[Sample], ActivationStatistics]:
    """What gives the statistics that a rule needs of some rows."""
    rule = RULES[config.rule]
    return partial(
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


def _modules(
    material: Material,
    trunks: list[Trunk],
    heads: list[FittedHeads],
    config: DecompositionConfig,
    share: float,
    words: Mapping[str, str],
    overlap: Tensor,
) -> tuple[Module, ...]:
    parent, truth = material.parent, material.reported_on
    answer = parent.network.config.answer
    answers, right = answer.said(report_table(heads), truth)
    parents, _ = answer.said(_parent_scores(material), truth)
    made = {
        "rule": config.rule,
        "removal": share,
        "seed": config.seed,
        "rows": dict(words),
    }
    modules = []
    for index, (label, trunk, fitted) in enumerate(zip(parent.labels, trunks, heads, strict=True)):
        others = torch.cat([overlap[index, :index], overlap[index, index + 1 :]])
        figures = {
            **label_figures(answers[:, index], right[:, index]),
            "agreement": float((answers[:, index] == parents[:, index]).double().mean()),
            **parent.network.shares_kept(trunk),
            "jaccard": float(others.mean()),
        }
        modules.append(
            Module(
                parent=parent,
                trunk=trunk,
                head=fitted.head,
                open_head=fitted.open_head,
                energy=material.energy,
                contract=replace(make_contract(parent, label), mask_steps=trunk.steps),
                figures=figures,
                made={**made, "repairs": list(fitted.kept)},
            )
        )
    return tuple(modules)


def label_figures(answered: Tensor, truth: Tensor) -> dict[str, float]:
    """Precision, recall, F1, accuracy and support of yes-or-no answers, bool ``(rows,)``.

    Precision is 0 where nothing was answered, recall where there is nothing to find.
    """
    hits = float((answered & truth).sum())
    precision = hits / max(float(answered.sum()), 1.0)
    recall = hits / max(float(truth.sum()), 1.0)
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / max(precision + recall, 1e-12),
        "accuracy": float((answered == truth).double().mean()),
        "support": float(truth.sum()),
    }


def _parent_scores(material: Material) -> Tensor:
    """The parent's own logits on the report rows, ``(observations, labels)``, on the CPU."""
    parent = material.parent
    return parent.network.logits(material.whole.report.to(parent.device)).cpu()


def _figures(
    material: Material, modules: tuple[Module, ...], heads: list[FittedHeads], overlap: Tensor
) -> dict[str, float]:
    truth = material.reported_on
    answer = material.parent.network.config.answer
    parents = answer.measure(_parent_scores(material), truth)
    composed = answer.measure(report_table(heads), truth)
    means = {
        name: sum(m.figures[name] for m in modules) / len(modules)
        for name in ("units_kept", "weights_kept", "recurrent_weights_kept", "jaccard")
        if name in modules[0].figures
    }
    means["mean_jaccard"] = means.pop("jaccard")
    return {
        **{f"parent_{name}": value for name, value in parents.items()},
        **{f"composed_{name}": value for name, value in composed.items()},
        **{f"delta_{name}": value - parents[name] for name, value in composed.items()},
        **means,
        "modules": float(len(modules)),
        "rows": float(len(truth.rows)),
    }
