"""A recurrent network through a trunk's eyes: its units masked, or cut out for speed."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from mlflow_rnnmod.networks.groups import Completion, Groups, check_fits, trimmed_tensors
from mlflow_rnnmod.networks.protocol import TrunkNetwork, View
from mlflow_rnnmod.networks.recurrent.config import DIRECTIONS, NetworkConfig
from mlflow_rnnmod.networks.recurrent.layers import RecurrentLayers
from mlflow_rnnmod.networks.recurrent.unrolled import UnrolledNetwork
from mlflow_rnnmod.networks.trunk import Trunk


def masked(network: RecurrentLayers, trunk: Trunk) -> View:
    """``network`` with what the trunk removes zeroed and folded: the plain meaning of a trunk.

    Raises:
        ValueError: if the trunk's layers are not the network's; both are shown.
    """
    check_fits(network.groups, trunk)
    if trunk.variant == "unrolled":
        return UnrolledNetwork(network, trunk)
    return _trimmed(network, trunk, cut=False)


def sliced(network: RecurrentLayers, trunk: Trunk) -> View:
    """``network`` with the removed rows and columns cut out: as :func:`masked`, but smaller.

    Exact because a unit that is removed at every step stays at zero in every cell (RNN-D's own
    networks are never cut; see docs/method.md, "Removal semantics"). From a trunk that is unrolled
    or has separate gates nothing can be cut: it is masked.

    Raises:
        ValueError: if the trunk's layers are not the network's; both are shown.

    Example:
        >>> from mlflow_rnnmod.inputs.rows import Rows
        >>> config = NetworkConfig("features", 3, None, "lstm", ((4,),), ("a", "b"))
        >>> network = RecurrentLayers(config)
        >>> trunk = Trunk({"recurrent.0.fwd": torch.tensor([True, False, True, True])})
        >>> rows = Rows(torch.randn(2, 5, 3))
        >>> with torch.no_grad():
        ...     a, b = sliced(network, trunk).readout(rows), masked(network, trunk).readout(rows)
        >>> torch.allclose(a, b, atol=1e-6)
        True
    """
    if not trunk.sliceable:
        return masked(network, trunk)
    check_fits(network.groups, trunk)
    return _trimmed(network, trunk, cut=True)


def _trimmed(network: RecurrentLayers, trunk: Trunk, cut: bool) -> TrunkNetwork:
    """``network`` through a rolled trunk; the output layer is left out."""
    config, groups = network.config, network.groups
    separate = trunk.gates == "separate"
    # A largest value over steps is taken of the guesses, too: they must be there before.
    early = config.readout.startswith("max") and not separate
    if early:
        groups = _unread(groups, "hidden.0.weight")
    state = {name: t for name, t in network.state_dict().items() if not name.startswith("output.")}
    tensors = trimmed_tensors(state, groups, trunk, cut)
    with torch.device("meta"):
        inner = RecurrentLayers(_cut_config(config, trunk) if cut else config)
    del inner.output
    for name, tensor in tensors.items():  # a dense layer behind guesses keeps its width
        place, _, kind = name.rpartition(".")
        setattr(inner.get_submodule(place), kind, nn.Parameter(tensor, requires_grad=False))
    for part in inner.modules():
        if isinstance(part, nn.RNNBase):
            part.flatten_parameters()
    last = config.inputs_of(len(config.recurrent))
    if early:
        inner.completion = Completion(trunk, last, cut, network.like)
    inner.requires_grad_(False).eval()
    done = (early or separate) and not config.hidden
    whole = None if done else Completion(trunk, config.readout_layers, cut, network.like)
    return TrunkNetwork(inner, whole)


def _unread(groups: Groups, tensor: str) -> Groups:
    """The groups without those readers that are columns of ``tensor``."""
    return {
        name: replace(group, readers=tuple(r for r in group.readers if r.tensor != tensor))
        for name, group in groups.items()
    }


def _cut_config(config: NetworkConfig, trunk: Trunk) -> NetworkConfig:
    """The structure of what is left of a network."""
    sizes = trunk.sizes
    recurrent = tuple(
        tuple(sizes[f"recurrent.{i}.{d}"] for d in DIRECTIONS[: len(layer)])
        for i, layer in enumerate(config.recurrent)
    )
    hidden = tuple(
        replace(layer, units=sizes[f"hidden.{i}"]) for i, layer in enumerate(config.hidden)
    )
    return replace(config, recurrent=recurrent, hidden=hidden)
