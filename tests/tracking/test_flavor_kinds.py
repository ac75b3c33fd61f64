"""Models that answer lists of labels, behind MLflow: stores, servers' JSON, words as input."""

from __future__ import annotations

import json
import subprocess
import sys

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.scoring_server import infer_and_parse_data, predictions_to_json
from mlflow.types.schema import Array, DataType

import mlflow_rnnmod
from mlflow_rnnmod.composition import Composite, compose
from mlflow_rnnmod.storage import read_composite, read_module, write_composite, write_module
from mlflow_rnnmod.tracking.flavor import signature_for
from mlflow_rnnmod.tracking.pyfunc import RnnmodModel
from tests.builders import tiny_modules, tiny_texts
from tests.composition.test_kinds import TEXTS, mixed, parent_of
from tests.tracking.test_serving import environment, with_package

KINDS = ("tags", "list", "multilabel")


def composite_of(kind: str) -> Composite:
    thresholds = {"b": 0.25} if kind == "multilabel" else None
    return compose(tiny_modules(parent_of(kind)), thresholds=thresholds)


@pytest.mark.parametrize("kind", KINDS)
def test_files_bring_back_the_same(kind, tmp_path):
    composite = composite_of(kind)
    write_composite(composite, tmp_path / "c")
    back = read_composite(tmp_path / "c")
    assert back.output == kind and back.parameters == composite.parameters
    assert back.predict(TEXTS) == composite.predict(TEXTS)
    module = composite.modules[0]
    write_module(module, tmp_path / "m", standalone=True)
    found = read_module(tmp_path / "m", lambda *_: pytest.fail("bundled"))
    assert found.contract == module.contract
    assert found.contract.end_label == ("c" if kind == "list" else None)


