"""Masks for single steps and gates against loops over steps and units."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_rnnmod.networks import RecurrentNetwork, Rows, Trunk, masked, shapes, sliced, view
from mlflow_rnnmod.networks.recurrent.config import GATES
from mlflow_rnnmod.networks.recurrent.unrolled import Unrolled
from tests.builders import tiny_parent, tiny_rows
from tests.networks.recurrent.reference_masks import masked_readout
from tests.networks.recurrent.strategies import STEPS, networks, random_rows

KINDS = [("rolled", "separate"), ("unrolled", "joint"), ("unrolled", "separate")]


def random_masks(
    network: RecurrentNetwork,
    kind: tuple[str, str],
    steps: int = STEPS,
    folded: bool = True,
    removal: float = 0.4,
) -> Trunk:
    """A trunk of a kind; a layer may keep nothing at some step, but not at all of them."""
    keep, fold = {}, {}
    sizes = shapes(network.units, *kind, steps, GATES[network.config.cell])
    for name, shape in sizes.items():
        keep[name] = torch.rand(shape) > removal
        keep[name].view(-1)[torch.randint(keep[name].numel(), ())] = True
        fold[name] = torch.randn(shape)
    return Trunk(keep, fold if folded else {}, {}, *kind)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    network=networks(),
    kind=st.sampled_from(KINDS),
    masks=st.integers(1, STEPS + 2),
    folded=st.booleans(),
)
def test_masks_are_what_zeroed_weights_give(network, kind, masks, folded):
    rows = random_rows(network, 4)
    trunk = random_masks(network, kind, masks, folded)
    expected = masked_readout(network, rows, trunk)
    with torch.no_grad():
        for make in (masked, sliced, view):
            found = make(network, trunk).readout(rows)
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cell", sorted(GATES))
@pytest.mark.parametrize("padding", ["right", "left", "packed"])
def test_two_bidirectional_layers_of_every_cell(cell, kind, padding):
    parent = tiny_parent(
        cell=cell, recurrent=((4, 3), (3, 4)), readout="final_state", scale=1.5,
        side="left" if padding == "left" else "right", packed=padding == "packed",
        dtype=torch.float64,
    )  # fmt: skip
    rows = tiny_rows(parent, 6, STEPS)
    torch.manual_seed(0)
    trunk = random_masks(parent.network, kind)
    expected = masked_readout(parent.network, rows, trunk)
    with torch.no_grad():
        found = view(parent.network, trunk).readout(rows)
        whole = parent.network.readout(rows)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    assert (found - whole).abs().max() > 1e-3


def same_at_all_steps(trunk: Trunk, steps: int) -> Trunk:
    def repeated(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {
            name: t if name.startswith("hidden") else t.expand(steps, *t.shape)
            for name, t in tensors.items()
        }

    keep, fold = repeated(trunk.keep), repeated(trunk.fold)
    return Trunk(keep, fold, {}, "unrolled", trunk.gates)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    network=networks(),
    gates=st.sampled_from(["joint", "separate"]),
    masks=st.integers(1, STEPS),
    folded=st.booleans(),
)
def test_the_same_mask_at_all_steps_is_the_rolled_one(network, gates, masks, folded):
    rows = random_rows(network)
    trunk = random_masks(network, ("rolled", gates), 1, folded)
    if gates == "joint" and folded:
        # Rolled, a guess is read before the first step, too: here by nobody.
        with torch.no_grad():
            for name, mask in trunk.keep.items():
                if name.startswith("recurrent"):
                    _, layer, direction = name.split(".")
                    network.cell(int(layer), direction).weight_hh_l0[:, ~mask] = 0.0
    unrolled = same_at_all_steps(trunk, masks)
    with torch.no_grad():
        expected = view(network, trunk).readout(rows)
        found = view(network, unrolled).readout(rows)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(network=networks(), kinds=st.lists(st.sampled_from(KINDS), min_size=2, max_size=4))
def test_several_trunks_at_once_are_each_by_itself(network, kinds):
    """Of any kinds, with any number of masks, in any part."""
    rows = random_rows(network)
    trunks = [random_masks(network, kind, 1 + i * 3) for i, kind in enumerate(kinds)]
    with torch.no_grad():
        expected = torch.stack([view(network, trunk).readout(rows) for trunk in trunks])
        together = Unrolled(network, trunks)
        found = together.readout(rows)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
        part = together.readout(rows, slice(1, None), together.project(rows))
        torch.testing.assert_close(part, expected[1:], rtol=1e-10, atol=1e-10)


def test_a_step_keeps_its_mask_wherever_padding_puts_it():
    """Steps count from the first valid one: more padding on the left changes no answer."""
    parent = tiny_parent("tokens", side="left", readout="last_valid", cell="rnn_tanh")
    network = parent.network.double()
    with torch.no_grad():  # padding reads as zeros and adds nothing
        network.embedding.weight[0] = 0.0
        network.cell(0, "fwd").bias_ih_l0.zero_()
        network.cell(0, "fwd").bias_hh_l0.zero_()
        torch.manual_seed(0)
        trunk = random_masks(network, ("unrolled", "joint"), 4, folded=False)
        made = view(network, trunk)
        short = made.readout(Rows(torch.tensor([[3, 4, 5, 6]])))
        long = made.readout(Rows(torch.tensor([[0, 0, 0, 3, 4, 5, 6]])))
        torch.testing.assert_close(long, short, rtol=0.0, atol=1e-12)
        other = made.readout(Rows(torch.tensor([[3, 3, 4, 5, 6]])))
        assert (other - short).abs().max() > 1e-3


@pytest.mark.parametrize("cell", sorted(GATES))
def test_float32_agrees(cell):
    parent = tiny_parent(cell=cell, recurrent=((32, 32), (32, 32)), packed=True, scale=1.2)
    rows = tiny_rows(parent, 40, 30)
    torch.manual_seed(0)
    for kind in KINDS:
        trunk = random_masks(parent.network, kind, 20)
        with torch.no_grad():
            single = view(parent.network, trunk).readout(rows)
            double = view(parent.network.double(), trunk).readout(rows)
            parent.network.float()
        torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-5)


def test_what_does_not_fit_is_refused():
    parent = tiny_parent(cell="gru", recurrent=((6,), (6,)))
    network = parent.network
    trunk = random_masks(network, ("unrolled", "joint"), 3)
    with pytest.raises(ValueError, match="trunk's layers and the network's differ"):
        view(network, Trunk({"recurrent.0.fwd": trunk.keep["recurrent.0.fwd"]}, variant="unrolled"))
    four = {name: torch.ones(4, 6, dtype=torch.bool) for name in network.units}
    for make in (masked, sliced, view):
        with pytest.raises(ValueError, match="fwd has 4 gates; expected 3"):
            make(network, Trunk(four, gates="separate"))
    with pytest.raises(ValueError, match="rolled one with joint gates"):
        Unrolled(network, [trunk, Trunk.whole(network.units)])
