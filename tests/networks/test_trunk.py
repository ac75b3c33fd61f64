"""Trunks: what fits, what they hold, and when two of them are the same."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mlflow_rnnmod.networks import Trunk, jaccard, shapes

MASK = torch.tensor([True, False, True, False])
DIGESTS = ["b19a0f294758", "137b41e4f8f6", "b91c67e0a94e"]
masks = st.lists(st.booleans(), min_size=3, max_size=12).filter(any).map(torch.tensor)


def test_counts():
    trunk = Trunk({"a": MASK, "b": torch.tensor([True, True])})
    assert (trunk.kept, trunk.total, trunk.full) == (4, 6, False)
    whole = Trunk.whole({"a": 4, "b": 2})
    assert (whole.kept, whole.total, whole.full) == (6, 6, True)


def test_all_problems_at_once():
    with pytest.raises(ValueError) as error:
        Trunk(
            {
                "a": torch.zeros(3, dtype=torch.bool),
                "b": torch.ones(3),
                "c": torch.ones(2, 2, dtype=torch.bool),
                "d": MASK,
            },
            {"d": torch.zeros(3), "e": torch.zeros(4)},
            {"d": torch.zeros(4, 3), "e": torch.zeros(4, 4)},
        )
    text = str(error.value)
    assert "keep['a'] keeps none of its 3 units" in text
    assert "keep['b'] is torch.float32 of shape (3,), expected a bool tensor" in text
    assert "keep['c'] is torch.bool of shape (2, 2), expected a bool tensor" in text
    assert "fold['d'] has shape (3,), expected a layer of keep and its shape" in text
    assert "fold['e'] has shape (4,), expected a layer of keep" in text
    assert "mix['d'] has shape (4, 3), expected a layer of keep" in text
    assert "mix['e'] has shape (4, 4), expected a layer of keep" in text


def test_guesses_are_of_removed_units_by_kept_ones_only():
    trunk = Trunk({"a": MASK, "b": MASK}, {"a": torch.ones(4)}, {"a": torch.ones(4, 4)})
    assert trunk.fold["a"].tolist() == [0.0, 1.0, 0.0, 1.0]
    assert trunk.fold["b"].tolist() == [0.0] * 4
    used = [1.0, 0.0, 1.0, 0.0]
    assert trunk.mix["a"].tolist() == [[0.0] * 4, used, [0.0] * 4, used]
    assert "b" not in trunk.mix


def test_guesses_are_what_they_will_be_when_read_back():
    """Weights are stored in half precision: what is measured before must be what is stored."""
    trunk = Trunk({"a": MASK}, {"a": torch.full((4,), 0.1)}, {"a": torch.full((4, 4), 0.1)})
    assert trunk.mix["a"][1, 0] == torch.tensor(0.1).half().float() != 0.1
    again = Trunk(trunk.keep, trunk.fold, {n: w.half().float() for n, w in trunk.mix.items()})
    assert again == trunk


def test_equality_is_that_of_what_they_do():
    trunk = Trunk({"a": MASK})
    assert trunk == Trunk({"a": MASK.clone()}, {"a": torch.zeros(4)}, {"a": torch.zeros(4, 4)})
    assert hash(trunk) == hash(Trunk({"a": MASK.clone()}))
    assert len({trunk, Trunk({"a": MASK.clone()}), Trunk({"a": ~MASK})}) == 2
    assert trunk != "a trunk"
    kept = torch.tensor([5.0, 0.0, -3.0, 0.0])  # constants of kept units say nothing
    assert trunk == Trunk({"a": MASK}, {"a": kept})


@pytest.mark.parametrize(
    "changes",
    [
        {"keep": {"a": ~MASK}},
        {"keep": {"b": MASK}},
        {"keep": {"a": MASK, "b": MASK}},
        {"fold": {"a": torch.tensor([0.0, 1e-7, 0.0, 0.0])}},
        {"mix": {"a": torch.tensor([[0.0] * 4, [0.0, 0.0, 0.5, 0.0], [0.0] * 4, [0.0] * 4])}},
    ],
)
def test_every_part_tells_trunks_apart(changes):
    assert Trunk(**{"keep": {"a": MASK}, **changes}) != Trunk({"a": MASK})


def test_variants_tell_trunks_apart():
    keep = {"recurrent.0.fwd": torch.eye(4).bool()}
    found = {Trunk(keep, variant="unrolled"), Trunk(keep, gates="separate")}
    found.add(Trunk(keep, {"recurrent.0.fwd": torch.ones(4, 4)}, gates="separate"))
    found.add(Trunk({"recurrent.0.fwd": torch.eye(4).bool()}, variant="unrolled"))
    assert len(found) == 3


def test_digests_are_those_of_earlier_versions():
    """Modules in registries name their trunks by them."""
    layers = {"recurrent.0.fwd": MASK, "hidden.0": torch.tensor([True, False])}
    guesses = {"recurrent.0.fwd": torch.tensor([0.0, 0.5, 0.0, -1.0])}
    mix = {"recurrent.0.fwd": torch.full((4, 4), 0.25)}
    found = [Trunk(layers).digest, Trunk(layers, guesses, mix).digest]
    found.append(Trunk.whole({"recurrent.0.fwd": 4}).digest)
    assert [digest[:12] for digest in found] == DIGESTS


@pytest.mark.parametrize(
    ("variant", "gates", "shape"),
    [
        ("unrolled", "joint", (5, 3)),
        ("rolled", "separate", (4, 3)),
        ("unrolled", "separate", (5, 4, 3)),
    ],
)
def test_variants(variant, gates, shape):
    units = {"recurrent.0.fwd": 3, "recurrent.0.bwd": 3, "hidden.0": 2}
    sizes = shapes(units, variant, gates, 5, 4)
    assert sizes == {"recurrent.0.fwd": shape, "recurrent.0.bwd": shape, "hidden.0": (2,)}
    keep = {name: torch.ones(size, dtype=torch.bool) for name, size in sizes.items()}
    trunk = Trunk(keep, variant=variant, gates=gates)
    assert trunk.full and not trunk.sliceable
    assert trunk.steps == (5 if variant == "unrolled" else None)
    assert trunk.units == trunk.sizes == units
    # Nothing may stay at a step or in a gate, but not in all of them.
    keep["recurrent.0.fwd"] = torch.zeros(shape, dtype=torch.bool)
    keep["recurrent.0.fwd"][-1, ..., 0] = True
    keep["hidden.0"] = torch.tensor([False, True])
    fold = {name: torch.ones(mask.shape) for name, mask in keep.items()}
    trunk = Trunk(keep, fold, variant=variant, gates=gates)
    kept = int(keep["recurrent.0.fwd"].sum()) + 1
    assert trunk.kept == kept + keep["recurrent.0.bwd"].numel()
    assert trunk.total == 2 * keep["recurrent.0.bwd"].numel() + 2
    assert trunk.sizes == {**units, "hidden.0": 1}
    assert trunk.fold["recurrent.0.fwd"].sum() == (~keep["recurrent.0.fwd"]).sum()
    assert jaccard(trunk, trunk) == 1.0
    with pytest.raises(ValueError, match="masks differ in shape"):
        jaccard(trunk, Trunk.whole(units))


def test_problems_of_variants():
    wrong = {
        "recurrent.0.fwd": torch.ones(3, dtype=torch.bool),
        "recurrent.0.bwd": torch.zeros(2, 3, dtype=torch.bool),
        "recurrent.1.fwd": torch.ones(4, 3, dtype=torch.bool),
        "hidden.0": torch.ones(2, 3, dtype=torch.bool),
    }
    mix = {"recurrent.1.fwd": torch.zeros(3, 3)}
    with pytest.raises(ValueError) as error:
        Trunk(wrong, {}, mix, variant="unrolled")
    text = str(error.value)
    assert "keep['recurrent.0.fwd'] is torch.bool of shape (3,), expected a bool tensor of " in text
    assert "(steps, units)" in text
    assert "keep['recurrent.0.bwd'] keeps none of its 3 units in 2 masks" in text
    assert "layers differ in steps or gates: [(2,), (4,)]" in text
    assert "keep['hidden.0'] is torch.bool of shape (2, 3), expected a bool tensor of one" in text
    assert "mix['recurrent.1.fwd'] is for rolled trunks with joint gates only" in text
    for name in ("variant", "gates"):
        with pytest.raises(ValueError, match=f"{name}='both'"):
            Trunk({"a": MASK}, **{name: "both"})


def test_a_full_trunk_has_no_guesses():
    keep = {"a": torch.ones(4, dtype=torch.bool)}
    assert Trunk(keep, {"a": torch.ones(4)}, {"a": torch.ones(4, 4)}) == Trunk(keep)


@given(first=masks, seed=st.integers(0, 1000))
def test_jaccard_is_that_of_sets(first, seed):
    draw = torch.Generator().manual_seed(seed)
    second = torch.rand(len(first), generator=draw) > 0.5
    second[0] = True
    one = Trunk({"a": first, "b": MASK})
    other = Trunk({"a": second, "b": torch.tensor([True, True, False, False])})
    sets = [
        {(name, u) for name, mask in trunk.keep.items() for u in mask.nonzero()[:, 0].tolist()}
        for trunk in (one, other)
    ]
    assert jaccard(one, other) == len(sets[0] & sets[1]) / len(sets[0] | sets[1])
    assert jaccard(one, one) == 1.0
