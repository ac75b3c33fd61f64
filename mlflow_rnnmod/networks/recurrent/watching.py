"""One batch through a recurrent network: what its units did, step by step and gate by gate."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from mlflow_rnnmod.inputs.rows import IGNORE, Rows
from mlflow_rnnmod.networks.parts import part_name
from mlflow_rnnmod.networks.protocol import Observations, Told
from mlflow_rnnmod.networks.recurrent.gates import gate_activations
from mlflow_rnnmod.networks.recurrent.gradients import Squares, Tapes
from mlflow_rnnmod.networks.recurrent.layers import RecurrentLayers, States


class RecurrentWatch:
    """A batch that was run, step by step where gradients are asked for.

    Args:
        network: unmasked.
        rows: the batch.
        told: what is told apart.
        states: runs the network where no gradients are asked for; ``None`` where they are.
    """

    def __init__(
        self,
        network: RecurrentLayers,
        rows: Rows,
        told: Told,
        states: Callable[[Rows], States] | None,
    ) -> None:
        self.network, self.rows, self.told = network, rows, told
        self.stepwise = network.config.answer.stepwise
        self.tapes = Tapes(network, rows) if states is None else None
        self._run = states

    def observations(self, sides: Tensor) -> Iterator[Observations]:
        """What each group's units did: an observation is a valid step of a row."""
        network, told, rows = self.network, self.told, self.rows
        states = self._run(rows) if self._run is not None else self.tapes.states()  # type: ignore[union-attr]
        watched = states.valid
        if network.config.answer.ends and rows.targets is not None:
            watched = watched & (rows.targets != IGNORE)  # nobody reads on behind a list's end
        row, step = watched.nonzero(as_tuple=True)
        number = self._numbers(states.valid)[row, step]
        of_steps = sides[:, row, step] if self.stepwise else sides[:, row]
        activations = gate_activations(network, rows) if told.gates else {}
        every = bool(watched.all())
        for name, output in states.layers.items():
            group = network.groups[name]
            if output.ndim == 2:  # a dense layer that puts out one vector a row
                yield Observations(name, output, sides, True)
                continue
            parts: list[tuple[str | None, Tensor]] = [(None, output)]
            if told.gates and group.gates:
                of_gates = activations[name].unbind(dim=2)
                letters = [gate.letter for gate in group.gates]
                parts = list(zip(letters, of_gates, strict=True))
            for gate, values in parts:
                flat = values.flatten(0, 1) if every else values[watched]
                if not group.steps or told.steps is None:
                    last = self._last(name, states.valid)[row, step] if told.last else None
                    block = values.shape[1] if every and not self.stepwise else 1
                    named = part_name(name, gate=gate)
                    yield Observations(named, flat, of_steps, gate is None, last, block)
                    continue
                for t in range(told.steps):
                    here = number == t
                    named = part_name(name, t, gate)
                    yield Observations(named, flat[here], of_steps[:, here], False)

    def _last(self, name: str, valid: Tensor) -> Tensor:
        """Which valid step of each row a direction takes last, bool ``(rows, steps)``."""
        number = valid.long().cumsum(dim=1)
        wanted = 1 if name.endswith("bwd") else number[:, -1:]
        return valid & (number == wanted)

    def _numbers(self, valid: Tensor) -> Tensor:
        """The number of each step, counted from its row's first valid one, up to the last told."""
        number = valid.long().cumsum(dim=1) - 1
        steps = self.told.steps
        return number.clamp(min=0, max=None if steps is None else steps - 1)

    def squared(self, sides: Tensor) -> dict[str, Tensor]:
        """Squared derivatives by label and side, float64 ``(2, labels, units)``, by part."""
        assert self.tapes is not None
        labels, rows, signs = len(self.network.labels), self.rows, None
        several = sides.dtype == torch.bool
        if several:
            asked = torch.arange(labels, device=sides.device)[:, None].expand(-1, len(rows))
        else:
            asked, owners = _places(sides, labels)
        if self.stepwise:
            signs = signs_of(rows, self.tapes.valid)
        found: dict[str, Tensor] = {}
        for part, squares in self.tapes.squares(asked, signs, self.told.gates):
            for name, square in self._by_part(squares):  # (places, rows, units)
                if name not in found:
                    found[name] = torch.zeros(2 * labels, square.shape[-1], dtype=torch.float64)
                for i, own in enumerate(range(part.start, part.stop)):
                    if several:
                        both = sides[:, :, own].to(square.dtype) @ square[i]
                        found[name][[own, labels + own]] += both.double().cpu()
                    else:
                        found[name] += group_sums(square[i], owners[own], 2 * labels).cpu()
        return {name: total.unflatten(0, (2, labels)) for name, total in found.items()}

    def _by_part(self, squares: Squares) -> Iterator[tuple[str, Tensor]]:
        """Sums over steps, or over all steps of one number, ``(sides, rows, units)``, by name."""
        assert self.tapes is not None
        told = self.told
        number = self._numbers(self.tapes.valid).T if told.steps is not None else None
        for name, square in squares.items():
            group = self.network.groups[name]
            parts: list[tuple[str | None, Tensor]] = [(None, square)]
            if told.gates and group.gates:
                letters = [gate.letter for gate in group.gates]
                parts = list(zip(letters, square.unbind(dim=3), strict=True))
            for gate, values in parts:
                if number is None or not group.steps:
                    yield part_name(name, gate=gate), values.sum(0)
                    continue
                for t in range(told.steps or 0):
                    here = (number == t)[:, None, :, None]
                    yield part_name(name, t, gate), (values * here).sum(0)


def group_sums(values: Tensor, groups: Tensor, count: int) -> Tensor:
    """Sum of ``values`` ``(rows, units)`` in each of ``count`` groups, float64; later ones none.

    Example:
        >>> group_sums(torch.ones(3, 1), torch.tensor([0, 1, 2]), 2).tolist()
        [[1.0], [1.0]]
    """
    found = values.new_zeros(count + 1, values.shape[1], dtype=torch.float64)
    return found.index_add_(0, groups, values.double())[:count]


def _places(sides: Tensor, labels: int) -> tuple[Tensor, Tensor]:
    """What each row is asked, one after the other: a row has few of all labels and sides.

    Returns:
        labels, ``(places, rows)`` or ``(places, rows, steps)``, ``IGNORE`` for none; and what each
        place of a row stands for, ``(places, rows)``: a label, plus their number on the second
        side, and twice that for nothing.
    """
    flat = sides.flatten(2) if sides.ndim == 3 else sides[:, :, None]
    side = torch.arange(2, device=sides.device)[:, None, None]
    codes = torch.where(flat < labels, flat + side * labels, 2 * labels)
    there = torch.zeros(flat.shape[1], 2 * labels + 1, dtype=torch.bool, device=sides.device)
    there.scatter_(1, codes.transpose(0, 1).flatten(1), True)
    there[:, -1] = False
    rank = there.cumsum(1) - 1
    count = max(int(there.sum(1).max()), 1)
    asked = sides.new_full((count, *flat.shape[1:]), IGNORE)
    _, row, step = hit = (flat < labels).nonzero(as_tuple=True)
    asked[rank[row, codes[hit]], row, step] = flat[hit]
    owners = sides.new_full((count, flat.shape[1]), 2 * labels)
    row, code = there.nonzero(as_tuple=True)
    owners[rank[row, code], row] = code
    return asked.view(count, *sides.shape[1:]), owners


def signs_of(rows: Rows, valid: Tensor) -> Tensor:
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