def test_contracts_of_labels_are_written_as_they_always_were(tmp_path):
    write_module(tiny_modules(parent_of("label"))[0], tmp_path)
    contract = json.loads((tmp_path / "module.json").read_text())
    text = json.dumps(contract)
    assert not any(name in text for name in ("end_label", "mask_steps", "target"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["composite", "module", "parent"])
def test_a_round_trip_through_a_store(kind, what, tracking_uri):
    composite = composite_of(kind)
    thing = {
        "composite": composite,
        "module": composite.modules[0],
        "parent": composite.modules[0].parent,
    }[what]
    info = mlflow_rnnmod.log_model(thing)
    model = mlflow.pyfunc.load_model(info.model_uri)
    expected = RnnmodModel(thing).predict(TEXTS)
    if what == "composite":
        assert expected["prediction"].tolist() == composite.predict(TEXTS)
    found = model.predict(pd.DataFrame({"text": TEXTS}))
    pd.testing.assert_frame_equal(found, expected)
    assert all(isinstance(answer, list) for answer in found["prediction"])
    (column,) = info.signature.outputs.inputs
    assert column.name == "prediction" and column.type == Array(DataType.string)
    table = model.predict(pd.DataFrame({"text": TEXTS}), params={"scores": True})
    assert table["prediction"].tolist() == found["prediction"].tolist()
    back = mlflow_rnnmod.load_model(info.model_uri)
    pd.testing.assert_frame_equal(RnnmodModel(back).predict(TEXTS), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_through_a_servers_json(kind, tmp_path):
    composite = composite_of(kind)
    mlflow_rnnmod.save_model(composite, tmp_path / "m")
    model = mlflow.pyfunc.load_model(str(tmp_path / "m"))
    schema = model.metadata.get_input_schema()
    for body in (
        {"inputs": {"text": TEXTS}},
        {"dataframe_records": [{"text": text} for text in TEXTS]},
        {"dataframe_split": {"columns": ["text"], "data": [[text] for text in TEXTS]}},
    ):
        for params in ({}, {"scores": True}):
            found = model.predict(infer_and_parse_data(body, schema), params=params)
            with open(tmp_path / "out", "w") as out:
                predictions_to_json(found, out)
            rows = json.loads((tmp_path / "out").read_text())["predictions"]
            assert [row["prediction"] for row in rows] == composite.predict(TEXTS)
            if params and kind == "multilabel":
                assert all(isinstance(row["a"], float) for row in rows)
            elif params:
                counts = [len(text) for text in TEXTS] if kind == "tags" else [4] * len(TEXTS)
                assert [len(row["a"]) for row in rows] == counts


def test_words_in_place_of_text(tmp_path):
    composite = composite_of("tags")
    words = [["ab", "c"], ["schröder"], []]
    expected = composite.predict(words)
    assert [len(answer) for answer in expected] == [3, 8, 0]
    signature = signature_for("text", "tags", words=True)
    mlflow_rnnmod.save_model(composite, tmp_path / "m", signature=signature)
    model = mlflow.pyfunc.load_model(str(tmp_path / "m"))
    frame = pd.DataFrame({"words": words})
    assert model.predict(frame)["prediction"].tolist() == expected
    assert model.predict([{"words": row} for row in words])["prediction"].tolist() == expected
    arrays = pd.DataFrame({"words": [np.array(row, dtype=object) for row in words]})
    assert model.predict(arrays)["prediction"].tolist() == expected
    raw = RnnmodModel(composite)
    assert raw.predict({"words": words})["prediction"].tolist() == expected
    both = raw.predict([{"words": ["ab", "c"]}, {"text": "schröder"}, {"text": None}])
    assert both["prediction"].tolist() == expected
    with pytest.raises(MlflowException, match="words in row 0 is the str 'ab'; expected a list"):
        raw.predict(pd.DataFrame({"words": ["ab"]}))
    with pytest.raises(MlflowException, match="missing inputs"):
        model.predict(pd.DataFrame({"text": ["ab"]}))
    with pytest.raises(MlflowException, match=r"columns \['other'\]"):
        raw.predict(pd.DataFrame({"other": ["ab"]}))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_and_batches(kind):
    composite = composite_of(kind)
    model = RnnmodModel(composite, {"batch_size": 4})
    nothing = model.predict({"text": []})
    assert list(nothing.columns) == ["prediction"] and len(nothing) == 0
    table = model.predict({"text": []}, {"scores": True})
    assert list(table.columns) == ["prediction", "a", "b", "c"] and len(table) == 0
    texts = [text * n for n, text in enumerate(tiny_texts(11), 1)]
    assert model.predict(texts)["prediction"].tolist() == composite.predict(texts)
    table = model.predict(texts, {"scores": True})
    scores = composite.scores(texts)
    for row, cell in enumerate(table["b"]):
        column = scores[row, ..., 1]
        assert np.allclose(cell, column[~column.isnan()], atol=1e-4)


def test_rejection_where_it_means_something():
    tags = RnnmodModel(composite_of("tags"))
    found = tags.predict(["abc"], {"reject_below": 1e9, "reject_label": "?"})
    assert found["prediction"].tolist() == [["?", "?", "?"]]
    with pytest.raises(MlflowException, match="thresholds"):
        RnnmodModel(composite_of("multilabel")).predict(["abc"], {"reject_below": 0.0})


@pytest.mark.parametrize("kind", ["tags", "list"])
def test_kinds_that_answer_one_label_together(kind, tracking_uri):
    both, _, _ = mixed(kind)
    info = mlflow_rnnmod.log_model(both)
    params = mlflow.get_logged_model(info.model_id).params
    assert params["output"] == "label" and params["parents"] == "2"
    found = mlflow.pyfunc.load_model(info.model_uri).predict(pd.DataFrame({"text": TEXTS}))
    assert found.tolist() == both.predict(TEXTS)


@pytest.mark.slow
def test_mlflow_models_predict(tmp_path):
    composite = composite_of("tags")
    mlflow_rnnmod.save_model(composite, tmp_path / "m")
    (tmp_path / "in.json").write_text(json.dumps({"inputs": {"text": TEXTS}}))
    command = ["-m", "mlflow", "models", "predict", "--env-manager", "local"]
    files = ["-i", str(tmp_path / "in.json"), "-o", str(tmp_path / "out.json")]
    done = subprocess.run(
        [sys.executable, *command, "-m", str(tmp_path / "m"), *files],
        env=with_package(environment()),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out.json").read_text())["predictions"]
    assert [row["prediction"] for row in found] == composite.predict(TEXTS)
