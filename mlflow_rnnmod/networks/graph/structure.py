"""Shapes, weights and groups of a graph: what follows from its nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from mlflow_rnnmod.networks.graph.operations import MAX_SIZE, Node, Shape
from mlflow_rnnmod.networks.graph.units import MAX_SEGMENTS, Layout, Units
from mlflow_rnnmod.networks.groups import Group, Groups, Owner, Reader

INPUT = "input"
# From a node to its weights, by their names in it.
WeightsOf = Callable[[Node], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Part:
    """Units side by side of what a node puts out.

    Args:
        group: name of theirs; ``None`` where they can't be masked.
        offset: of the first one.
        size: how many.
    """

    group: str | None
    offset: int
    size: int


@dataclass(frozen=True)
class Structure:
    """What follows from the nodes of a graph.

    Args:
        shapes: of what each node puts out, and of the input, by name.
        weights: shapes of the nodes' weights, by name.
        parts: of what each node puts out, and of the input, by name.
        groups: from the input to the readout.
        readout_groups: names of those that make up the readout, in order.
        places: for each group where it is read: nodes, with the offset of its first unit there. A
            concatenation is no place, but what it puts side by side.
    """

    shapes: Mapping[str, Shape]
    weights: Mapping[str, Shape]
    parts: Mapping[str, tuple[Part, ...]]
    groups: Groups
    readout_groups: tuple[str, ...]
    places: Mapping[str, tuple[tuple[str, int], ...]]


def find_structure(nodes: Sequence[Node], input_size: int, readout: str) -> Structure:
    """Shapes and groups of a graph.

    Args:
        nodes: each behind those that it reads.
        input_size: how many numbers a row has.
        readout: name of the node that the output layer reads.

    Raises:
        ValueError: if shapes do not fit, or the output layer reads what can't be masked.
    """
    shapes: dict[str, Shape] = {INPUT: (input_size,)}
    units = Units()
    layouts: dict[str, Layout] = {INPUT: units.new(input_size, whole=True)}
    weights: dict[str, Shape] = {}
    for node in nodes:
        read = [shapes[name] for name in node.inputs]
        try:
            shape = node.operation.shape(node.settings, read)
        except ValueError as error:
            raise ValueError(f"node {node.name!r} {error}") from None
        if max(shape) > MAX_SIZE:
            raise ValueError(f"node {node.name!r} puts out {shape}, more than {MAX_SIZE}")
        shapes[node.name] = shape
        own = node.operation.parameter_shapes(read[0], shape)
        weights.update({f"{node.name}.{key}": size for key, size in own.items()})
        layouts[node.name] = node.operation.flow(
            units, [layouts[name] for name in node.inputs], shape
        )
        if len(layouts[node.name]) > MAX_SEGMENTS:
            raise ValueError(f"node {node.name!r} has units of more than {MAX_SEGMENTS} layers")
    names = _names(layouts, units)
    parts = {name: _parts(layout, units, names) for name, layout in layouts.items()}
    groups, places = _groups(nodes, parts, readout)
    ends = [part.group for part in parts[readout]]
    if None in ends:
        raise ValueError(
            f"the output layer reads units of {readout!r} that can't be masked: the input itself, "
            "or what meets it or units of several layers in a sum; expected a hidden layer's"
        )
    if len(set(ends)) < len(ends):
        raise ValueError(f"the output layer reads the same units twice in {readout!r}")
    return Structure(shapes, weights, parts, groups, tuple(map(str, ends)), places)


def _names(layouts: Mapping[str, Layout], units: Units) -> dict[int, str]:
    """Names of the groups by their keys, in the order in which they come up."""
    keys = [units.find(part.key) for layout in layouts.values() for part in layout]
    maskable = [key for key in dict.fromkeys(keys) if key not in units.whole]
    return {key: f"hidden.{index}" for index, key in enumerate(maskable)}


def _parts(layout: Layout, units: Units, names: Mapping[int, str]) -> tuple[Part, ...]:
    found, offset = [], 0
    for segment in layout:
        found.append(Part(names.get(units.find(segment.key)), offset, segment.size))
        offset += segment.size
    return tuple(found)


def _groups(
    nodes: Sequence[Node], parts: Mapping[str, tuple[Part, ...]], readout: str
) -> tuple[dict[str, Group], dict[str, tuple[tuple[str, int], ...]]]:
    """Groups with their owners and readers, and the places where they are read."""
    sizes: dict[str, int] = {}
    owners: dict[str, list[Owner]] = {}
    readers: dict[str, list[Reader]] = {}
    read = {readout}
    for node in nodes:
        operation = node.operation
        for part in parts[node.name]:
            if part.group is not None:
                sizes.setdefault(part.group, part.size)
        owner = parts[node.name][0].group
        if owner is not None and operation.parameters:
            names = [f"{node.name}.{key}" for key in operation.parameters]
            owners.setdefault(owner, []).extend(Owner(name) for name in names)
        if operation.reads:
            read.update(node.inputs)
            for part in parts[node.inputs[0]]:
                if part.group is not None:
                    weight, bias = f"{node.name}.weight", f"{node.name}.bias"
                    found = Reader(weight, bias, part.offset)
                    readers.setdefault(part.group, []).append(found)
    places: dict[str, list[tuple[Node, int]]] = {name: [] for name in sizes}
    for node in reversed(nodes):
        if node.name in read and node.operation.gathers:
            read.update(node.inputs)
        elif node.name in read:
            for part in reversed(parts[node.name]):
                if part.group is not None:
                    places[part.group].append((node, part.offset))
    groups = {
        name: Group(
            name,
            size,
            tuple(owners[name]),
            tuple(readers.get(name, ())),
            bounded=all(node.operation.bounded for node, _ in places[name]),
            idles=all(node.operation.idles for node, _ in places[name]),
        )
        for name, size in sizes.items()
    }
    return groups, {
        name: tuple((node.name, offset) for node, offset in reversed(found))
        for name, found in places.items()
    }


def evaluate(
    nodes: Sequence[Node], x: Tensor, weights: WeightsOf, added: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """What all nodes put out, by name.

    Args:
        nodes: each behind those that it reads.
        x: the input.
        weights: of each node.
        added: where units are read, but not where they meet in a sum, these are added to what the
            nodes put out, by name.
    """
    values = {INPUT: x}
    read = values if added is None else {INPUT: x}
    for node in nodes:
        own, operation = weights(node), node.operation
        source = read if operation.reads else values
        given = [source[name] for name in node.inputs]
        values[node.name] = operation.run(node.settings, given, own)
        if added is None:
            continue
        if operation.gathers:
            given = [read[name] for name in node.inputs]
            read[node.name] = operation.run(node.settings, given, own)
        elif node.name in added:
            read[node.name] = values[node.name] + added[node.name]
        else:
            read[node.name] = values[node.name]
    return read
