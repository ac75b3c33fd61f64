"""Running a network step by step, through many trunks at once.

A whole-sequence kernel runs one network. Trunks of one parent share its weights: at each step one
product of (trunks x rows) states with the parent's own recurrent weights serves them all, and what
the first layer reads is projected once. Only what stands in for removed units differs.

States are carried halved and tanh is had from the sigmoid, ``tanh(x) / 2 = sigmoid(2 x) - 1/2``,
which is several times faster on processors where PyTorch leaves tanh to MKL; factors of two are
exact and go into the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.networks.recurrent.config import DIRECTIONS, cell_weights
from mlflow_rnnmod.networks.recurrent.layers import RecurrentLayers, side_by_side
from mlflow_rnnmod.networks.recurrent.projections import Product, project_outputs, project_rows
from mlflow_rnnmod.networks.recurrent.slots import tanh_factor
from mlflow_rnnmod.networks.trunk import Trunk

_LAST = ("last_step", "last_valid", "final_state")


class Guesses:
    """What stands in for removed units of one layer, in several trunks at once.

    Args:
        trunks: at least one.
        name: the layer.
        like: a tensor of the dtype and on the device of the network.
        scale: by which outputs are divided.
    """

    def __init__(self, trunks: Sequence[Trunk], name: str, like: Tensor, scale: float) -> None:
        keep = torch.stack([trunk.keep[name] for trunk in trunks])
        fold = torch.stack([trunk.fold[name] for trunk in trunks]).to(like) / scale
        self.scale = scale
        self.nothing = bool(keep.all())
        self.start = fold[:, None]
        self.keep = keep[:, None].to(like)
        self.index: Tensor | None = None
        self.constant: Tensor | None = None
        self.mix: Tensor | None = None
        if any(name in trunk.mix for trunk in trunks):
            self._set_mix(trunks, name, keep, like)

    def _set_mix(self, trunks: Sequence[Trunk], name: str, keep: Tensor, like: Tensor) -> None:
        """Weights of the removed units' guesses; shorter lists repeat their last unit."""
        units = keep.shape[1]
        most = int((~keep).sum(1).max())
        index, mixes = [], []
        for trunk, mask in zip(trunks, keep, strict=True):
            removed = (~mask).nonzero()[:, 0]
            mix = trunk.mix.get(name, torch.zeros(units, units))
            if len(removed) == 0:  # writes a kept unit's own output back to it
                removed, mix = torch.zeros(1, dtype=torch.int64), torch.eye(units)
            removed = torch.cat([removed, removed[-1:].expand(most - len(removed))])
            index.append(removed)
            mixes.append(mix[removed].T)
        chosen = torch.stack(index).to(like.device)[:, None]
        self.index = chosen
        self.mix = torch.stack(mixes).to(like)
        self.constant = self.start.gather(2, chosen)

    def __call__(self, outputs: Tensor, part: slice) -> Tensor:
        """``(trunks of part, rows, units)`` with the guesses in; may change its argument."""
        if self.nothing:
            return outputs
        if self.index is None or self.mix is None or self.constant is None:
            return torch.addcmul(self.start[part], outputs, self.keep[part])
        guessed = torch.baddbmm(self.constant[part], outputs, self.mix[part])
        index = self.index[part].expand_as(guessed)
        return outputs.scatter_(2, index, guessed)


@dataclass(frozen=True, eq=False)
class _Layer:
    """One direction of a recurrent layer: its weights, scaled, and its guesses."""

    name: str
    cell: str
    units: int
    scale: float
    project: Product
    bias: Tensor
    recur: Product
    recur_bias: Tensor | None
    guesses: Guesses | None


# From a layer, its states, what it reads at this step, and whether that is one row for all trunks.
_Step = Callable[[_Layer, Tensor, Tensor, bool], Tensor]


