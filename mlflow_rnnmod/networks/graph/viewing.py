"""A graph network run node by node, whole or through one trunk: cut down, or masked."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.networks.graph.config import GraphConfig
from mlflow_rnnmod.networks.graph.operations import Node
from mlflow_rnnmod.networks.graph.structure import Part
from mlflow_rnnmod.networks.groups import Completion, guess, trimmed_tensors
from mlflow_rnnmod.networks.trunk import Trunk

# From a node to its weights, by their names in it.
WeightsOf = Callable[[Node], Mapping[str, Tensor]]
# From a node's name and what it puts out to what its units' readers get instead.
Reading = Callable[[str, Tensor], Tensor]
# From a node and its inputs to what is added to what it puts out, or to nothing.
Adding = Callable[[Node, Sequence[Tensor]], "Tensor | None"]
# From a node's input with columns of kept units to one with all: by the reader and the input's
# number, for readers that guesses can't be folded into.
Completions = Mapping[tuple[str, int], Callable[[Tensor], Tensor]]


def evaluate(
    nodes: Sequence[Node],
    given: Mapping[str, Tensor],
    weights: WeightsOf,
    reading: Reading | None = None,
    completions: Completions | None = None,
    wanted: Collection[str] | None = None,
    stacked: bool = False,
    added: Adding | None = None,
) -> dict[str, Tensor]:
    """What nodes put out, by name.

    Args:
        nodes: each behind those that it reads.
        given: the inputs, by name.
        weights: of each node.
        reading: what is read in the place of what a node puts out; where units only meet in sums
            or pass on, they are as they were.
        completions: what stands between some inputs and the nodes that read them.
        wanted: names of nodes; what nobody needs any more is let go. ``None`` keeps all.
        stacked: whether trunks may stand before rows.
        added: what recurrent nodes add to their states before anything reads them, the next step
            too.
    """
    values: dict[str, Tensor] = dict(given)
    read = values if reading is None else dict(given)
    last = {} if wanted is None else last_uses(nodes, wanted)
    for at, node in enumerate(nodes):
        own, operation = weights(node), node.operation
        run: Any = operation.run_stacked if stacked else operation.run
        source = read if operation.reads else values
        inputs = [source[name] for name in node.inputs]
        if completions and operation.reads:
            inputs = [
                completions[node.name, i](x) if (node.name, i) in completions else x
                for i, x in enumerate(inputs)
            ]
        more = added(node, inputs) if added is not None else None
        if more is not None:
            values[node.name] = operation.run_added(node.settings, inputs, own, more)
            read[node.name] = values[node.name]
            continue
        values[node.name] = run(node.settings, inputs, own)
        if reading is not None:
            if operation.gathers:
                read[node.name] = run(node.settings, [read[name] for name in node.inputs], own)
            else:
                read[node.name] = reading(node.name, values[node.name])
        for name in last.get(at, ()):
            values.pop(name, None)
            read.pop(name, None)
    return read


def last_uses(nodes: Sequence[Node], wanted: Collection[str]) -> dict[int, list[str]]:
    """What is needed for the last time by each node, by its number."""
    found: dict[str, int] = {}
    for at, node in enumerate(nodes):
        found.update(dict.fromkeys(node.inputs, at))
    by_node: dict[int, list[str]] = {}
    for name, at in found.items():
        if name not in wanted:
            by_node.setdefault(at, []).append(name)
    return by_node


class Parts(nn.Module):
    """From the kept columns of a node's units to all: removed ones get their guess, at each place.

    Args:
        parts: of the node.
        trunk: which units are kept, and what is guessed of the others.
        cut: whether what is given holds only kept columns, or anything in the place of the others.
        like: a tensor of the values' dtype and on their device.
    """

    def __init__(self, parts: Sequence[Part], trunk: Trunk, cut: bool, like: Tensor) -> None:
        super().__init__()
        self.sizes: list[tuple[int, int]] = []
        for at, part in enumerate(parts):
            kept = part.size
            if part.group is not None and not trunk.keep[part.group].all():
                keep, fold, mix = guess(trunk, [part.group])
                matrix = torch.diag(keep.to(fold.dtype)) if mix is None else mix + torch.diag(keep)
                kept, matrix = (int(keep.sum()), matrix[:, keep]) if cut else (kept, matrix)
                self.register_buffer(f"matrix{at}", matrix.to(like), persistent=False)
                self.register_buffer(f"fold{at}", fold.to(like), persistent=False)
            self.sizes.append((kept, part.block))

    def forward(self, x: Tensor) -> Tensor:
        """Float ``(rows, all columns, *places)`` from ``(rows, kept columns, *places)``."""
        found = []
        given = x.split([kept * block for kept, block in self.sizes], dim=1)
        for at, (own, (kept, block)) in enumerate(zip(given, self.sizes, strict=True)):
            matrix = self._buffers.get(f"matrix{at}")
            if matrix is None:
                found.append(own)
                continue
            flat = own.reshape(len(own), kept, -1).transpose(1, 2)  # as channels lie, last
            whole = functional.linear(flat, matrix, self.get_buffer(f"fold{at}")).transpose(1, 2)
            found.append(whole.reshape(len(own), len(matrix) * block, *own.shape[2:]))
        return found[0] if len(found) == 1 else torch.cat(found, dim=1)


class GraphView(nn.Module):
    """What is run for a trunk.

    Args:
        network: the parent's.
        trunk: over its groups.
        cut: whether removed units are cut out, or at zero.
    """

    def __init__(self, network: Any, trunk: Trunk, cut: bool) -> None:
        super().__init__()
        self.config: GraphConfig = network.config
        self.nodes = resized(self.config, trunk) if cut else self.config.nodes
        self.tensors = trimmed_tensors(network.state_dict(), network.groups, trunk, cut)
        self.completions = {
            place: Parts(parts, trunk, cut, network.like)
            for place, parts in guessed_at(self.config, trunk).items()
        }
        parts = self.config.structure.parts[self.config.readout]
        stepwise = self.config.stepwise
        self.completion: nn.Module | None = None
        if not all(bool(trunk.keep[part.group].all()) for part in parts if part.group):
            plain = not stepwise and all(part.block == 1 and part.group for part in parts)
            plain = plain and len({part.group for part in parts}) == len(parts)
            ends = [str(part.group) for part in parts]
            self.completion = (
                Completion(trunk, ends, cut, network.like)
                if plain
                else Parts(parts, trunk, cut, network.like)
            )
        self._weights = {node.name: self._own(node) for node in self.nodes}

    def _own(self, node: Node) -> dict[str, Tensor]:
        prefix = f"{node.name}."
        names = [*node.operation.weights_of(node.settings), *node.operation.borders]
        return {key: self.tensors[prefix + key] for key in names if prefix + key in self.tensors}

    def weights(self, node: Node) -> Mapping[str, Tensor]:
        """Weights of a node, by their names in it."""
        return self._weights[node.name]

    def readout(self, rows: Rows) -> Tensor:
        """Float ``(rows, parent's readout size)``."""
        config = self.config
        given = config.given(rows, self.tensors["output.weight"].dtype)
        found = evaluate(
            self.nodes,
            given,
            self.weights,
            completions=self.completions,
            wanted={config.readout},
        )[config.readout]
        return self.ended(found)

    def ended(self, found: Tensor) -> Tensor:
        """The readout with the guesses of removed units, at the parent's width."""
        whole: Tensor = found if self.completion is None else self.completion(found)
        return whole if whole.ndim == 2 else whole.transpose(1, 2)

    def completed(self, node: Node, number: int, given: Tensor) -> Tensor:
        """One input of a node, with guesses where they can't be folded into its weights."""
        completion = self.completions.get((node.name, number))
        return given if completion is None else completion(given)


def columns_kept(parts: Sequence[Part], keep: Mapping[str, Tensor]) -> Tensor:
    """Which columns of a node are kept, bool ``(columns,)``."""
    return torch.cat(
        [
            torch.ones(part.size * part.block, dtype=torch.bool)
            if part.group is None
            else keep[part.group].repeat_interleave(part.block)
            for part in parts
        ]
    )


def guessed_at(config: GraphConfig, trunk: Trunk) -> dict[tuple[str, int], Sequence[Part]]:
    """Where guesses are put in when it runs: what reads removed units by no foldable weight."""
    found: dict[tuple[str, int], Sequence[Part]] = {}
    for node in config.nodes:
        if not node.operation.reads:
            continue
        folded = bool(node.operation.readers(node.settings))
        for i, name in enumerate(node.inputs):
            parts = config.structure.parts[name]
            masked = any(p.group and not bool(trunk.keep[p.group].all()) for p in parts)
            if masked and not (folded and i in node.operation.folded_inputs(node.settings)):
                found[node.name, i] = parts
    return found


def resized(config: GraphConfig, trunk: Trunk) -> tuple[Node, ...]:
    """Nodes with the settings that they have where removed units are cut out."""
    parts, completed = config.structure.parts, guessed_at(config, trunk)
    kept = {name: columns_kept(own, trunk.keep) for name, own in parts.items()}

    def own(node: Node) -> Node:
        read = [
            torch.ones_like(kept[name]) if (node.name, i) in completed else kept[name]
            for i, name in enumerate(node.inputs)
        ]
        settings = node.operation.resized(node.settings, read, kept[node.name])
        return node if settings is node.settings else replace(node, settings=settings)

    return tuple(own(node) for node in config.nodes)
