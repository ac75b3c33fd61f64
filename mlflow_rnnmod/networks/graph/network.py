"""A graph network: our own interpreter over nodes that are plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from mlflow_rnnmod.networks.graph.config import GraphConfig
from mlflow_rnnmod.networks.graph.many import GraphTrunks
from mlflow_rnnmod.networks.graph.operations import Node
from mlflow_rnnmod.networks.graph.structure import evaluate
from mlflow_rnnmod.networks.graph.watching import GraphWatch
from mlflow_rnnmod.networks.groups import Completion, Groups, check_fits, trimmed_tensors
from mlflow_rnnmod.networks.protocol import Network, Told, TrunkNetwork, Trunks, View, Watch
from mlflow_rnnmod.networks.rows import Rows
from mlflow_rnnmod.networks.trunk import Trunk


class GraphNetwork(Network):
    """Nodes from vectors to a readout, and an output layer.

    Args:
        config: the structure. Weights start as PyTorch initialises them.

    Example:
        >>> nodes = (Node("linear_0", "linear", ("input",), {"units": 8}),
        ...          Node("relu_0", "relu", ("linear_0",)))
        >>> network = GraphNetwork(GraphConfig(nodes, ("yes", "no"), 5, "relu_0"))
        >>> network(Rows(torch.zeros(3, 5))).shape, network.units
        (torch.Size([3, 2]), {'hidden.0': 8})
    """

    architecture = "graph"

    def __init__(self, config: GraphConfig) -> None:
        super().__init__()
        self.config: GraphConfig = config
        for name, shape in config.shapes.items():
            part, _, key = name.rpartition(".")
            if part not in self._modules:
                self.add_module(part, nn.Module())
            self.get_submodule(part).register_parameter(key, nn.Parameter(_initial(key, shape)))
        self.eval()

    @property
    def groups(self) -> Groups:
        """One for each hidden dense layer, or for several that meet in a sum."""
        return self.config.structure.groups

    @property
    def readout_groups(self) -> tuple[str, ...]:
        """Names of the groups that the output layer reads."""
        return self.config.structure.readout_groups

    def prepare(self, rows: Rows) -> Rows:
        """Rows as float vectors; images are flattened."""
        return Rows(self.vectors(rows), rows.lengths, rows.targets)

    def vectors(self, rows: Rows) -> Tensor:
        """Float ``(rows, input size)``.

        Raises:
            ValueError: if there are more or fewer numbers in a row.
        """
        values = rows.values
        if math.prod(values.shape[1:]) != self.config.input_size or values.ndim < 2:
            raise ValueError(
                f"values has shape {tuple(values.shape)}; expected (rows, "
                f"{self.config.input_size}) floats."
            )
        return values.flatten(1).to(self.dtype)

    def weights(self, node: Node) -> dict[str, Tensor]:
        """Weights of a node, by their names in it."""
        names = node.operation.parameters
        if not names:
            return {}
        part = self._modules[node.name]
        return {key: getattr(part, key) for key in names}

    def states(self, rows: Rows, added: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """What all nodes put out, by name (see :func:`evaluate`)."""
        return evaluate(self.config.nodes, self.vectors(rows), self.weights, added)

    def readout(self, rows: Rows) -> Tensor:
        """What the output layer reads, ``(rows, readout size)``."""
        return self.states(rows)[self.config.readout]

    def logits(self, readout: Tensor) -> Tensor:
        """The output layer: float ``(..., labels)`` from a readout ``(..., readout size)``."""
        output: Any = self._modules["output"]
        return nn.functional.linear(readout, output.weight, output.bias)

    def watch(self, rows: Rows, told: Told, gradients: bool) -> Watch:
        """Run a batch, and keep what is needed to be asked about it."""
        structure, like = self.config.structure, self.like
        leaves = {}
        if gradients:
            read = {name for places in structure.places.values() for name, _ in places}
            leaves = {
                name: like.new_zeros(len(rows), *structure.shapes[name]).requires_grad_()
                for name in structure.shapes
                if name in read
            }
        with torch.set_grad_enabled(gradients):
            values = self.states(rows, leaves)
            logits = self.logits(values[self.config.readout])
        return GraphWatch(self.config, values, logits, leaves)

    def view(self, trunk: Trunk, cut: bool = True) -> View:
        """The network through a trunk, cut down to its units or with the others at zero."""
        check_fits(self.groups, trunk)
        tensors = trimmed_tensors(self.state_dict(), self.groups, trunk, cut)
        config, ends = self.config, self.readout_groups
        kept = torch.cat([trunk.keep[name] for name in ends])
        if cut:
            config = resized(config, trunk.sizes)
            tensors["output.weight"] = tensors["output.weight"][:, kept.to(self.device)]
        with torch.device("meta"):
            inner = GraphNetwork(config)
        inner.load_state_dict(tensors, assign=True)
        inner.requires_grad_(False)
        if bool(kept.all()):
            return TrunkNetwork(inner, None)
        return TrunkNetwork(inner, Completion(trunk, ends, cut, self.like))

    def through(self, trunks: Sequence[Trunk]) -> Trunks:
        """Several trunks at once."""
        return GraphTrunks(self, trunks)

    def params(self) -> Mapping[str, Any]:
        """Groups and their units."""
        units = self.units.values()
        return {"layers": len(units), "hidden": "+".join(map(str, units))}

    def reading(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        """The nodes: all but the labels."""
        shape = self.config.to_dict()
        del shape["labels"]
        return {}, shape

    def words(self) -> str:
        """The structure in words."""
        sizes = ", ".join(str(units) for units in self.units.values())
        kinds = dict.fromkeys(node.op for node in self.config.nodes if node.op != "linear")
        return (
            f"dense network, {self.config.input_size} inputs, hidden layers of {sizes} units"
            + (f" ({', '.join(kinds)})" if kinds else "")
            + f", {len(self.labels)} labels"
        )


def resized(config: GraphConfig, kept: Mapping[str, int]) -> GraphConfig:
    """The structure with so many units in each group."""

    def own(node: Node) -> Node:
        group = config.structure.parts[node.name][0].group
        if group is None or "units" not in node.settings:
            return node
        return replace(node, settings={**node.settings, "units": kept[group]})

    return replace(config, nodes=tuple(own(node) for node in config.nodes))


def _initial(key: str, shape: tuple[int, ...]) -> Tensor:
    if len(shape) > 1:
        weight = torch.empty(shape)
        nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
        return weight
    return torch.ones(shape) if key == "scale" else torch.zeros(shape)
