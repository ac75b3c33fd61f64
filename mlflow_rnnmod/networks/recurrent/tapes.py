"""Recurrent layers that keep what they did, and go back through it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mlflow_rnnmod.networks.recurrent.config import cell_weights
from mlflow_rnnmod.networks.recurrent.projections import Product
from mlflow_rnnmod.networks.recurrent.slots import tanh_factor


def make_tape(cell: str, layer: nn.RNNBase) -> Tape:
    """A tape for one layer and direction of a recurrent cell."""
    return _TAPES[cell](layer)


class Tape:
    """One direction of a recurrent layer, run forward once and then back.

    What each cell adds are :meth:`start`, :meth:`step`, :meth:`step_back` and :meth:`by_input`.

    Args:
        layer: its weights.
    """

    def __init__(self, layer: nn.RNNBase) -> None:
        self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh = cell_weights(layer)
        self.cell, self.units = layer.mode.lower(), layer.hidden_size
        self.kept: list[Any] = []
        self.outputs: Tensor

    def run(self, x: Tensor) -> Tensor:
        """Outputs ``(steps, rows, units)`` for inputs ``(steps, rows, size)``."""
        self.start(x)
        for t in range(len(x)):
            self.kept.append(self.step(t))
        return self.outputs

    def back(
        self, above: Tensor, inputs: bool, gates: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Total derivatives by the outputs, from those that the layers above make of them.

        Args:
            above: ``(steps, sides x rows, units)``; rows vary fastest.
            inputs: whether what reaches the inputs is asked for, too.
            gates: whether to differentiate by what goes into the gates (before their
                nonlinearities; of a GRU's n outside of the reset gate's product), in the place of
                outputs.

        Returns:
            of the shape of ``above``, or by gates ``(steps, sides x rows, gates x units)``; and
            ``(steps, sides x rows, size)`` or None.
        """
        recur = Product(self.weight_hh.T.contiguous())
        total = above.contiguous().clone() if above.is_contiguous() else above.contiguous()
        by_gates: list[Tensor] = []
        for t in reversed(range(len(above))):
            slope = total[t]
            by_state, other = self.step_back(t, slope)
            if inputs or gates:
                by_gates.append(self.by_input(t, slope, by_state))
            if t:
                total[t - 1].add_(recur(by_state))
                if other is not None:
                    total[t - 1].add_(other)
        if not by_gates:
            return total, None
        sent = torch.stack(by_gates[::-1])
        found = sent if gates else total
        if not inputs:
            return found, None
        flat = Product(self.weight_ih.T.contiguous())(sent.flatten(0, 1))
        return found, flat.view(*sent.shape[:2], -1)

    def start(self, x: Tensor) -> None:
        """Before the first step; makes ``outputs``."""
        raise NotImplementedError

    def step(self, t: int) -> Any:
        """Write ``outputs[t]``; gives what :meth:`step_back` needs."""
        raise NotImplementedError

    def step_back(self, t: int, slope: Tensor) -> tuple[Tensor, Tensor | None]:
        """From total derivatives ``(sides x rows, units)`` at a step.

        Gives those by the recurrent product, ``(sides x rows, gates)``; and what reaches the output
        of the step before otherwise, or None.
        """
        raise NotImplementedError

    def by_input(self, t: int, slope: Tensor, by_state: Tensor) -> Tensor:
        """Those by the inputs' product, and so by what goes into the gates.

        The same where both products are added.
        """
        return by_state

    def before(self, t: int) -> Tensor:
        """Outputs of the step before, ``(rows, units)``."""
        return torch.zeros_like(self.outputs[0]) if t == 0 else self.outputs[t - 1]

    def by_sides(self, slope: Tensor) -> Tensor:
        """``(sides, rows, units)`` from ``(sides x rows, units)``."""
        return slope.view(-1, self.outputs.shape[1], self.units)


class _Joint(Tape):
    """A cell that adds what its inputs and its states give: one product does both."""

    def start(self, x: Tensor) -> None:
        steps, rows, size = x.shape
        factor = tanh_factor(self.cell, self.bias_ih)
        weight = torch.cat([self.weight_ih, self.weight_hh], dim=1) * factor[:, None]
        self.product, self.bias = Product(weight), (self.bias_ih + self.bias_hh) * factor
        self.both = x.new_empty(steps + 1, rows, size + self.units)
        self.both[:-1, :, :size] = x
        self.both[0, :, size:] = 0
        self.outputs = self.both[1:, :, size:]


