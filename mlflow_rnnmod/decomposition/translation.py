"""The decomposition of a translator: one module for each language that it translates into."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from mlflow_rnnmod.decomposition.config import SHARES, DecompositionConfig
from mlflow_rnnmod.decomposition.decompose import Decomposition
from mlflow_rnnmod.decomposition.folding import make_trunk
from mlflow_rnnmod.decomposition.module import Energy, Head, Module, make_contract
from mlflow_rnnmod.decomposition.overlap import overlap_matrix
from mlflow_rnnmod.decomposition.pairs import Pairs, forced_sample
from mlflow_rnnmod.decomposition.right_translations import (
    RightTranslations,
    TranslationScores,
    known_rows,
    written,
)
from mlflow_rnnmod.decomposition.rules import RULES, random_like, removed_units
from mlflow_rnnmod.decomposition.sizing import Progress
from mlflow_rnnmod.decomposition.splitting import HELD_OUT, split_by_hash
from mlflow_rnnmod.decomposition.statistics import ActivationStatistics
from mlflow_rnnmod.decomposition.watching import collect
from mlflow_rnnmod.networks.parent import Parent
from mlflow_rnnmod.networks.rows import Rows
from mlflow_rnnmod.networks.translator.masked_decoder import trunk_decoder
from mlflow_rnnmod.networks.translator.translating import translations
from mlflow_rnnmod.networks.trunk import Trunk

# Sources that sizes are tried on: each takes a translation into every language.
SIZING_ROWS = 1000


def decompose_translator(
    parent: Parent,
    train: Rows | Pairs,
    validation: Rows | Pairs | None = None,
    report: Rows | Pairs | None = None,
    config: DecompositionConfig | None = None,
    progress: Progress | None = None,
) -> Decomposition:
    """Take a translator apart into one module for each language, without retraining.

    A module is a mask over the decoder, with guesses for what is removed folded in, and the
    language's start token. Encoder, bridge, embeddings and output layer are the parent's; there is
    nothing to channel, to refit or to calibrate: of the repairs only ``fold`` does something.

    Args:
        parent: it is read, never changed.
        train: sentences it was trained on. Statistics use at most ``rows_per_label`` translations
            into each language.
        validation: sentences it was not trained on. Without ``report``, half of them, by a seeded
            hash, sizes, and the other half gives every figure. Without validation sentences a fifth
            of the training sentences is held out, and a warning says so.
        report: sentences for the figures alone.
        config: the settings; ``None`` for the defaults. ``removal="auto"`` tries shares of units on
            the mean BLEU of all languages, of which ``tolerance`` points may be lost.
        progress: called with a stage's name, steps done and steps in all.

    Raises:
        TypeError: if the parent is no translator, or its data are no :class:`Pairs`.
        ValueError: if there are no sentences, or ``trunks`` asks for shared ones.
    """
    started = time.perf_counter()
    config = config or DecompositionConfig()
    told: Progress = progress or (lambda stage, done, total: None)
    if config.trunks != "label":
        raise ValueError(
            f'trunks={config.trunks!r}; expected "label": languages are told apart by the decoder '
            "alone, whose pass they can't share."
        )
    given = [
        None if pairs is None else _checked(parent, name, pairs)
        for name, pairs in (("train", train), ("validation", validation), ("report", report))
    ]
    assert given[0] is not None
    train, calibration, figures_pairs, words, warnings = _share_out(
        parent, given[0], given[1], given[2], config
    )
    rule = RULES[config.rule]
    missing = [
        code for code in parent.labels if code not in train.targets or not train.known(code).any()
    ]
    if missing:
        warnings.append(
            f"no training sentences in {missing}: their modules know nothing of their language"
        )
    if rule.histograms and len(parent.labels) == 1:
        warnings.append(
            f"rule {config.rule!r} contrasts a language with the others, and there is one only: "
            "nothing may be removed"
        )
    statistics = collect(
        parent.network,
        forced_sample(draw_pairs(train, config.rows_per_label, config.seed), parent.labels),
        histograms=rule.histograms,
        gradients=rule.gradients,
        variant=config.variant,
        gates=config.gates,
        unrolled_steps=config.unrolled_steps,
        batch_size=config.batch_size,
        progress=partial(told, "watching units"),
    )
    job = _Job(parent, statistics, config, told)
    share, sizing = job.choose(calibration)
    removed = job.removed(share)
    trunks = job.trunks(removed)
    whole = [Trunk.whole(parent.network.units)] * len(trunks)
    right = RightTranslations(parent, figures_pairs)
    of_parent = right.of(job.translated(figures_pairs, whole, "parent"))
    composed = right.of(job.translated(figures_pairs, trunks, "modules"))
    random = of_parent
    if not all(trunk.full for trunk in trunks):
        drawn = [random_like(units, config.seed + i) for i, units in enumerate(removed)]
        random = right.of(job.translated(figures_pairs, job.trunks(drawn), "random control"))
    overlap = overlap_matrix(trunks)
    made = {
        "rule": config.rule,
        "removal": share,
        "seed": config.seed,
        "rows": dict(words),
        "bleu": right.signature,
        "repairs": [repair for repair in config.repairs if repair == "fold"],
    }
    modules = tuple(
        _module(parent, index, trunk, composed, of_parent, overlap, made)
        for index, trunk in enumerate(trunks)
    )
    figures = _figures(modules, composed, of_parent, random, len(figures_pairs))
    return Decomposition(
        parent=parent,
        modules=modules,
        config=config,
        figures={**figures, "removal": share, "trunks": float(len(set(trunks)))},
        sizing=sizing,
        rows=words,
        overlap=overlap,
        warnings=tuple(warnings),
        seconds=time.perf_counter() - started,
        metric="bleu",
    )


def language_trunks(
    removed: Sequence[Mapping[str, Tensor]], statistics: ActivationStatistics, fold: bool
) -> list[Trunk]:
    """The trunk of each language; what is guessed is guessed for each by itself.

    Args:
        removed: for each language, what its trunk leaves out, as :func:`make_trunk` takes it.
        statistics: as :func:`collect` finds them.
        fold: whether to stand in for what is removed.
    """
    return [make_trunk(units, statistics.of(label), fold) for label, units in enumerate(removed)]


@dataclass(frozen=True, eq=False)
class _Job:
    """What every setting that a decomposition tries has in common."""

    parent: Parent
    statistics: ActivationStatistics
    config: DecompositionConfig
    told: Progress

    def removed(self, share: float) -> list[dict[str, Tensor]]:
        """For each language, what its module leaves out."""
        rule, seed = RULES[self.config.rule], self.config.seed
        labels = range(len(self.parent.labels))
        return [removed_units(rule, self.statistics, label, share, seed) for label in labels]

    def trunks(self, removed: Sequence[Mapping[str, Tensor]]) -> list[Trunk]:
        """Trunks of all languages."""
        return language_trunks(removed, self.statistics, "fold" in self.config.repairs)

    def translated(self, pairs: Pairs, trunks: Sequence[Trunk], stage: str) -> list[list[str]]:
        """Translations of all sources into each language through its trunk, as text."""
        translator = self.parent.translator
        # Each language gets its own batch: where sources have translations into few of them.
        return [
            written(
                self.parent,
                translations(
                    translator,
                    pairs.sources[known_rows(pairs, code)],
                    [(trunk_decoder(translator, trunk), translator.config.start_of(code))],
                    progress=partial(self.told, f"translating into {code}: {stage}"),
                )[0],
            )
            for code, trunk in zip(self.parent.labels, trunks, strict=True)
        ]

    def choose(self, pairs: Pairs) -> tuple[float, tuple[dict[str, float], ...]]:
        """The largest share that costs at most the tolerance, and what was tried."""
        config = self.config
        if config.rule == "none":
            return 0.0, ()
        if config.removal != "auto":
            return float(config.removal), ()
        draw = torch.Generator().manual_seed(config.seed)
        pairs = pairs[torch.randperm(len(pairs), generator=draw)[:SIZING_ROWS]]
        right = RightTranslations(self.parent, pairs)
        whole = [Trunk.whole(self.parent.network.units)] * len(self.parent.labels)
        control = right.of(self.translated(pairs, whole, "nothing removed")).mean
        tried: list[dict[str, float]] = []
        for share in sorted(SHARES, reverse=True):
            trunks = self.trunks(self.removed(share))
            bleu = control
            if share:
                bleu = right.of(self.translated(pairs, trunks, f"{share:.0%} removed")).mean
            kept = [self.parent.network.shares_kept(t) for t in trunks]
            tried.append(
                {
                    "removal": share,
                    "trunks": float(len(set(trunks))),
                    "bleu": bleu,
                    "control_bleu": control,
                    "weights_kept": sum(k["weights_kept"] for k in kept) / len(kept),
                }
            )
            if 100 * (control - bleu) <= config.tolerance + 1e-9:
                break
        return share, tuple(tried)


def draw_pairs(pairs: Pairs, per_label: int, seed: int) -> Pairs:
    """A sample with at most ``per_label`` translations into each language, in the data's order.

    Whole sentences are drawn, in the same order for all languages, so that where all languages
    translate the same sentences, their statistics are of the same sentences.
    """
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed))
    taken = torch.zeros(len(pairs), dtype=torch.bool)
    for code in pairs.targets:
        known = pairs.known(code)
        taken[order[known[order]][:per_label]] = True
    found = pairs[taken.nonzero()[:, 0]]
    targets = {}
    for code, rows in found.targets.items():
        assert rows.lengths is not None
        known = found.known(code)
        beyond = known & (known.cumsum(0) > per_label)
        targets[code] = Rows(rows.values, rows.lengths.masked_fill(beyond, 0))
    return Pairs(found.sources, targets, found.references)


def _checked(parent: Parent, name: str, pairs: Rows | Pairs) -> Pairs:
    """The sentences.

    Raises:
        TypeError: if they are none.
        ValueError: if none is translated, or into a language that the parent does not know.
    """
    labels = list(parent.translator.labels)
    if not isinstance(pairs, Pairs):
        raise TypeError(
            f"{name} is a {type(pairs).__name__}; expected Pairs: a translator's data are "
            "sentences with their translations."
        )
    unknown = [code for code in pairs.targets if code not in labels]
    if unknown:
        raise ValueError(f"{name} has translations into {unknown}; expected some of {labels}.")
    if not any(pairs.known(code).any() for code in pairs.targets):
        raise ValueError(f"{name} has no translations; expected some into {labels}.")
    return pairs


def _share_out(
    parent: Parent,
    train: Pairs,
    validation: Pairs | None,
    report: Pairs | None,
    config: DecompositionConfig,
) -> tuple[Pairs, Pairs, Pairs, dict[str, str], list[str]]:
    """Sentences to watch, to size with and to report on, in words who is who, and warnings."""
    warnings = []
    if validation is None:
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(config.seed))
        held = max(int(HELD_OUT * len(train)), 1)
        if held == len(train):
            raise ValueError("train has 1 row; expected at least two, or validation rows as well.")
        validation, train = train[order[:held]], train[order[held:]]
        source = f"{held} training sentences held out (the parent was trained on them)"
        warnings.append(
            f"there are no validation sentences: {held} training sentences are held out. The "
            "parent was trained on them, so figures are too good"
        )
    else:
        source = f"{len(validation)} validation sentences"
    words = {}
    if report is None:
        lengths = parent.network.lengths(validation.sources)
        rows = Rows(validation.sources.values, lengths.cpu())
        first, second = split_by_hash(rows, config.seed, parent.translator.config.side)
        if not first.any() or not second.any():
            first = torch.arange(len(rows)) % 2 == 0
            second = ~first if len(rows) > 1 else first
        calibration, report = validation[first], validation[second]
        words["figures"] = f"the other {len(report)} of {source}, split off by a seeded hash"
    else:
        calibration = validation
        words["figures"] = f"{len(report)} sentences given for the report alone"
    words["calibrated"] = f"sizes tried on {min(len(calibration), SIZING_ROWS)} of {source}"
    words["fitted"] = (
        f"up to {config.rows_per_label} of {len(train)} training sentences for each language"
    )
    return train, calibration, report, words, warnings


def _module(
    parent: Parent,
    index: int,
    trunk: Trunk,
    composed: TranslationScores,
    of_parent: TranslationScores,
    overlap: Tensor,
    made: Mapping[str, object],
) -> Module:
    label, own = parent.labels[index], composed.texts[index]
    others = torch.cat([overlap[index, :index], overlap[index, index + 1 :]])
    same = [a == b for a, b in zip(own, of_parent.texts[index], strict=True)]
    figures = {
        "bleu": composed.bleu[index],
        "parent_bleu": of_parent.bleu[index],
        "agreement": sum(same) / len(same) if same else float("nan"),
        "support": float(len(own)),
        **parent.network.shares_kept(trunk),
        "jaccard": float(others.mean()),
    }
    return Module(
        parent=parent,
        trunk=trunk,
        head=Head(),
        open_head=Head(),
        energy=Energy(),
        contract=make_contract(parent, label, trunk),
        figures=figures,
        made=made,
    )


def _figures(
    modules: Sequence[Module],
    composed: TranslationScores,
    of_parent: TranslationScores,
    random: TranslationScores,
    rows: int,
) -> dict[str, float]:
    """Means over languages; nothing removed is the parent, so that it is the control, too."""
    means = {
        name: sum(m.figures[name] for m in modules) / len(modules)
        for name in ("units_kept", "weights_kept", "recurrent_weights_kept")
    }
    jaccards = [m.figures["jaccard"] for m in modules]
    delta = composed.mean - of_parent.mean
    return {
        "parent_bleu": of_parent.mean,
        "composed_bleu": composed.mean,
        "delta_bleu": delta,
        "control_bleu": of_parent.mean,
        "random_bleu": random.mean,
        "net": delta,
        **means,
        "mean_jaccard": sum(jaccards) / len(jaccards),
        "modules": float(len(modules)),
        "rows": float(rows),
    }
