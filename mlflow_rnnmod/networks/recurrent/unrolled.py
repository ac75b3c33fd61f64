"""Running a network through trunks with masks for single steps or gates, step by step.

Such masks can't be cut out (see :class:`~.trunk.Trunk` for what they mean). Several trunks of one
parent share its weights: a step is one product of (trunks x rows) states with them, and what the
first layer reads is projected once. Masks apply to what the products give. As in
:mod:`~.stepwise`, tanh is had from the sigmoid of twice its argument, which is faster.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.networks.groups import check_fits
from mlflow_rnnmod.networks.recurrent.config import DIRECTIONS, GATES, cell_weights
from mlflow_rnnmod.networks.recurrent.layers import RecurrentLayers, side_by_side
from mlflow_rnnmod.networks.recurrent.projections import Product, project_outputs, project_rows
from mlflow_rnnmod.networks.recurrent.slots import tanh_factor
from mlflow_rnnmod.networks.trunk import Trunk


class Table:
    """Masks and constants of one layer of several trunks, for each step that is told apart.

    Args:
        keep: bool ``(trunks, steps, size)``.
        fold: of the same shape.
        like: a tensor of the dtype and on the device of the network.
    """

    def __init__(self, keep: Tensor, fold: Tensor, like: Tensor) -> None:
        self.keep = keep.to(like)
        self.fold = fold.to(like)
        self.nothing = bool(keep.all())

    def at(self, index: Tensor, part: slice) -> tuple[Tensor, Tensor]:
        """Masks and constants ``(trunks of part, rows or 1, size)`` of the steps ``index``.

        ``index`` is int64 ``(rows,)``, or ``()`` where all rows are at the same step.
        """
        if index.ndim == 0:
            index = index[None]
        return self.keep[part].index_select(1, index), self.fold[part].index_select(1, index)


@dataclass(frozen=True, eq=False)
class _Layer:
    """One direction of a recurrent layer; at most one of its tables says anything for a trunk."""

    cell: str
    units: int
    project: Product
    bias: Tensor
    recur: Product
    recur_bias: Tensor
    outputs: Table  # of joint trunks: units whose output is replaced
    gates: Table  # of trunks with separate gates: rows of single gates


class Unrolled:
    """A network seen through some trunks that can't be cut out, all at once.

    Args:
        network: the parent's.
        trunks: at least one, none of them sliceable (rolled, with joint gates).

    Example:
        >>> from mlflow_rnnmod.networks.recurrent.config import NetworkConfig
        >>> config = NetworkConfig("features", 3, None, "lstm", ((4,),), ("a", "b"))
        >>> network, rows = RecurrentLayers(config), Rows(torch.randn(2, 5, 3))
        >>> nothing = Trunk({"recurrent.0.fwd": torch.ones(5, 4).bool()}, variant="unrolled")
        >>> with torch.no_grad():
        ...     found = Unrolled(network, [nothing]).readout(rows)[0]
        ...     torch.allclose(found, network.readout(rows), atol=1e-5)
        True
    """

    def __init__(self, network: RecurrentLayers, trunks: Sequence[Trunk]) -> None:
        for trunk in trunks:
            check_fits(network.groups, trunk)
            if trunk.sliceable:
                raise ValueError("trunks has a rolled one with joint gates; such are cut out.")
        self.network = network
        self.count = len(trunks)
        config = network.config
        # Steps that are told apart by any of the trunks.
        self.steps = max(trunk.steps or 1 for trunk in trunks)
        self._layers = [
            [
                _prepare(network, i, DIRECTIONS[d], trunks, self.steps)
                for d in range(len(config.recurrent[i]))
            ]
            for i in range(len(config.recurrent))
        ]
        like = cell_weights(network.cell(0, "fwd"))[0]
        self._hidden = []
        for i in range(len(config.hidden)):
            found = [(t.keep[f"hidden.{i}"], t.fold[f"hidden.{i}"]) for t in trunks]
            keep, fold = _stacked(found)
            self._hidden.append(Table(keep[:, None], fold[:, None], like))

    def project(self, rows: Rows) -> list[Tensor]:
        """What the first layer's directions read, ``(steps, rows, gates)``, for all trunks."""
        return project_rows(self.network, self._layers[0], rows)

    def readout(
        self, rows: Rows, part: slice = slice(None), projected: list[Tensor] | None = None
    ) -> Tensor:
        """Readouts of some trunks, float ``(trunks, rows, readout size)``, or with steps before it.

        ``projected``: what :meth:`project` gave for these rows, where several parts share it.
        """
        network, config = self.network, self.network.config
        lengths, steps = network.spans(rows)
        valid = network.valid(lengths, steps)
        count = len(range(self.count)[part])
        index = self._index(lengths, steps)
        inputs = self.project(rows) if projected is None else projected
        outputs: list[Tensor] = []
        for number, layers in enumerate(self._layers):
            if number:
                inputs = project_outputs(network, layers, outputs, lengths)
            outputs = []
            for d, (layer, given) in enumerate(zip(layers, inputs, strict=True)):
                own = network.reverse(index[..., None], lengths)[..., 0] if d else index
                out = _run(layer, given, own, count, part)
                if d:
                    out = network.reverse(out.flatten(0, 1), lengths.repeat(count)).view_as(out)
                if config.packed:
                    out = _without_padding(layer, out, index, valid, part)
                outputs.append(out)
        flat = [out.flatten(0, 1) for out in outputs]
        x = side_by_side(flat)
        readout = network.read(flat, x, lengths.repeat(count), valid.repeat(count, 1))
        readout = readout.unflatten(0, (count, len(rows)))
        for i, table in enumerate(self._hidden):
            readout = network.dense_output(i, readout)
            if not table.nothing:
                shape = (count, *[1] * (readout.ndim - 2), readout.shape[-1])
                fold, keep = table.fold[part].view(shape), table.keep[part].view(shape)
                readout = torch.addcmul(fold, readout, keep)
        return readout

    def _index(self, lengths: Tensor, steps: int) -> Tensor:
        """Which mask each position has, int64 ``(rows, steps)``."""
        position = torch.arange(steps, device=lengths.device).expand(len(lengths), -1)
        if self.network.config.side == "left":
            position = position - (steps - lengths[:, None])
        return position.clamp(0, self.steps - 1)


