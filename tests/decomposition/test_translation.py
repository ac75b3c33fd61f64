"""A translator taken apart: modules, sizes, figures."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from mlflow_rnnmod.answers.translation import corpus_bleu
from mlflow_rnnmod.decomposition import DecompositionConfig, Pairs, decompose
from mlflow_rnnmod.decomposition.config import SHARES
from mlflow_rnnmod.decomposition.pairs import draw_pairs, padded
from mlflow_rnnmod.decomposition.routed_job import known_rows, references
from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.networks.recurrent.config import CELLS
from mlflow_rnnmod.networks.translator.masked_decoder import trunk_decoder
from tests.translators import (
    PAD,
    collect_translations,
    tiny_pairs,
    tiny_translator,
    trained_translator,
    word_encoder,
)

pytestmark = pytest.mark.slow  # a translator is trained


@pytest.fixture(scope="module")
def learned():
    """A trained parent, what it is decomposed with, and its modules at 20 %."""
    parent = trained_translator()
    train, validation = tiny_pairs(parent, 500, seed=7), tiny_pairs(parent, 300, seed=9)
    return parent, train, validation


def test_nothing_removed_is_the_parent(learned):
    parent, train, validation = learned
    found = decompose(parent, train, validation, config=DecompositionConfig(rule="none"))
    assert found.metric == "bleu"
    assert found.figures["composed_bleu"] == found.figures["parent_bleu"] > 0.5
    assert found.figures["net"] == found.figures["delta_bleu"] == 0.0
    assert [module.figures["agreement"] for module in found.modules] == [1.0] * 3
    assert all(module.trunk.full for module in found.modules)
    assert [module.label for module in found.modules] == ["de", "fr", "it"]
    assert found.figures["weights_kept"] == 1.0


def test_sensitivity_beats_random_removal_and_folding_helps(learned):
    parent, train, validation = learned
    found = decompose(parent, train, validation, config=DecompositionConfig(removal=0.2))
    assert found.figures["composed_bleu"] > found.figures["random_bleu"] + 0.05
    assert all(module.trunk.kept == 32 for module in found.modules)
    assert all(module.made["repairs"] == ["fold"] for module in found.modules)
    bare = decompose(
        parent, train, validation, config=DecompositionConfig(removal=0.2, repairs="none")
    )
    assert found.figures["composed_bleu"] > bare.figures["composed_bleu"] + 0.05
    assert all(not fold.any() for module in bare.modules for fold in module.trunk.fold.values())


def test_figures_are_bleu_of_what_modules_translate(learned):
    parent, train, validation = learned
    report = tiny_pairs(parent, 40, seed=11)
    found = decompose(
        parent, train, validation, report, config=DecompositionConfig(removal=0.3, rule="paper")
    )
    scores = []
    for module in found.modules:
        decoder = trunk_decoder(parent.network, module.trunk, cut=False)
        start = parent.network.config.start_of(module.label)
        texts = parent.tokenizer.decode(parent.network.write(report.sources, [(decoder, start)])[0])
        scores.append(corpus_bleu(texts, report.references[module.label])[0])
        assert module.figures["bleu"] == pytest.approx(scores[-1], abs=1e-12)
        assert module.figures["support"] == 40
        assert "version:" in module.made["bleu"]
    assert found.figures["composed_bleu"] == pytest.approx(sum(scores) / 3)
    assert found.rows["figures"] == "40 sentences given for the report alone"


def test_auto_takes_the_largest_share_within_the_tolerance(learned):
    parent, train, validation = learned
    config = DecompositionConfig(removal="auto", tolerance=8.0)
    found = decompose(parent, train, validation, config=config)
    losses = {
        s["removal"]: 100 * (s["control_bleu"] - s["bleu"] + s["error"]) for s in found.sizing
    }
    good = {share for share, lost in losses.items() if lost <= 8.0}
    bad = set(losses) - good
    assert good and bad and max(good) < min(bad)
    assert not [share for share in SHARES if max(good) < share < min(bad)]  # none is between
    assert found.figures["removal"] == max(good)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("variant", ["rolled", "unrolled"])
@pytest.mark.parametrize("gates", ["joint", "separate"])
def test_every_variant_of_every_cell(cell, variant, gates):
    parent = tiny_translator(cell, decoder=(9, 8))
    pairs = tiny_pairs(parent, 40)
    for rule in ("sensitivity", "paper"):
        config = DecompositionConfig(
            rule=rule, removal=0.25, variant=variant, gates=gates, unrolled_steps=3
        )
        found = decompose(parent, pairs, pairs, config=config)
        for module in found.modules:
            assert (module.trunk.variant, module.trunk.gates) == (variant, gates)
            assert module.contract.mask_steps == (3 if variant == "unrolled" else None)
            assert 0 < module.figures["weights_kept"] <= 1
        if rule == "sensitivity":
            assert found.figures["units_kept"] == pytest.approx((7 + 6) / 17)


def test_two_layers_lose_their_share_each():
    parent = tiny_translator("lstm", decoder=(10, 20))
    pairs = tiny_pairs(parent, 30)
    found = decompose(parent, pairs, pairs, config=DecompositionConfig(removal=0.2))
    for module in found.modules:
        assert [int(mask.sum()) for mask in module.trunk.keep.values()] == [8, 16]


def test_without_texts_tokens_are_compared():
    parent = tiny_translator(text=False)
    pairs = tiny_pairs(parent, 40)
    found = decompose(parent, pairs, pairs, config=DecompositionConfig(removal=0.2))
    assert "tok:none" in found.modules[0].made["bleu"]
    assert found.modules[0].contract.input == "tokens"


def test_languages_with_their_own_vocabulary():
    parent = tiny_translator(joint=False)
    assert parent.target_tokenizer is not None
    pairs = tiny_pairs(parent, 40)
    found = decompose(parent, pairs, pairs, config=DecompositionConfig(removal=0.2))
    contract = found.modules[1].contract
    assert contract.target == {
        "code": "fr",
        "start": 4,
        "tokenizer": parent.target_tokenizer.digest,
    }
    assert contract.tokenizer == parent.tokenizer.digest != parent.target_tokenizer.digest


def test_languages_may_be_missing_for_some_sentences():
    parent = tiny_translator()
    sources = ["one two", "three", "four five six", "seven"] * 5
    texts = {"de": ["eins zwei", None, "vier fünf sechs", "sieben"] * 5, "fr": [None] * 20}
    pairs = Pairs.from_texts(parent, sources, texts)
    assert known_rows(pairs, "de").tolist()[:3] == [0, 2, 3]
    assert len(known_rows(pairs, "it")) == 0
    assert references(parent, pairs, "de")[:2] == ["eins zwei", "vier fünf sechs"]
    found = decompose(parent, pairs, pairs, config=DecompositionConfig(removal=0.2))
    assert any("['fr', 'it']" in words for words in found.warnings)
    assert found.modules[0].figures["support"] < 20
    assert found.modules[1].figures["support"] == 0


def test_a_parent_of_one_language():
    parent = tiny_translator(languages=("de",))
    pairs = tiny_pairs(parent, 40)
    found = decompose(parent, pairs, pairs, config=DecompositionConfig(removal=0.2))
    assert found.modules[0].trunk.kept == 8
    paper = decompose(parent, pairs, pairs, config=DecompositionConfig(removal=0.2, rule="paper"))
    assert paper.modules[0].trunk.full
    assert any("there is one only" in words for words in paper.warnings)


def test_without_validation_a_fifth_is_held_out():
    parent = tiny_translator()
    found = decompose(parent, tiny_pairs(parent, 50), config=DecompositionConfig(removal=0.2))
    assert "10 training sentences are held out" in found.warnings[0]
    assert found.figures["rows"] < 10


def test_a_sample_has_so_many_translations_of_each_language():
    draw = torch.Generator().manual_seed(0)
    known = {
        code: torch.rand(60, generator=draw) < share for code, share in (("de", 0.9), ("fr", 0.3))
    }
    targets = {
        code: padded([[7] if yes else [] for yes in found.tolist()], PAD)
        for code, found in known.items()
    }
    pairs = Pairs(Rows(torch.arange(60)[:, None] % 15 + 3), targets)
    found = draw_pairs(pairs, 20, seed=1)
    assert int(found.known("de").sum()) == 20
    assert int(found.known("fr").sum()) == min(20, int(known["fr"].sum()))
    assert len(draw_pairs(pairs, 1000, seed=1)) == int((known["de"] | known["fr"]).sum())


def test_what_does_not_fit_is_named():
    parent = tiny_translator()
    pairs = tiny_pairs(parent, 20)
    with pytest.raises(TypeError, match="train is a Rows; expected Pairs"):
        decompose(parent, pairs.sources)
    with pytest.raises(ValueError, match="trunks=2; expected"):
        decompose(parent, pairs, config=DecompositionConfig(trunks=2))
    with pytest.raises(ValueError, match="validation has translations into .'uk'."):
        decompose(parent, pairs, Pairs(pairs.sources, {"uk": pairs.targets["de"]}))
    with pytest.raises(ValueError, match="references has the languages .'uk'."):
        Pairs.from_texts(parent, ["one"], {"uk": ["?"]})
    from tests.builders import tiny_parent

    with pytest.raises(TypeError, match="train is Pairs, which are for translators"):
        decompose(tiny_parent(), pairs)


def test_statistics_do_not_see_more_than_the_sample(learned):
    parent, train, _ = learned
    sample = draw_pairs(train, 50, seed=0)
    layer = collect_translations(parent.network, sample).layers["decoder.0.fwd"]
    tokens = sum(int(rows.lengths.sum()) + 50 for rows in sample.targets.values())
    assert int(layer.observed[0].sum()) == tokens
    assert float(layer.count.sum()) == tokens + 150  # the first states, too


def test_bleu_is_what_sacrebleus_command_line_says(tmp_path):
    right = [
        "Das ist ein Haus.",
        "Ich habe, ehrlich gesagt, keine Ahnung!",
        "Wo ist die nächste Apotheke?",
        "Er kam gestern um 12:30 Uhr an.",
    ]
    said = [
        "Das ist ein kleines Haus.",
        "Ich habe ehrlich gesagt keine Ahnung!",
        "Wo ist die Apotheke?",
        "Er kam gestern gegen 12:30 Uhr.",
    ]
    (tmp_path / "right.txt").write_text("\n".join(right) + "\n", encoding="utf-8")
    (tmp_path / "said.txt").write_text("\n".join(said) + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "sacrebleu", str(tmp_path / "right.txt")]
    command += ["-i", str(tmp_path / "said.txt"), "-b", "-w", "10", "-m", "bleu"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    score, signature = corpus_bleu(said, right)
    assert 100 * score == pytest.approx(float(printed), abs=1e-9)
    assert signature.startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    with pytest.raises(ValueError, match="1 translations and 2 references"):
        corpus_bleu(["a"], ["a", "b"])


def test_words_are_one_token_each():
    """What the builders promise, so that lengths in these tests are what they look like."""
    encoder = word_encoder()
    assert encoder.ids(["one two", ""]) == [[7, 8], []]
    assert encoder.decode([[3, 7, 8]]) == ["one two"]
