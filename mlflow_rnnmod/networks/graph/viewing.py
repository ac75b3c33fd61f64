"""A graph network through one trunk: cut down, or with removed units at zero."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.networks.graph.config import GraphConfig
from mlflow_rnnmod.networks.graph.evaluating import evaluate
from mlflow_rnnmod.networks.graph.operations import Node
from mlflow_rnnmod.networks.graph.structure import Part
from mlflow_rnnmod.networks.groups import Completion, guess, trimmed_tensors
from mlflow_rnnmod.networks.trunk import Trunk


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
                self.register_buffer(f"fold{at}", fold[:, None].to(like), persistent=False)
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
            flat = own.reshape(len(own), kept, -1)
            whole = torch.matmul(matrix, flat) + self.get_buffer(f"fold{at}")
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
