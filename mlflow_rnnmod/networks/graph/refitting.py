"""Kernels fitted anew to what a trunk keeps, one after the other along the graph.

A convolution sums over places, so what it misses of a removed channel is guessed from the kept ones
at *all* places of its kernel, and not from those at the same place alone; it stays a kernel of the
same size. Each is fitted to put out what it put out in the whole network, from what it reads in the
cut one, so that it mends what the layers before have changed, too. That is the reconstruction of
channel pruning (He, Zhang and Sun, ICCV 2017, 3.1), in closed form; Pan and Rajan (ICSE 2022) mend
nothing.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
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
        sizes = (math.prod(n or 1 for n in shape) for shape in config.structure.shapes.values())
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

    def __call__(self, trunk: Trunk) -> Trunk:
        """The trunk with a window for each kernel that reads removed units at several places."""
        parts = self.network.config.structure.parts
        kept = {name: columns_kept(own, trunk.keep) for name, own in parts.items()}
        wanted = {
            node.name
            for node in self.network.config.nodes
            if node.name in self.kernels and not kept[node.inputs[0]].all()
        }
        if not wanted or len(self.rows) < MIN_ROWS:
            return trunk
        return self._along(trunk, wanted, kept)

    @cached_property
    @torch.no_grad()
    def asked(self) -> Mapping[str, Tensor]:
        """What kernels put out in the whole network, without biases, ``(windows, out)`` by node."""
        network, found = self.network, {}
        values = dict(network.config.given(self.rows.to(network.device), network.dtype))
        for at, node in enumerate(network.config.nodes):
            inputs = [values[name] for name in node.inputs]
            kernel = self.kernels.get(node.name)
            if kernel is not None:
                found[node.name] = self._windows(node, inputs[0]) @ kernel.flatten(1).T
                if len(found) == len(self.kernels):
                    break
            values[node.name] = node.operation.run(node.settings, inputs, network.weights(node))
            for name in self.last.get(at, ()):
                values.pop(name, None)
        return found

    @torch.no_grad()
    def _along(self, trunk: Trunk, wanted: Collection[str], kept: Mapping[str, Tensor]) -> Trunk:
        """Fit the wanted nodes' kernels in the order of the graph."""
        network, asked = self.network, self.asked
        view = GraphView(network, replace(trunk, windows={}, shifts={}), cut=True)
        values = dict(network.config.given(self.rows.to(network.device), network.dtype))
        windows: dict[str, Tensor] = {}
        shifts: dict[str, Tensor] = {}
        for at, (node, own) in enumerate(zip(network.config.nodes, view.nodes, strict=True)):
            inputs = [view.completed(own, i, values[name]) for i, name in enumerate(node.inputs)]
            weights = view.weights(own)
            if node.name in wanted:
                kernel, bias = self.kernels[node.name], network.weights(node)["bias"]
                rows, columns = kept[node.name], kept[node.inputs[0]]
                given = self._windows(node, inputs[0])
                change, shift = _fitted(kernel, columns, asked[node.name], given)
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
            values[node.name] = own.operation.run(own.settings, inputs, weights)
            for name in self.last.get(at, ()):
                values.pop(name, None)
        return replace(trunk, windows=windows, shifts=shifts)

    def _windows(self, node: Node, x: Tensor) -> Tensor:
        """What a node reads, at the same places whichever channels are there."""
        draw = torch.Generator().manual_seed(self.seed)
        most = math.ceil(WINDOWS * self.kernels[node.name][0].numel() / len(x))
        return node.operation.windows(node.settings, x, most, draw)


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
