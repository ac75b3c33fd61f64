"""Running a graph, node by node."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from torch import Tensor

from mlflow_rnnmod.networks.graph.operations import Node

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
