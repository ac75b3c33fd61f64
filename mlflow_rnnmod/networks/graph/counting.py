"""What a graph costs to run."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from mlflow_rnnmod.networks.graph.config import GraphConfig
from mlflow_rnnmod.networks.graph.structure import Part, Structure

STEPS = 16
"""So many steps are counted where a row's own number is not known."""


def multiply_adds(config: GraphConfig, keep: Mapping[str, Tensor] | None = None) -> float:
    """Multiply-adds of one row through a graph and its output layer.

    Args:
        config: of the network.
        keep: which units of each group are kept; ``None`` for all.
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

    for node in config.nodes:
        operation = node.operation
        if operation.parameters:
            read, put_out = [size(name) for name in node.inputs], size(node.name)
            total += operation.work(
                node.settings, read, put_out, _weights(node.name, structure, counts)
            )
    return total + columns[config.readout] * len(config.labels)


def _left(part: Part, counts: Mapping[str, int]) -> int:
    units = part.size if part.group is None else counts[part.group]
    return units * part.block


def _weights(node: str, structure: Structure, counts: Mapping[str, int]) -> int:
    """Numbers in a node's weights of two or more dimensions, cut down."""
    total = 0
    for name, shape in structure.weights.items():
        if name.rpartition(".")[0] != node or len(shape) < 2:
            continue
        rows, columns = shape[0], shape[1]
        for group in structure.groups.values():
            gone = group.units - counts[group.name]
            rows -= sum(
                gone * owner.width * owner.blocks for owner in group.owners if owner.tensor == name
            )
            columns -= sum(gone * reader.width for reader in group.readers if reader.tensor == name)
        kernel = 1
        for length in shape[2:]:
            kernel *= length
        total += rows * columns * kernel
    return total
