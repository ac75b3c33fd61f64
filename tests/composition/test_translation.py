"""Composites of translating modules."""

from __future__ import annotations

import copy
import math
import pickle

import pytest

from mlflow_rnnmod.composition import (
    Composite,
    IncompatibleModules,
    add,
    compose,
    remove,
    replace,
    select,
    whole_parent,
)
from mlflow_rnnmod.composition.translation import TranslatingComposite
from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.networks.translator.decoding import beam_search
from mlflow_rnnmod.networks.translator.masked_decoder import trunk_decoder
from tests.builders import tiny_modules, tiny_parent
from tests.translators import (
    sentences,
    tiny_translator,
    translator_module,
    translator_modules,
    word_encoder,
)

TEXTS = sentences(20, seed=3)[0]


def one_by_one(module, texts, beams=1):
    """Translations of a module, a source at a time, with zeroed weights instead of cut ones."""
    parent, translator = module.parent, module.parent.network
    decoder = trunk_decoder(translator, module.trunk, cut=False)
    config, found = translator.config, []
    for text in texts:
        rows = parent.tokenizer([text])
        tokens = beam_search(
            decoder,
            translator.encode(rows),
            config.start_of(module.label),
            config.end,
            translator.limits(rows),
            beams,
        )
        found.append(parent.writer.decode(tokens)[0])
    return found


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("beams", [1, 3])
def test_a_composite_translates_as_its_modules_do(cell, beams):
    parent = tiny_translator(cell, decoder=(9, 8))
    modules = translator_modules(parent)
    composite = compose(modules)
    assert isinstance(composite, TranslatingComposite)
    assert composite.labels == ("de", "fr", "it")
    assert composite.output == "translation"
    assert composite.score == "routed"
    together = composite.predict(TEXTS, beams=beams)
    for module in modules:
        expected = one_by_one(module, TEXTS, beams)
        assert composite.predict(TEXTS, target=module.label, beams=beams) == expected
        assert [row[module.label] for row in together] == expected
    assert len({text for row in together for text in row.values()}) > 10


def test_nothing_removed_is_the_parent_token_for_token():
    parent = tiny_translator("lstm")
    composite = compose(translator_modules(parent, removal=0.0))
    assert all(module.trunk.full for module in composite.modules)
    for code in parent.labels:
        rows = parent.tokenizer(TEXTS)
        expected = parent.tokenizer.decode(parent.network.translate(rows, code))
        assert composite.predict(TEXTS, target=code) == expected
        assert whole_parent(parent).predict(TEXTS, target=code) == expected


def test_a_single_module_needs_no_target():
    module = translator_module(tiny_translator(), "it")
    composite = compose([module])
    assert composite.predict(TEXTS) == composite.predict(TEXTS, target="it")
    assert composite.predict(TEXTS) == one_by_one(module, TEXTS)
    assert composite.explain(TEXTS[0]) == {"it": composite.predict(TEXTS[:1])[0]}


def test_parents_may_differ_in_everything():
    first = tiny_translator("gru", languages=("de", "fr"))
    second = tiny_translator("lstm", languages=("it",), decoder=(6, 5), joint=False, seed=5)
    modules = [
        translator_module(first, "fr"),
        translator_module(second, "it"),
        translator_module(first, "de"),
    ]
    found = compose(modules).predict(TEXTS)
    assert [list(row) for row in found] == [["fr", "it", "de"]] * len(TEXTS)
    for module in modules:
        assert [row[module.label] for row in found] == one_by_one(module, TEXTS)


def test_token_ids_go_in_and_come_out_without_a_tokenizer():
    parent = tiny_translator(text=False)
    composite = compose(translator_modules(parent))
    ids = word_encoder().ids(TEXTS)
    found = composite.predict(ids, target="fr")
    decoder = trunk_decoder(parent.network, composite.modules[1].trunk)
    rows = word_encoder()(TEXTS)
    for row, length in enumerate(rows.lengths.tolist()):
        one = Rows(rows.values[row : row + 1, :length])
        states, limits = parent.network.encode(one), parent.network.limits(one)
        assert beam_search(decoder, states, 4, 2, limits, 1) == [found[row]]


