"""What answers owe to every unit: backward through time, written out.

A whole-sequence kernel shows what the layers above make of a unit's output, not what its own layer
makes of it at later steps. Autograd over single steps shows both, and takes many small operations
for each. Here every layer runs forward once, keeps what it needs for going back, and goes back
for several labels together.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from mlflow_rnnmod._locks import cached_property
from mlflow_rnnmod.inputs.rows import IGNORE, Rows
from mlflow_rnnmod.networks.recurrent.config import DIRECTIONS
from mlflow_rnnmod.networks.recurrent.layers import ACTIVATION_FUNCTIONS, RecurrentLayers, States
from mlflow_rnnmod.networks.recurrent.tapes import Tape, make_tape

# Numbers of one layer's derivatives that are held at once.
_HELD = 2**24

Squares = dict[str, Tensor]


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
        self, sides: Tensor, signs: Tensor | None = None, gates: bool = False
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

        Yields:
            which sides, and for each layer float ``(steps, sides, rows, units)``, 0 at padding
            (``(steps, sides, rows, gates, units)`` by gates; a dense layer that reads one vector a
            row has one step).
        """
        largest = max(self.network.units.values()) * self.valid.numel()
        size = max(_HELD // largest, 1)
        for start in range(0, len(sides), size):
            part = slice(start, min(start + size, len(sides)))
            yield part, self._back(sides[part], signs, gates)

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
            x = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
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
            x = leaves[0] if len(leaves) == 1 else torch.cat(leaves, dim=-1)
            readout = network.read(leaves, x, self.lengths, self.valid)
            for i, spec in enumerate(config.hidden):
                readout = ACTIVATION_FUNCTIONS[spec.activation](network.dense(i)(readout))
                self.dense[f"hidden.{i}"] = readout.detach()
                leaves.append(torch.zeros_like(readout).requires_grad_())
                names.append(f"hidden.{i}")
                readout = readout + leaves[-1]
            return names, leaves, readout.detach(), network.logits(readout)

    def _from_above(self, sides: Tensor, signs: Tensor | None) -> dict[str, Tensor]:
        """By the outputs of the last recurrent layer, and totals by dense layers' outputs.

        Returns:
            ``(sides, rows, steps, units)``; ``(sides, rows, units)`` where a dense layer reads one
            vector a row.
        """
        names, leaves, _, logits = self._head
        found = []
        with torch.enable_grad():
            odds = self.network.config.answer.all_margins(logits)
            for side in sides:
                own = odds.gather(-1, side.clamp(min=0)[..., None])[..., 0]
                own = torch.where(side == IGNORE, 0.0, own)
                own = own if signs is None else own * signs.to(own)
                found.append(torch.autograd.grad(own.sum(), leaves, retain_graph=True))
        return {name: torch.stack([side[i] for side in found]) for i, name in enumerate(names)}

    def _back(self, sides: Tensor, signs: Tensor | None, gates: bool) -> Squares:
        network, config = self.network, self.network.config
        count, rows = len(sides), len(self.lengths)
        slopes = self._from_above(sides, signs)
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
