"""Networks over steps in the suite: read from users' networks, with cells run by PyTorch's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from benchmarks.architectures import ARCHITECTURES
from mlflow_rnnmod.networks import Parent, Rows
from mlflow_rnnmod.networks.graph.reading import read_graph
from tests.builders import character_encoder
from tests.contract.base import Seen, Slowly, Suite, cached

# By the names of the users' networks; what they read is text where a tokenizer stands before them.
SUBJECTS = {
    "attention pooling": ("AttentionPooling", True),
    "attention by lengths": ("AdditiveAttention", False),
    "residual and norms": ("Residual", False),
    "convolutions over words": ("TextCNN", True),
    "learned start, packed": ("LearnedStart", False),
    "cells, and a second start": ("EncoderState", False),
    "tags of normed states": ("NormedTagger", False),
    "floats and lengths": ("Features", False),
    "several labels of a mean": ("MultiLabel", False),
    "projected": ("Projected", False),
    "packed both ways, residual, attention": ("PackedResidual", False),
}
CELLS: dict[str, Callable[..., Any]] = {
    "lstm": torch.lstm_cell,
    "gru": torch.gru_cell,
    "rnn_tanh": torch.rnn_tanh_cell,
    "rnn_relu": torch.rnn_relu_cell,
}


def parent_of(name: str, text: bool) -> Parent:
    """A user's network as a float64 parent."""
    architecture = ARCHITECTURES[name]
    module, rows = architecture.module(3).double(), architecture.rows()
    if rows.values.is_floating_point():
        rows = Rows(rows.values.double(), rows.lengths, rows.targets)
    network, _ = read_graph(
        module, rows, lambda: architecture.answers(module, rows), architecture.labels
    )
    return Parent(network, character_encoder() if text else None)


class SequenceSuite(Suite):
    """Graphs over steps."""

    name = "graph"

    def parents(self) -> Mapping[str, Callable[[], Parent]]:
        return {name: cached(parent_of, *given) for name, given in SUBJECTS.items()}

    def ties(self, network: Any) -> bool:
        return any(node.op == "steps_max" for node in network.config.nodes)

    def slow(self, network: Any, row: Rows, added: Mapping[str, Tensor] | None = None) -> Slowly:
        config, structure = network.config, network.config.structure
        nodes = {node.name: node for node in config.nodes}
        given = config.given(row, torch.float64)
        length = int(network.lengths(row)[0])
        extra: dict[str, Tensor] = {}
        known: dict[str, Tensor] = {}

        def put_out(name: str) -> Tensor:
            if name in given:
                return given[name]
            if name not in known:
                node = nodes[name]
                inputs = [(read if node.operation.reads else put_out)(x) for x in node.inputs]
                weights = network.weights(node)
                if node.operation.recurs:
                    known[name] = _recurrent(node, inputs, weights, extra.get(name))
                else:
                    known[name] = node.operation.run(node.settings, inputs, weights)
            return known[name]

        def read(name: str) -> Tensor:
            node = nodes.get(name)
            if node is not None and node.operation.gathers:
                inputs = [read(source) for source in node.inputs]
                return node.operation.run(node.settings, inputs, network.weights(node))
            recurs = node is not None and node.operation.recurs
            return put_out(name) + (0.0 if recurs else extra.get(name, 0.0))

        shapes = {name: put_out(name).detach() for name in nodes}
        known.clear()
        groups = {}
        for group, places in structure.places.items():
            parts, counts = [], []
            start = 0
            for name, offset, block in places:
                assert block == 1
                columns = slice(offset, offset + network.units[group])
                part = shapes[name][0, columns].reshape(network.units[group], -1)
                parts.append(part.T)
                counts.append(_valid(part.shape[1], row.values.shape[1], length))
                if added is not None:
                    here = added[group][start : start + part.shape[1]].T
                    more = torch.zeros_like(shapes[name])
                    more = more.index_add(
                        1,
                        torch.arange(offset, columns.stop),
                        here.view_as(shapes[name][:, columns]),
                    )
                    extra[name] = extra.get(name, 0.0) + more
                start += part.shape[1]
            recurrent = (i for i, p in enumerate(places) if nodes[p.node].operation.recurs)
            chosen = next(recurrent, len(places) - 1)
            watched = [
                valid and i == chosen for i, counted in enumerate(counts) for valid in counted
            ]
            more = [
                part[counted]
                for i, (part, counted) in enumerate(zip(parts, counts, strict=True))
                if i != chosen
            ]
            steps = [
                step if config.stepwise else None for part in parts for step in range(len(part))
            ]
            empty = [torch.zeros(0, network.units[group], dtype=torch.float64)]
            groups[group] = Seen(torch.cat(parts), steps, watched, torch.cat(more or empty))
        found = read(config.readout)
        margins = config.answer.all_margins(
            network.logits(found if found.ndim == 2 else found.transpose(1, 2))
        )[0]
        return Slowly(groups, margins)


def _valid(places: int, steps: int, length: int) -> Tensor:
    """Which places are no padding."""
    if places == 1:
        return torch.tensor([True])
    if places == steps + 1:
        return torch.tensor([i < length or i == steps for i in range(places)])
    return torch.tensor([i * steps // places < length for i in range(places)])


def _recurrent(node: Any, inputs: list[Tensor], weights: Any, added: Tensor | None) -> Tensor:
    """Step by step, by PyTorch's own cells; one row."""
    settings = node.settings
    x, *others = inputs
    steps = x.shape[2]
    length = int(others.pop(0)[0, 0]) if settings["packed"] else steps
    own = [weights[name] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    zeros = [x.new_zeros(1, settings["units"])]
    zeros += [x.new_zeros(1, settings["cells"] or settings["units"])] if node.op == "lstm" else []
    state = list(others or zeros)
    order = range(length - 1, -1, -1) if settings["backward"] else range(length)
    found = [x.new_zeros(1, settings["units"]) for _ in range(steps)]
    for t in order:
        if node.op == "lstm" and settings["cells"]:
            state = list(_projected(x[:, :, t], state, own, weights["weight_hr"]))
        elif node.op == "lstm":
            state = list(torch.lstm_cell(x[:, :, t], state, *own))
        else:
            state = [CELLS[node.op](x[:, :, t], state[0], *own)]
        if added is not None:
            state[0] = state[0] + added[:, :, t]
        found[t] = state[0]
    if settings["ends"]:
        found.append(state[1] if added is None else state[1] + added[:, :, steps])
    return torch.stack(found, 2)


def _projected(x: Tensor, state: list[Tensor], own: list[Tensor], weight: Tensor) -> Any:
    w_ih, w_hh, b_ih, b_hh = own
    i, f, g, o = (x @ w_ih.T + b_ih + state[0] @ w_hh.T + b_hh).chunk(4, 1)
    cell = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
    return (o.sigmoid() * cell.tanh()) @ weight.T, cell
