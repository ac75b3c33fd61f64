from __future__ import annotations

import pytest
import torch

from mlflow_rnnmod.decomposition import collect, watching
from tests.builders import tiny_parent
from tests.decomposition.test_statistics import random_sample


@pytest.mark.parametrize("waiting", [1, 300, 2**22])
@pytest.mark.parametrize("pairs", [0, 2**20])
def test_when_and_how_bins_are_counted_does_not_matter(monkeypatch, waiting, pairs):
    parent = tiny_parent(recurrent=((4,), (5,)))
    torch.manual_seed(0)
    sample = random_sample(parent.network, count=40)
    expected = collect(parent.network, sample, gradients=False, batch_size=1000)
    monkeypatch.setattr(watching, "_WAITING", waiting)
    monkeypatch.setattr(watching, "_PAIRS", pairs)
    found = collect(parent.network, sample, gradients=False, batch_size=10)
    valid = parent.network.lengths(sample.rows).sum()
    for name, layer in found.layers.items():
        assert torch.equal(layer.histogram, expected.layers[name].histogram)
        assert (layer.histogram.sum((0, 1, 3)) == 2 * valid).all()
