"""Shapes, weights and groups of a graph: what follows from its nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

from mlflow_rnnmod.networks.graph.feeding import LENGTHS
from mlflow_rnnmod.networks.graph.operations import MAX_SIZE, Node, Shape, Sizes
from mlflow_rnnmod.networks.graph.operations.base import Flow, units_of
from mlflow_rnnmod.networks.graph.units import MAX_SEGMENTS, Layout, Units
from mlflow_rnnmod.networks.groups import Group, Groups, Owner, Reader

MAX_NUMBERS = 2**26
"""The most numbers that a node puts out for one row."""
MAX_WEIGHTS = 2**36
"""The most numbers in one weight."""


@dataclass(frozen=True)
class Part:
    """Units side by side of what a node puts out.

    Args:
        group: name of theirs; ``None`` where they can't be masked.
        offset: column of the first one.
        size: how many.
        block: columns of each, side by side.
    """

    group: str | None
    offset: int
    size: int
    block: int = 1

    @property
    def columns(self) -> slice:
        """Where they stand."""
        return slice(self.offset, self.offset + self.size * self.block)


class Place(NamedTuple):
    """Where a group is read.

    Args:
        node: that puts its units out.
        offset: column of the first one.
        block: columns of each.
    """

    node: str
    offset: int
    block: int = 1


@dataclass(frozen=True)
class Structure:
    """What follows from the nodes of a graph.

    Args:
        shapes: of what each node puts out, and of the inputs, by name.
        weights: shapes of the nodes' weights, by name.
        parts: of what each node puts out, and of the inputs, by name.
        groups: from the input to the readout.
        readout_groups: names of those that make up the readout, in order.
        places: for each group where it is read. What puts others' units side by side, or in other
            shapes, as they are is no place, but what it puts.
    """

    shapes: Mapping[str, Shape]
    weights: Mapping[str, Sizes]
    parts: Mapping[str, tuple[Part, ...]]
    groups: Groups
    readout_groups: tuple[str, ...]
    places: Mapping[str, tuple[Place, ...]]


def find_structure(
    nodes: Sequence[Node],
    inputs: Mapping[str, Shape],
    readout: str,
    parted: bool = True,
    stepwise: bool = False,
) -> Structure:
    """Shapes and groups of a graph.

    ``readout``: name of the node that the output layer reads.
    """
    shapes: dict[str, Shape] = dict(inputs)
    units = Units(parted=parted)
    layouts = {name: units.new(units_of(shape), whole=True) for name, shape in inputs.items()}
    weights: dict[str, Sizes] = {}
    for node in nodes:
        read = [shapes[name] for name in node.inputs]
        try:
            shape = node.operation.shape(node.settings, read)
        except ValueError as error:
            raise ValueError(f"node {node.name!r} {error}") from None
        if any(size is not None and not 1 <= size <= MAX_SIZE for size in shape):
            raise ValueError(f"node {node.name!r} puts out {shape}, expected 1 to {MAX_SIZE} each")
        if prod(size or 1 for size in shape) > MAX_NUMBERS:
            raise ValueError(
                f"node {node.name!r} puts out {shape}, more than {MAX_NUMBERS} numbers"
            )
        shapes[node.name] = shape
        own = node.operation.parameter_shapes(node.settings, read, shape)
        for key, size in own.items():
            if prod(size) > MAX_WEIGHTS:
                raise ValueError(
                    f"node {node.name!r} has a {key} of {size}, expected fewer numbers"
                )
            weights[f"{node.name}.{key}"] = size
        before = [layouts[name] for name in node.inputs]
        layouts[node.name] = node.operation.flow(Flow(node.settings, units, before, read, shape))
        if not parted and node.operation.parameters and len(layouts[node.name]) > 1:
            units.keep(layouts[node.name])
        if len(layouts[node.name]) > MAX_SEGMENTS:
            raise ValueError(f"node {node.name!r} has units of more than {MAX_SEGMENTS} layers")
    layouts = {name: units.resolved(layout) for name, layout in layouts.items()}
    if LENGTHS in inputs:  # a score of steps, which is one unit, can't be removed
        for layout in layouts.values():
            units.whole.update(part.key for part in layout if part.size == 1)
    names = _names(nodes, layouts, units)
    parts = {name: _parts(layout, names) for name, layout in layouts.items()}
    groups, places = _groups(nodes, parts, readout)
    ends = [part.group for part in parts[readout]]
    if len(shapes[readout]) > 1 + stepwise:
        raise ValueError(
            f"the output layer reads {readout!r} of shape {shapes[readout]}, expected units"
            + (" and steps" if stepwise else " alone")
        )
    if not groups or (None in ends and not parted):
        raise ValueError(
            f"the output layer reads units of {readout!r} that can't be masked: the input itself, "
            "or what meets it or units of several layers in a sum; expected a hidden layer's"
        )
    if len(set(ends)) < len(ends) and not parted:
        raise ValueError(f"the output layer reads the same units twice in {readout!r}")
    named = dict.fromkeys(end for end in ends if end is not None)
    return Structure(shapes, weights, parts, groups, tuple(named), places)


def _names(nodes: Sequence[Node], layouts: Mapping[str, Layout], units: Units) -> dict[int, str]:
    """Names of the groups by their keys, in the order in which they come up.

    What nobody has weights for, zeros that were put beside, is no group.
    """
    owned = {
        part.key
        for node in nodes
        if node.operation.owned(node.settings)
        for part in layouts[node.name]
    }
    keys = [part.key for layout in layouts.values() for part in layout]
    maskable = [key for key in dict.fromkeys(keys) if key in owned and key not in units.whole]
    return {key: f"hidden.{index}" for index, key in enumerate(maskable)}


def _parts(layout: Layout, names: Mapping[int, str]) -> tuple[Part, ...]:
    found, offset = [], 0
    for segment in layout:
        found.append(Part(names.get(segment.key), offset, segment.size, segment.block))
        offset += segment.columns
    return tuple(found)


def _groups(
    nodes: Sequence[Node], parts: Mapping[str, tuple[Part, ...]], readout: str
) -> tuple[dict[str, Group], dict[str, tuple[Place, ...]]]:
    """Groups with their owners and readers, and the places where they are read."""
    sizes: dict[str, int] = {}
    owners: dict[str, list[Owner]] = {}
    readers: dict[str, list[Reader]] = {}
    read = {readout}
    for node in nodes:
        operation = node.operation
        columns = sum(part.size * part.block for part in parts[node.name])
        for part in parts[node.name]:
            if part.group is None:
                continue
            sizes.setdefault(part.group, part.size)
            for key, blocks in operation.owned(node.settings).items():
                owner = Owner(f"{node.name}.{key}", blocks, part.offset, part.block, columns)
                owners.setdefault(part.group, []).append(owner)
        if operation.reads:
            # First states meet a recurrent node's own, as in a sum.
            read.update(node.inputs[:1] if operation.recurs else node.inputs)
            for weight in operation.readers(node.settings):
                if weight.own:
                    read.add(node.name)
                for part in parts[node.name if weight.own else node.inputs[0]]:
                    if part.group is not None:
                        name = f"{node.name}.{weight.weight}"
                        bias = f"{node.name}.{weight.bias}"
                        border = weight.border and f"{node.name}.{weight.border}"
                        found = Reader(name, bias, part.offset, part.block, border)
                        readers.setdefault(part.group, []).append(found)
    places: dict[str, list[Place]] = {name: [] for name in sizes}
    for node in reversed(nodes):
        if node.name in read and node.operation.gathers:
            read.update(node.inputs)
        elif node.name in read:
            for part in reversed(parts[node.name]):
                if part.group is not None:
                    places[part.group].append(Place(node.name, part.offset, part.block))
    bounded, idles = _kinds(nodes)
    groups = {
        name: Group(
            name,
            size,
            tuple(owners[name]),
            tuple(readers.get(name, ())),
            bounded=all(place.node in bounded for place in places[name]),
            idles=all(place.node in idles for place in places[name]),
        )
        for name, size in sizes.items()
    }
    return groups, {name: tuple(reversed(found)) for name, found in places.items()}


def _kinds(nodes: Sequence[Node]) -> tuple[set[str], set[str]]:
    """Nodes that put out what is bounded, and those whose units can be off."""
    bounded: set[str] = set()
    idles: set[str] = set()
    for node in nodes:
        bounds = node.operation.bounds(node.settings)
        for known, own in ((bounded, bounds), (idles, node.operation.idles)):
            if own or (node.operation.carries and known.issuperset(node.inputs)):
                known.add(node.name)
    return bounded, idles
