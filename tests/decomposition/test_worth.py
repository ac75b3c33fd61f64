"""Shares of units and of multiply-adds, and early layers that stay whole."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch

from mlflow_rnnmod.composition import compose
from mlflow_rnnmod.decomposition import Decomposition, DecompositionConfig, decompose
from mlflow_rnnmod.networks import NetworkConfig, Parent, RecurrentNetwork, Rows
from mlflow_rnnmod.networks.graph.reading import read_graph
from tests.networks.graph.convolutional_networks import ResNet

LABELS = ("a", "b", "c", "d")


@cache
def images() -> tuple[Parent, Rows]:
    torch.manual_seed(3)
    module, values = ResNet(projected=False), torch.randn(120, 3, 8, 8)
    module(values)
    module.eval()
    network, _ = read_graph(module, Rows(values), lambda: module(values), LABELS)
    return Parent(network), Rows(values, targets=network(Rows(values)).argmax(1))


@cache
def steps() -> tuple[Parent, Rows]:
    torch.manual_seed(4)
    structure = NetworkConfig("features", 3, None, "gru", ((6, 6), (6, 6)), LABELS)
    parent = Parent(RecurrentNetwork(structure))
    rows = Rows(torch.randn(80, 5, 3), targets=torch.arange(80) % 4)
    return parent, rows


def taken_apart(parent: Parent, rows: Rows, **settings: Any) -> Decomposition:
    config = DecompositionConfig(rows_per_label=20, repairs=("fold", "calibrate"), **settings)
    return decompose(parent, rows, rows, rows, config)


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["sensitivity", "random"])
@pytest.mark.parametrize("make", [images, steps])
def test_a_share_of_the_multiply_adds(make: Any, rule: str) -> None:
    parent, rows = make()
    found = taken_apart(parent, rows, removal=0.3, share_of="multiply_adds", rule=rule)
    for module in found.modules:
        kept = parent.network.work_kept(module.trunk)
        together = parent.network.ranks_together and rule == "sensitivity"
        assert (0.6 if together else 0.3) < kept <= 0.7  # layers of few units lose all at once
    if together:
        plain = taken_apart(parent, rows, removal=0.3, rule=rule)
        masks = [m.trunk.keep for m in plain.modules] + [m.trunk.keep for m in found.modules]
        assert not all(torch.equal(masks[0][name], masks[4][name]) for name in masks[0])
        assert 0 < found.figures["multiply_adds_kept"] <= 0.7


@pytest.mark.parametrize("make, layers", [(images, 7), (steps, 2)])
def test_early_layers_stay_whole_and_are_run_once(make: Any, layers: int) -> None:
    parent, rows = make()
    network = parent.network
    assert len(network.layers) == layers
    found = taken_apart(parent, rows, removal=0.4, from_layer=layers - 1)
    late = set(network.layers[-1])
    for module in found.modules:
        assert {name for name, mask in module.trunk.keep.items() if not mask.all()} <= late
        assert not module.trunk.full
    composite = compose(found.modules)
    inputs = list(rows.values[:3].double().numpy())
    assert len(composite.predict([x.tolist() for x in inputs])) == 3
    with pytest.raises(ValueError, match=f"from_layer={layers}, expected 0 to {layers - 1}"):
        taken_apart(parent, rows, from_layer=layers)


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="share_of='weights'.*from_layer|from_layer.*share_of"):
        DecompositionConfig(share_of="weights", from_layer=-1)
    with pytest.raises(ValueError, match="from_layer=True"):
        DecompositionConfig(from_layer=True)
