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
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.networks.graph.evaluating import last_uses
from mlflow_rnnmod.networks.graph.operations import Node
from mlflow_rnnmod.networks.graph.viewing import GraphView, columns_kept
from mlflow_rnnmod.networks.trunk import Trunk

# Columns and places of a kernel together: larger ones are left as they are.
MAX_WINDOW = 1200
# Windows that a kernel is fitted on, for each of its numbers that are read together.
WINDOWS = 64
# Of the mean variance: how strongly a kernel is held to what it was.
RIDGE = 1e-3
# Numbers that are held at once, of a few nodes of both networks; and rows below which nothing is
# learned.
MAX_HELD, NODES_HELD, MIN_ROWS = 2**28, 6, 64


@torch.no_grad()
def refitted(network: Any, trunk: Trunk, rows: Rows, seed: int = 0) -> Trunk:
    """The trunk with a window for each kernel that reads removed units at several places.

    Args:
        network: a graph network without steps.
        trunk: over its groups.
        rows: what kernels are fitted on; some of them, drawn with the seed, where they are many.
        seed: of what is drawn.
    """
    config, parts = network.config, network.config.structure.parts
    read_by = {reader.tensor for group in network.groups.values() for reader in group.readers}
    kept = {name: columns_kept(own, trunk.keep) for name, own in parts.items()}
    wanted = [node.name for node in config.nodes if _misses(node, kept, read_by)]
    draw = torch.Generator().manual_seed(seed)
    largest = max(math.prod(n or 1 for n in shape) for shape in config.structure.shapes.values())
    most = MAX_HELD // (NODES_HELD * largest)
    if not wanted or min(len(rows), most) < MIN_ROWS:
        return trunk
    if len(rows) > most:
        rows = rows[torch.randperm(len(rows), generator=draw)[:most]]
    view = GraphView(network, replace(trunk, windows={}, shifts={}), cut=True)
    whole = dict(config.given(rows.to(network.device), network.dtype))
    cut, last = dict(whole), last_uses(config.nodes, {config.readout})
    windows: dict[str, Tensor] = {}
    shifts: dict[str, Tensor] = {}
    for at, (node, own) in enumerate(zip(config.nodes, view.nodes, strict=True)):
        inputs = [whole[name] for name in node.inputs]
        left = [view.completed(own, i, cut[name]) for i, name in enumerate(node.inputs)]
        weights = view.weights(own)
        whole[node.name] = node.operation.run(node.settings, inputs, network.weights(node))
        if node.name in wanted:
            name, columns = f"{node.name}.weight", kept[node.inputs[0]]
            kernel = network.weights(node)["weight"]
            seen = _windows(node, inputs[0], kernel[0].numel(), seed)
            found = _windows(node, left[0], kernel[0].numel(), seed)
            change, shift = _fitted(kernel, columns, seen, found)
            windows[name], shifts[name] = change.float().cpu(), shift.float().cpu()
            rows_kept, bias = kept[node.name], network.weights(node)["bias"]
            weights = {
                "weight": (kernel + change.to(kernel))[rows_kept][:, columns],
                "bias": (bias + shift.to(bias))[rows_kept],
            }
            if len(windows) == len(wanted):
                break
        cut[node.name] = own.operation.run(own.settings, left, weights)
        for name in last.get(at, ()):
            whole.pop(name, None)
            cut.pop(name, None)
    return replace(trunk, windows=windows, shifts=shifts)


def _misses(node: Node, kept: dict[str, Tensor], read_by: set[str]) -> bool:
    """Whether a node reads removed units at several places at once."""
    size = node.operation.window(node.settings)
    if size == 1 or f"{node.name}.weight" not in read_by:
        return False
    columns = kept[node.inputs[0]]
    return not columns.all() and len(columns) * size <= MAX_WINDOW


def _windows(node: Node, x: Tensor, numbers: int, seed: int) -> Tensor:
    """What a node reads, at the same places whichever channels are there."""
    draw = torch.Generator().manual_seed(seed)
    most = math.ceil(WINDOWS * numbers / len(x))
    return node.operation.windows(node.settings, x, most, draw)


def _fitted(kernel: Tensor, columns: Tensor, seen: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
    """What to add to a kernel and to its bias: ridge regression, held to the kernel as it was.

    Args:
        kernel: of the whole network, ``(out, columns, *places)``.
        columns: which are kept.
        seen: what it reads in the whole network, ``(windows, all columns x places)``.
        found: what it reads in the cut one, ``(windows, kept columns x places)``.
    """
    asked = seen @ kernel.flatten(1).T
    before = kernel[:, columns].flatten(1).double()
    given_mean, asked_mean = found.mean(0), asked.mean(0)
    given = found - given_mean
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
