"""Dense networks in the suite."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from mlflow_rnnmod.networks import Parent, Rows
from mlflow_rnnmod.networks.graph.config import GraphConfig
from mlflow_rnnmod.networks.graph.network import GraphNetwork
from mlflow_rnnmod.networks.graph.operations import Node
from tests.contract.base import Seen, Slowly, Suite, cached
from tests.networks.graph.drawn import networks


def dense(name: str, read: str, units: int) -> Node:
    return Node(name, "linear", (read,), {"units": units})


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


def graph_parent(nodes: tuple[Node, ...], readout: str, output: str = "label") -> Parent:
    """A parent with random weights."""
    network = GraphNetwork(GraphConfig(nodes, ("a", "b", "c"), 6, readout, output)).double()
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(torch.randn(weight.shape, generator=draw) * 0.8)
    return Parent(network)


class GraphSuite(Suite):
    """One hidden layer, several, and groups that meet in sums or lie side by side."""

    name = "graph"
    strategy = networks()

    def parents(self) -> Mapping[str, Callable[[], Parent]]:
        return {
            "one layer": cached(graph_parent, ONE, "relu_0"),
            "several layers, multilabel": cached(graph_parent, SEVERAL, "sigmoid_0", "multilabel"),
            "sums and concatenations": cached(graph_parent, JOINED, "concat_0"),
        }

    def slow(self, network: Any, row: Rows, added: Mapping[str, Tensor] | None = None) -> Slowly:
        config, structure = network.config, network.config.structure
        nodes = {node.name: node for node in config.nodes}
        extra: dict[str, Tensor] = {}
        for group, places in structure.places.items() if added is not None else ():
            for (name, offset, _), value in zip(places, added[group], strict=True):
                part = torch.nn.functional.pad(
                    value, (offset, structure.shapes[name][0] - offset - len(value))
                )
                extra[name] = extra.get(name, 0.0) + part

        def put_out(name: str) -> Tensor:
            if name == "input":
                return row.values.double()
            node = nodes[name]
            given = [(read if node.operation.reads else put_out)(source) for source in node.inputs]
            return node.operation.run(node.settings, given, network.weights(node))

        def read(name: str) -> Tensor:
            if name in nodes and nodes[name].operation.gathers:
                return torch.cat([read(source) for source in nodes[name].inputs], dim=-1)
            return put_out(name) + extra.get(name, 0.0)

        groups = {}
        for group, places in structure.places.items():
            values = [
                read(name)[0, offset : offset + network.units[group]] for name, offset, _ in places
            ]
            watched = [False] * (len(values) - 1) + [True]
            stack = torch.stack(values).detach()
            groups[group] = Seen(stack, [None] * len(values), watched, stack[:-1])
        margins = config.answer.all_margins(network.logits(read(config.readout)))[0]
        return Slowly(groups, margins)
