"""What a decoder's units do for each target language: one pass over right translations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from mlflow_rnnmod.decomposition.counting import Counter
from mlflow_rnnmod.decomposition.folding import RIDGE
from mlflow_rnnmod.decomposition.layers import GATE_NAMES, layer_name
from mlflow_rnnmod.decomposition.pairs import Pairs, forced_tokens
from mlflow_rnnmod.decomposition.statistics import (
    ActivationStatistics,
    LayerStatistics,
    to_bins,
)
from mlflow_rnnmod.decomposition.translation_watch import Watched, watch_decoder
from mlflow_rnnmod.networks.recurrent.config import GATES
from mlflow_rnnmod.networks.translator.decoder import picked
from mlflow_rnnmod.networks.translator.network import Translator

# Numbers of logits that are held at once.
_HELD = 2**25
# Gates that pass a tanh; the others pass a sigmoid.
_TANH = "gn"


@dataclass(frozen=True, eq=False)
class LanguageStatistics(LayerStatistics):
    """Statistics whose labels are languages: positives are a language's own translations.

    Negatives are those of all the others. The right translation of another language owes nothing
    to a module that is never told its start token, so only the own one's gradients count, and what
    is guessed of removed units is guessed as well as it can be for the own language.

    Args:
        counts: observations of each language that guesses are made from, ``(labels,)``. With one
            mask for all steps the decoder's first state is one, too: its units are guessed alike.
        totals: sums of each unit's output over them, ``(labels, units)``.
        squares: sums of products of every two units' outputs, ``(labels, units, units)``; None
            where steps or gates are told apart.
    """

    counts: Tensor = field(default_factory=lambda: torch.zeros(0))
    totals: Tensor = field(default_factory=lambda: torch.zeros(0))
    squares: Tensor | None = None

    def sensitivity(self, label: int) -> Tensor:
        """Mean squared gradient of the right translations' mean log-likelihood, ``(units,)``."""
        assert self.squared is not None
        return self.squared[0, label] / self.observed[0, label].clamp(min=1)

    def harm(self, label: int) -> Tensor:
        """Sensitivity times what the other units can't guess of a unit, as a variance.

        That is what its removal changes, squared, to first order. On Tatoeba (GRU, 20 % of the
        units) removal costs 1.2 points of BLEU by it, 3.4 at random (``python -m benchmarks.paper
        rq1 tatoeba --cell gru --removal 0.2``). Sensitivity alone remains where steps or gates are
        told apart: their units are not guessed from others.
        """
        sensitivity, own = self.sensitivity(label), self.of(label)
        if own.products is None:
            return sensitivity
        covariance = own.covariance
        ridge = RIDGE * covariance.diagonal().mean().clamp(min=1e-12)
        inverse = torch.linalg.inv(covariance + ridge * torch.eye(len(covariance)).double())
        return sensitivity / inverse.diagonal().clamp(min=1e-30)

    def merge(self, other: LayerStatistics) -> LanguageStatistics:
        """The statistics of both parts together."""
        merged: dict[str, Any] = {}
        for f in fields(self):
            mine, others = getattr(self, f.name), getattr(other, f.name)
            merged[f.name] = None if mine is None else mine + others
        return LanguageStatistics(**merged)

    def of(self, label: int) -> LanguageStatistics:
        """The same, with means and covariances of one language's own translations.

        Those of all languages, where there is none in this one.
        """
        if not self.counts[label] > 0:
            return self
        products = None if self.squares is None else self.squares[label]
        return replace(self, count=self.counts[label], total=self.totals[label], products=products)


def for_language(statistics: ActivationStatistics, label: int) -> ActivationStatistics:
    """What guesses for one language's module are made from."""
    layers = {
        name: found.of(label) if isinstance(found, LanguageStatistics) else found
        for name, found in statistics.layers.items()
    }
    return replace(statistics, layers=layers)


def collect_translations(
    translator: Translator,
    pairs: Pairs,
    *,
    histograms: bool = True,
    gradients: bool = True,
    variant: str = "rolled",
    gates: str = "joint",
    unrolled_steps: int = 32,
    batch_size: int = 512,
    progress: Callable[[int, int], None] | None = None,
) -> ActivationStatistics:
    """Watch every unit of the decoder on the right translations into all languages.

    The decoder is told each right token (teacher forcing). An observation is a step that is
    answered by a token of the translation or by its end.

    Args:
        translator: unmasked; it is not changed.
        pairs: sources, and their translations into the translator's languages.
        histograms: keep histograms of ``|h|`` (the paper's rule needs them).
        gradients: keep squared gradients of each translation's mean token log-likelihood: a pass
            backward for each language. They are total: through later steps and layers.
        variant: ``"unrolled"`` keeps the statistics of each step by itself, counted from the first
            step of the decoder.
        gates: ``"separate"`` keeps those of each gate's activation, in the place of outputs.
        unrolled_steps: so many steps are told apart at the most; later ones count as the last.
        batch_size: rows run at once, and fewer where the vocabulary is large.
        progress: called with rows done and rows in all.

    Raises:
        ValueError: if there is no translation.
    """
    found = [rows.lengths for rows in pairs.targets.values() if rows.lengths is not None]
    longest = max((int(lengths.max()) for lengths in found if len(lengths)), default=0)
    if longest == 0:
        raise ValueError("pairs has no translations; expected some, with at least one token.")
    steps = min(longest + 1, unrolled_steps) if variant == "unrolled" else None
    pass_ = _Pass(translator, histograms, gradients, steps, gates == "separate")
    # Rows of one length stay together: less padding.
    order = torch.stack([lengths.cpu() for lengths in found]).amax(dim=0).argsort(stable=True)
    pairs = pairs[order]
    if gradients:
        most = _HELD // (translator.config.target_size * (longest + 1))
        batch_size = max(min(batch_size, most), 1)
    for start in range(0, len(pairs), batch_size):
        pass_.run(pairs[start : start + batch_size])
        if progress:
            progress(min(start + batch_size, len(pairs)), len(pairs))
    return pass_.statistics()


