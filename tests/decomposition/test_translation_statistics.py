"""Statistics of a decoder, against sums over single rows."""

from __future__ import annotations

import pytest
import torch

from mlflow_rnnmod.decomposition.pairs import Pairs, padded
from mlflow_rnnmod.networks.recurrent.config import CELLS, GATES
from mlflow_rnnmod.networks.translator.forcing import watch_decoder
from tests.networks.translator.test_network import make, sources
from tests.translators import collect_translations, told

IDS = {
    "de": [[7, 9, 6, 8], [5, 11], [6], [], [12, 13, 14]],
    "fr": [[9, 9], [8, 7, 6], [], [20], [21, 5, 5, 5, 5]],
}


def pairs(count: int = 5) -> Pairs:
    return Pairs(sources(count), {code: padded(ids, 0) for code, ids in IDS.items()})


def seen(translator, code, gates=False):
    """Values and squares of every step of every row by itself: (step, values, squares)."""
    found = {name: [] for name in translator.units}
    rows = sources(5)
    for row, ids in enumerate(IDS[code]):
        if not ids:
            continue
        states = translator.encode(rows[slice(row, row + 1)])
        given, wanted, valid = told(translator, code, [ids])
        watched = watch_decoder(translator, states, given, wanted, valid, gates, gradients=True)
        for name, one in watched.items():
            found[name] += [(t, one.values[0, t], one.squared[0, t]) for t in range(len(ids) + 1)]
    return found


def test_the_papers_tendency_contrasts_a_language_with_the_others():
    translator = make("gru", decoder=(6,))
    found = collect_translations(translator, pairs(), gradients=False)
    assert found.layers["decoder.0.fwd"].squared is None
    for label, (code, other) in enumerate((("de", "fr"), ("fr", "de"))):
        for side, language in enumerate((code, other)):
            values = torch.stack([v for _, v, _ in seen(translator, language)["decoder.0.fwd"]])
            size = values.abs()
            median = size.quantile(0.5, dim=0, interpolation="lower")
            distance = (size - median).abs()
            kept = distance < 2 * distance.quantile(0.5, dim=0, interpolation="lower")
            expected = torch.stack([v[k].mean() for v, k in zip(size.T, kept.T, strict=True)])
            tendency = found.tendency("decoder.0.fwd", side, label)
            # A bin is 1/64 wide, and few values lie between two bins' outliers.
            assert (tendency - expected).abs().max() < 0.1
            assert (tendency - expected).abs().median() < 0.02


def test_steps_are_told_apart_and_late_ones_count_as_the_last():
    translator = make("lstm", decoder=(4,))
    found = collect_translations(translator, pairs(), variant="unrolled", unrolled_steps=3)
    assert list(found.layers) == ["decoder.0.fwd@0", "decoder.0.fwd@1", "decoder.0.fwd@2"]
    own = {code: seen(translator, code)["decoder.0.fwd"] for code in IDS}
    for t in range(3):
        layer = found.layers[f"decoder.0.fwd@{t}"]
        for label, code in enumerate(IDS):
            here = [(v, s) for step, v, s in own[code] if min(step, 2) == t]
            assert int(layer.observed[0, label]) == len(here)
            squares = torch.stack([s for _, s in here])
            torch.testing.assert_close(layer.sensitivity(label), squares.mean(0))
        values = torch.stack([v for code in IDS for s, v, _ in own[code] if min(s, 2) == t])
        torch.testing.assert_close(layer.mean, values.mean(0))
        assert layer.products is None


@pytest.mark.parametrize("cell", CELLS)
def test_gates_are_told_apart_by_their_activations(cell):
    translator = make(cell, decoder=(4,))
    found = collect_translations(translator, pairs(), gates="separate")
    letters = {"lstm": "ifgo", "gru": "rzn"}.get(cell, "h")
    assert list(found.layers) == [f"decoder.0.fwd#{letter}" for letter in letters]
    own = {code: seen(translator, code, gates=True)["decoder.0.fwd"] for code in IDS}
    functions = {"g": torch.tanh, "n": torch.tanh}
    functions["h"] = torch.relu if cell == "rnn_relu" else torch.tanh
    for number, letter in enumerate(letters):
        layer = found.layers[f"decoder.0.fwd#{letter}"]
        values = torch.stack([v[number] for code in IDS for _, v, _ in own[code]])
        expected = functions.get(letter, torch.sigmoid)(values)
        torch.testing.assert_close(layer.mean, expected.mean(0))
        squares = torch.stack([s[number] for _, _, s in own["fr"]])
        torch.testing.assert_close(layer.sensitivity(1), squares.mean(0))
    assert len(letters) == GATES[cell]


def test_a_translator_into_one_language_has_no_negatives():
    translator = make("gru", decoder=(4,))
    only = Pairs(sources(5), {"de": padded(IDS["de"], 0)})
    layer = collect_translations(translator, only).layers["decoder.0.fwd"]
    assert layer.observed.tolist() == [[14, 0], [0, 14]]
    assert bool((layer.sensitivity(0) > 0).any())


def test_without_translations_there_is_nothing_to_see():
    with pytest.raises(ValueError, match="pairs has no translations"):
        collect_translations(make(), Pairs(sources(2), {"de": padded([[], []], 0)}))


def test_harm_is_sensitivity_times_what_the_others_cannot_guess():
    translator = make("gru", decoder=(4,))
    found = collect_translations(translator, pairs())
    layer = found.layers["decoder.0.fwd"]
    own = torch.cat(
        [
            torch.stack([v for _, v, _ in seen(translator, "fr")["decoder.0.fwd"]]),
            translator.encode(sources(5))[0][0][[bool(ids) for ids in IDS["fr"]]],
        ]
    )
    centred = own - own.mean(0)
    for unit in range(4):
        others = centred[:, [i for i in range(4) if i != unit]]
        fit = torch.linalg.lstsq(others, centred[:, unit]).solution
        left = (centred[:, unit] - others @ fit).square().mean()
        expected = float(layer.sensitivity(1)[unit] * left)
        harm = float(found.harm("decoder.0.fwd", 1)[unit])
        assert harm == pytest.approx(expected, rel=0.05, abs=1e-12)
    apart = collect_translations(translator, pairs(), gates="separate")
    z = "decoder.0.fwd#z"
    assert torch.equal(apart.harm(z, 0), apart.layers[z].sensitivity(0))
