"""A graph network: our own interpreter over nodes that are plain data."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from mlflow_rnnmod.inputs.rows import Rows, lengths_of, prepared, trimmed, valid_of
from mlflow_rnnmod.networks.graph.config import GraphConfig
from mlflow_rnnmod.networks.graph.counting import multiply_adds
from mlflow_rnnmod.networks.graph.feeding import INPUT
from mlflow_rnnmod.networks.graph.many import GraphTrunks
from mlflow_rnnmod.networks.graph.operations import Node
from mlflow_rnnmod.networks.graph.refitting import Refitting
from mlflow_rnnmod.networks.graph.viewing import Adding, GraphView, Reading, evaluate
from mlflow_rnnmod.networks.graph.watching import GraphWatch
from mlflow_rnnmod.networks.groups import Groups, check_fits
from mlflow_rnnmod.networks.protocol import Network, Told, Trunks, View, Watch
from mlflow_rnnmod.networks.trunk import Trunk

# Numbers that all nodes put out, that are held at once at the most.
MAX_HELD = 2**25


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
        """Rows as they are read: floats of that shape (vectors of images); steps cut or padded."""
        if self.config.feed.stepped:
            return prepared(self.config, rows)
        return Rows(self.given(rows)[INPUT], rows.lengths, rows.targets)

    @property
    def side(self) -> str:
        """Where padding stands."""
        return self.config.side

    def lengths(self, rows: Rows) -> Tensor:
        """Valid steps of each row, int64 ``(rows,)``; 1 where a row is read at once."""
        return lengths_of(self.config, rows) if self.config.feed.stepped else super().lengths(rows)

    def content(self, rows: Rows) -> Rows:
        """The rows with their lengths, where there are steps."""
        if not self.config.feed.stepped:
            return rows
        return replace(rows, lengths=self.lengths(rows).cpu())

    def trimmed(self, rows: Rows) -> Rows:
        """The rows without steps that change no answer."""
        return trimmed(self.config, rows) if self.config.feed.stepped else rows

    def order(self, rows: Rows) -> Tensor:
        """Row numbers, the shortest first where padding changes no answer."""
        if not self.config.feed.stepped or self.config.steps is not None:
            return super().order(rows)
        return self.lengths(rows).cpu().argsort(stable=True)

    def answered(self, rows: Rows) -> Tensor | None:
        """Which steps have an answer, bool ``(rows, steps)``; ``None`` where each row has one."""
        if not self.config.stepwise:
            return None
        return valid_of(self.config, self.lengths(rows), rows.values.shape[1])

    def given(self, rows: Rows) -> dict[str, Tensor]:
        """What goes in, ``(rows, units, *places)`` by name."""
        return self.config.given(rows, self.dtype)

    def weights(self, node: Node) -> dict[str, Tensor]:
        """Weights of a node, by their names in it."""
        names = node.operation.weights_of(node.settings)
        if not names:
            return {}
        part = self._modules[node.name]
        return {key: getattr(part, key) for key in names}

    def states(
        self, rows: Rows, reading: Reading | None = None, added: Adding | None = None
    ) -> dict[str, Tensor]:
        """What all nodes put out, by name (see :func:`evaluate`)."""
        return evaluate(self.config.nodes, self.given(rows), self.weights, reading, added=added)

    def readout(self, rows: Rows) -> Tensor:
        """What the output layer reads, ``(rows, readout size)``."""
        end = self.config.readout
        nodes, given = self.config.nodes, self.given(rows)
        return steps_first(evaluate(nodes, given, self.weights, wanted={end})[end])

    def logits(self, readout: Tensor) -> Tensor:
        """The output layer: float ``(..., labels)`` from a readout ``(..., readout size)``."""
        output: Any = self._modules["output"]
        return nn.functional.linear(readout, output.weight, output.bias)

    def watch(self, rows: Rows, told: Told, gradients: bool) -> Watch:
        """Run a batch, and keep what is needed to be asked about it."""
        read = {place.node for places in self.config.structure.places.values() for place in places}
        leaves: dict[str, Tensor] = {}

        def reading(name: str, value: Tensor) -> Tensor:
            if not gradients or name not in read:
                return value
            # Its derivative is by what is read, not by what passes on into sums.
            leaf = value.view_as(value) if value.requires_grad else value.detach().requires_grad_()
            leaves[name] = leaf
            return leaf

        def added(node: Node, inputs: Sequence[Tensor]) -> Tensor | None:
            """Zeros to differentiate by: through the steps behind, too."""
            if not gradients or not node.operation.recurs or node.name not in read:
                return None
            shape = node.operation.added_shape(node.settings, inputs)
            leaves[node.name] = self.like.new_zeros(shape).requires_grad_()
            return leaves[node.name]

        with torch.set_grad_enabled(gradients):
            values = self.states(rows, reading, added)
            logits = self.logits(steps_first(values[self.config.readout]))
        valid = None
        if self.config.feed.stepped:
            steps = values[INPUT].shape[2]
            valid = valid_of(self.config, lengths_of(self.config, rows), steps)
        return GraphWatch(self.config, values, logits, leaves, told.others, rows, valid)

    def refitting(self, rows: Rows) -> Callable[[Trunk], Trunk]:
        """Kernels are fitted to a trunk where rows have no steps: padding would be read."""
        if self.config.feed.stepped:
            return super().refitting(rows)
        return Refitting(self, self.prepare(rows))

    def view(self, trunk: Trunk, cut: bool = True) -> View:
        """The network through a trunk, cut down to its units or with the others at zero."""
        check_fits(self.groups, trunk)
        return GraphView(self, trunk, cut)

    def through(self, trunks: Sequence[Trunk]) -> Trunks:
        """Several trunks at once."""
        return GraphTrunks(self, trunks)

    @property
    def ranks_together(self) -> bool:
        """Channels are: layers of convolutions differ in what they can do without."""
        return self.config.spatial

    def rows_at_once(self, most: int) -> int:
        """As many as memory is kept bounded with, whatever the places of images."""
        return max(min(most, MAX_HELD // self.config.numbers), 1)

    def shares_kept(self, trunk: Trunk) -> dict[str, float]:
        """Shares of units, weights and, of convolutions, multiply-adds that a trunk keeps."""
        found = super().shares_kept(trunk)
        if self.config.spatial:
            found["multiply_adds_kept"] = self.work_kept(trunk)
        return found

    def work_kept(self, trunk: Trunk) -> float:
        """Share of the multiply-adds of one row that a trunk keeps."""
        return multiply_adds(self.config, trunk.keep) / multiply_adds(self.config)

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
        if self.config.feed.stepped:
            return (
                f"network over steps of {self.config.input_size} {self.config.input}, "
                f"groups of {sizes} units"
                + (f" ({', '.join(kinds)})" if kinds else "")
                + f", {len(self.labels)} labels"
            )
        return (
            f"dense network, {self.config.input_size} inputs, hidden layers of {sizes} units"
            + (f" ({', '.join(kinds)})" if kinds else "")
            + f", {len(self.labels)} labels"
        )


def steps_first(readout: Tensor) -> Tensor:
    """A readout with units last: ``(rows, units)``, or ``(rows, steps, units)``."""
    return readout if readout.ndim == 2 else readout.transpose(1, 2)


def _initial(key: str, shape: tuple[int, ...]) -> Tensor:
    if len(shape) > 1:
        weight = torch.empty(shape)
        nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
        return weight
    return torch.ones(shape) if key == "scale" else torch.zeros(shape)
