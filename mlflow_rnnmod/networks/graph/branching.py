"""Many trunks at once: they run together as far as they agree, and part where they differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.networks.graph.operations import Node
from mlflow_rnnmod.networks.graph.viewing import GraphView
from mlflow_rnnmod.networks.trunk import Trunk

# What one node puts out, for all trunks that agree so far: the node's name, and a number.
Key = tuple[str, int]


@dataclass(frozen=True, eq=False)
class Step:
    """One node, run once for all trunks that agree up to it.

    Args:
        key: of what it puts out.
        node: with the settings of these trunks.
        view: of one of the trunks.
        reads: keys of its inputs.
    """

    key: Key
    node: Node
    view: GraphView
    reads: tuple[Key, ...]


class Branches:
    """Trunks of one network, cut down; the beginnings that some share are run once.

    Args:
        network: the parent's.
        trunks: all different.
    """

    def __init__(self, network: Any, trunks: Sequence[Trunk]) -> None:
        config = network.config
        self.config, self.dtype = config, network.dtype
        self.views = [GraphView(network, trunk, cut=True) for trunk in trunks]
        marks = [_marks(trunk) for trunk in trunks]
        windows = [
            {
                name: hash((kernel.numpy().tobytes(), trunk.shifts[name].numpy().tobytes()))
                for name, kernel in trunk.windows.items()
            }
            for trunk in trunks
        ]
        parts = config.structure.parts
        numbers: dict[tuple[Any, ...], int] = {}
        known = {name: (name, 0) for name in config.inputs}
        chosen: list[dict[str, Key]] = []
        for mark, window in zip(marks, windows, strict=True):
            keys: dict[str, Key] = dict(known)
            for node in config.nodes:
                kept = [mark[part.group][0] for part in parts[node.name] if part.group]
                read = [
                    mark[part.group][1]
                    for name in node.inputs
                    if node.operation.reads
                    for part in parts[name]
                    if part.group
                ]
                if node.operation.recurs:  # it reads its own units at the step before
                    read += [mark[part.group][1] for part in parts[node.name] if part.group]
                read += [
                    window.get(f"{node.name}.{weight}", 0)
                    for weight in node.operation.weights_of(node.settings)
                ]
                inputs = tuple(keys[name] for name in node.inputs)
                seen = (node.name, tuple(kept), tuple(read), inputs)
                keys[node.name] = (node.name, numbers.setdefault(seen, len(numbers)))
            chosen.append(keys)
        # Those that agree longest follow one another, so that little has to be kept for later.
        order = sorted(
            range(len(trunks)), key=lambda i: [chosen[i][node.name][1] for node in config.nodes]
        )
        self.ends = [keys[config.readout] for keys in chosen]
        self.steps = _steps(order, self.views, chosen)
        self.uses: Counter[Key] = Counter(key for step in self.steps for key in step.reads)
        self.uses.update(self.ends)

    def readouts(self, rows: Rows) -> Tensor:
        """Float ``(trunks, rows, readout size)``."""
        given = self.config.given(rows, self.dtype)
        values: dict[Key, Tensor] = {(name, 0): value for name, value in given.items()}
        left = Counter(self.uses)
        found: list[Tensor | None] = [None] * len(self.views)
        waiting: dict[Key, list[int]] = {}
        for i, end in enumerate(self.ends):
            waiting.setdefault(end, []).append(i)
        for step in self.steps:
            inputs = [
                step.view.completed(step.node, i, values[key]) for i, key in enumerate(step.reads)
            ]
            weights = step.view.weights(step.node)
            values[step.key] = step.node.operation.run(step.node.settings, inputs, weights)
            for i in waiting.get(step.key, ()):
                found[i] = self.views[i].ended(values[step.key])
                left[step.key] -= 1
            for key in (*step.reads, step.key):
                left[key] -= key != step.key
                if left[key] <= 0:
                    values.pop(key, None)
        return torch.stack([readout for readout in found if readout is not None])


def _marks(trunk: Trunk) -> dict[str, tuple[int, int]]:
    """For each group what tells its masks apart, and its masks with what is guessed."""
    found = {}
    for name, keep in trunk.keep.items():
        mask = hash(keep.numpy().tobytes())
        guessed = [trunk.fold[name].numpy().tobytes()]
        if name in trunk.mix:
            guessed.append(trunk.mix[name].numpy().tobytes())
        found[name] = (mask, hash((mask, *guessed)))
    return found


def _steps(
    order: Sequence[int], views: Sequence[GraphView], chosen: Sequence[dict[str, Key]]
) -> list[Step]:
    done: set[Key] = set()
    steps = []
    for i in order:
        for node in views[i].nodes:
            key = chosen[i][node.name]
            if key not in done:
                done.add(key)
                reads = tuple(chosen[i][name] for name in node.inputs)
                steps.append(Step(key, node, views[i], reads))
    return steps
