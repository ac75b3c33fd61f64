"""Shares kept, against the weights of networks that were really cut."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_rnnmod.networks import RecurrentNetwork, jaccard, sliced
from mlflow_rnnmod.networks.trunk import overlap_matrix
from tests.builders import tiny_parent
from tests.networks.recurrent.strategies import networks, random_trunk
from tests.networks.recurrent.test_unrolled import KINDS, random_masks, same_at_all_steps


def counted(network: RecurrentNetwork) -> tuple[int, int]:
    """Numbers in the recurrent and hidden layers, and in the recurrent matrices alone."""
    total = recurrent = 0
    for name, weight in network.named_parameters():
        if name.startswith(("recurrent", "hidden")):
            total += weight.numel()
            recurrent += weight.numel() if "weight_hh" in name else 0
    return total, recurrent


@settings(max_examples=40, deadline=None)
@given(network=networks())
def test_shares_are_those_of_the_cut_network(network):
    trunk = random_trunk(network, folded=True)
    found = network.shares_kept(trunk)
    cut = sliced(network, trunk).inner
    (weights, recurrent), (of, of_recurrent) = counted(cut), counted(network)
    if network.config.readout.startswith("max") and network.config.hidden:
        # There the first dense layer reads guesses too: its columns are not cut.
        dense = network.dense(0).weight[trunk.keep["hidden.0"]]
        names = network.config.inputs_of(len(network.config.recurrent))
        gone = sum(int((~trunk.keep[name]).sum()) for name in names)
        weights -= len(dense) * gone
    assert found["weights_kept"] == pytest.approx(weights / of)
    assert found["recurrent_weights_kept"] == pytest.approx(recurrent / of_recurrent)
    assert found["units_kept"] == pytest.approx(sum(cut.units.values()) / trunk.total)


@pytest.mark.parametrize("gates", ["joint", "separate"])
def test_the_same_mask_at_each_step_keeps_as_much_as_for_all(gates):
    network = tiny_parent(recurrent=((4, 5), (3,))).network
    torch.manual_seed(0)
    rolled = random_masks(network, ("rolled", gates))
    unrolled = same_at_all_steps(rolled, 7)
    assert network.shares_kept(rolled) == network.shares_kept(unrolled)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(network=networks(), kind=st.sampled_from(KINDS))
def test_overlap_of_variants_is_jaccard_of_every_two(network, kind):
    trunks = [random_masks(network, kind) for _ in range(3)]
    expected = torch.tensor([[jaccard(a, b) for b in trunks] for a in trunks])
    torch.testing.assert_close(overlap_matrix(trunks), expected)


@settings(max_examples=20, deadline=None)
@given(network=networks())
def test_overlap_is_jaccard_of_every_two(network):
    trunks = [random_trunk(network, folded=False) for _ in range(4)]
    found = overlap_matrix(trunks)
    expected = torch.tensor([[jaccard(a, b) for b in trunks] for a in trunks])
    torch.testing.assert_close(found, expected)
