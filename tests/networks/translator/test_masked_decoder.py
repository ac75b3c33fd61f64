"""Decoders through trunks, against a loop that zeroes weights as docs/method.md's steps say."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_rnnmod.networks.recurrent.config import CELLS, GATES, STEPS
from mlflow_rnnmod.networks.translator.masked_decoder import (
    SteppedDecoder,
    TrimmedDecoder,
    trunk_decoder,
)
from mlflow_rnnmod.networks.trunk import Trunk, shapes
from tests.networks.translator.test_network import make, sources

TOKENS = torch.tensor([[2, 9, 7, 5, 12, 6], [3, 5, 5, 8, 20, 4], [2, 11, 13, 6, 6, 21]])


def draw_trunk(translator, variant, gates, steps=3, seed=0, fold=True, mix=True) -> Trunk:
    """A trunk without a third of what there is, with random guesses for it."""
    draw = torch.Generator().manual_seed(seed)
    found = shapes(translator.units, variant, gates, steps, GATES[translator.config.cell])
    keep = {name: torch.rand(shape, generator=draw) > 0.35 for name, shape in found.items()}
    for mask in keep.values():
        mask[..., 0], mask[..., 1] = True, False
    constants = {n: torch.randn(s, generator=draw) * 0.4 for n, s in found.items()}
    weights = {}
    if mix and variant == "rolled" and gates == "joint":
        weights = {n: torch.randn(*s, *s, generator=draw) * 0.2 for n, s in found.items()}
    return Trunk(keep, constants if fold else {}, weights, variant, gates)


def slow(translator, trunk: Trunk, tokens: torch.Tensor, states) -> torch.Tensor:
    """Logits of one row after each token, unit by unit and gate by gate."""
    cell, gates = translator.config.cell, GATES[translator.config.cell]
    names = list(trunk.keep)
    units = [trunk.keep[name].shape[-1] for name in names]

    def mask_at(name, t):
        keep = trunk.keep[name]
        return keep[min(t, len(keep) - 1)] if trunk.variant == "unrolled" else keep

    def fold_at(name, t):
        fold = trunk.fold[name].double()
        return fold[min(t, len(fold) - 1)] if trunk.variant == "unrolled" else fold

    def guess(name, h, t):
        """What others read of a layer."""
        if trunk.gates == "separate":
            return h
        keep, fold = mask_at(name, t), fold_at(name, t)
        mix = trunk.mix.get(name)
        sent = h.clone()
        for u in range(len(keep)):
            if not keep[u]:
                sent[u] = fold[u]
                if mix is not None:
                    sent[u] += sum(mix[u, v].double() * h[v] for v in range(len(keep)) if keep[v])
        return sent

    carried, read = [], []
    for name, state in zip(names, states, strict=True):
        parts = [part.clone() for part in state]
        first = parts[0]
        if trunk.gates == "joint" and trunk.variant == "rolled":
            for part in parts:
                part[~trunk.keep[name]] = 0.0
            first = guess(name, parts[0], 0)
        carried.append(parts)
        read.append(first)
    logits = []
    for t, token in enumerate(tokens):
        x = translator.embedding.weight[token]
        for i, name in enumerate(names):
            own = translator.decoder[i].state_dict()
            w, u, b, c = (
                own[key].clone()
                for key in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
            )
            constants = torch.zeros(gates * units[i]).double()
            for g in range(gates):
                for unit in range(units[i]):
                    row = g * units[i] + unit
                    mask = mask_at(name, t)
                    if not (mask[g, unit] if trunk.gates == "separate" else mask[unit]):
                        for tensor in (w, u, b, c):
                            tensor[row] = 0.0
                        if trunk.gates == "separate":
                            constants[row] = fold_at(name, t)[g, unit]
            given = (w @ x + b + constants)[None]
            # The cell's formula reads the state that others read, but keeps its own.
            h = carried[i][0]
            recurred = u @ read[i] + c
            if cell == "gru":
                r, z = torch.sigmoid(given[0] + recurred)[: 2 * units[i]].chunk(2)
                n = torch.tanh(given[0].chunk(3)[2] + r * recurred.chunk(3)[2])
                carried[i] = [(1 - z) * n + z * h]
            else:
                state = tuple(part[None] for part in (read[i], *carried[i][1:]))
                carried[i] = [part[0] for part in STEPS[cell](given, state, u, c)]
            read[i] = x = guess(name, carried[i][0], t)
        logits.append(translator.output.weight @ x + translator.output.bias)
    return torch.stack(logits)


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("variant", ["rolled", "unrolled"])
@pytest.mark.parametrize("gates", ["joint", "separate"])
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 1000), layers=st.sampled_from([(5,), (4, 6)]), fold=st.booleans())
def test_a_trunk_means_what_the_slow_loop_does(cell, variant, gates, seed, layers, fold):
    translator = make(cell, decoder=layers, seed=seed)
    trunk = draw_trunk(translator, variant, gates, seed=seed, fold=fold, mix=fold)
    states = translator.encode(sources(3, seed=seed))
    for cut in (True, False):
        found = trunk_decoder(translator, trunk, cut).run(TOKENS, states)
        for row in range(3):
            mine = [tuple(part[row] for part in state) for state in states]
            expected = slow(translator, trunk, TOKENS[row], mine)
            torch.testing.assert_close(found[row], expected, atol=1e-10, rtol=1e-10)


def test_only_what_is_removed_everywhere_is_cut():
    translator = make("lstm", decoder=(6, 5))
    trunk = draw_trunk(translator, "rolled", "joint")
    cut = trunk_decoder(translator, trunk)
    assert isinstance(cut, TrimmedDecoder)
    kept = [int(mask.sum()) for mask in trunk.keep.values()]
    assert [layer[1].shape for layer in cut.layers] == [(4 * n, n) for n in kept]
    assert cut.layers[1][0].shape == (4 * kept[1], kept[0])
    assert cut.weight.shape == (22, kept[1])
    states = cut.start(translator.encode(sources()))
    assert [[part.shape[1] for part in state] for state in states] == [[n, n] for n in kept]
    for variant, gates in (("unrolled", "joint"), ("rolled", "separate")):
        other = trunk_decoder(translator, draw_trunk(translator, variant, gates))
        assert isinstance(other, SteppedDecoder)
