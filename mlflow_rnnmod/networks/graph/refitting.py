"""Kernels fitted anew to what a trunk keeps, one after the other along the graph.

A convolution sums over places, so what it misses of a removed channel is guessed from the kept ones
at *all* places of its kernel, and not from those at the same place alone; it stays a kernel of the
same size. Each is fitted to put out what it put out in the whole network, from what it reads in the
cut one, so that it mends what the layers before have changed, too. Where all that it puts out goes
into a sum, the sum is what it is fitted to: it makes up for what a residual stream has lost. That
is the reconstruction of channel pruning (He, Zhang and Sun, ICCV 2017, 3.1 and 3.3), in closed
form, of all kernels behind what is removed; Pan and Rajan (ICSE 2022) mend nothing.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mlflow_rnnmod._locks import cached_property
from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.networks.graph.operations import Node
from mlflow_rnnmod.networks.graph.viewing import GraphView, columns_kept, last_uses
from mlflow_rnnmod.networks.trunk import Trunk

# Columns and places of a kernel together: larger ones are left as they are.
MAX_WINDOW = 1200
# Windows that a kernel is fitted on, for each of its numbers that are read together.
WINDOWS = 64
# Of the mean variance: how strongly a kernel is held to what it was.
RIDGE = 1e-3
# Numbers of what nodes put out that are held at once, of so many of the largest; and rows below
# which nothing is learned.
MAX_HELD, NODES_HELD, MIN_ROWS = 2**28, 6, 64


class Refitting:
    """Fits kernels of one network to any of its trunks, on the same rows.

    What kernels put out in the whole network is found once, for all trunks.

    Args:
        network: a graph network without steps.
        rows: what kernels are fitted on; some of them, drawn with the seed, where they are many.
        seed: of what is drawn.
    """

    def __init__(self, network: Any, rows: Rows, seed: int = 0) -> None:
        self.network, self.seed, config = network, seed, network.config
        self.shapes = config.structure.shapes
        sizes = (math.prod(n or 1 for n in shape) for shape in self.shapes.values())
        most = MAX_HELD // (NODES_HELD * max(sizes))
        if len(rows) > most:
            draw = torch.Generator().manual_seed(seed)
            rows = rows[torch.randperm(len(rows), generator=draw)[:most]]
        self.rows = rows
        self.last = last_uses(config.nodes, {config.readout})
        read = {reader.tensor for group in network.groups.values() for reader in group.readers}
        kernels = {
            node.name: network.weights(node)["weight"]
            for node in config.nodes
            if node.operation.window(node.settings) > 1 and f"{node.name}.weight" in read
        }
        self.kernels = {
            k: kernel for k, kernel in kernels.items() if kernel[0].numel() <= MAX_WINDOW
        }
        self.beside = beside(config.nodes, self.kernels.keys() - {config.readout})

    def __call__(self, trunk: Trunk) -> Trunk:
        """The trunk with a window for each kernel behind what is removed, or beside it in a sum."""
        parts, nodes = self.network.config.structure.parts, self.network.config.nodes
        kept = {name: columns_kept(own, trunk.keep) for name, own in parts.items()}
        changed = {name for name, columns in kept.items() if not columns.all()}
        for node in nodes:
            if not changed.isdisjoint(node.inputs):
                changed.add(node.name)
        wanted = {
            node.name
            for node in nodes
            if node.name in self.kernels
            and not changed.isdisjoint({node.inputs[0], self.beside.get(node.name)})
        }
        if not wanted or len(self.rows) < MIN_ROWS:
            return trunk
        return self._along(trunk, wanted, kept)

    @cached_property
    @torch.no_grad()
    def asked(self) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        """What kernels put out in the whole network, without biases, and what sums add to it.

        Both ``(windows, out)`` by node.
        """
        network, own, added = self.network, dict[str, Tensor](), dict[str, Tensor]()
        values = dict(network.config.given(self.rows.to(network.device), network.dtype))
        for at, node in enumerate(network.config.nodes):
            inputs = [values[name] for name in node.inputs]
            for name in self.beside.keys() & set(node.inputs):  # this is its sum
                added[name] = self._put_out(name, values[self.beside[name]])
            weights = network.weights(node)
            values[node.name] = node.operation.run(node.settings, inputs, weights)
            if node.name in self.kernels:
                own[node.name] = self._put_out(node.name, values[node.name]) - weights["bias"]
            for name in self.last.get(at, ()):
                values.pop(name, None)
        return own, added

    @torch.no_grad()
    def _along(self, trunk: Trunk, wanted: Collection[str], kept: Mapping[str, Tensor]) -> Trunk:
        """Fit the wanted nodes' kernels in the order of the graph."""
        network, (own_asked, added) = self.network, self.asked
        view = GraphView(network, replace(trunk, windows={}, shifts={}), cut=True)
        values = dict(network.config.given(self.rows.to(network.device), network.dtype))
        nodes = list(zip(network.config.nodes, view.nodes, strict=True))
        windows: dict[str, Tensor] = {}
        shifts: dict[str, Tensor] = {}

        def run(own: Node, weights: Mapping[str, Tensor] | None = None) -> None:
            inputs = [view.completed(own, i, values[name]) for i, name in enumerate(own.inputs)]
            weights = view.weights(own) if weights is None else weights
            values[own.name] = own.operation.run(own.settings, inputs, weights)

        def ahead(at: int, name: str) -> bool:
            """Whether a value is there, or can be before its turn: behind nothing to be fitted."""
            for node, own in nodes[at + 1 :]:
                if name in values or self.beside.get(nodes[at][0].name) in node.inputs:
                    break
                there = values.keys() >= set(node.inputs)
                if there and node.name not in wanted and node.name not in values:
                    run(own)
            return name in values

        for at, (node, own) in enumerate(nodes):
            if node.name in wanted:
                kernel, bias = self.kernels[node.name], network.weights(node)["bias"]
                rows, columns = kept[node.name], kept[node.inputs[0]]
                given = self._windows(node, view.completed(own, 0, values[node.inputs[0]]))
                asked, other = own_asked[node.name], self.beside.get(node.name)
                if other is not None and ahead(at, other):
                    asked = asked.clone()
                    now = self._put_out(node.name, values[other])
                    asked[:, rows] += added[node.name][:, rows] - now
                change, shift = _fitted(kernel, columns, asked, given)
                if not (change.isfinite().all() and shift.isfinite().all()):
                    return trunk  # more than half precision holds
                name = f"{node.name}.weight"
                windows[name], shifts[name] = change.float().cpu(), shift.float().cpu()
                weights = {
                    "weight": (kernel + change.to(kernel))[rows][:, columns],
                    "bias": (bias + shift.to(bias))[rows],
                }
                if len(windows) == len(wanted):
                    break
                run(own, weights)
            elif node.name not in values:
                run(own)
            for name in self.last.get(at, ()):
                values.pop(name, None)
        return replace(trunk, windows=windows, shifts=shifts)

    def _at(self, name: str) -> Tensor:
        """Which places a kernel is fitted at, whichever channels are there: ``(rows, places)``."""
        draw = torch.Generator().manual_seed(self.seed)
        places = math.prod(n or 1 for n in self.shapes[name][1:])
        most = math.ceil(WINDOWS * self.kernels[name][0].numel() / len(self.rows))
        return torch.randint(places, (len(self.rows), min(most, places)), generator=draw)

    def _windows(self, node: Node, x: Tensor) -> Tensor:
        """What a node reads, ``(windows, units x places)``."""
        return node.operation.windows(node.settings, x, self._at(node.name).to(x.device))

    def _put_out(self, name: str, y: Tensor) -> Tensor:
        """What stands where a node puts out what it read in :meth:`_windows`."""
        y, at = y.flatten(2).transpose(1, 2), self._at(name).to(y.device)
        row = torch.arange(len(y), device=y.device)[:, None]
        return y.flatten(0, 1).index_select(0, (row * y.shape[1] + at).flatten())


