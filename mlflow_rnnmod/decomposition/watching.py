"""One pass of a network over a sample: statistics of all labels, layers, steps and gates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mlflow_rnnmod.answers import Sample
from mlflow_rnnmod.decomposition.counting import Counter
from mlflow_rnnmod.decomposition.exact import Exact
from mlflow_rnnmod.decomposition.gradients import Squares, Watch
from mlflow_rnnmod.decomposition.layers import GATE_NAMES, layer_name
from mlflow_rnnmod.decomposition.statistics import (
    ActivationStatistics,
    LayerStatistics,
    to_bins,
)
from mlflow_rnnmod.networks.recurrent.network import RecurrentNetwork, States
from mlflow_rnnmod.networks.recurrent.packed import can_pack, packed_states
from mlflow_rnnmod.networks.recurrent.trimming import ignores_padding, trimmed
from mlflow_rnnmod.networks.rows import IGNORE, Rows


def collect(
    network: RecurrentNetwork,
    sample: Sample,
    *,
    histograms: bool = True,
    gradients: bool = True,
    variant: str = "rolled",
    gates: str = "joint",
    unrolled_steps: int = 32,
    exact: bool = False,
    last_step: bool = False,
    batch_size: int = 512,
    progress: Callable[[int, int], None] | None = None,
) -> ActivationStatistics:
    """Watch every unit of ``network`` over ``sample``, once, for all labels.

    Args:
        network: unmasked; it is not changed.
        sample: its memory use does not depend on how many rows this has.
        histograms: keep histograms of ``|h|`` (the paper's rule needs them).
        gradients: keep squared gradients: two backward passes more, one for each row's own label
            and one for its rival; where a row has several labels or one at each step, one or two
            for each label. Gradients are total derivatives of a label's margin with respect to a
            unit's output at a step, through later steps and layers.
        variant: ``"unrolled"`` keeps the statistics of each step by itself.
        gates: ``"separate"`` keeps those of each gate's activation, in the place of outputs.
        unrolled_steps: so many steps are told apart at the most; later ones count as the last.
        exact: keep the observations in the place of histograms: medians are exact, and memory grows
            with the sample.
        last_step: of these, keep only each row's last step (the one that a direction takes last),
            where one label answers for the row and steps are not told apart.
        batch_size: rows run at once.
        progress: called with rows done and rows in all.

    Returns:
        statistics by layer, by layer and step or gate (see :func:`~.layers.layer_name`) where
        these are told apart.
    """
    steps = None
    if variant == "unrolled":
        steps = min(network.spans(sample.rows[:1])[1], unrolled_steps)
    pass_ = _Pass(network, histograms and not exact, gradients, steps, gates == "separate")
    pass_.exact = exact
    pass_.last_step = last_step and steps is None and not network.config.stepwise
    if ignores_padding(network.config):
        sample = sample[network.lengths(sample.rows).cpu().argsort(stable=True)]
    found: ActivationStatistics | None = None
    done = 0
    for start in range(0, len(sample), batch_size):
        batch = pass_.run(sample[start : start + batch_size])
        found = batch if found is None else found.merge(batch)
        done += min(batch_size, len(sample) - start)
        if progress:
            progress(done, len(sample))
    assert found is not None
    return pass_.counted(found)


@dataclass(frozen=True, eq=False)
class _View:
    """Observations of one layer, or of one of its steps and gates.

    Args:
        name: see :func:`~.layers.layer_name`.
        values: ``(observations, units)``.
        sides: int64 ``(2, observations)``, one past the last label for none; or bool
            ``(2, observations, labels)``.
        joint: whether it is a whole layer's, whose units guess for one another.
        block: so many observations, one after the other, stand for the same labels.
        chosen: those that are kept where exact statistics are asked for, bool ``(observations,)``;
            None for all.
    """

    name: str
    values: Tensor
    sides: Tensor
    joint: bool
    chosen: Tensor | None = None
    block: int = 1

    def kept(self) -> Exact:
        """The observations themselves."""
        values, sides = self.values, self.sides
        if self.chosen is not None:
            values, sides = values[self.chosen], sides[:, self.chosen]
        return Exact(values.cpu(), sides.cpu())


class _Pass:
    """What all batches of a pass have in common; histograms are counted across batches."""

    def __init__(
        self,
        network: RecurrentNetwork,
        histograms: bool,
        gradients: bool,
        steps: int | None,
        separate: bool,
    ) -> None:
        self.network, self.labels = network, len(network.labels)
        self.histograms, self.gradients = histograms, gradients
        self.steps, self.separate = steps, separate
        self.bounded = network.config.cell != "rnn_relu"
        self.counters: dict[str, Counter] = {}
        self.exact = self.last_step = False
        self.states = packed_states(network) if can_pack(network) else network.states

    @torch.no_grad()
    def run(self, sample: Sample) -> ActivationStatistics:
        """The statistics of a batch, without histograms."""
        network = self.network
        device = network.device
        rows, sides = _cut(network, sample)
        rows, sides = rows.to(device), sides.to(device)
        watch = Watch(network, rows) if self.gradients else None
        states = self.states(rows) if watch is None else watch.states()
        squared: dict[str, Tensor] = {}
        if watch is not None:
            squared = self._squared(watch, rows, sides)
        layers = {}
        for view in self._views(rows, states, sides):
            units = view.values.shape[1]
            if self.histograms:
                self._count(view)
            values = view.values
            # Steps of a row that stand for the same labels are added up before labels are.
            sides = view.sides[:, :: view.block]
            members = self._members(sides, values)
            positive = (values > 0).to(members.dtype)
            if view.block > 1:
                positive = positive.view(-1, view.block, units).sum(1)
            active = members @ positive
            products = (values.T @ values).double().cpu() if view.joint else None
            layers[view.name] = LayerStatistics(
                count=torch.tensor(float(len(values)), dtype=torch.float64),
                total=values.sum(0).double().cpu(),
                products=products,
                observed=members.sum(1).long().view(2, self.labels).cpu() * view.block,
                active=active.double().view(2, self.labels, units).cpu(),
                histogram=None,
                squared=squared.get(view.name),
                exact=view.kept() if self.exact else None,
            )
        return ActivationStatistics(layers, self.bounded)

    def counted(self, found: ActivationStatistics) -> ActivationStatistics:
        """The statistics with histograms."""
        if not self.histograms:
            return found
        layers = {
            name: replace(layer, histogram=self.counters[name].total(self.labels).cpu())
            for name, layer in found.layers.items()
        }
        return replace(found, layers=layers)

    def _views(self, rows: Rows, states: States, sides: Tensor) -> Iterator[_View]:
        watched = states.valid
        if self.network.config.answer.ends and rows.targets is not None:
            watched = watched & (rows.targets != IGNORE)  # nobody reads on behind a list's end
        row, step = watched.nonzero(as_tuple=True)
        number = self._numbers(states.valid)[row, step]
        per_step = sides.ndim == 3 and sides.dtype != torch.bool
        of_steps = sides[:, row, step] if per_step else sides[:, row]
        activations = self._gate_activations(rows) if self.separate else {}
        for name, output in states.layers.items():
            if output.ndim == 2:  # a dense layer that puts out one vector a row
                yield _View(name, output, sides, True)
                continue
            recurrent = name.startswith("recurrent")
            every = bool(watched.all())
            parts: list[tuple[str | None, Tensor]] = [(None, output)]
            if recurrent and self.separate:
                of_gates = activations[name].unbind(dim=2)
                parts = list(zip(GATE_NAMES[self.network.config.cell], of_gates, strict=True))
            for gate, values in parts:
                flat = values.flatten(0, 1) if every else values[watched]
                if not recurrent or self.steps is None:
                    last = self._last(name, states.valid)[row, step] if self.last_step else None
                    named = layer_name(name, gate=gate)
                    block = values.shape[1] if every and not self.network.config.stepwise else 1
                    yield _View(named, flat, of_steps, gate is None, last, block)
                    continue
                for t in range(self.steps):
                    here = number == t
                    yield _View(layer_name(name, t, gate), flat[here], of_steps[:, here], False)

    def _last(self, name: str, valid: Tensor) -> Tensor:
        """Which valid step of each row a direction takes last, bool ``(rows, steps)``."""
        number = valid.long().cumsum(dim=1)
        wanted = 1 if name.endswith("bwd") else number[:, -1:]
        return valid & (number == wanted)

    def _numbers(self, valid: Tensor) -> Tensor:
        """The number of each step, counted from its row's first valid one, up to the last told."""
        number = valid.long().cumsum(dim=1) - 1
        return number.clamp(min=0, max=None if self.steps is None else self.steps - 1)

    def _gate_activations(self, rows: Rows) -> dict[str, Tensor]:
        from mlflow_rnnmod.networks.recurrent.gates import gate_activations

        return gate_activations(self.network, rows)

    def _count(self, view: _View) -> None:
        bounded = self.bounded and view.name.startswith("recurrent")
        places = to_bins(view.values, bounded)
        several, none = view.sides.dtype == torch.bool, self.labels
        groups = none + (several or self.network.config.stepwise)
        counter = self.counters.setdefault(view.name, Counter(groups, places.shape[1]))
        if several:
            for label in range(self.labels):
                counter.add(places, torch.where(view.sides[:, :, label], label, none))
        else:
            counter.add(places, view.sides)

    def _members(self, sides: Tensor, like: Tensor) -> Tensor:
        """Which observations belong to which side and label, 0 or 1, ``(2 x labels, obs)``."""
        if sides.dtype == torch.bool:
            return sides.transpose(1, 2).flatten(0, 1).to(like.dtype)
        members = like.new_zeros(2, self.labels + 1, sides.shape[1])
        members.scatter_(1, sides[:, None], 1.0)
        return members[:, : self.labels].flatten(0, 1)

    def _squared(self, watch: Watch, rows: Rows, sides: Tensor) -> dict[str, Tensor]:
        """Sums of squared derivatives by label and side, float64 ``(2, labels, units)``."""
        labels, asked, signs = self.labels, sides, None
        if self.network.config.stepwise:
            label = torch.arange(labels, device=sides.device)[None, :, None, None]
            hit = sides[:, None] == label  # (2, labels, rows, steps)
            asked = torch.where(hit, label, IGNORE).flatten(0, 1)
            signs = _signs(rows, watch.valid)
        elif sides.dtype == torch.bool:
            asked = torch.arange(labels, device=sides.device)[:, None].expand(-1, len(rows))
        found: dict[str, Tensor] = {}

        def add(name: str, place: tuple, value: Tensor) -> None:
            if name not in found:
                shape = (2, labels, value.shape[-1])
                found[name] = torch.zeros(shape, dtype=torch.float64)
            found[name][place] += value.double().cpu()

        for part, squares in watch.squares(asked, signs, self.separate):
            for name, square in self._by_layer(squares, watch):  # (sides, rows, units)
                for i, own in enumerate(range(part.start, part.stop)):
                    if self.network.config.stepwise:
                        add(name, divmod(own, labels), square[i].sum(0))
                    elif sides.dtype == torch.bool:
                        both = sides[:, :, own].to(square.dtype)
                        add(name, (slice(None), own), both @ square[i])
                    else:
                        add(name, (own,), _group_sums(square[i], sides[own], labels))
        return found

    def _by_layer(self, squares: Squares, watch: Watch) -> Iterator[tuple[str, Tensor]]:
        """Sums over steps, or over all steps of one number, ``(sides, rows, units)``, by name."""
        number = self._numbers(watch.valid).T if self.steps is not None else None
        for name, square in squares.items():
            parts: list[tuple[str | None, Tensor]] = [(None, square)]
            if self.separate and name.startswith("recurrent"):
                letters = GATE_NAMES[self.network.config.cell]
                parts = list(zip(letters, square.unbind(dim=3), strict=True))
            for gate, values in parts:
                if number is None or not name.startswith("recurrent"):
                    yield layer_name(name, gate=gate), values.sum(0)
                    continue
                for t in range(self.steps or 0):
                    here = (number == t)[:, None, :, None]
                    yield layer_name(name, t, gate), (values * here).sum(0)


def _cut(network: RecurrentNetwork, sample: Sample) -> tuple[Rows, Tensor]:
    """Rows without needless steps, and both sides: int64 with one past the labels for none."""
    rows = trimmed(network, sample.rows)
    sides = torch.stack(sample.sides)
    if sides.dtype != torch.bool:
        sides = torch.where(sides == IGNORE, len(network.labels), sides)
    if network.config.stepwise and rows.targets is not None:
        sides = sides[:, :, : rows.targets.shape[1]]
    return rows, sides


def _group_sums(values: Tensor, groups: Tensor, count: int) -> Tensor:
    """Sum of ``values`` ``(rows, units)`` in each group, float64 ``(count, units)``."""
    found = values.new_zeros(count, values.shape[1], dtype=torch.float64)
    return found.index_add_(0, groups, values.double())


def _signs(rows: Rows, valid: Tensor) -> Tensor:
    """1 or -1 for each step, ``(rows, steps)``: as good as random, but a row's own for ever."""
    values = rows.values
    if values.is_floating_point():
        values = values.float().contiguous().view(torch.int32).sum(dim=-1)
    if values.shape == valid.shape:
        values = values * valid
    place = torch.arange(1, values.shape[1] + 1, device=values.device)
    code = (values.long() * place).sum(dim=1, keepdim=True)
    step = valid.long().cumsum(dim=1)
    mixed = code * 0x9E3779B1 + step * 0x85EBCA77
    for shift, factor in ((15, 0xC2B2AE35), (13, 0x27D4EB2F)):
        mixed = (mixed ^ (mixed >> shift)) * factor
    return 1 - 2 * ((mixed >> 17) & 1)
