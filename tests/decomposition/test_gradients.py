"""Squared gradients against a loop of PyTorch's own cells, by autograd and by differences."""

from __future__ import annotations

import pytest
import torch

from mlflow_rnnmod.decomposition import collect
from tests.builders import tiny_parent
from tests.contract.base import Subject
from tests.contract.recurrent import RecurrentSuite
from tests.contract.test_watching import check_differences, check_gradients
from tests.decomposition.test_statistics import CELLS, random_sample


@pytest.mark.parametrize("cell", CELLS)
def test_two_bidirectional_layers_of_every_cell(cell):
    """Total derivatives: through later steps, the other direction's layer above, and the head."""
    parent = tiny_parent(
        cell=cell, recurrent=((4, 3), (3, 4)), packed=True, readout="mean_valid", scale=1.3,
        dtype=torch.float64,
    )  # fmt: skip
    torch.manual_seed(0)
    sample = random_sample(parent.network, count=5)
    check_gradients(Subject(RecurrentSuite(), parent), sample)


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_are_what_differences_say(cell):
    parent = tiny_parent(cell=cell, recurrent=((3,), (2, 2)), dtype=torch.float64, packed=True)
    torch.manual_seed(1)
    check_differences(Subject(RecurrentSuite(), parent), random_sample(parent.network, 1, 3))


@pytest.mark.parametrize("cell", CELLS)
def test_float32_networks_get_nearly_the_same(cell):
    parent = tiny_parent(cell=cell, recurrent=((6, 6), (5,)), packed=True)
    sample = random_sample(parent.network, count=20)
    single = collect(parent.network, sample, histograms=False)
    double = collect(parent.network.double(), sample, histograms=False)
    for name, layer in double.layers.items():
        scale = float(layer.squared.max())
        torch.testing.assert_close(
            single.layers[name].squared, layer.squared, rtol=1e-3, atol=1e-4 * scale
        )


def test_sensitivity_is_the_mean_of_both_sides():
    parent = tiny_parent(dtype=torch.float64)
    sample = random_sample(parent.network, count=30)
    layer = collect(parent.network, sample).layers["recurrent.0.fwd"]
    for label in range(3):
        sides = []
        for side in (0, 1):
            count = int(layer.observed[side, label])
            sides.append(layer.squared[side, label] / count if count else torch.zeros(8))
        torch.testing.assert_close(layer.sensitivity(label), (sides[0] + sides[1]) / 2)