class UnrolledNetwork:
    """A parent seen through one trunk that can't be cut out.

    Args:
        network: the parent's.
        trunk: unrolled, or with separate gates.
    """

    def __init__(self, network: RecurrentLayers, trunk: Trunk) -> None:
        self.all = Unrolled(network, [trunk])

    def readout(self, rows: Rows) -> Tensor:
        """Float ``(rows, parent's readout size)``, or with steps before the last dimension."""
        return self.all.readout(rows)[0]


def _prepare(
    network: RecurrentLayers, index: int, direction: str, trunks: Sequence[Trunk], steps: int
) -> _Layer:
    cell, name = network.config.cell, f"recurrent.{index}.{direction}"
    weight_ih, weight_hh, bias_ih, bias_hh = cell_weights(network.cell(index, direction))
    units = weight_hh.shape[1]
    factor = tanh_factor(cell, bias_ih)
    outputs = [_padded(trunk, name, steps, "joint", 1) for trunk in trunks]
    keep, fold = _stacked([_padded(t, name, steps, "separate", GATES[cell]) for t in trunks])
    return _Layer(
        cell=cell,
        units=units,
        project=Product(weight_ih * factor[:, None]),
        bias=bias_ih * factor,
        recur=Product(weight_hh * factor[:, None]),
        recur_bias=bias_hh * factor,
        outputs=Table(*_stacked(outputs), weight_ih),
        gates=Table(keep, fold.to(factor) * factor, weight_ih),
    )


