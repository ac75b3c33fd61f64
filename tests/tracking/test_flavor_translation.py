"""Translators, their modules and composites as MLflow models, over a real store."""

from __future__ import annotations

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

import mlflow_rnnmod
from mlflow_rnnmod.composition import compose
from mlflow_rnnmod.composition.translation import TranslatingComposite
from mlflow_rnnmod.decomposition import DecompositionConfig, decompose
from mlflow_rnnmod.tracking.parents import forget_parents
from tests.translators import (
    sentences,
    tiny_pairs,
    tiny_translator,
    translator_module,
    translator_modules,
    word_encoder,
)

TEXTS = sentences(6, seed=3)[0]
FRAME = pd.DataFrame({"text": TEXTS})


def test_a_composite_answers_in_the_language_that_is_asked_for(tracking_uri):
    first, second = tiny_translator(languages=("de", "fr")), tiny_translator("lstm", ("it",))
    composite = compose([*translator_modules(first), translator_module(second, "it")])
    info = mlflow_rnnmod.log_model(composite, name="european", input_example=FRAME[:2])
    model = mlflow.pyfunc.load_model(info.model_uri)
    for target in ("de", "it"):
        found = model.predict(FRAME, params={"target": target})
        assert isinstance(found, np.ndarray)
        assert found.tolist() == composite.predict(TEXTS, target=target)
        careful = model.predict(FRAME, params={"target": target, "beams": 3})
        assert careful.tolist() == composite.predict(TEXTS, target=target, beams=3)
    table = model.predict(FRAME)
    assert table.to_dict("records") == composite.predict(TEXTS)
    assert [column.name for column in info.signature.outputs] == ["de", "fr", "it"]
    assert [param.name for param in info.signature.params] == ["target", "beams"]
    with pytest.raises(MlflowException, match="target='uk', expected one of"):
        model.predict(FRAME, params={"target": "uk"})
    with pytest.raises(MlflowException, match="beams=0; expected"):
        model.predict(FRAME, params={"target": "de", "beams": 0})
    assert len(model.predict(FRAME[:0], params={"target": "de"})) == 0
    forget_parents()
    again = mlflow_rnnmod.load_model(info.model_uri)
    assert isinstance(again, TranslatingComposite)
    assert again.predict(TEXTS) == composite.predict(TEXTS)


@pytest.mark.parametrize("joint", [True, False])
def test_a_module_by_reference_finds_its_parent_and_both_tokenizers(tracking_uri, joint):
    module = translator_module(tiny_translator(joint=joint), "fr")
    with mlflow.start_run():
        info = mlflow_rnnmod.log_model(module, registered_model_name="words.fr")
    expected = compose([module]).predict(TEXTS)
    forget_parents()
    loaded = mlflow_rnnmod.load_model("models:/words.fr/1")
    assert loaded.parent.tokenizers == module.parent.tokenizers
    assert compose([loaded]).predict(TEXTS) == expected
    assert mlflow.pyfunc.load_model(info.model_uri).predict(FRAME).tolist() == expected
    card = MlflowClient().get_logged_model(info.model_id).tags["mlflow.note.content"]
    assert "BLEU" in card and "31.0" in card
    assert "nrefs" in card and "smooth" in card
    assert "translat" in card


def test_standalone_modules_need_nothing_else(tmp_path, monkeypatch):
    module = translator_module(tiny_translator("lstm", joint=False), "it")
    mlflow_rnnmod.save_model(module, tmp_path / "it", standalone=True)
    forget_parents()
    monkeypatch.setenv("RNNMOD_CACHE", "")
    model = mlflow.pyfunc.load_model(str(tmp_path / "it"))
    assert model.predict({"text": TEXTS}).tolist() == compose([module]).predict(TEXTS)


def test_a_parent_translates_too(tmp_path):
    parent = tiny_translator()
    mlflow_rnnmod.save_model(parent, tmp_path / "parent")
    model = mlflow.pyfunc.load_model(str(tmp_path / "parent"))
    rows = parent.tokenizer(TEXTS)
    for code in parent.labels:
        expected = parent.tokenizer.decode(parent.network.translate(rows, code))
        assert model.predict(FRAME, params={"target": code}).tolist() == expected


def test_token_ids_in_and_out(tmp_path):
    composite = compose(translator_modules(tiny_translator(text=False)))
    mlflow_rnnmod.save_model(composite, tmp_path / "ids")
    model = mlflow.pyfunc.load_model(str(tmp_path / "ids"))
    ids = word_encoder().ids(TEXTS)
    found = model.predict(pd.DataFrame({"tokens": ids}), params={"target": "de"})
    assert found["prediction"].tolist() == composite.predict(ids, target="de")
    table = model.predict(pd.DataFrame({"tokens": ids}))
    assert table.to_dict("records") == composite.predict(ids)


def test_verbs_over_uris(tracking_uri):
    with mlflow.start_run() as run:
        for module in translator_modules(tiny_translator()):
            mlflow_rnnmod.log_model(module)
    other = translator_module(tiny_translator("lstm", languages=("fr",)), "fr")
    composite = mlflow_rnnmod.compose(f"runs:/{run.info.run_id}")
    assert sorted(composite.labels) == ["de", "fr", "it"]
    replaced = mlflow_rnnmod.replace(composite, "fr", other)
    assert replaced.predict(TEXTS, target="fr") == compose([other]).predict(TEXTS)
    smaller = mlflow_rnnmod.remove(replaced, "it")
    assert [sorted(row) for row in smaller.predict(TEXTS[:1])] == [["de", "fr"]]
    plan = mlflow_rnnmod.plan(f"runs:/{run.info.run_id}")
    assert plan.fits


def test_a_whole_decomposition_is_logged(tracking_uri):
    parent = tiny_translator()
    pairs = tiny_pairs(parent, 60)
    found = decompose(parent, pairs, pairs, config=DecompositionConfig(removal=0.2))
    logged = mlflow_rnnmod.log_decomposition(found, registered_model_prefix="digits")
    assert sorted(logged.registered_names.values()) == ["digits.de", "digits.fr", "digits.it"]
    client = MlflowClient()
    metrics = client.get_run(logged.run_id).data.metrics
    assert metrics["rnnmod/composed_bleu"] == pytest.approx(found.figures["composed_bleu"])
    forget_parents()
    composite = mlflow_rnnmod.compose(list(logged.uris.values()))
    assert composite.predict(TEXTS) == compose(found.modules).predict(TEXTS)
    note = client.get_run(logged.run_id).data.tags["mlflow.note.content"]
    assert "BLEU" in note
    card = client.get_logged_model(logged.parent_model_id).tags["mlflow.note.content"]
    assert "GRU that reads with 6/6 both ways units and writes with 10" in card
    assert '"beams": 4' in card
