"""A parent through a trunk's eyes: its units masked, or cut out for speed."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from mlflow_rnnmod.network.config import GATES
from mlflow_rnnmod.network.network import RecurrentNetwork
from mlflow_rnnmod.network.rows import Rows
from mlflow_rnnmod.network.trunk import Trunk


class TrunkNetwork(nn.Module):
    """A parent seen through a trunk: the readout of its kept units, at the parent's width.

    Columns of removed units hold the trunk's constants, so the parent's output layer, or any head
    over the parent's readout, can be applied as it stands.

    Args:
        inner: the parent masked, or cut down to the trunk's units.
        trunk: which units those are.
        readout_layers: names of the parent's layers that make up the readout.
        sliced: whether ``inner`` holds only the kept units.
    """

    def __init__(
        self, inner: RecurrentNetwork, trunk: Trunk, readout_layers: tuple[str, ...], sliced: bool
    ) -> None:
        super().__init__()
        self.inner = inner
        keep = torch.cat([trunk.keep[name] for name in readout_layers])
        fill = torch.cat([trunk.fold[name] for name in readout_layers])
        self.sliced = sliced
        self.register_buffer("columns", keep.nonzero()[:, 0], persistent=False)
        self.register_buffer("keep", keep, persistent=False)
        self.register_buffer("fill", fill.to(inner.dtype), persistent=False)

    def readout(self, rows: Rows) -> Tensor:
        """Float ``(rows, parent's readout size)``."""
        found = self.inner.states(rows).readout
        if not self.sliced:
            return torch.where(self.keep, found, self.fill)
        full = self.fill.expand(len(found), -1).clone()
        full[:, self.columns] = found
        return full


def _kept_inputs(network: RecurrentNetwork, trunk: Trunk, layer: int) -> tuple[Tensor, Tensor]:
    """Mask and constants of what recurrent layer ``layer`` reads, along its input columns."""
    names = network.config.inputs_of(layer)
    if not names:
        size = network.config.step_size
        return torch.ones(size, dtype=torch.bool), torch.zeros(size)
    return (
        torch.cat([trunk.keep[name] for name in names]),
        torch.cat([trunk.fold[name] for name in names]),
    )


def _check(network: RecurrentNetwork, trunk: Trunk) -> None:
    found = {name: len(mask) for name, mask in trunk.keep.items()}
    if found != network.units:
        raise ValueError(
            f"The trunk's layers and the network's differ:\ntrunk: {found}\n"
            f"network: {network.units}."
        )


def _trimmed(network: RecurrentNetwork, trunk: Trunk, cut: bool) -> RecurrentNetwork:
    """A copy of ``network`` whose removed units are cut out (``cut``), or zeroed.

    Both fold in the same way: each bias behind removed units gets the constants times their
    weights - the recurrent ones in ``bias_hh``, which in a GRU stays inside the reset gate's
    product. The output layer is left alone; :class:`TrunkNetwork` puts constants in its readout.
    """
    config = network.config
    gates = GATES[config.cell]
    if cut:
        recurrent = tuple(
            tuple(int(trunk.keep[f"recurrent.{i}.{d}"].sum()) for d in ("fwd", "bwd")[: len(layer)])
            for i, layer in enumerate(config.recurrent)
        )
        hidden = tuple(
            replace(layer, units=int(trunk.keep[f"hidden.{i}"].sum()))
            for i, layer in enumerate(config.hidden)
        )
        config = replace(config, recurrent=recurrent, hidden=hidden)
    with torch.device("meta"):
        result = RecurrentNetwork(config)
    result.embedding = network.embedding

    def trim(weight: Tensor, rows: Tensor, columns: Tensor | None) -> nn.Parameter:
        """``weight`` with the rows and columns that are not kept taken out, or zeroed."""
        if cut:
            weight = weight[rows] if columns is None else weight[rows][:, columns]
        else:
            weight = weight * rows[:, None] * columns if columns is not None else weight * rows
        return nn.Parameter(weight.clone(), requires_grad=False)

    with torch.no_grad():
        for i, layer in enumerate(config.recurrent):
            kept_in, fold_in = _kept_inputs(network, trunk, i)
            for direction in ("fwd", "bwd")[: len(layer)]:
                name = f"recurrent.{i}.{direction}"
                source, target = network.cell(i, direction), result.cell(i, direction)
                weight_ih, weight_hh = source.weight_ih_l0, source.weight_hh_l0
                device, dtype = weight_ih.device, weight_ih.dtype
                keep, fold = trunk.keep[name].to(device), trunk.fold[name].to(device, dtype)
                inputs, constants = kept_in.to(device), fold_in.to(device, dtype)
                rows = keep.repeat(gates)
                target.weight_ih_l0 = trim(weight_ih, rows, inputs)
                target.weight_hh_l0 = trim(weight_hh, rows, keep)
                target.bias_ih_l0 = trim(source.bias_ih_l0 + weight_ih @ constants, rows, None)
                target.bias_hh_l0 = trim(source.bias_hh_l0 + weight_hh @ fold, rows, None)
                target.flatten_parameters()
        kept_in, fold_in = _kept_inputs(network, trunk, len(config.recurrent))
        for i, (source, target) in enumerate(zip(network.hidden, result.hidden, strict=True)):
            device, dtype = source.weight.device, source.weight.dtype
            keep = trunk.keep[f"hidden.{i}"].to(device)
            inputs, constants = kept_in.to(device), fold_in.to(device, dtype)
            target.weight = trim(source.weight, keep, inputs)
            target.bias = trim(source.bias + source.weight @ constants, keep, None)
            kept_in, fold_in = keep, trunk.fold[f"hidden.{i}"]
    del result.output  # heads read the parent's width, which TrunkNetwork gives back
    return result.requires_grad_(False).eval()


def masked(network: RecurrentNetwork, trunk: Trunk) -> TrunkNetwork:
    """``network`` with the trunk's removed units zeroed and folded: the plain meaning of a trunk.

    Raises:
        ValueError: if the trunk's layers are not the network's; both are shown.
    """
    _check(network, trunk)
    inner = _trimmed(network, trunk, cut=False)
    return TrunkNetwork(inner, trunk, network.readout_layers, sliced=False).to(network.device)


def sliced(network: RecurrentNetwork, trunk: Trunk) -> TrunkNetwork:
    """``network`` with the removed rows and columns cut out: as :func:`masked`, but smaller.

    Exact because a unit that is removed at every step stays at zero in every cell (RNN-D's own
    networks are never cut; see METHOD.md, "Removal semantics").

    Raises:
        ValueError: if the trunk's layers are not the network's; both are shown.

    Example:
        >>> from mlflow_rnnmod.network.config import NetworkConfig
        >>> network = RecurrentNetwork(NetworkConfig("features", 3, None, "lstm", ((4,),), ("a", "b")))
        >>> trunk = Trunk({"recurrent.0.fwd": torch.tensor([True, False, True, True])})
        >>> rows = Rows(torch.randn(2, 5, 3))
        >>> with torch.no_grad():
        ...     a, b = sliced(network, trunk).readout(rows), masked(network, trunk).readout(rows)
        >>> torch.allclose(a, b, atol=1e-6)
        True
    """
    _check(network, trunk)
    inner = _trimmed(network, trunk, cut=True)
    return TrunkNetwork(inner, trunk, network.readout_layers, sliced=True).to(network.device)
