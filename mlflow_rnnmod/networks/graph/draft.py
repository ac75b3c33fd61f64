"""A graph while it is read: nodes with their weights, and norms on their way into neighbours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import torch
from torch import Tensor

from mlflow_rnnmod.networks.graph.feeding import INPUT
from mlflow_rnnmod.networks.graph.operations import OPERATIONS, Node, Settings, Sizes


@dataclass(eq=False)
class Drafted:
    """A node of a draft.

    Args:
        op: as in a graph, or an operation that only an answer may end with.
        inputs: names of nodes before it.
        shape: of what it puts out for one row of the batch that is followed, with all sizes known.
        settings: as in a graph.
        weights: float64, by their names in the node.
        line: of the user's code, in words.
        unshifted: whether a scale has no shift, whatever the weights.
    """

    op: str
    inputs: list[str]
    shape: Sizes
    settings: Settings = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)
    line: str = ""
    unshifted: bool = False


class Draft:
    """Nodes by name, in the order in which they run.

    Args:
        shape: of one row of the input.
        device: where weights are put.
    """

    def __init__(self, shape: Sizes, device: torch.device) -> None:
        self.device = device
        self.nodes: dict[str, Drafted] = {INPUT: Drafted(INPUT, [], shape)}
        self._added = 0
        # Over steps: rows of the batch that is followed, whether every input must have as many
        # steps as it, nodes of whole numbers, and those of zeros and ones.
        self.rows, self.fixed, self.orders = 0, False, 0
        self.whole: set[str] = set()
        self.flags: set[str] = set()
        self.given_values: dict[str, Any] = {}

    @property
    def given(self) -> set[str]:
        """Names of what goes in."""
        return {name for name, node in self.nodes.items() if node.op == name}

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

    def affine(self, name: str, scale: Tensor, shift: Tensor | None, line: str) -> str:
        """A node times a scale plus a shift, one of each for each unit."""
        weights = {"scale": scale, "shift": torch.zeros_like(scale) if shift is None else shift}
        shape = self.nodes[name].shape
        return self.add(Drafted("affine", [name], shape, {}, weights, line, shift is None))

    def linear(self, name: str, weight: Tensor, bias: Tensor | None, line: str) -> str:
        """A dense layer over a node, at each place."""
        bias = weight.new_zeros(len(weight)) if bias is None else bias
        settings, weights = {"units": len(weight)}, {"weight": weight, "bias": bias}
        shape = (len(weight), *self.nodes[name].shape[1:])
        return self.add(Drafted("linear", [name], shape, settings, weights, line))

    def reshaped(self, name: str, shape: Sizes, line: str) -> str:
        """A node in another shape, or itself where that is its own."""
        node = self.nodes[name]
        while node.op == "reshape":
            name = node.inputs[0]
            node = self.nodes[name]
        if node.shape == shape:
            return name
        return self.add(Drafted("reshape", [name], shape, {"shape": list(shape)}, {}, line))

    def keep_only(self, end: str) -> None:
        """Drop all that ``end`` does not depend on."""
        needed = {end, *self.given}
        for name, node in reversed(self.nodes.items()):
            if name in needed:
                needed.update(node.inputs)
        self.nodes = {name: node for name, node in self.nodes.items() if name in needed}

    def finished(self) -> tuple[tuple[Node, ...], dict[str, Tensor], dict[str, str]]:
        """Nodes with their final names, their weights, and final names by those of the draft."""
        counts: Counter[str] = Counter()
        names = {name: name for name in self.given}
        nodes, weights = [], {}
        for name, node in self.nodes.items():
            if name in names:
                continue
            names[name] = f"{node.op}_{counts[node.op]}"
            counts[node.op] += 1
            inputs = tuple(names[given] for given in node.inputs)
            nodes.append(Node(names[name], node.op, inputs, node.settings))
            weights.update({f"{names[name]}.{k}": weight for k, weight in node.weights.items()})
        return tuple(nodes), weights, names

    def fold(self, end: str) -> str:
        """Let dense layers before or behind take in every scale and shift that they can."""
        self.keep_only(end)
        while any(self._over_concat(node) for node in self.nodes.values()):
            end = self._spread(end)
        for folds in (self._pull, self._push):
            for name in [name for name, node in self.nodes.items() if node.op == "affine"]:
                if folds(name, end):
                    end = self._left_out(name, end)
        self.keep_only(end)
        return self._flattened(end)

    def _left_out(self, name: str, end: str) -> str:
        """Take a node out, so that what it read is read in its place; what the end is now."""
        below = self.nodes.pop(name).inputs[0]
        for node in self.nodes.values():
            node.inputs = [below if given == name else given for given in node.inputs]
        return below if end == name else end

    def _flattened(self, end: str) -> str:
        """An input that is only read flattened is a vector."""
        shape = self.nodes[INPUT].shape
        flat = (prod(shape),)
        users = {name: node for name, node in self.nodes.items() if INPUT in node.inputs}
        if len(shape) > 1 and all(n.op == "reshape" and n.shape == flat for n in users.values()):
            self.nodes[INPUT].shape = flat
            for name in users:
                end = self._left_out(name, end)
        return end

    def _over_concat(self, node: Drafted) -> bool:
        below = self.nodes[node.inputs[0]] if node.inputs else node
        return node.op == "affine" and below.op == "concat"

    def _spread(self, end: str) -> str:
        """A scale and shift of units side by side as one of each part, in its place."""
        found: dict[str, Drafted] = {}
        renamed: dict[str, str] = {}
        for name, node in self.nodes.items():
            if self._over_concat(node):
                parts: list[str] = []
                for given, columns in self._columns(self.nodes[node.inputs[0]]):
                    weights = {key: weight[columns] for key, weight in node.weights.items()}
                    shape = self.nodes[given].shape
                    parts.append(f"{name}.{len(parts)}")
                    found[parts[-1]] = replace(node, inputs=[given], shape=shape, weights=weights)
                renamed[name] = f"{name}.all"
                node = Drafted("concat", parts, node.shape, {}, {}, node.line)
            found[renamed.get(name, name)] = node
        for node in found.values():
            node.inputs = [renamed.get(given, given) for given in node.inputs]
        self.nodes = found
        return renamed.get(end, end)

    def _columns(self, concat: Drafted) -> Iterator[tuple[str, slice]]:
        offset = 0
        for given in concat.inputs:
            size = self.nodes[given].shape[0]
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
            return _is(node, "scales") or (
                node.op == "add" and all(takes(given) for given in node.inputs)
            )

        def take(below: str, scale: Tensor, shift: Tensor) -> None:
            node = self.nodes[below]
            node.unshifted = node.unshifted and self.nodes[name].unshifted
            if node.op == "add":
                for at, given in enumerate(node.inputs):
                    take(given, scale, shift if at == 0 else torch.zeros_like(shift))
                return
            first, last = node.weights  # weight and bias, or scale and shift
            own = node.weights[first]
            node.weights[first] = own * scale.view(-1, *[1] * (own.ndim - 1))
            node.weights[last] = node.weights[last] * scale + shift

        node = self.nodes[name]
        if not takes(node.inputs[0]):
            return False
        take(node.inputs[0], node.weights["scale"], node.weights["shift"])
        return True

    def _push(self, name: str, end: str) -> bool:
        """Whether all that read an affine node, side by side with others too, could take it in."""
        node = self.nodes[name]
        size = node.shape[0]
        shifted = not node.unshifted
        found: list[tuple[Drafted, int, int]] = []

        def readers(of: str, offset: int, block: int) -> bool:
            if of == end:
                return False
            for above, reader in self.nodes.items():
                if of not in reader.inputs:
                    continue
                operation = OPERATIONS.get(reader.op)
                if operation is not None and operation.takes(reader.settings, shifted):
                    found.append((reader, offset, block))
                elif reader.op == "reshape" and offset == 0 and self.nodes[of].shape[0] == size:
                    more = reader.shape[0] // size
                    if reader.shape[0] % size or not readers(above, 0, block * more):
                        return False
                elif reader.op == "concat":
                    for given, columns in self._columns(reader):
                        if given == of and not readers(above, offset + columns.start, block):
                            return False
                else:
                    return False
            return True

        if not readers(name, 0, 1):
            return False
        for reader, offset, block in found:
            scale, shift = (
                node.weights[key].repeat_interleave(block) for key in ("scale", "shift")
            )
            weight = reader.weights["weight"].clone()
            part = weight[:, offset : offset + len(scale)]
            reader.weights["bias"] = reader.weights["bias"] + torch.einsum(
                "ou...,u->o", part, shift
            )
            weight[:, offset : offset + len(scale)] = part * scale.view(
                -1, *[1] * (weight.ndim - 2)
            )
            reader.weights["weight"] = weight
        return True


def _is(node: Drafted, what: str) -> bool:
    """Whether its operation says so of itself."""
    return bool(getattr(OPERATIONS.get(node.op), what, False))
