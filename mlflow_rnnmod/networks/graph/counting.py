"""What a graph costs to run."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from torch import Tensor

from mlflow_rnnmod.networks.graph.config import GraphConfig
from mlflow_rnnmod.networks.graph.structure import Part, Structure

STEPS = 16
"""So many steps are counted where a row's own number is not known."""


def multiply_adds(config: GraphConfig, keep: Mapping[str, Tensor] | None = None) -> float:
    """Multiply-adds of one row through a graph and its output layer.

    ``keep``: which units of each group are kept; ``None`` for all.
    """
    structure = config.structure
    counts = {
        name: group.units if keep is None else int(keep[name].sum())
        for name, group in structure.groups.items()
    }
    return multiply_adds_of(config, counts)


def multiply_adds_of(config: GraphConfig, counts: Mapping[str, int]) -> float:
    """The same, with so many units in each group."""
    structure, total = config.structure, 0.0
    columns = {
        name: sum(_left(part, counts) for part in parts) for name, parts in structure.parts.items()
    }

    def size(name: str) -> tuple[int, ...]:
        places = (STEPS if size is None else size for size in structure.shapes[name][1:])
        return (columns[name], *places)

    weights = _weights(structure, counts)
    for node in config.nodes:
        operation = node.operation
        if operation.parameters:
            read, put_out = [size(name) for name in node.inputs], size(node.name)
            total += operation.work(node.settings, read, put_out, weights.get(node.name, 0))
    return total + columns[config.readout] * len(config.labels)


def _left(part: Part, counts: Mapping[str, int]) -> int:
    units = part.size if part.group is None else counts[part.group]
    return units * part.block


def _weights(structure: Structure, counts: Mapping[str, int]) -> dict[str, int]:
    """Numbers in each node's weights of two or more dimensions, cut down."""
    rows: dict[str, int] = {}
    columns: dict[str, int] = {}
    for group in structure.groups.values():
        gone = group.units - counts[group.name]
        for owner in group.owners:
            less = gone * owner.width * owner.blocks
            rows[owner.tensor] = rows.get(owner.tensor, 0) + less
        for reader in group.readers:
            columns[reader.tensor] = columns.get(reader.tensor, 0) + gone * reader.width
    found: dict[str, int] = {}
    for name, shape in structure.weights.items():
        if len(shape) > 1:
            left = (shape[0] - rows.get(name, 0)) * (shape[1] - columns.get(name, 0))
            node = name.rpartition(".")[0]
            found[node] = found.get(node, 0) + left * prod(shape[2:])
    return found
