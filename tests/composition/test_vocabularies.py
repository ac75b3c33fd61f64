"""Modules that take token ids, of parents whose ids may mean something else."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import mlflow_rnnmod
from mlflow_rnnmod.composition import IncompatibleModules, add, compose
from mlflow_rnnmod.composition.contracts import doubts
from mlflow_rnnmod.composition.plan import entry_of, make_plan
from mlflow_rnnmod.decomposition import DecompositionConfig, decompose
from mlflow_rnnmod.inputs.tokenizers import vocabulary_name
from mlflow_rnnmod.storage import read_module, write_module
from tests.builders import character_encoder, tiny_modules, tiny_parent, tiny_rows


def modules(label_sets=(("a", "b"), ("c", "d")), vocabularies=(None, None), kind="tokens"):
    """Of two parents, with the names of their vocabularies."""
    found = []
    for seed, (labels, name) in enumerate(zip(label_sets, vocabularies, strict=True)):
        parent = tiny_parent(kind, labels, seed=seed)
        found += tiny_modules(replace(parent, vocabulary=name))
    return found


def test_modules_of_one_vocabulary_are_composed(recwarn):
    composite = compose(modules(vocabularies=("words", "words")))
    assert composite.labels == ("a", "b", "c", "d")
    assert not [w for w in recwarn if "token ids" in str(w.message)]


@pytest.mark.parametrize(
    ("vocabularies", "said"),
    [
        (("words", "others"), "different vocabularies (words: a, b; others: c, d)"),
        (("words", None), "c, d take token ids, and nothing says of which vocabulary"),
        ((None, "words"), "a, b take token ids, and nothing says of which vocabulary"),
    ],
)
def test_modules_of_two_vocabularies_are_refused(vocabularies, said):
    found = modules(vocabularies=vocabularies)
    with pytest.raises(IncompatibleModules) as error:
        compose(found)
    assert said in str(error.value) and "Decompose with" in str(error.value)
    assert make_plan(map(entry_of, found)).problems == error.value.problems
    with pytest.raises(IncompatibleModules, match="vocabular"):
        add(compose(found[:2]), *found[2:])


def test_where_nothing_is_known_a_warning_says_so():
    found = modules()
    with pytest.warns(UserWarning, match="nothing says that these mean the same to all 2 parents"):
        compose(found)
    assert any("nothing says" in note for note in make_plan(map(entry_of, found)).notes)


def test_one_parent_needs_no_word_and_text_neither(recwarn):
    compose(modules()[:2])
    compose(modules(kind="text"))
    assert not recwarn.list
    one = modules(vocabularies=("words", None))[:2]
    unsaid = replace(one[0], contract=replace(one[0].contract, vocabulary=None))
    compose([unsaid, one[1]])  # of one parent, whichever says it
    assert doubts((m.label, m.contract, m.parent.digest) for m in (unsaid, one[1])) == []


def test_a_name_goes_through_decompositions_and_files(tmp_path):
    parent = replace(tiny_parent("tokens", ("a", "b")), vocabulary="words")
    rows = tiny_rows(parent, 60)
    found = decompose(parent, rows, rows, config=DecompositionConfig(removal=0.25))
    assert {module.contract.vocabulary for module in found.modules} == {"words"}
    write_module(found.modules[0], tmp_path / "module")
    again = read_module(tmp_path / "module", lambda *_: parent)
    assert again.contract == found.modules[0].contract
    assert "vocabulary" not in modules()[0].contract.to_dict()  # as older files have it


def test_the_name_of_a_vocabulary():
    tokenizer = character_encoder().tokenizer
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    numbered = {token: np.int64(i) for token, i in tokenizer.get_vocab().items()}
    arrays = np.array(tokens), np.array(tokens, dtype=object), pd.Series(tokens)
    same = (tokenizer, tokens, tuple(tokens), tokenizer.get_vocab(), numbered, *arrays)
    assert len({vocabulary_name(each) for each in same}) == 1
    assert vocabulary_name(tokens[::-1]) != vocabulary_name(tokens)
    for wrong in ("", " ", [], {}, [1, 2], {"a": "b"}, 5, torch.zeros(2)):
        with pytest.raises(ValueError, match="expected a name of your own"):
            vocabulary_name(wrong)
    with pytest.raises(ValueError, match="'a' more than once"):
        vocabulary_name(["a", "b", "a"])


@pytest.mark.parametrize("kind", ["text", "features"])
def test_only_parents_that_take_token_ids_have_one(kind):
    with pytest.raises(ValueError, match="vocabulary='words', and the parent reads"):
        replace(tiny_parent(kind), vocabulary="words")


def test_stored_modules_of_one_parent_say_nothing(recwarn):
    assert mlflow_rnnmod.compose(modules()[:2]).labels == ("a", "b")
    assert not recwarn.list
