"""One batch through a recurrent network: what its units did, and what answers owe to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from mlflow_rnnmod._locks import cached_property
from mlflow_rnnmod.answers.targets import margin_of
from mlflow_rnnmod.inputs.rows import IGNORE, Rows
from mlflow_rnnmod.networks.parts import part_name
from mlflow_rnnmod.networks.protocol import Observations, Told
from mlflow_rnnmod.networks.recurrent.config import DIRECTIONS
from mlflow_rnnmod.networks.recurrent.gates import gate_activations
from mlflow_rnnmod.networks.recurrent.layers import RecurrentLayers, States, side_by_side
from mlflow_rnnmod.networks.recurrent.tapes import Tape, make_tape

# Numbers of one layer's derivatives that are held at once.
_HELD = 2**24

Squares = dict[str, Tensor]


# A whole-sequence kernel shows what the layers above make of a unit's output, not what its own
# layer makes of it at later steps. Autograd over single steps shows both, and takes many small
# operations for each. Here every layer runs forward once, keeps what it needs for going back, and
# goes back for several labels together.
class Tapes:
    """One batch through a network, and back through it for the margins of some labels.

    Derivatives are total: through later steps, through the layers above, and through the output.

    Args:
        network: unmasked.
        rows: the batch.
    """

    def __init__(self, network: RecurrentLayers, rows: Rows) -> None:
        self.network = network
        self.lengths, steps = network.spans(rows)
        self.valid = network.valid(self.lengths, steps)
        self.tapes: dict[str, Tape] = {}
        self.layers = self._forward(rows)
        self.dense: dict[str, Tensor] = {}

    def states(self) -> States:
        """What the layers put out, as :meth:`RecurrentLayers.states` gives it."""
        _, _, readout, _ = self._head
        return States({**self.layers, **self.dense}, self.valid, readout)

    def squares(
        self,
        sides: Tensor,
        signs: Tensor | None = None,
        gates: bool = False,
        against: Tensor | None = None,
    ) -> Iterator[tuple[slice, Squares]]:
        """Squared derivatives of margins by the units' outputs, some sides at a time.

        Where every step is answered, the derivative of a row is that of the sum of its margins,
        each times its sign: with random signs the expected square is the sum of the margins' own
        squares (Hutchinson's trick), for one pass a side instead of one a step.

        Args:
            sides: of which labels, int64 ``(sides, rows)`` or ``(sides, rows, steps)``;
                ``IGNORE`` for nothing.
            signs: 1 or -1 for each step, ``(rows, steps)``.
            gates: by what goes into the gates of recurrent layers, in the place of outputs.
            against: whose margins are taken off, int64 ``(rows,)``; for one side.

        Yields:
            which sides, and for each layer float ``(steps, sides, rows, units)``, 0 at padding
            (``(steps, sides, rows, gates, units)`` by gates; a dense layer that reads one vector a
            row has one step).
        """
        largest = max(self.network.units.values()) * self.valid.numel()
        size = max(_HELD // largest, 1)
        for start in range(0, len(sides), size):
            part = slice(start, min(start + size, len(sides)))
            yield part, self._back(sides[part], signs, gates, against)

    def _forward(self, rows: Rows) -> dict[str, Tensor]:
        """Outputs of the recurrent layers, ``(rows, steps, units)``; keeps their tapes."""
        network, config = self.network, self.network.config
        layers: dict[str, Tensor] = {}
        x = network.feed(rows)
        for index in range(len(config.recurrent)):
            parts = []
            for d in range(len(config.recurrent[index])):
                name = f"recurrent.{index}.{DIRECTIONS[d]}"
                self.tapes[name] = make_tape(config.cell, network.cell(index, DIRECTIONS[d]))
                out = self.tapes[name].run(self._in_order(x, d)).transpose(0, 1)
                if d:
                    out = network.reverse(out, self.lengths)
                if config.packed:
                    out = out * self.valid[..., None]
                layers[name] = out
                parts.append(out)
            x = side_by_side(parts)
        return layers

    def _in_order(self, values: Tensor, direction: int) -> Tensor:
        """``(steps, rows, ...)``, in the order in which a direction takes the steps."""
        if direction:
            times = len(values) // len(self.lengths)
            values = self.network.reverse(values, self.lengths.repeat(times))
        return values.transpose(0, 1)

    @cached_property
    def _head(self) -> tuple[list[str], list[Tensor], Tensor, Tensor]:
        """Names of the layers at the readout, leaves to differentiate by, readout and logits."""
        network, config = self.network, self.network.config
        names = list(config.inputs_of(len(config.recurrent)))
        with torch.enable_grad():
            leaves = [self.layers[name].detach().requires_grad_() for name in names]
            x = side_by_side(leaves)
            readout = network.read(leaves, x, self.lengths, self.valid)
            for i in range(len(config.hidden)):
                readout = network.dense_output(i, readout)
                self.dense[f"hidden.{i}"] = readout.detach()
                leaves.append(torch.zeros_like(readout).requires_grad_())
                names.append(f"hidden.{i}")
                readout = readout + leaves[-1]
            return names, leaves, readout.detach(), network.logits(readout)

    def _from_above(
        self, sides: Tensor, signs: Tensor | None, against: Tensor | None
    ) -> dict[str, Tensor]:
        """By the outputs of the last recurrent layer, and totals by dense layers' outputs.

        Gives ``(sides, rows, steps, units)``; ``(sides, rows, units)`` where a dense layer reads
        one vector a row.
        """
        names, leaves, _, logits = self._head
        found = []
        with torch.enable_grad():
            odds = self.network.config.answer.all_margins(logits)
            for side in sides:
                own = margin_of(odds, side)
                own = own if against is None else own - margin_of(odds, against)
                own = own if signs is None else own * signs.to(own)
                found.append(torch.autograd.grad(own.sum(), leaves, retain_graph=True))
        if len(found) == 1:  # without a copy
            return {name: slope[None] for name, slope in zip(names, found[0], strict=True)}
        return {name: torch.stack([side[i] for side in found]) for i, name in enumerate(names)}

    def _back(
        self, sides: Tensor, signs: Tensor | None, gates: bool, against: Tensor | None
    ) -> Squares:
        network, config = self.network, self.network.config
        count, rows = len(sides), len(self.lengths)
        slopes = self._from_above(sides, signs, against)
        found: Squares = {}
        for name in [name for name in slopes if name.startswith("hidden")]:
            slope = slopes[name] ** 2
            if slope.ndim == 3:
                found[name] = slope[None]
            else:
                found[name] = (slope * self.valid[..., None]).permute(2, 0, 1, 3)
        for index in reversed(range(len(config.recurrent))):
            below = config.inputs_of(index)
            reaching: Tensor | None = None
            for d in range(len(config.recurrent[index])):
                name = f"recurrent.{index}.{DIRECTIONS[d]}"
                above = slopes[name]
                if config.packed:  # outputs at padding are dropped
                    above = above * self.valid[..., None]
                ordered = self._in_order(above.flatten(0, 1), d)
                total, inputs = self.tapes[name].back(ordered, bool(below), gates)
                square = total.unflatten(1, (count, rows)).square_()
                square.mul_(self._in_order(self.valid[..., None], d)[:, None])
                if gates:
                    square = square.unflatten(3, (-1, config.units[name]))
                found[name] = self._by_step(square, d)
                if inputs is not None:
                    moved = inputs.transpose(0, 1)
                    if d:
                        moved = network.reverse(moved, self.lengths.repeat(count))
                    reaching = moved if reaching is None else reaching + moved
            if reaching is not None:
                sizes = [config.units[name] for name in below]
                parts = reaching.unflatten(0, (count, rows)).split(sizes, dim=-1)
                slopes.update(zip(below, parts, strict=True))
        return found

    def _by_step(self, square: Tensor, direction: int) -> Tensor:
        """``(steps, sides, rows, ...)`` back in the order of the rows."""
        if not direction:
            return square
        moved = square.permute(2, 0, 1, *range(3, square.ndim))
        shape = moved.shape
        flat = self.network.reverse(moved.flatten(2), self.lengths)
        return flat.view(shape).permute(1, 2, 0, *range(3, square.ndim))


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
        labels, rows = len(self.network.labels), self.rows
        signs = signs_of(rows, self.tapes.valid) if self.stepwise else None
        several, against = sides.dtype == torch.bool, None
        if several:
            asked = torch.arange(labels, device=sides.device)[:, None].expand(-1, len(rows))
        elif self.stepwise:
            asked, owners = _places(sides, labels)
            owners = owners[:, None]
        else:  # one way back answers for both sides: that of the one less the other
            asked, against = sides[:1], sides[1]
            owners = _codes(sides, labels)[None]
        found: dict[str, Tensor] = {}
        for part, squares in self.tapes.squares(asked, signs, self.told.gates, against):
            for name, square in self._by_part(squares):  # (places, rows, units)
                if name not in found:
                    found[name] = torch.zeros(2 * labels, square.shape[-1], dtype=torch.float64)
                for i, own in enumerate(range(part.start, part.stop)):
                    if several:
                        both = sides[:, :, own].to(square.dtype) @ square[i]
                        found[name][[own, labels + own]] += both.double().cpu()
                    else:
                        for of in owners[own]:
                            found[name] += group_sums(square[i], of, 2 * labels).cpu()
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


def _codes(sides: Tensor, labels: int) -> Tensor:
    """A label on the first side, that plus the labels' number on the second, twice it for none."""
    codes = torch.stack([sides[0], sides[1] + labels])
    return torch.where(sides < labels, codes, 2 * labels)


def group_sums(values: Tensor, groups: Tensor, count: int) -> Tensor:
    """Sum of ``values`` ``(rows, units)`` in each of ``count`` groups, float64; later ones none.

    Example:
        >>> group_sums(torch.ones(3, 1), torch.tensor([0, 1, 2]), 2).tolist()
        [[1.0], [1.0]]
    """
    found = values.new_zeros(count + 1, values.shape[1], dtype=torch.float64)
    return found.index_add_(0, groups, values.double())[:count]


def _places(sides: Tensor, labels: int) -> tuple[Tensor, Tensor]:
    """What each row is asked, one after the other: its steps have few of all labels and sides.

    Returns:
        labels, ``(places, rows, steps)``, ``IGNORE`` for none; and what each place of a row stands
        for, ``(places, rows)`` (see :func:`_codes`).
    """
    codes = _codes(sides, labels)
    there = torch.zeros(sides.shape[1], 2 * labels + 1, dtype=torch.bool, device=sides.device)
    there.scatter_(1, codes.transpose(0, 1).flatten(1), True)
    there[:, -1] = False
    rank = there.cumsum(1) - 1
    count = max(int(there.sum(1).max()), 1)
    asked = sides.new_full((count, *sides.shape[1:]), IGNORE)
    _, row, step = hit = (sides < labels).nonzero(as_tuple=True)
    asked[rank[row, codes[hit]], row, step] = sides[hit]
    owners = sides.new_full((count, sides.shape[1]), 2 * labels)
    row, code = there.nonzero(as_tuple=True)
    owners[rank[row, code], row] = code
    return asked, owners


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