class _Pass:
    """Sums over all batches, by part of a layer and language."""

    def __init__(
        self,
        translator: Translator,
        histograms: bool,
        gradients: bool,
        steps: int | None,
        separate: bool,
    ) -> None:
        self.translator, self.labels = translator, len(translator.labels)
        self.histograms, self.gradients = histograms, gradients
        self.steps, self.separate = steps, separate
        self.bounded = translator.config.cell != "rnn_relu"
        self.sums: dict[str, LanguageStatistics] = {}
        self.counters: dict[str, Counter] = {}

    @torch.no_grad()
    def run(self, pairs: Pairs) -> None:
        """Add a batch."""
        translator, device = self.translator, self.translator.device
        states = translator.encode(pairs.sources.to(device))
        for label, code in enumerate(translator.labels):
            if code not in pairs.targets:
                continue
            known = pairs.known(code).nonzero()[:, 0].to(device)
            if not len(known):
                continue
            rows = pairs.targets[code].to(device)[known]
            given, wanted, valid = forced_tokens(translator.config, code, rows)
            mine = picked(states, known)
            watched = watch_decoder(
                translator, mine, given, wanted, valid, self.separate, self.gradients
            )
            for name, values, squared in self._views(watched, valid):
                self._add(name, label, values, squared)
            if self.steps is None and not self.separate:
                for name, state in zip(watched, mine, strict=True):
                    self._fold(name, label, state[0])

    def _views(
        self, watched: dict[str, Watched], valid: Tensor
    ) -> Iterator[tuple[str, Tensor, Tensor | None]]:
        """Observations ``(observations, units)`` of each part of a layer, and their squares."""
        number = torch.arange(valid.shape[1], device=valid.device).expand(valid.shape)[valid]
        cell = self.translator.config.cell
        for name, seen in watched.items():
            values = seen.values[valid]
            squared = None if seen.squared is None else seen.squared[valid]
            parts: list[tuple[str | None, Tensor, Tensor | None]] = [(None, values, squared)]
            if self.separate:
                letters = GATE_NAMES[cell]
                parts = [
                    (
                        letter,
                        _activation(cell, letter, values[:, i]),
                        None if squared is None else squared[:, i],
                    )
                    for i, letter in enumerate(letters)
                ]
            for gate, own, slope in parts:
                if self.steps is None:
                    yield layer_name(name, gate=gate), own, slope
                    continue
                for t in range(self.steps):
                    here = number == t if t + 1 < self.steps else number >= t
                    part = None if slope is None else slope[here]
                    yield layer_name(name, t, gate), own[here], part

    def _add(self, name: str, label: int, values: Tensor, squared: Tensor | None) -> None:
        units = values.shape[1]
        if name not in self.sums:
            joint = self.steps is None and not self.separate
            self.sums[name] = _nothing(self.labels, units, joint, self.gradients)
            self.counters[name] = Counter(self.labels, units)
        self._fold(name, label, values)
        sums = self.sums[name]
        sums.observed[0, label] += len(values)
        sums.active[0, label] += (values > 0).double().sum(0).cpu()
        if sums.squared is not None and squared is not None:
            sums.squared[0, label] += squared.double().sum(0).cpu()
        if self.histograms:
            places = to_bins(values, self.bounded)
            side = torch.full((len(values),), label, device=values.device)
            self.counters[name].add(places, torch.stack([side, side]))

    def _fold(self, name: str, label: int, values: Tensor) -> None:
        """Observations that guesses are made from."""
        sums = self.sums[name]
        sums.counts[label] += len(values)
        sums.totals[label] += values.sum(0).double().cpu()
        if sums.squares is not None:
            sums.squares[label] += (values.T @ values).double().cpu()

    def statistics(self) -> ActivationStatistics:
        """Everything, with the negatives: what belongs to all other languages."""
        layers = {}
        for name, sums in self.sums.items():
            histogram = None
            if self.histograms:
                histogram = _with_others(self.counters[name].total(self.labels).cpu().clone())
            layers[name] = replace(
                sums,
                count=sums.counts.sum(),
                total=sums.totals.sum(0),
                products=None if sums.squares is None else sums.squares.sum(0),
                observed=_with_others(sums.observed),
                active=_with_others(sums.active),
                histogram=histogram,
            )
        return ActivationStatistics(layers, self.bounded)


def _with_others(sums: Tensor) -> Tensor:
    """Sums ``(2, labels, ...)`` of positives, with those of negatives in the second place."""
    own = sums[0]
    return torch.stack([own, own.sum(dim=0, keepdim=True) - own])


def _nothing(labels: int, units: int, joint: bool, gradients: bool) -> LanguageStatistics:
    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.float64)

    return LanguageStatistics(
        count=zeros(),
        total=zeros(units),
        products=None,
        observed=torch.zeros(2, labels, dtype=torch.int64),
        active=zeros(2, labels, units),
        histogram=None,
        squared=zeros(2, labels, units) if gradients else None,
        counts=zeros(labels),
        totals=zeros(labels, units),
        squares=zeros(labels, units, units) if joint else None,
    )


def _activation(cell: str, gate: str, inside: Tensor) -> Tensor:
    """A gate's activation from what goes into it."""
    if GATES[cell] == 1:
        return torch.relu(inside) if cell == "rnn_relu" else torch.tanh(inside)
    return torch.tanh(inside) if gate in _TANH else torch.sigmoid(inside)