class _LstmTape(_Joint):
    carried: Tensor  # derivatives by the cell state of the step behind

    def step(self, t: int) -> tuple[Tensor, Tensor, Tensor]:
        gates = self.product.sigmoid(self.both[t], self.bias)
        i, f, g, o = gates.chunk(4, dim=1)
        g.mul_(2).sub_(1)
        c = i * g
        if t:
            c.addcmul_(f, self.kept[-1][1])
        tanh_c = (2 * c).sigmoid_().mul_(2).sub_(1)
        torch.mul(o, tanh_c, out=self.outputs[t])
        return gates, c, tanh_c

    def step_back(self, t: int, slope: Tensor) -> tuple[Tensor, Tensor | None]:
        gates, _, tanh_c = self.kept[t]
        i, _, g, o = gates.chunk(4, dim=1)
        sides = self.by_sides(slope)
        c = sides * torch.addcmul(o, o, tanh_c * tanh_c, value=-1)
        if t + 1 < len(self.kept):
            c.addcmul_(self.carried, self.kept[t + 1][0].chunk(4, dim=1)[1])
        self.carried = c
        by_gate = torch.addcmul(gates, gates, gates, value=-1)
        by_i, by_f, by_g, by_o = by_gate.chunk(4, dim=1)
        by_i.mul_(g)
        by_f.mul_(self.kept[t - 1][1] if t else 0.0)
        torch.addcmul(i, i, g * g, value=-1, out=by_g)
        by_o.mul_(tanh_c)
        found = slope.new_empty(*sides.shape[:2], 4, self.units)
        by_gate = by_gate.unflatten(1, (4, self.units))
        torch.mul(c[:, :, None], by_gate[:, :3], out=found[:, :, :3])
        torch.mul(sides, by_gate[:, 3], out=found[:, :, 3])
        return found.view(len(slope), -1), None


class _TanhTape(_Joint):
    def step(self, t: int) -> None:
        gates = self.product.sigmoid(self.both[t], self.bias)
        self.outputs[t] = gates.mul_(2).sub_(1)

    def step_back(self, t: int, slope: Tensor) -> tuple[Tensor, Tensor | None]:
        sides, h = self.by_sides(slope), self.outputs[t]
        return torch.addcmul(sides, sides, h * h, value=-1).flatten(0, 1), None


class _ReluTape(_Joint):
    def step(self, t: int) -> None:
        self.outputs[t] = self.product(self.both[t], self.bias).relu_()

    def step_back(self, t: int, slope: Tensor) -> tuple[Tensor, Tensor | None]:
        return (self.by_sides(slope) * (self.outputs[t] > 0)).flatten(0, 1), None


class _GruTape(Tape):
    def start(self, x: Tensor) -> None:
        flat = Product(self.weight_ih)(x.reshape(-1, x.shape[2]), self.bias_ih)
        self.given = flat.view(*x.shape[:2], -1)
        self.product = Product(self.weight_hh)
        self.outputs = x.new_empty(*x.shape[:2], self.units)

    def step(self, t: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        both, before = 2 * self.units, self.before(t)
        gates = self.product(before, self.bias_hh)
        r, z = gates[:, :both].add_(self.given[t][:, :both]).sigmoid_().chunk(2, dim=1)
        inside = gates[:, both:]
        n = torch.addcmul(self.given[t][:, both:], r, inside)
        n = n.mul_(2).sigmoid_().mul_(2).sub_(1)
        torch.lerp(n, before, z, out=self.outputs[t])
        return r, z, inside, n

    def step_back(self, t: int, slope: Tensor) -> tuple[Tensor, Tensor | None]:
        r, z, inside, n = self.kept[t]
        sides = self.by_sides(slope)
        by_n = (1 - z) * (1 - n * n)
        by_r, by_z = by_n * inside * r * (1 - r), (self.before(t) - n) * z * (1 - z)
        by_gate = torch.stack([by_r, by_z, by_n * r], dim=1)
        found = sides[:, :, None] * by_gate
        return found.view(len(slope), -1), (sides * z).flatten(0, 1)

    def by_input(self, t: int, slope: Tensor, by_state: Tensor) -> Tensor:
        _, z, _, n = self.kept[t]
        new = self.by_sides(slope) * ((1 - z) * (1 - n * n))
        return torch.cat([by_state[:, : 2 * self.units], new.flatten(0, 1)], dim=1)


_TAPES: dict[str, type[Tape]] = {
    "lstm": _LstmTape,
    "gru": _GruTape,
    "rnn_tanh": _TanhTape,
    "rnn_relu": _ReluTape,
}
