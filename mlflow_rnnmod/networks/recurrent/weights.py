"""Weights of a user's network, copied into ours."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn

from mlflow_rnnmod.networks.recurrent.config import DIRECTIONS, NetworkConfig
from mlflow_rnnmod.networks.recurrent.network import RecurrentNetwork
from mlflow_rnnmod.networks.recurrent.structure import Parts, linear, recurrent_layers

Network = TypeVar("Network", bound=nn.Module)
# One direction's columns of the first dense layer, where the network does not put both side by side
_JOINED = {"sum": (1.0, 1.0), "mean": (0.5, 0.5), "backward": (0.0, 1.0)}


def copy_network(
    module: nn.Module, parts: Parts, config: NetworkConfig, directions: str
) -> RecurrentNetwork:
    """Our network with copies of the weights of a user's one.

    Args:
        module: the user's network.
        parts: names of its submodules.
        config: the structure, which must be that of ``parts``.
        directions: what becomes of the two directions (:class:`~.spec.NetworkSpec`); all but
            ``"concatenate"`` are linear, so they go into the first dense layer's weights.

    Returns:
        In evaluation mode, without gradients, on the device of ``module``; no memory is shared.
    """
    tensors: dict[str, Tensor] = {}
    if parts.embedding is not None:
        tensors["embedding.weight"] = embedding_weight(module.get_submodule(parts.embedding))
    elif config.embedding_size is not None:
        tensors["embedding.weight"] = torch.eye(config.embedding_size)
    tensors |= stack_tensors(recurrent_layers(module, parts.recurrent), "recurrent")
    dense = [*parts.hidden, parts.head]
    targets = [f"hidden.{i}" for i in range(len(parts.hidden))] + ["output"]
    for name, target in zip(dense, targets, strict=True):
        weight, bias = dense_weights(linear(module, name))
        if name == dense[0] and directions != "concatenate":
            weight = torch.cat([share * weight for share in _JOINED[directions]], dim=1)
        if name == parts.head and len(weight) == 1:
            # One output z for two labels: the logits (0, z) have the same log-odds.
            weight, bias = (torch.cat([torch.zeros_like(t), t]) for t in (weight, bias))
        tensors.update({f"{target}.weight": weight, f"{target}.bias": bias})
    return own_network(lambda: RecurrentNetwork(config), tensors)


def own_network(build: Callable[[], Network], tensors: dict[str, Tensor]) -> Network:
    """What ``build`` makes, with copies of the tensors as its weights.

    ``build``: makes a network whose state has the names of ``tensors``; ``tensors``: one of them is
    ``"output.weight"``; all get its kind and device.
    """
    like = tensors["output.weight"]
    with torch.device("meta"):
        network = build()
    network.load_state_dict(
        {name: own_copy(tensor, like) for name, tensor in tensors.items()}, assign=True
    )
    for part in network.modules():
        if isinstance(part, nn.RNNBase):
            part.flatten_parameters()
    return network.requires_grad_(False).eval()


def cells_of(module: nn.Module, parts: Parts) -> tuple[str, tuple[tuple[int, ...], ...]]:
    """Kind of cell, and units of each layer and direction, as in :class:`~.NetworkConfig`."""
    layers = recurrent_layers(module, parts.recurrent)
    units = [
        (layer.hidden_size,) * (2 if layer.bidirectional else 1)
        for layer in layers
        for _ in range(layer.num_layers)
    ]
    return layers[0].mode.lower(), tuple(units)


def own_copy(tensor: Tensor, like: Tensor) -> Tensor:
    """A contiguous copy of ``tensor``, of the kind and on the device of ``like``."""
    return tensor.detach().to(like.device, like.dtype, copy=True).contiguous()


def embedding_weight(part: nn.Module) -> Tensor:
    """Rows of an embedding as they are looked up."""
    assert isinstance(part, nn.Embedding)
    weight = part.weight.detach()
    if part.max_norm is None:
        return weight
    # PyTorch shortens a row when it is looked up, with this epsilon.
    norms = weight.norm(p=part.norm_type, dim=1, keepdim=True)
    return torch.where(norms > part.max_norm, weight * (part.max_norm / (norms + 1e-7)), weight)


def stack_tensors(layers: Iterable[nn.RNNBase], prefix: str) -> dict[str, Tensor]:
    """Weights of PyTorch layers, one upon the other, by our names: layer, direction, kind."""
    every = [(layer, k) for layer in layers for k in range(layer.num_layers)]
    return {
        f"{prefix}.{index}.{direction}.{kind}_l0": tensor
        for index, (layer, k) in enumerate(every)
        for direction in DIRECTIONS[: 2 if layer.bidirectional else 1]
        for kind, tensor in cell_tensors(layer, k, direction).items()
    }


def dense_weights(layer: nn.Linear) -> tuple[Tensor, Tensor]:
    """Weight and bias of a dense layer; the bias is zero where it has none."""
    weight = layer.weight.detach()
    bias: Tensor | None = layer.bias
    return weight, weight.new_zeros(len(weight)) if bias is None else bias.detach()


def cell_tensors(layer: nn.RNNBase, k: int, direction: str) -> dict[str, Tensor]:
    """Weights of one layer and direction of a PyTorch layer; biases are zero where it has none."""
    suffix = f"_l{k}" + ("_reverse" if direction == "bwd" else "")
    weights: dict[str, Tensor] = {
        kind: getattr(layer, kind + suffix) for kind in ("weight_ih", "weight_hh")
    }
    zeros = weights["weight_hh"].new_zeros(len(weights["weight_hh"]))
    for kind in ("bias_ih", "bias_hh"):
        weights[kind] = getattr(layer, kind + suffix) if layer.bias else zeros
    return weights
