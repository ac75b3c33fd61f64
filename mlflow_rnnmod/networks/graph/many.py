"""Many trunks of a graph network at once: together as far as they agree, products stacked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.networks.graph.config import GraphConfig
from mlflow_rnnmod.networks.graph.counting import multiply_adds_of
from mlflow_rnnmod.networks.graph.feeding import INPUT
from mlflow_rnnmod.networks.graph.operations import Node
from mlflow_rnnmod.networks.graph.structure import Part
from mlflow_rnnmod.networks.graph.viewing import GraphView, evaluate
from mlflow_rnnmod.networks.groups import Completion, trimmed_tensors
from mlflow_rnnmod.networks.many import ManyTrunks
from mlflow_rnnmod.networks.protocol import Finish, Load
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


# Units (trunks x rows x the widest layer) that are held at once, at the most.
MAX_HELD = 2**20
# Seconds that an operation takes to get going; weights and multiply-adds a second of one thread.
_START, _WEIGHTS, _PRODUCTS = 6e-6, 5e9, 6e10
# Multiply-adds a second of small convolutions.
_CONVOLVED = 2e10


@dataclass(frozen=True, eq=False)
class Stack:
    """Weights of some trunks, one after the other, with zeros where a trunk has fewer units.

    Args:
        weights: of each node, by its name; trunks before their own dimensions.
        matrix: from kept units of the readout to all, ``(trunks, kept, readout size)``.
        fold: constants of the removed ones, ``(trunks, 1, readout size)``.
    """

    weights: Mapping[str, Mapping[str, Tensor]]
    matrix: Tensor
    fold: Tensor

    def __getitem__(self, part: slice) -> Stack:
        weights = {
            name: {key: tensor[part] for key, tensor in own.items()}
            for name, own in self.weights.items()
        }
        return Stack(weights, self.matrix[part], self.fold[part])


class GraphTrunks(ManyTrunks):
    """Some trunks of a graph network, all at once: ``stacked`` is one product a dense layer.

    Where units have places, trunks run together as far as they agree instead.
    """

    def expected(self, rows: int, steps: int) -> Mapping[str, float]:
        """The stack: it has as many products as single trunks, in fewer operations.

        Measured for 10 and 100 trunks of 1 to 4 layers of 49 to 1,024 units: 0.1 to 0.8 of the time
        of single ones for one row, 0.3 to 0.9 for 64, 0.8 to 1.02 for 512.
        """
        return {"stacked": 0.0}

    def make_stack(self) -> Stack | Branches:
        """Weights of all trunks, cut down and padded to the largest; or branches."""
        if stacks(self.network.config):
            return make_stack(self.network, self.trunks)
        return Branches(self.network, self.trunks)

    def run_stack(self, stack: Any, rows: Rows, finish: Finish) -> None:
        """Run all trunks at once, or as many as memory is kept bounded with."""
        if isinstance(stack, Branches):
            finish(slice(0, len(self.trunks)), stack.readouts(rows))
            return
        x = self.network.prepare(rows).values
        config: GraphConfig = self.network.config
        widest = config.widest
        size = max(MAX_HELD // max(widest * len(rows), 1), 1)
        for start in range(0, len(self.trunks), size):
            part = slice(start, min(start + size, len(self.trunks)))
            own: Stack = stack if size >= len(self.trunks) else stack[part]

            def weights(node: Node, own: Stack = own) -> Mapping[str, Tensor]:
                return own.weights.get(node.name, {})

            end = config.readout
            found = evaluate(config.nodes, {INPUT: x}, weights, wanted={end}, stacked=True)[end]
            finish(part, torch.baddbmm(own.fold, found, own.matrix))


def stacks(config: GraphConfig) -> bool:
    """Whether all nodes, and the output layer, can run many trunks in one go."""
    ends = [part.group for part in config.structure.parts[config.readout]]
    plain = None not in ends and len(set(ends)) == len(ends) and not config.spatial
    return plain and all(node.operation.stacks for node in config.nodes)


def make_stack(network: Any, trunks: Sequence[Trunk]) -> Stack:
    """Weights of all trunks, cut down and padded to the largest."""
    config: GraphConfig = network.config
    state, parts = network.state_dict(), config.structure.parts
    most = {name: max(t.sizes[name] for t in trunks) for name in network.groups}
    found: dict[str, dict[str, list[Tensor]]] = {}
    matrices, folds = [], []
    for trunk in trunks:
        tensors = trimmed_tensors(state, network.groups, trunk, cut=False)
        places = {name: _padded(trunk.keep[name], most[name]) for name in most}
        for node in config.nodes:
            along = {"out": _index(parts[node.name], places)}
            along["read"] = _index(parts[node.inputs[0]], places)
            for key, axes in node.operation.parameters.items():
                tensor = tensors[f"{node.name}.{key}"]
                for dim, axis in enumerate(axes):
                    tensor = _taken(tensor, along[axis], dim)
                found.setdefault(node.name, {}).setdefault(key, []).append(tensor)
        ends = network.readout_groups
        completion = Completion(trunk, ends, cut=False, like=network.like)
        matrices.append(_taken(completion.matrix, _index(parts[config.readout], places), 0))
        folds.append(completion.fold[None])
    weights = {
        name: {key: torch.stack(tensors) for key, tensors in own.items()}
        for name, own in found.items()
    }
    return Stack(weights, torch.stack(matrices), torch.stack(folds))


def _padded(keep: Tensor, size: int) -> Tensor:
    """Numbers of the kept units, and one past the last unit up to ``size``."""
    kept = keep.nonzero()[:, 0]
    return functional.pad(kept, (0, size - len(kept)), value=len(keep))


def _index(parts: Sequence[Part], places: Mapping[str, Tensor]) -> Tensor:
    """Numbers of what is taken from the units of a node; one past the last for zeros."""
    end = parts[-1].offset + parts[-1].size
    found = []
    for part in parts:
        if part.group is None:
            found.append(torch.arange(part.offset, part.offset + part.size))
        else:
            own = places[part.group]
            found.append(torch.where(own < part.size, own + part.offset, end))
    return torch.cat(found)


def _taken(tensor: Tensor, index: Tensor, dim: int) -> Tensor:
    """Rows or columns by number; one past the last is zeros."""
    nothing = tensor.new_zeros([1 if d == dim else size for d, size in enumerate(tensor.shape)])
    return torch.cat([tensor, nothing], dim).index_select(dim, index.to(tensor.device))


def estimate(config: GraphConfig, load: Load) -> Mapping[str, float]:
    """What each way of running trunks should take on a CPU, and one pass of the parent, in seconds.

    Counted from the weights, at fixed rates.
    """
    whole = {name: group.units for name, group in config.structure.groups.items()}
    if not stacks(config):
        each = [multiply_adds_of(config, sizes) for sizes in load.kept]
        start = len(config.nodes) * _START
        parent = start + load.rows * multiply_adds_of(config, whole) / _CONVOLVED
        found = len(load.kept) * start + load.rows * sum(each) / _CONVOLVED
        return {"parent": parent, "sliced": found, "stacked": found}
    most = {name: max(sizes[name] for sizes in load.kept) for name in whole}
    each, nodes = [_products(config, sizes) for sizes in load.kept], len(config.nodes) + 2
    count, guesses = len(load.kept), config.readout_size**2

    def taken(operations: int, weights: float) -> float:
        return operations * _START + weights / _WEIGHTS + load.rows * weights / _PRODUCTS

    return {
        "parent": taken(nodes, _products(config, whole)),
        "sliced": taken(count * (nodes + 1), sum(each) + count * guesses),
        "stacked": taken(nodes + 1, count * (_products(config, most) + guesses)),
    }


def _products(config: GraphConfig, kept: Mapping[str, int]) -> float:
    """Multiply-adds of one row through dense layers, with so many units in each group."""

    def size(name: str) -> int:
        parts = config.structure.parts[name]
        return sum(part.size if part.group is None else kept[part.group] for part in parts)

    return float(
        sum(size(node.name) * size(node.inputs[0]) for node in config.nodes if node.operation.reads)
    )
