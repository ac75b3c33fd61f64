"""Activations of gates, against a loop over steps and PyTorch's formulas, and against masks."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings

from mlflow_rnnmod.networks import Trunk, masked
from mlflow_rnnmod.networks.recurrent.config import GATES
from mlflow_rnnmod.networks.recurrent.gates import gate_activations
from tests.builders import tiny_parent, tiny_rows
from tests.networks.recurrent.strategies import networks, random_rows


def gates_of_a_step(cell, layer, x, before):
    """Gates ``(gates, units)`` of one row at one step."""
    units = layer.hidden_size
    a = (layer.weight_ih_l0 @ x + layer.bias_ih_l0).view(-1, units)
    s = (layer.weight_hh_l0 @ before + layer.bias_hh_l0).view(-1, units)
    if cell == "lstm":
        i, f, g, o = a + s
        return [i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()]
    if cell == "gru":
        r, z = (a[0] + s[0]).sigmoid(), (a[1] + s[1]).sigmoid()
        return [r, z, (a[2] + r * s[2]).tanh()]
    return [(a + s)[0].tanh() if cell == "rnn_tanh" else (a + s)[0].relu()]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(network=networks())
def test_gates_are_those_of_a_loop(network):
    rows = random_rows(network, 3)
    config = network.config
    found = gate_activations(network, rows)
    assert list(found) == [name for name in network.units if name.startswith("recurrent")]
    with torch.no_grad():
        states = network.states(rows)
        x = network.feed(rows)
        for i, layer in enumerate(config.recurrent):
            names = [f"recurrent.{i}.{d}" for d in ("fwd", "bwd")[: len(layer)]]
            for name in names:
                backward, cell = name.endswith("bwd"), network.cell(i, name.split(".")[2])
                for row in range(len(rows)):
                    run = states.valid[row].nonzero()[:, 0].tolist()
                    if not config.packed:
                        run = list(range(states.valid.shape[1]))
                    before = torch.zeros(cell.hidden_size, dtype=network.dtype)
                    for p in reversed(run) if backward else run:
                        expected = gates_of_a_step(config.cell, cell, x[row, p], before)
                        before = states.layers[name][row, p]
                        torch.testing.assert_close(
                            found[name][row, p], torch.stack(expected), rtol=1e-10, atol=1e-10
                        )
            x = torch.cat([states.layers[name] for name in names], dim=-1)


@pytest.mark.parametrize("cell", sorted(GATES))
def test_a_gate_folded_at_its_activation_sits_there(cell):
    parent = tiny_parent(cell=cell, recurrent=((5,),), dtype=torch.float64, scale=1.0)
    rows = tiny_rows(parent, 20)
    means = gate_activations(parent.network, rows)["recurrent.0.fwd"].mean((0, 1))
    for gate in range(GATES[cell]):
        keep = torch.ones(GATES[cell], 5, dtype=torch.bool)
        keep[gate, :3] = False
        fold = torch.zeros(GATES[cell], 5)
        sigmoid = GATES[cell] > 1 and gate != 2
        inverse = torch.logit if sigmoid else torch.atanh
        fold[gate] = means[gate] if cell == "rnn_relu" else inverse(means[gate])
        name = "recurrent.0.fwd"
        trunk = Trunk({name: keep}, {name: fold}, gates="separate")
        inner = masked(parent.network, trunk).inner
        inner.output = parent.network.output
        found = gate_activations(inner, rows)[name][:, :, gate]
        torch.testing.assert_close(found[..., :3], means[gate, :3].expand(20, found.shape[1], 3))
        assert found[..., 3:].flatten(0, 1).std(0).min() > 0 or cell == "rnn_relu"
