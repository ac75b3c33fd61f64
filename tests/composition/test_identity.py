"""All of a parent's modules with nothing removed are the parent, against PyTorch's own cells."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mlflow_rnnmod.composition import compose
from mlflow_rnnmod.networks import HiddenLayer, Parent, RecurrentNetwork, Rows, tolerance
from tests.builders import tiny_modules, tiny_parent, tiny_rows
from tests.networks.recurrent.reference import reference_readout
from tests.networks.recurrent.strategies import networks, random_rows

CELLS = ("rnn_tanh", "rnn_relu", "lstm", "gru")


def odds(logits: Tensor) -> Tensor:
    """Log-odds of every label, in float64."""
    logits = logits.double()
    labels = range(logits.shape[1])
    columns = [
        logits[:, y] - torch.logsumexp(logits[:, [i for i in labels if i != y]], 1) for y in labels
    ]
    return torch.stack(columns, 1)


def limit_of(network: RecurrentNetwork, expected: Tensor, steps: int) -> Tensor:
    units = max(network.units.values())
    return tolerance(network.dtype, expected.to(network.dtype), units, steps).double()


def assert_is_the_parent(network: RecurrentNetwork, rows: Rows, logits: Tensor) -> None:
    composite = compose(tiny_modules(Parent(network), removal=0.0, repaired=False))
    assert composite.score == "margin"
    expected = odds(logits)
    found = composite.scores(rows)
    assert found.dtype == network.dtype
    limit = limit_of(network, expected, rows.values.shape[1])
    assert ((found.double() - expected).abs() <= limit).all()
    best = logits.topk(2, 1).values
    clear = (best[:, 0] - best[:, 1]).double() > 2 * limit.amax(1)
    answers = composite.predict(rows)
    for row in clear.nonzero()[:, 0].tolist():
        assert answers[row] == network.labels[int(logits[row].argmax())]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(network=networks(), double=st.booleans())
def test_a_composite_of_everything_is_the_parent(network, double):
    network = network if double else network.float()
    rows = random_rows(network)
    with torch.no_grad():
        logits = network.output(reference_readout(network, rows))
    assert_is_the_parent(network, rows, logits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    "config",
    [
        {"recurrent": ((100,),)},
        {"recurrent": ((24, 24), (16,)), "packed": True, "hidden": (HiddenLayer(20, "tanh"),)},
        {"recurrent": ((40,), (30,)), "side": "left", "readout": "last_step", "steps": 30},
    ],
)
def test_larger_ones_too(cell, dtype, config):
    scale = 1.0 if cell == "rnn_relu" else 1.5
    parent = tiny_parent(cell=cell, dtype=dtype, scale=scale, **config)
    rows = tiny_rows(parent, 70, 30)
    with torch.no_grad():
        logits = parent.network(rows)
    assert_is_the_parent(parent.network, rows, logits)


@pytest.mark.parametrize("kind", ["text", "tokens", "features"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_inputs_as_users_give_them(kind, dtype):
    from tests.builders import tiny_inputs

    parent = tiny_parent(kind, dtype=dtype)
    inputs = tiny_inputs(parent, 20)
    composite = compose(tiny_modules(parent, removal=0.0, repaired=False))
    found = composite.scores(inputs)
    for row, item in enumerate(inputs):
        if kind == "text":
            rows = parent.tokenizer([item])
        else:
            rows = Rows(torch.as_tensor(item)[None], torch.tensor([len(item)]))
        with torch.no_grad():
            expected = odds(parent.network.output(reference_readout(parent.network, rows)))
        limit = limit_of(parent.network, expected, len(item))
        assert ((found[row].double() - expected[0]).abs() <= limit).all()