def test_empty_inputs_and_batches():
    composite = compose(translator_modules(tiny_translator()))
    assert composite.predict([]) == composite.predict([], target="de") == []
    assert composite.predict([None, math.nan, ""], target="de") == 3 * composite.predict(
        [""], target="de"
    )
    assert composite.predict(TEXTS, target="de", batch_size=3) == composite.predict(
        TEXTS, target="de"
    )


def test_reuse_and_replacement():
    first, second = tiny_translator(seed=0), tiny_translator("lstm", seed=1)
    composite = compose(translator_modules(first))
    better = translator_module(second, "fr")
    replaced = replace(composite, "fr", better)
    assert isinstance(replaced, TranslatingComposite)
    assert replaced.predict(TEXTS, target="fr") == one_by_one(better, TEXTS)
    assert replaced.predict(TEXTS, target="de") == composite.predict(TEXTS, target="de")
    assert replaced.recipe[-1]["verb"] == "replace"
    smaller = remove(replaced, "it")
    assert smaller.labels == ("de", "fr")
    grown = add(smaller, translator_module(second, "it"))
    assert [list(row) for row in grown.predict(TEXTS[:1])] == [["de", "fr", "it"]]
    assert select(grown, "it", "de").labels == ("it", "de")
    with pytest.raises(ValueError, match="label='fr' would be replaced by a module for 'de'"):
        replace(composite, "fr", translator_module(second, "de"))


def test_what_does_not_go_together_is_refused():
    modules = translator_modules(tiny_translator())
    labels = tiny_modules(tiny_parent("text", labels=("german", "irish")))
    with pytest.raises(IncompatibleModules, match="a translation is a text"):
        compose([*modules, *labels])
    with pytest.raises(IncompatibleModules, match="a translation is a text"):
        add(compose(modules), labels[0])
    with pytest.raises(IncompatibleModules, match="2 modules answer for label 'de'"):
        compose([modules[0], translator_module(tiny_translator("lstm"), "de")])
    with pytest.raises(IncompatibleModules, match="comes with 2 target tokenizers"):
        parent = tiny_translator(joint=False)
        other = type(parent)(parent.network, parent.tokenizer, target_tokenizer=parent.tokenizer)
        compose([translator_module(parent, "de"), translator_module(other, "fr")])


def test_what_means_nothing_is_refused():
    modules = translator_modules(tiny_translator())
    with pytest.raises(ValueError, match="score='margin'; translations"):
        compose(modules, score="margin")
    with pytest.raises(ValueError, match="thresholds="):
        compose(modules, thresholds={"de": 0.5})
    with pytest.raises(ValueError, match="expected neither a score nor thresholds"):
        TranslatingComposite(modules, score="open")
    composite = compose(modules)
    with pytest.raises(ValueError, match="target='uk', expected one of"):
        composite.predict(TEXTS, target="uk")
    with pytest.raises(ValueError, match="beams=0; expected"):
        composite.predict(TEXTS, target="de", beams=0)
    with pytest.raises(ValueError, match="have no scores to compare"):
        composite.scores(TEXTS)
    with pytest.raises(TypeError, match=r"texts\[1\]"):
        composite.predict(["one", 2], target="de")


def test_composites_that_were_used_can_be_copied():
    composite = compose(translator_modules(tiny_translator()))
    expected = composite.predict(TEXTS)
    assert copy.deepcopy(composite).predict(TEXTS) == expected
    assert pickle.loads(pickle.dumps(composite)).predict(TEXTS) == expected
    assert composite.to("cpu").predict(TEXTS) == expected


def test_label_composites_stay_what_they_were():
    composite = compose(tiny_modules(tiny_parent("text")))
    assert type(composite) is Composite