class Stepwise:
    """A network seen through some trunks, all at once; the same results as one after the other.

    Args:
        network: the parent's, or one that is cut down to a trunk.
        trunks: masks over it; ``None`` runs the network as it is (as one trunk).

    Example:
        >>> from mlflow_rnnmod.networks.recurrent.config import NetworkConfig
        >>> config = NetworkConfig("features", 3, None, "lstm", ((4,),), ("a", "b"))
        >>> network, rows = RecurrentLayers(config), Rows(torch.randn(2, 5, 3))
        >>> with torch.no_grad():
        ...     found = Stepwise(network).readout(rows)[0]
        ...     torch.allclose(found, network.states(rows).readout, atol=1e-5)
        True
    """

    def __init__(self, network: RecurrentLayers, trunks: Sequence[Trunk] | None = None) -> None:
        self.network = network
        self.count = 1 if trunks is None else len(trunks)
        config = network.config
        like = cell_weights(network.cell(0, "fwd"))[0]
        self._layers = [
            [
                _prepare(network, i, DIRECTIONS[d], trunks, like)
                for d in range(len(config.recurrent[i]))
            ]
            for i in range(len(config.recurrent))
        ]
        self._hidden = [
            None if trunks is None else Guesses(trunks, f"hidden.{i}", like, 1.0)
            for i in range(len(config.hidden))
        ]

    def project(self, rows: Rows) -> list[Tensor]:
        """What the first layer's directions read, ``(steps, rows, gates)``, for all trunks."""
        return project_rows(self.network, self._layers[0], rows)

    def readout(
        self, rows: Rows, part: slice = slice(None), projected: list[Tensor] | None = None
    ) -> Tensor:
        """Readouts of some trunks, float ``(trunks, rows, readout size)``.

        With a step dimension behind the rows' where the network answers each step.

        ``projected``: what :meth:`project` gave for these rows, where several parts share it.
        """
        network, config = self.network, self.network.config
        lengths, steps = network.spans(rows)
        count = len(range(self.count)[part])
        valid = network.valid(lengths, steps)
        inputs: list[Tensor] = self.project(rows) if projected is None else projected
        outputs: list[Tensor] = []
        for number, layers in enumerate(self._layers):
            last = number == len(self._layers) - 1
            if number:
                inputs = project_outputs(network, layers, outputs, lengths)
            if last and config.readout in _LAST and network.completion is None:
                wanted = [self._wanted(d, lengths, steps) for d in range(len(layers))]
                parts = [
                    _run_last(layer, given, at, count, part, fill)
                    for layer, given, (at, fill) in zip(layers, inputs, wanted, strict=True)
                ]
                return self._dense(side_by_side(parts), part)
            outputs = [
                self._run(layer, given, lengths, valid, count, part, bool(d))
                for d, (layer, given) in enumerate(zip(layers, inputs, strict=True))
            ]
        return self._dense(self._read(outputs, lengths, valid), part)

    def _run(
        self,
        layer: _Layer,
        inputs: Tensor,
        lengths: Tensor,
        valid: Tensor,
        count: int,
        part: slice,
        backward: bool,
    ) -> Tensor:
        """Outputs at all steps, float ``(trunks, rows, steps, units)``, guesses in."""
        steps, rows = inputs.shape[0], inputs.shape[-2]
        found = inputs.new_empty(steps, count, rows, layer.units)
        for t, state in enumerate(_states(layer, inputs, count, part)):
            torch.mul(state, layer.scale, out=found[t])
        out = found.permute(1, 2, 0, 3)
        if backward:
            flat = out.reshape(count * rows, steps, layer.units)
            out = self.network.reverse(flat, lengths.repeat(count)).view(count, rows, steps, -1)
        if self.network.config.packed:
            out = torch.where(valid[:, :, None], out, _padding(layer, part, out)[:, :, None])
        return out

    def _wanted(self, direction: int, lengths: Tensor, steps: int) -> tuple[Tensor, Tensor | None]:
        """At which of its own steps a direction's output is read, and where padding is instead."""
        config = self.network.config
        end = torch.full_like(lengths, steps - 1)
        ends = lengths - 1 if config.packed else end
        if config.readout == "final_state":
            return ends, None
        last = end if config.readout == "last_step" or config.side == "left" else lengths - 1
        fill = last > ends if config.packed else None
        return (last.clamp(max=ends) if direction == 0 else ends - last.clamp(max=ends)), fill

    def _read(self, outputs: list[Tensor], lengths: Tensor, valid: Tensor) -> Tensor:
        count, rows, steps, _ = outputs[0].shape
        flat = [out.reshape(count * rows, steps, -1) for out in outputs]
        x = side_by_side(flat)
        if self.network.completion is not None:
            x = self.network.completion(x)
        found = self.network.read(flat, x, lengths.repeat(count), valid.repeat(count, 1))
        return found.view(count, rows, *found.shape[1:])

    def _dense(self, readout: Tensor, part: slice) -> Tensor:
        for i, guesses in enumerate(self._hidden):
            readout = self.network.dense_output(i, readout)
            if guesses is not None:
                readout = guesses(readout.flatten(1, -2), part).view_as(readout)
        return readout


