"""Squared gradients against a loop of PyTorch's own cells, by autograd and by differences."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from torch import Tensor

from mlflow_rnnmod.decomposition import Sample, collect
from mlflow_rnnmod.networks import RecurrentNetwork
from tests.builders import tiny_parent
from tests.decomposition.test_statistics import CELLS, OUTPUTS, random_sample, valid_steps
from tests.networks.recurrent.reference import reference_readout
from tests.networks.recurrent.strategies import networks


def margin_of_a_row(
    network: RecurrentNetwork,
    sample: Sample,
    row: int,
    step: int | None,
    label: int,
    added: dict[str, Tensor],
) -> Tensor:
    readout = reference_readout(network, sample.rows[row : row + 1], added=added)
    logits = network.output(readout)[0] if step is None else network.output(readout)[0, step]
    if network.config.output == "multilabel":
        return logits[label]
    others = [i for i in range(len(network.labels)) if i != label]
    return logits[label] - torch.logsumexp(logits[others], 0)


def zeros(network: RecurrentNetwork, sample: Sample) -> dict[str, Tensor]:
    _, steps = network.spans(sample.rows)
    each = network.config.output in ("tags", "list")
    shapes = {
        name: (1, steps, units) if each or name.startswith("recurrent") else (1, units)
        for name, units in network.units.items()
    }
    return {
        name: torch.zeros(shape, dtype=torch.float64, requires_grad=True)
        for name, shape in shapes.items()
    }


def asked(sample: Sample, side: int, row: int) -> list[tuple[int | None, int]]:
    """Which steps of a row (None: the row itself) stand for which labels."""
    who = sample.sides[side][row]
    if who.dtype == torch.bool:
        return [(None, int(label)) for label in who.nonzero()[:, 0]]
    if who.ndim == 0:
        return [(None, int(who))]
    return [(int(step), int(who[step])) for step in (who >= 0).nonzero()[:, 0]]


def squared_by_hand(network: RecurrentNetwork, sample: Sample) -> dict[str, Tensor]:
    """The sums that ``collect`` keeps, one row and side at a time."""
    labels, rows = len(network.labels), sample.rows
    total = {
        name: torch.zeros(2, labels, units, dtype=torch.float64)
        for name, units in network.units.items()
    }
    for row in range(len(rows)):
        valid = valid_steps(network, rows, row)
        for side in (0, 1):
            for step, label in asked(sample, side, row):
                added = zeros(network, sample)
                margin = margin_of_a_row(network, sample, row, step, label, added)
                slopes = torch.autograd.grad(margin, list(added.values()), allow_unused=True)
                for name, slope in zip(added, slopes, strict=True):
                    if slope is None:
                        continue
                    seen = slope[0][valid] if slope.ndim == 3 else slope
                    total[name][side, label] += (seen**2).sum(0)
    return total


@settings(max_examples=25, deadline=None, derandomize=True)
@given(network=networks(outputs=OUTPUTS))
def test_squared_gradients_are_those_of_a_loop(network):
    # Outputs of ReLU are often 0 at several steps: which one is the largest is then anybody's say.
    assume(network.config.cell != "rnn_relu" or not network.config.readout.startswith("max"))
    sample = random_sample(network, count=3, steps=4)
    found = collect(network, sample, histograms=False)
    for name, expected in squared_by_hand(network, sample).items():
        torch.testing.assert_close(found.layers[name].squared, expected, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("cell", CELLS)
def test_two_bidirectional_layers_of_every_cell(cell):
    """Total derivatives: through later steps, the other direction's layer above, and the head."""
    parent = tiny_parent(
        cell=cell, recurrent=((4, 3), (3, 4)), packed=True, readout="mean_valid", scale=1.3,
        dtype=torch.float64,
    )  # fmt: skip
    torch.manual_seed(0)
    sample = random_sample(parent.network, count=5)
    found = collect(parent.network, sample, histograms=False)
    for name, expected in squared_by_hand(parent.network, sample).items():
        assert (expected > 0).any()
        torch.testing.assert_close(found.layers[name].squared, expected, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_are_what_differences_say(cell):
    parent = tiny_parent(cell=cell, recurrent=((3,), (2, 2)), dtype=torch.float64, packed=True)
    network = parent.network
    torch.manual_seed(1)
    sample = random_sample(network, count=1, steps=3)
    found = collect(network, sample, histograms=False)
    label, step = int(sample.rows.targets[0]), 1e-6
    for name, units in network.units.items():
        expected = torch.zeros(units, dtype=torch.float64)
        for t in range(3):
            for unit in range(units):
                ends = []
                for sign in (1, -1):
                    added = {n: z.detach() for n, z in zeros(network, sample).items()}
                    added[name][0, t, unit] = sign * step
                    with torch.no_grad():
                        ends.append(margin_of_a_row(network, sample, 0, None, label, added))
                expected[unit] += ((ends[0] - ends[1]) / (2 * step)) ** 2
        squared = found.layers[name].squared[0, label]
        torch.testing.assert_close(squared, expected, rtol=1e-5, atol=1e-8)


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
