"""Squared gradients by what goes into gates, step by step, against autograd over a loop."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from torch import Tensor

from mlflow_rnnmod.networks import RecurrentNetwork, Rows
from mlflow_rnnmod.networks.recurrent.config import GATES
from mlflow_rnnmod.networks.recurrent.watching import Tapes as Watch
from tests.builders import tiny_parent, tiny_rows
from tests.networks.recurrent.reference import _read
from tests.networks.recurrent.strategies import networks, random_rows


def step(cell: str, layer, x: Tensor, state: tuple[Tensor, Tensor], added: Tensor):
    """One step's ``(h, c)``; ``added`` ``(gates, units)`` goes into the gates."""
    h, c = state
    a = (layer.weight_ih_l0 @ x + layer.bias_ih_l0).view(-1, layer.hidden_size)
    s = (layer.weight_hh_l0 @ h + layer.bias_hh_l0).view(-1, layer.hidden_size)
    if cell == "lstm":
        i, f, g, o = a + s + added
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c
    if cell == "gru":
        r, z = (a[:2] + s[:2] + added[:2]).sigmoid()
        n = (a[2] + r * s[2] + added[2]).tanh()
        return (1 - z) * n + z * h, c
    total = (a + s + added)[0]
    return (total.tanh() if cell == "rnn_tanh" else total.relu()), c


def odds_of_a_row(network: RecurrentNetwork, values: Tensor, length: int, label: int):
    """Log-odds of a label, and the zeros added to the gates of each layer ``(steps, ...)``."""
    config, added = network.config, {}
    x = network.feed(Rows(values[None]))[0].detach()
    steps = len(x)
    length = length if config.feed == "steps" else steps
    run = range(length) if config.packed else range(steps)
    for i, layer in enumerate(config.recurrent):
        parts = []
        for direction in ("fwd", "bwd")[: len(layer)]:
            cell = network.cell(i, direction)
            units, name = cell.hidden_size, f"recurrent.{i}.{direction}"
            shape = (steps, GATES[config.cell], units)
            added[name] = torch.zeros(shape, dtype=x.dtype, requires_grad=True)
            nothing = torch.zeros(units, dtype=x.dtype)
            state, found = (nothing, nothing), [nothing] * steps
            for p in run if direction == "fwd" else reversed(run):
                state = step(config.cell, cell, x[p], state, added[name][p])
                found[p] = state[0]
            parts.append(torch.stack(found))
        x = torch.cat(parts, dim=1)
    readout = _read(config.readout, config.side, config.packed, parts, length)
    functions = {"relu": torch.relu, "tanh": torch.tanh, "identity": lambda y: y}
    for dense, spec in zip(network.hidden, config.hidden, strict=True):
        readout = functions[spec.activation](dense(readout))
    logits = network.output(readout)
    others = torch.cat([logits[:label], logits[label + 1 :]])
    return logits[label] - torch.logsumexp(others, 0), added


def check(network: RecurrentNetwork, rows: Rows) -> None:
    sides = torch.stack([torch.arange(len(rows)) % 3, (torch.arange(len(rows)) + 1) % 3])
    with torch.no_grad():
        watch = Watch(network, rows)
        found: dict[str, list[Tensor]] = {}
        for _, squares in watch.squares(sides, gates=True):
            for name, square in squares.items():
                found.setdefault(name, []).append(square)
    squares = {name: torch.cat(parts, dim=1) for name, parts in found.items()}
    assert rows.lengths is not None
    for row, length in enumerate(rows.lengths.tolist()):
        for side, labels in enumerate(sides.tolist()):
            odds, added = odds_of_a_row(network, rows.values[row], length, labels[row])
            slopes = torch.autograd.grad(odds, list(added.values()), allow_unused=True)
            for name, slope in zip(added, slopes, strict=True):
                expected = torch.zeros_like(added[name]) if slope is None else slope**2
                expected = expected * watch.valid[row][:, None, None]
                own = squares[name][:, side, row]
                torch.testing.assert_close(own, expected, rtol=1e-8, atol=1e-10)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(network=networks())
def test_they_are_those_of_a_loop(network):
    # Outputs of ReLU are often 0 at several steps: which one is the largest is then anybody's say.
    assume(network.config.cell != "rnn_relu" or not network.config.readout.startswith("max"))
    assume(network.config.output == "label")
    check(network, random_rows(network, 3))


@pytest.mark.parametrize("cell", sorted(GATES))
def test_two_bidirectional_layers_of_every_cell(cell):
    parent = tiny_parent(
        cell=cell, recurrent=((4, 3), (3, 4)), packed=True, readout="mean_valid", scale=1.3,
        dtype=torch.float64,
    )  # fmt: skip
    check(parent.network, tiny_rows(parent, 5))