def beside(nodes: Sequence[Node], names: Collection[str]) -> dict[str, str]:
    """Of nodes whose values only go into a sum of two, the other one of these."""
    readers: dict[str, list[Node]] = {}
    for node in nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    found = {}
    for name in names:
        match readers.get(name, ()):
            case [Node() as node] if node.operation.sums and len(node.inputs) == 2:
                (found[name],) = (other for other in node.inputs if other != name)
    return found


def _fitted(kernel: Tensor, columns: Tensor, asked: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
    """What to add to a kernel and to its bias: ridge regression, held to the kernel as it was.

    Args:
        kernel: of the whole network, ``(out, columns, *places)``.
        columns: which are kept.
        asked: what it puts out in the whole network, ``(windows, out)``.
        given: what it reads in the cut one, ``(windows, kept columns x places)``.
    """
    before = kernel[:, columns].flatten(1).double()
    given_mean, asked_mean = given.mean(0), asked.mean(0)
    given = given - given_mean
    covariance = (given.T @ given).double() / len(given)
    both = (given.T @ (asked - asked_mean)).double() / len(given)
    ridge = RIDGE * covariance.diagonal().mean().clamp(min=1e-12)
    held = covariance + ridge * torch.eye(len(covariance), dtype=torch.float64).to(covariance)
    change = torch.linalg.solve(held, both + ridge * before.T).T - before
    change = change.to(torch.float16).double()  # as it is kept
    shift = asked_mean.double() - (before + change) @ given_mean.double()
    whole = torch.zeros(kernel.shape, dtype=torch.float64, device=kernel.device)
    whole[:, columns] = change.view(len(kernel), -1, *kernel.shape[2:])
    return whole, shift