def _stacked(found: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    keep, fold = zip(*found, strict=True)
    return torch.stack(keep), torch.stack(fold)


def _padded(trunk: Trunk, name: str, steps: int, gates: str, size: int) -> tuple[Tensor, Tensor]:
    """A layer's mask and constants ``(steps, size x units)``; of other trunks, what says nothing.

    The last step's are repeated.
    """
    keep, fold = trunk.keep[name], trunk.fold[name]
    if trunk.gates != gates:
        whole = torch.ones(steps, size * keep.shape[-1], dtype=torch.bool)
        return whole, torch.zeros(whole.shape)
    if trunk.variant == "rolled":
        keep, fold = keep[None], fold[None]
    own = torch.arange(steps).clamp(max=len(keep) - 1)
    return keep[own].flatten(1), fold[own].flatten(1)


def _without_padding(
    layer: _Layer, out: Tensor, index: Tensor, valid: Tensor, part: slice
) -> Tensor:
    """Outputs ``(trunks, rows, steps, units)`` where padding was skipped: zeros, and constants."""
    if layer.outputs.nothing:
        return out * valid[..., None]
    constants = layer.outputs.fold[part][:, index]
    return torch.where(valid[..., None], out, constants)


def _run(layer: _Layer, inputs: Tensor, index: Tensor, count: int, part: slice) -> Tensor:
    """Outputs as others read them, ``(trunks, rows, steps, units)``, in the order of running.

    ``inputs``: ``(steps, rows, gates)`` where trunks share it, else ``(steps, trunks, rows,
    gates)``; ``index``: which mask each step has, ``(rows, steps)``.
    """
    rows = inputs.shape[-2]
    read = inputs.new_zeros(count, rows, layer.units)
    # What a unit carries on by itself; where units are removed, others read something else.
    carried, step = read, _STEPS[layer.cell]
    alike = bool((index == index[:1]).all())
    outputs = []
    for t, given in enumerate(inputs):
        own = index[0, t] if alike else index[:, t]
        state = layer.recur(read.view(-1, layer.units), layer.recur_bias).view(count, rows, -1)
        gates = None if layer.gates.nothing else layer.gates.at(own, part)
        mask = None if layer.outputs.nothing else layer.outputs.at(own, part)
        read, carried = step(given, state, carried, gates, mask and mask[0])
        if mask is not None:
            read = torch.addcmul(mask[1], read, mask[0])
        outputs.append(read)
    return torch.stack(outputs, dim=2)


# From what a step reads (inputs' and states' products) and carries, from masks and constants of
# gates, and from units' masks, to what it puts out and carries on.
_Gates = tuple[Tensor, Tensor] | None
_Step = Callable[[Tensor, Tensor, Tensor, _Gates, Tensor | None], tuple[Tensor, Tensor]]


def _masked(values: Tensor, gates: _Gates) -> Tensor:
    return values if gates is None else torch.addcmul(gates[1], values, gates[0])


def _halved(new: Tensor, before: Tensor, mask: Tensor | None) -> Tensor:
    """What is carried on: half of what was, where a unit is removed: all its gates are at 1/2."""
    return new if mask is None else torch.lerp(before / 2, new, mask)


def _lstm(
    given: Tensor, state: Tensor, carried: Tensor, gates: _Gates, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    i, f, g, o = _masked(state.add_(given), gates).sigmoid_().chunk(4, dim=-1)
    new = (f * carried).addcmul_(i, g, value=2.0).sub_(i)  # g is (tanh + 1) / 2
    c = _halved(new, carried, mask)
    return (2 * c).sigmoid_().mul_(2.0).sub_(1.0).mul_(o), c


def _gru(
    given: Tensor, state: Tensor, carried: Tensor, gates: _Gates, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    units = carried.shape[-1]
    both = state[..., : 2 * units].add_(given[..., : 2 * units])
    keep_n: _Gates = None
    if gates is not None:
        both = _masked(both, (gates[0][..., : 2 * units], gates[1][..., : 2 * units]))
        keep_n = (gates[0][..., 2 * units :], gates[1][..., 2 * units :])
    r, z = both.sigmoid_().chunk(2, dim=-1)
    n = torch.addcmul(given[..., 2 * units :], r, state[..., 2 * units :])
    n = _masked(n, keep_n).sigmoid_().mul_(2.0).sub_(1.0)
    h = _halved(n.lerp_(carried, z), carried, mask)
    return h, h


def _rnn_tanh(
    given: Tensor, state: Tensor, carried: Tensor, gates: _Gates, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    h = _masked(state.add_(given), gates).sigmoid_().mul_(2.0).sub_(1.0)
    return h, h


def _rnn_relu(
    given: Tensor, state: Tensor, carried: Tensor, gates: _Gates, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    h = torch.relu(_masked(state.add_(given), gates))
    return h, h


_STEPS: dict[str, _Step] = {
    "lstm": _lstm,
    "gru": _gru,
    "rnn_tanh": _rnn_tanh,
    "rnn_relu": _rnn_relu,
}
