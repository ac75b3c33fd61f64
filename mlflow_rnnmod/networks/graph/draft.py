"""A graph while it is read: nodes with their weights, and norms on their way into neighbours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mlflow_rnnmod.networks.graph.operations import Node, Settings
from mlflow_rnnmod.networks.graph.structure import INPUT


@dataclass(eq=False)
class Drafted:
    """A node of a draft.

    Args:
        op: as in a graph, or an operation that only an answer may end with.
        inputs: names of nodes before it.
        size: how many units it puts out.
        settings: as in a graph.
        weights: float64, by their names in the node.
        line: of the user's code, in words.
    """

    op: str
    inputs: list[str]
    size: int
    settings: Settings = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)
    line: str = ""


class Draft:
    """Nodes by name, in the order in which they run.

    Args:
        size: how many numbers a row of the input has.
        device: where weights are put.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        self.device = device
        self.nodes: dict[str, Drafted] = {INPUT: Drafted(INPUT, [], size)}
        self._added = 0

    def add(self, node: Drafted) -> str:
        """The name of a new node."""
        self._added += 1
        name = f"{node.op} {self._added}"
        node.weights = {
            key: weight.detach().to(self.device, torch.float64)
            for key, weight in node.weights.items()
        }
        self.nodes[name] = node
        return name

    def affine(self, name: str, scale: Tensor, shift: Tensor, line: str) -> str:
        """A node times a scale plus a shift, one of each for each unit."""
        weights = {"scale": scale, "shift": shift}
        return self.add(Drafted("affine", [name], len(scale), {}, weights, line))

    def linear(self, name: str, weight: Tensor, bias: Tensor | None, line: str) -> str:
        """A dense layer over a node."""
        bias = weight.new_zeros(len(weight)) if bias is None else bias
        settings, weights = {"units": len(weight)}, {"weight": weight, "bias": bias}
        return self.add(Drafted("linear", [name], len(weight), settings, weights, line))

    def keep_only(self, end: str) -> None:
        """Drop all that ``end`` does not depend on."""
        needed = {end, INPUT}
        for name, node in reversed(self.nodes.items()):
            if name in needed:
                needed.update(node.inputs)
        self.nodes = {name: node for name, node in self.nodes.items() if name in needed}

    def finished(self) -> tuple[tuple[Node, ...], dict[str, Tensor], dict[str, str]]:
        """Nodes with their final names, their weights, and final names by those of the draft."""
        counts: Counter[str] = Counter()
        names = {INPUT: INPUT}
        nodes, weights = [], {}
        for name, node in self.nodes.items():
            if name == INPUT:
                continue
            names[name] = f"{node.op}_{counts[node.op]}"
            counts[node.op] += 1
            inputs = tuple(names[given] for given in node.inputs)
            nodes.append(Node(names[name], node.op, inputs, node.settings))
            weights.update({f"{names[name]}.{k}": weight for k, weight in node.weights.items()})
        return tuple(nodes), weights, names

    def fold(self, end: str) -> str:
        """Let dense layers before or behind take in every scale and shift that they can.

        Args:
            end: the node that answers.

        Returns:
            the node that answers now.
        """
        self.keep_only(end)
        while any(self._over_concat(node) for node in self.nodes.values()):
            end = self._spread(end)
        for folds in (self._pull, self._push):
            for name in [name for name, node in self.nodes.items() if node.op == "affine"]:
                if folds(name, end):
                    below = self.nodes.pop(name).inputs[0]
                    for node in self.nodes.values():
                        node.inputs = [below if given == name else given for given in node.inputs]
                    end = below if end == name else end
        self.keep_only(end)
        return end

    def _over_concat(self, node: Drafted) -> bool:
        return node.op == "affine" and self.nodes[node.inputs[0]].op == "concat"

    def _spread(self, end: str) -> str:
        """A scale and shift of units side by side as one of each part, in its place."""
        found: dict[str, Drafted] = {}
        renamed: dict[str, str] = {}
        for name, node in self.nodes.items():
            if self._over_concat(node):
                parts: list[str] = []
                for given, columns in self._columns(self.nodes[node.inputs[0]]):
                    weights = {key: weight[columns] for key, weight in node.weights.items()}
                    size = columns.stop - columns.start
                    parts.append(f"{name}.{len(parts)}")
                    found[parts[-1]] = Drafted("affine", [given], size, {}, weights, node.line)
                renamed[name] = f"{name}.all"
                node = Drafted("concat", parts, node.size, {}, {}, node.line)
            found[renamed.get(name, name)] = node
        for node in found.values():
            node.inputs = [renamed.get(given, given) for given in node.inputs]
        self.nodes = found
        return renamed.get(end, end)

    def _columns(self, concat: Drafted) -> Iterator[tuple[str, slice]]:
        offset = 0
        for given in concat.inputs:
            size = self.nodes[given].size
            yield given, slice(offset, offset + size)
            offset += size

    def _pull(self, name: str, end: str) -> bool:
        """Whether what an affine node reads could take it in."""
        users = Counter(given for node in self.nodes.values() for given in node.inputs)
        users[end] += 1

        def takes(below: str) -> bool:
            node = self.nodes[below]
            if users[below] != 1:
                return False
            return node.op in ("linear", "affine") or (
                node.op == "add" and all(takes(given) for given in node.inputs)
            )

        def take(below: str, scale: Tensor, shift: Tensor) -> None:
            node = self.nodes[below]
            if node.op == "add":
                for at, given in enumerate(node.inputs):
                    take(given, scale, shift if at == 0 else torch.zeros_like(shift))
                return
            first, last = node.weights  # weight and bias, or scale and shift
            own = node.weights[first]
            node.weights[first] = own * (scale[:, None] if own.ndim == 2 else scale)
            node.weights[last] = node.weights[last] * scale + shift

        node = self.nodes[name]
        if not takes(node.inputs[0]):
            return False
        take(node.inputs[0], node.weights["scale"], node.weights["shift"])
        return True

    def _push(self, name: str, end: str) -> bool:
        """Whether all that read an affine node, side by side with others too, could take it in."""
        node = self.nodes[name]
        size = node.size
        found: list[tuple[Drafted, int]] = []

        def readers(of: str, offset: int) -> bool:
            if of == end:
                return False
            for reader in [other for other in self.nodes.values() if of in other.inputs]:
                if reader.op == "linear":
                    found.append((reader, offset))
                elif reader.op != "concat":
                    return False
                else:
                    above = next(key for key, other in self.nodes.items() if other is reader)
                    for given, columns in self._columns(reader):
                        if given == of and not readers(above, offset + columns.start):
                            return False
            return True

        if not readers(name, 0):
            return False
        for reader, offset in found:
            weight = reader.weights["weight"].clone()
            part = weight[:, offset : offset + size]
            reader.weights["bias"] = reader.weights["bias"] + part @ node.weights["shift"]
            weight[:, offset : offset + size] = part * node.weights["scale"]
            reader.weights["weight"] = weight
        return True
