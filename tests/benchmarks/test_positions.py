"""Positions that are switched off, as the published code does it."""

from __future__ import annotations

import torch

from benchmarks.positions import positions_on, readout_through, share_on
from mlflow_rnnmod.networks import Rows
from tests.networks.graph.test_convolutions import TwoLayers, read


def test_positions_are_those_above_zero_for_some_row() -> None:
    torch.manual_seed(0)
    module, values = TwoLayers(1, 1).double().eval(), torch.randn(7, 3, 8, 8).double()
    network, _ = read(module, values)
    rows, sides = Rows(values), torch.tensor([[0, 0, 1, 1, 2, -1, 0], [1, -1, 0, 2, 0, -1, 2]])
    found = positions_on(network, rows, sides, batch_size=2)
    above = module.hidden(values) > 0
    for label in range(4):
        own = (sides == label).any(0)
        expected = above[own].any(0) if own.any() else torch.zeros_like(above[0])
        assert torch.equal(found[label]["relu_0"], expected)
    assert 0 < share_on(found[2]) < share_on(found[0]) < 1 and share_on(found[3]) == 0
    with torch.no_grad():
        expected = module.behind(module.hidden(values) * found[2]["relu_0"])
    torch.testing.assert_close(readout_through(network, rows, found[2]), expected)
    mine = rows[(sides == 2).any(0)]  # what is off for them anyway
    torch.testing.assert_close(readout_through(network, mine, found[2]), network.readout(mine))
