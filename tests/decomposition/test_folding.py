"""Guesses of removed units against NumPy's least squares, and units that others say exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_rnnmod.decomposition import collect, draw_sample
from mlflow_rnnmod.decomposition.folding import RIDGE, best_guess, make_trunk
from mlflow_rnnmod.decomposition.statistics import LayerStatistics
from mlflow_rnnmod.networks import Parent, Trunk, masked, sliced
from tests.builders import tiny_parent, tiny_rows

HALF = 2.0**-11  # what half precision rounds by, relatively


def statistics_of(x: np.ndarray) -> LayerStatistics:
    """Those that a layer with outputs ``x`` ``(observations, units)`` has."""
    found = torch.from_numpy(x)
    none = torch.zeros(2, 1, x.shape[1])
    return LayerStatistics(
        torch.tensor(float(len(x)), dtype=torch.float64),
        found.sum(0),
        found.T @ found,
        torch.zeros(2, 1),
        none,
        None,
        None,
    )


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    units=st.integers(2, 9),
    rows=st.integers(12, 60),
    rank=st.integers(1, 9),
    data=st.data(),
)
def test_a_guess_is_the_ridge_regression(seed, units, rows, rank, data):
    draw = np.random.default_rng(seed)
    x = np.tanh(draw.normal(size=(rows, rank)) @ draw.normal(size=(rank, units))) + draw.normal()
    keep = np.array(data.draw(st.lists(st.booleans(), min_size=units, max_size=units)))
    keep[data.draw(st.integers(0, units - 1))] = True
    constants, weights = best_guess(statistics_of(x), torch.from_numpy(keep))
    assert constants.dtype == weights.dtype == torch.float32
    centred = x - x.mean(0)
    inner = centred[:, keep] / np.sqrt(rows)
    ridge = RIDGE * (inner**2).sum(0).mean()
    kept = int(keep.sum())
    augmented = np.vstack([inner, np.sqrt(ridge) * np.eye(kept)])
    target = np.vstack([centred[:, ~keep] / np.sqrt(rows), np.zeros((kept, units - kept))])
    expected = np.linalg.lstsq(augmented, target, rcond=None)[0].T
    found = weights.double().numpy()
    np.testing.assert_allclose(found[~keep][:, keep], expected, rtol=2 * HALF, atol=1e-5)
    assert not found[keep].any() and not found[:, ~keep].any()
    # The constants make the guess right on average, with the weights as they were rounded.
    guess = x @ found.T + constants.double().numpy()
    # Constants are float32: where weights are large, so are they, and their last digit.
    digit = 1e-5 + 1e-6 * np.abs(constants.numpy()).max()
    np.testing.assert_allclose(guess.mean(0)[~keep], x.mean(0)[~keep], rtol=0, atol=digit)
    assert not constants.numpy()[keep].any()


def test_nothing_removed_nothing_guessed():
    constants, weights = best_guess(statistics_of(np.ones((5, 3))), torch.ones(3, dtype=torch.bool))
    assert not constants.any() and not weights.any()


def test_units_that_never_move_are_their_mean():
    x = np.tile([0.3, -0.2, 0.7], (10, 1))
    constants, weights = best_guess(statistics_of(x), torch.tensor([True, False, True]))
    assert weights.isfinite().all()
    guess = constants[1] + weights[1] @ torch.tensor(x[0]).float()
    assert float(guess) == pytest.approx(-0.2, abs=1e-6)


def test_without_folding_removed_units_are_simply_gone():
    parent = tiny_parent(recurrent=((6,),))
    rows = tiny_rows(parent, 30)
    found = collect(parent.network, draw_sample(rows, 3, 10, 0), gradients=False)
    removed = {"recurrent.0.fwd": torch.tensor([True, False, True, False, False, False])}
    plain, folded = make_trunk(removed, found, fold=False), make_trunk(removed, found, fold=True)
    assert plain == Trunk({"recurrent.0.fwd": ~removed["recurrent.0.fwd"]})
    assert torch.equal(folded.keep["recurrent.0.fwd"], plain.keep["recurrent.0.fwd"])
    assert folded.mix["recurrent.0.fwd"].any() and folded != plain


def with_twin(cell: str, layers: int, sign: float) -> Parent:
    """A parent whose last unit of every layer is ``sign`` times its first one, at every step."""
    parent = tiny_parent(cell=cell, recurrent=((6,),) * layers, dtype=torch.float64)
    gates = {"rnn_tanh": [sign], "rnn_relu": [1.0], "lstm": [1, 1, sign, 1], "gru": [1, 1, sign]}
    with torch.no_grad():
        for layer in range(layers):
            for weight in parent.network.cell(layer, "fwd").parameters():
                for gate, factor in enumerate(gates[cell]):
                    weight[6 * gate + 5] = factor * weight[6 * gate]
    return Parent(parent.network)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize(
    ("cell", "sign"), [("rnn_tanh", -1), ("rnn_relu", 1), ("lstm", -1), ("lstm", 1), ("gru", -1)]
)
def test_a_unit_that_another_one_says_can_go(cell, sign, layers):
    """Removed and folded it is not missed, up to the ridge and the half precision of weights."""
    parent = with_twin(cell, layers, float(sign))
    network, rows = parent.network, tiny_rows(parent, 80, 7)
    if cell == "rnn_relu":  # weights that make it explode would blow up any rounding
        with torch.no_grad():
            for weight in network.parameters():
                weight.mul_(0.5)
    names = list(network.units)
    with torch.no_grad():
        states = network.states(rows)
        for name in names:  # the twin is a twin
            output = states.layers[name]
            torch.testing.assert_close(output[..., 5], sign * output[..., 0], rtol=0, atol=1e-12)
    found = collect(network, draw_sample(rows, 3, 100, 0), gradients=False)
    removed = {name: torch.arange(6) == 5 for name in names}
    folded, plain = make_trunk(removed, found, fold=True), make_trunk(removed, found, fold=False)
    with torch.no_grad():
        expected = network(rows)
        spread = float(expected.std())
        for make in (masked, sliced):
            off = [
                float((network.logits(make(network, trunk).readout(rows)) - expected).abs().max())
                for trunk in (folded, plain)
            ]
            assert off[0] < 0.02 * spread < 0.2 * spread < off[1]