def _prepare(
    network: RecurrentLayers,
    index: int,
    direction: str,
    trunks: Sequence[Trunk] | None,
    like: Tensor,
) -> _Layer:
    cell = network.config.cell
    weight_ih, weight_hh, bias_ih, bias_hh = cell_weights(network.cell(index, direction))
    units = weight_hh.shape[1]
    scale = 1.0 if cell == "rnn_relu" else 2.0
    factor = tanh_factor(cell, bias_ih)
    inside = bias_hh if cell == "gru" else None  # stays inside the reset gate's product
    bias = bias_ih if inside is not None else bias_ih + bias_hh
    name = f"recurrent.{index}.{direction}"
    return _Layer(
        name=name,
        cell=cell,
        units=units,
        scale=scale,
        project=Product(weight_ih * factor[:, None]),
        bias=bias * factor,
        recur=Product(weight_hh * factor[:, None] * scale),
        recur_bias=None if inside is None else inside * factor,
        guesses=None if trunks is None else Guesses(trunks, name, like, scale),
    )


def _padding(layer: _Layer, part: slice, like: Tensor) -> Tensor:
    """What a layer puts out at skipped steps: nothing, and constants for removed units."""
    if layer.guesses is None:
        return like.new_zeros(1, 1, layer.units)
    return layer.guesses.start[part] * layer.scale


def _run_last(
    layer: _Layer,
    inputs: Tensor,
    at: Tensor,
    count: int,
    part: slice,
    fill: Tensor | None,
) -> Tensor:
    """The output of each row at the step ``at``, ``(trunks, rows, units)``, guesses in."""
    steps, rows = inputs.shape[0], inputs.shape[-2]
    first, last = int(at.min()), int(at.max())
    found: Tensor | None = None
    for t, state in enumerate(_states(layer, inputs[: last + 1], count, part)):
        if first == last == t:
            found = state
        elif t >= first:
            here = (at == t).nonzero()[:, 0]
            if found is None:
                found = inputs.new_empty(count, rows, layer.units)
            if len(here):
                found[:, here] = state[:, here]
    assert found is not None and steps > last
    found = found * layer.scale
    if fill is not None and bool(fill.any()):
        found = torch.where(fill[:, None], _padding(layer, part, found), found)
    return found


def _states(layer: _Layer, inputs: Tensor, count: int, part: slice) -> Iterator[Tensor]:
    """The output after each step, halved where the layer's scale is 2, with guesses in.

    Args:
        layer: whose.
        inputs: ``(steps, rows, gates)`` where trunks share it, else ``(steps, trunks, rows,
            gates)``.
        count: number of trunks.
        part: which ones.

    Yields:
        ``(trunks, rows, units)``; it may be overwritten once the next step is asked for.
    """
    rows, units = inputs.shape[-2], layer.units
    shape = (count, rows, units)
    h = inputs.new_zeros(shape)
    if layer.guesses is not None:
        h = h + layer.guesses.start[part]
    run: _Step = _Lstm(h) if layer.cell == "lstm" else _STEPS[layer.cell]
    one = rows == 1 and inputs.ndim == 3
    for given in inputs:
        h = run(layer, h, given, one)
        if layer.guesses is not None:
            h = layer.guesses(h, part)
        yield h


class _Lstm:
    """Steps of an LSTM; it carries twice the cell state."""

    def __init__(self, h: Tensor) -> None:
        self.double_c = torch.zeros_like(h)

    def __call__(self, layer: _Layer, h: Tensor, given: Tensor, one: bool) -> Tensor:
        flat = h.view(-1, layer.units)
        if one:  # one row: its projection is a bias to all trunks
            gates = layer.recur.sigmoid(flat, given[0]).view(*h.shape[:2], -1)
        else:
            gates = layer.recur(flat).view(*h.shape[:2], -1).add_(given).sigmoid_()
        i, f, g, o = gates.chunk(4, dim=-1)
        c = self.double_c.mul_(f).addcmul_(i, g, value=4.0).sub_(i, alpha=2.0)
        return torch.sigmoid(c).sub_(0.5).mul_(o)


def _gru(layer: _Layer, h: Tensor, given: Tensor, one: bool) -> Tensor:
    units = layer.units
    gates = layer.recur(h.view(-1, units), layer.recur_bias).view(*h.shape[:2], -1)
    both = gates[..., : 2 * units].add_(given[..., : 2 * units]).sigmoid_()
    n = torch.addcmul(given[..., 2 * units :], both[..., :units], gates[..., 2 * units :])
    return torch.lerp(n.sigmoid_().sub_(0.5), h, both[..., units:])


def _rnn_tanh(layer: _Layer, h: Tensor, given: Tensor, one: bool) -> Tensor:
    gates = layer.recur(h.view(-1, layer.units)).view(*h.shape[:2], -1)
    return gates.add_(given).sigmoid_().sub_(0.5)


def _rnn_relu(layer: _Layer, h: Tensor, given: Tensor, one: bool) -> Tensor:
    return layer.recur(h.view(-1, layer.units)).view(*h.shape[:2], -1).add_(given).relu_()


_STEPS: dict[str, _Step] = {"gru": _gru, "rnn_tanh": _rnn_tanh, "rnn_relu": _rnn_relu}
