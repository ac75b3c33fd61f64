"""A parent through a trunk's eyes: its units masked, or cut out for speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor, nn

from mlflow_rnnmod.networks.recurrent.cells import cell_weights
from mlflow_rnnmod.networks.recurrent.config import DIRECTIONS, GATES
from mlflow_rnnmod.networks.recurrent.network import RecurrentNetwork
from mlflow_rnnmod.networks.recurrent.unrolled import UnrolledNetwork, check_fits
from mlflow_rnnmod.networks.rows import Rows
from mlflow_rnnmod.networks.trunk import Trunk


class View(Protocol):
    """A network seen through one trunk."""

    def readout(self, rows: Rows) -> Tensor:
        """Float ``(rows, parent's readout size)``, or with steps before the last dimension."""
        ...  # pragma: no cover


class Completion(nn.Module):
    """From the outputs of kept units to those of all: removed ones get their guess.

    Args:
        trunk: which units are kept, and what is guessed of the others.
        names: the layers whose units, in this order, make up the outputs.
        cut: whether the outputs given hold only kept units, or zeros in the place of the others.
        dtype: of the outputs.
    """

    def __init__(
        self,
        trunk: Trunk,
        names: Sequence[str],
        cut: bool,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        super().__init__()
        keep, fold, mix = _guess(trunk, names)
        # Kept units pass as they are, so one product does it all.
        matrix = torch.diag(keep.to(fold.dtype))
        if mix is not None:
            matrix = matrix + mix
        if cut:
            matrix = matrix[:, keep]
        self.fold: Tensor
        self.matrix: Tensor
        self.register_buffer("fold", fold.to(device, dtype), persistent=False)
        self.register_buffer("matrix", matrix.T.contiguous().to(device, dtype), persistent=False)

    def forward(self, outputs: Tensor) -> Tensor:
        """Float ``(..., all units)`` from ``(..., kept units)``, or from all when not cut."""
        flat = torch.addmm(self.fold, outputs.reshape(-1, outputs.shape[-1]), self.matrix)
        return flat.view(*outputs.shape[:-1], -1)


class TrunkNetwork(nn.Module):
    """A parent seen through a trunk: the readout of its kept units, at the parent's width.

    Columns of removed units hold the trunk's guesses, so the parent's output layer, or any head
    over the parent's readout, can be applied as it stands.

    Args:
        inner: the parent masked, or cut down to the trunk's units.
        completion: puts the guesses in; ``None`` where ``inner`` has done so.
    """

    def __init__(self, inner: RecurrentNetwork, completion: Completion | None) -> None:
        super().__init__()
        self.inner = inner
        self.completion = completion

    def readout(self, rows: Rows) -> Tensor:
        """Float ``(rows, parent's readout size)``, or with steps before the last dimension."""
        found = self.inner.readout(rows)
        return found if self.completion is None else self.completion(found)


def _guess(trunk: Trunk, names: Sequence[str]) -> tuple[Tensor, Tensor, Tensor | None]:
    """Masks, constants and (where there is any) weights of the guesses, of layers side by side.

    With separate gates no output is guessed.
    """
    outputs = {name: (trunk.keep[name], trunk.fold[name]) for name in names}
    for name in names:
        if trunk.keep[name].ndim > 1:
            size = trunk.units[name]
            outputs[name] = (torch.ones(size, dtype=torch.bool), torch.zeros(size))
    keep, fold = (torch.cat(found) for found in zip(*outputs.values(), strict=True))
    if not any(name in trunk.mix for name in names):
        return keep, fold, None
    none = {name: torch.zeros(len(trunk.keep[name]), len(trunk.keep[name])) for name in names}
    return keep, fold, torch.block_diag(*[trunk.mix.get(name, none[name]) for name in names])


class _Trimmer:
    """Weights of a network with a trunk's removed units cut out (``cut``), or zeroed."""

    def __init__(self, network: RecurrentNetwork, trunk: Trunk, cut: bool) -> None:
        self.network, self.trunk, self.cut = network, trunk, cut

    def behind(self, weight: Tensor, bias: Tensor, names: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Weight and bias that read the layers ``names``, with the guesses folded into them."""
        keep, fold, mix = _guess(self.trunk, names)
        keep = keep.to(weight.device)
        bias = bias + weight @ fold.to(weight)
        folded = weight * keep if mix is None else weight * keep + weight @ mix.to(weight)
        return (folded[:, keep] if self.cut else folded), bias

    def rows(self, keep: Tensor, *tensors: Tensor) -> list[nn.Parameter]:
        """Rows of kept units; a unit that is gone is neither fed nor biased."""
        found = []
        for tensor in tensors:
            mask = keep.to(tensor.device)
            picked = tensor[mask] if self.cut else tensor * mask.view(-1, *[1] * (tensor.ndim - 1))
            found.append(nn.Parameter(picked.clone(), requires_grad=False))
        return found


def _trimmed(network: RecurrentNetwork, trunk: Trunk, cut: bool) -> TrunkNetwork:
    """``network`` through ``trunk``.

    Guesses that recurrent weights read go into ``weight_hh`` and ``bias_hh``: in a GRU they stay
    inside the reset gate's product. The output layer is left alone; heads read the parent's width.
    """
    config, gates, trim = network.config, GATES[network.config.cell], _Trimmer(network, trunk, cut)
    separate = trunk.gates == "separate"
    if cut:
        recurrent = tuple(
            tuple(int(trunk.keep[f"recurrent.{i}.{d}"].sum()) for d in DIRECTIONS[: len(layer)])
            for i, layer in enumerate(config.recurrent)
        )
        hidden = tuple(
            replace(layer, units=int(trunk.keep[f"hidden.{i}"].sum()))
            for i, layer in enumerate(config.hidden)
        )
        config = replace(config, recurrent=recurrent, hidden=hidden)
    with torch.device("meta"):
        inner = RecurrentNetwork(config)
    inner.embedding = network.embedding
    del inner.output

    def completion(names: Sequence[str]) -> Completion:
        return Completion(trunk, names, cut, network.dtype, network.device)

    with torch.no_grad():
        for i, layer in enumerate(config.recurrent):
            below = config.inputs_of(i)
            for direction in DIRECTIONS[: len(layer)]:
                name = f"recurrent.{i}.{direction}"
                target = inner.cell(i, direction)
                weight_ih, weight_hh, bias_ih, bias_hh = cell_weights(network.cell(i, direction))
                if below:
                    weight_ih, bias_ih = trim.behind(weight_ih, bias_ih, below)
                weight_hh, bias_hh = trim.behind(weight_hh, bias_hh, [name])
                keep = trunk.keep[name]
                rows = keep.flatten() if separate else keep.repeat(gates)
                found = trim.rows(rows, weight_ih, weight_hh, bias_ih, bias_hh)
                if separate:  # constants in the place of pre-activations; of kept ones 0
                    found[2].add_(trunk.fold[name].flatten().to(found[2]))
                target.weight_ih_l0, target.weight_hh_l0 = found[:2]
                target.bias_ih_l0, target.bias_hh_l0 = found[2:]
                target.flatten_parameters()
        last = config.inputs_of(len(config.recurrent))
        # A largest value over steps is taken of the guesses, too: they must be there before.
        early = config.readout.startswith("max") and not separate
        if early:
            inner.completion = completion(last)
        below = () if early else last
        for i in range(len(config.hidden)):
            dense, cut_dense = network.dense(i), inner.dense(i)
            weight, bias = dense.weight.detach(), dense.bias.detach()
            if below:
                weight, bias = trim.behind(weight, bias, below)
            found = trim.rows(trunk.keep[f"hidden.{i}"], weight, bias)
            cut_dense.weight, cut_dense.bias = found
            below = (f"hidden.{i}",)
    inner.requires_grad_(False).eval()
    done = (early or separate) and not config.hidden
    return TrunkNetwork(inner, None if done else completion(network.readout_layers))


def masked(network: RecurrentNetwork, trunk: Trunk) -> View:
    """``network`` with what the trunk removes zeroed and folded: the plain meaning of a trunk.

    Raises:
        ValueError: if the trunk's layers are not the network's; both are shown.
    """
    check_fits(network, trunk)
    if trunk.variant == "unrolled":
        return UnrolledNetwork(network, trunk)
    return _trimmed(network, trunk, cut=False)


def sliced(network: RecurrentNetwork, trunk: Trunk) -> View:
    """``network`` with the removed rows and columns cut out: as :func:`masked`, but smaller.

    Exact because a unit that is removed at every step stays at zero in every cell (RNN-D's own
    networks are never cut; see METHOD.md, "Removal semantics"). From a trunk that is unrolled or
    has separate gates nothing can be cut: it is masked.

    Raises:
        ValueError: if the trunk's layers are not the network's; both are shown.

    Example:
        >>> from mlflow_rnnmod.networks.recurrent.config import NetworkConfig
        >>> config = NetworkConfig("features", 3, None, "lstm", ((4,),), ("a", "b"))
        >>> network = RecurrentNetwork(config)
        >>> trunk = Trunk({"recurrent.0.fwd": torch.tensor([True, False, True, True])})
        >>> rows = Rows(torch.randn(2, 5, 3))
        >>> with torch.no_grad():
        ...     a, b = sliced(network, trunk).readout(rows), masked(network, trunk).readout(rows)
        >>> torch.allclose(a, b, atol=1e-6)
        True
    """
    if not trunk.sliceable:
        return masked(network, trunk)
    check_fits(network, trunk)
    return _trimmed(network, trunk, cut=True)


def view(network: RecurrentNetwork, trunk: Trunk) -> View:
    """The fastest network that gives what ``network`` gives through ``trunk``.

    Raises:
        ValueError: if the trunk's layers are not the network's; both are shown.
    """
    check_fits(network, trunk)
    return TrunkNetwork(network, None) if trunk.full else sliced(network, trunk)
