"""Dense and convolutional networks in the suite."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from mlflow_rnnmod.inputs import ImagePreparation
from mlflow_rnnmod.networks import Parent, Rows
from mlflow_rnnmod.networks.graph.config import GraphConfig
from mlflow_rnnmod.networks.graph.network import GraphNetwork
from mlflow_rnnmod.networks.graph.operations import Node
from tests.contract.base import Seen, Slowly, Suite, cached
from tests.networks.graph.drawn import networks


def dense(name: str, read: str, units: int) -> Node:
    return Node(name, "linear", (read,), {"units": units})


def conv(name: str, read: str, units: int, size: int = 3, op: str = "conv", **more: Any) -> Node:
    """A convolution over two dimensions, with a border of zeros."""
    settings = {
        "units": units,
        "kernel": [size, size],
        "stride": [1, 1],
        "dilation": [1, 1],
        "padding": [[size // 2, size // 2]] * 2,
        "mode": "zeros",
        **more,
    }
    return Node(name, op, (read,), settings)


def pool(name: str, op: str, read: str, size: int) -> Node:
    window = {"kernel": [size] * 2, "stride": [size] * 2, "padding": [0, 0], "ceil": False}
    return Node(name, op, (read,), {**window, **POOLS[op]})


POOLS: dict[str, dict[str, Any]] = {"max_pool": {"dilation": [1, 1]}, "avg_pool": {"zeros": True}}
MEAN = {"axes": [0, 1], "keep": False}
ONE = (dense("linear_0", "input", 7), Node("relu_0", "relu", ("linear_0",)))
SEVERAL = (
    Node("affine_0", "affine", ("input",)),
    dense("linear_0", "affine_0", 6),
    Node("tanh_0", "tanh", ("linear_0",)),
    Node("affine_1", "affine", ("tanh_0",)),
    dense("linear_1", "affine_1", 5),
    Node("gelu_0", "gelu", ("linear_1",), {"approximate": "none"}),
    dense("linear_2", "gelu_0", 4),
    Node("sigmoid_0", "sigmoid", ("linear_2",)),
)
# What meets in sums is one group, read at three places; what lies side by side are two.
JOINED = (
    dense("linear_0", "input", 5),
    Node("tanh_0", "tanh", ("linear_0",)),
    dense("linear_1", "tanh_0", 5),
    Node("add_0", "add", ("tanh_0", "linear_1")),
    dense("linear_2", "add_0", 5),
    Node("silu_0", "silu", ("linear_2",)),
    Node("add_1", "add", ("add_0", "silu_0")),
    dense("linear_3", "input", 4),
    Node("elu_0", "elu", ("linear_3",), {"alpha": 0.7}),
    Node("concat_0", "concat", ("add_1", "elu_0")),
)
# A channel that is flattened owns a block of columns.
PLAIN = (
    conv("conv_0", "input", 4),
    Node("relu_0", "relu", ("conv_0",)),
    Node("affine_0", "affine", ("relu_0",)),
    conv("conv_1", "affine_0", 3, stride=[2, 1]),
    Node("tanh_0", "tanh", ("conv_1",)),
    pool("max_pool_0", "max_pool", "tanh_0", 2),
    Node("reshape_0", "reshape", ("max_pool_0",), {"shape": [6]}),
)
# A padded shortcut takes every second place; its channels lie among those of the next stage.
RESIDUAL = (
    conv("conv_0", "input", 3),
    Node("relu_0", "relu", ("conv_0",)),
    conv("conv_1", "relu_0", 2),
    Node("relu_1", "relu", ("conv_1",)),
    conv("conv_2", "relu_1", 3),
    Node("add_0", "add", ("conv_2", "relu_0")),
    Node("relu_2", "relu", ("add_0",)),
    conv("conv_3", "relu_2", 4, stride=[2, 2]),
    Node("silu_0", "silu", ("conv_3",)),
    conv("conv_4", "silu_0", 7),
    Node("slice_0", "slice", ("relu_2",), {"bounds": [[0, 3, 1], [0, None, 2], [0, None, 2]]}),
    Node("pad_0", "pad", ("slice_0",), {"units": [2, 2], "places": [[0, 0]] * 2, "mode": "zeros"}),
    Node("add_1", "add", ("conv_4", "pad_0")),
    Node("gelu_0", "gelu", ("add_1",), {"approximate": "none"}),
    Node("mean_0", "mean", ("gelu_0",), MEAN),
)
# Channels weighed by what is squeezed out of them; norms over several channels; depthwise.
GROUPED = (
    conv("conv_0", "input", 4),
    Node("group_norm_0", "group_norm", ("conv_0",), {"groups": 2, "eps": 1e-5}),
    Node("silu_0", "silu", ("group_norm_0",)),
    conv("depthwise_0", "silu_0", 8, op="depthwise"),
    Node("hardswish_0", "hardswish", ("depthwise_0",)),
    conv("grouped_conv_0", "hardswish_0", 4, op="grouped_conv", groups=2),
    Node("mean_0", "mean", ("grouped_conv_0",), {**MEAN, "keep": True}),
    conv("conv_1", "mean_0", 4, 1),
    Node("sigmoid_0", "sigmoid", ("conv_1",)),
    Node("multiply_0", "multiply", ("grouped_conv_0", "sigmoid_0")),
    Node("layer_norm_0", "layer_norm", ("multiply_0",), {"eps": 1e-5}),
    pool("avg_pool_0", "avg_pool", "layer_norm_0", 3),
    Node("reshape_0", "reshape", ("avg_pool_0",), {"shape": [4]}),
    dense("linear_0", "reshape_0", 5),
    Node("tanh_0", "tanh", ("linear_0",)),
)
IMAGE = (2, 4, 5)


def graph_parent(
    nodes: tuple[Node, ...], readout: str, output: str = "label", shape: Any = 6
) -> Parent:
    """A parent with random weights."""
    kind = "vectors" if shape == 6 else "pixels"
    config = GraphConfig(nodes, ("a", "b", "c"), shape, readout, output, kind)
    network = GraphNetwork(config).double()
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(torch.randn(weight.shape, generator=draw) * 0.8)
    return Parent(network)


def image_parent() -> Parent:
    """The first of them, for files of images that become vectors."""
    prepare = ImagePreparation(size=(2, 3), channels=1, mean=0.4, std=0.3)
    return Parent(graph_parent(ONE, "relu_0").network, image=prepare)


class GraphSuite(Suite):
    """One hidden layer, several, and groups that meet in sums or lie side by side."""

    name = "graph"
    strategy = networks()

    def parents(self) -> Mapping[str, Callable[[], Parent]]:
        return {
            "one layer": cached(graph_parent, ONE, "relu_0"),
            "several layers, multilabel": cached(graph_parent, SEVERAL, "sigmoid_0", "multilabel"),
            "sums and concatenations": cached(graph_parent, JOINED, "concat_0"),
            "files of images": cached(image_parent),
            "channels": cached(graph_parent, PLAIN, "reshape_0", shape=IMAGE),
            "residual channels": cached(graph_parent, RESIDUAL, "mean_0", shape=IMAGE),
            "grouped channels": cached(graph_parent, GROUPED, "tanh_0", shape=(2, 3, 3)),
        }

    def square(self, network: Any, values: Tensor, slopes: Tensor, layer: Any) -> Tensor:
        """Of channels: what all places change together, where no other unit can guess it."""
        if not network.config.spatial:
            return super().square(network, values, slopes, layer)
        left, covariance, mean = torch.zeros_like(values), layer.covariance, layer.mean
        ridge = 1e-3 * covariance.diagonal().mean().clamp(min=1e-12)
        for unit in range(values.shape[1]):
            others = [i for i in range(values.shape[1]) if i != unit]
            within = covariance[others][:, others] + ridge * torch.eye(len(others)).double()
            weights = torch.linalg.solve(within, covariance[others, unit])
            guess = (values - mean)[:, others] @ weights
            left[:, unit] = values[:, unit] - mean[unit] - guess
        return (left * slopes).sum(0) ** 2

    def readout_blocks(self, network: Any) -> list[int]:
        return [part.block for part in network.config.structure.parts[network.config.readout]]

    def slow(self, network: Any, row: Rows, added: Mapping[str, Tensor] | None = None) -> Slowly:
        config, structure = network.config, network.config.structure
        nodes = {node.name: node for node in config.nodes}

        def put_out(name: str) -> Tensor:
            if name == "input":
                return row.values.double()
            node = nodes[name]
            given = [(read if node.operation.reads else put_out)(source) for source in node.inputs]
            return node.operation.run(node.settings, given, network.weights(node))

        def read(name: str) -> Tensor:
            if name not in nodes:
                return put_out(name)
            node = nodes[name]
            if node.operation.gathers:
                given = [read(source) for source in node.inputs]
                return node.operation.run(node.settings, given, network.weights(node))
            return put_out(name) + extra.get(name, 0.0)

        extra: dict[str, Tensor] = {}
        observed: dict[str, list[Tensor]] = {}
        for group, places in structure.places.items():
            start = 0
            for name, offset, block in places:
                units = network.units[group]
                columns = slice(offset, offset + units * block)
                value = put_out(name).detach()[0]
                flat = value[columns].reshape(units, -1)
                observed.setdefault(group, []).append(flat.T)
                if added is not None:
                    here = added[group][start : start + flat.shape[1]].T
                    start += flat.shape[1]
                    more = torch.zeros_like(value)
                    index = torch.arange(len(value))[columns]
                    more = more.index_add(0, index, here.reshape(value[columns].shape))
                    extra[name] = extra.get(name, 0.0) + more
        groups = {}
        for group, parts in observed.items():
            last = len(parts[-1])
            stack = torch.cat(parts)
            watched = [False] * (len(stack) - last) + [True] * last
            groups[group] = Seen(stack, [None] * len(stack), watched, stack[: len(stack) - last])
        margins = config.answer.all_margins(network.logits(read(config.readout)))[0]
        return Slowly(groups, margins)
