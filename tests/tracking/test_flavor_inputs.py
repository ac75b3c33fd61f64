"""What comes in at the door: tables, lists, lists in cells, nothing, and what is no input."""

from __future__ import annotations

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, Schema

import mlflow_rnnmod
from mlflow_rnnmod.tracking.columns import read_inputs
from mlflow_rnnmod.tracking.flavor import signature_for
from mlflow_rnnmod.tracking.pyfunc import DEFAULTS, RnnmodModel
from tests.builders import LABELS, tiny_inputs, tiny_module, tiny_parent
from tests.composition.test_kinds import parent_of
from tests.tracking.test_flavor import INPUTS, frame, make


@pytest.fixture(scope="module")
def text_model(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "m"
    mlflow_rnnmod.save_model(tiny_parent("text"), path)
    return mlflow.pyfunc.load_model(str(path))


@pytest.fixture(scope="module")
def module_model(tmp_path_factory):
    path = tmp_path_factory.mktemp("module") / "m"
    mlflow_rnnmod.save_model(tiny_module(tiny_parent("text")), path, standalone=True)
    return mlflow.pyfunc.load_model(str(path))


WORDS = ["ab", "xyz", "q"]


@pytest.mark.parametrize(
    "data",
    [
        pd.DataFrame({"text": WORDS}),
        pd.DataFrame({"text": pd.Series(WORDS, dtype="string")}),
        pd.DataFrame({"other": [1, 2, 3], "text": WORDS}),
        pd.DataFrame({"text": WORDS}, index=[7, 7, 9]),
        {"text": WORDS},
        {"text": np.array(WORDS)},
        [{"text": word} for word in WORDS],
        pd.Series(WORDS, name="text"),
        pd.DataFrame({"text": [["ab", "xyz"], "q"]}),
    ],
)
def test_every_form_of_text(text_model, data):
    expected = text_model.predict(pd.DataFrame({"text": WORDS})).tolist()
    assert text_model.predict(data).tolist() == expected


def test_one_text(text_model):
    assert len(text_model.predict({"text": "ab"})) == 1


def test_two_texts_in_python_are_two_rows(text_model):
    """MLflow makes one row with a list in its cell of them."""
    assert len(text_model.predict({"text": ["a", "b"]})) == 2


@pytest.mark.parametrize("nothing", [None, float("nan"), pd.NA, np.nan])
def test_missing_text_is_empty_text(text_model, nothing):
    empty = text_model.predict(pd.DataFrame({"text": ["ab", ""]})).tolist()
    frame = pd.DataFrame({"text": pd.Series(["ab", nothing], dtype=object)})
    assert text_model.predict(frame).tolist() == empty
    assert text_model.predict(pd.DataFrame({"text": pd.Series(["ab", None])})).tolist() == empty


@pytest.mark.parametrize(
    "nothing", [{"text": []}, pd.DataFrame({"text": pd.Series([], dtype=str)})]
)
def test_no_rows(text_model, module_model, nothing):
    for model in (text_model, module_model):
        found = model.predict(nothing)
        assert found.shape == (0,)
        table = model.predict(nothing, params={"scores": True})
        assert len(table) == 0
        assert table.columns[0] == "prediction"


@pytest.mark.parametrize("text", ["\x00", "日本語", "🦜" * 3, "a\nb\r\n"])
def test_strange_texts(text_model, module_model, text):
    assert text_model.predict(pd.DataFrame({"text": [text]}))[0] in LABELS
    assert module_model.predict(pd.DataFrame({"text": [text]}))[0] in (LABELS[0], "none of these")


@pytest.mark.parametrize("nothing", ["", " ", "\t\n", None, float("nan"), pd.NA])
def test_nothing_gets_no_confident_label(text_model, module_model, nothing):
    frame = pd.DataFrame({"text": pd.Series(["ab", nothing], dtype=object)})
    for model in (text_model, module_model):
        assert model.predict(frame)[1] == "none of these"
        assert model.predict(frame, params={"reject_label": "?"})[1] == "?"
        assert model.predict(frame, params={"scores": True})["prediction"][1] == "none of these"
    assert text_model.predict(frame)[0] in LABELS


def test_lists_of_nothing_are_empty():
    for kind in ("multilabel", "list"):
        model = RnnmodModel(parent_of(kind))
        assert model.predict([""])["prediction"].tolist() == [[]]


def test_a_megabyte_is_refused_or_cut(tmp_path):
    text = "a bc " * 200_000
    parent = tiny_parent("text")
    with pytest.raises(MlflowException, match="text in row 1 has 1000000 characters; this model"):
        RnnmodModel(parent).predict(["ab", text])
    with pytest.raises(MlflowException, match="text in row 0 has 12 tokens or steps"):
        RnnmodModel(parent, {"max_tokens": 11}).predict(["a" * 12])
    cutting = RnnmodModel(parent, {"max_tokens": 100, "too_long": "cut"})
    assert cutting.predict([text]).tolist() == RnnmodModel(parent).predict([text[:100]]).tolist()
    fixed = tiny_parent("text", steps=6)  # which cuts by itself
    short = RnnmodModel(fixed, {"max_tokens": 8})
    assert short.predict(["abcdef" * 3]).tolist() == RnnmodModel(fixed).predict(["abcdef"]).tolist()
    mlflow_rnnmod.save_model(parent, tmp_path / "m", model_config={"max_tokens": 3})
    with pytest.raises(MlflowException, match="at most 3 tokens"):
        mlflow.pyfunc.load_model(str(tmp_path / "m")).predict({"text": ["abcd"]})
    longer = mlflow.pyfunc.load_model(str(tmp_path / "m"), model_config={"max_tokens": 4})
    assert len(longer.predict({"text": ["abcd"]})) == 1


@pytest.mark.parametrize("config", [{"max_tokens": 0}, {"max_tokens": "x"}, {"too_long": "drop"}])
def test_limits_that_do_not_fit(config):
    with pytest.raises(MlflowException, match=f"model_config\\['{next(iter(config))}'\\] is"):
        RnnmodModel(tiny_parent("text"), config)


def test_half_a_character():
    """What no UTF-8 can say counts as a character never seen."""
    model = RnnmodModel(tiny_parent("text"))
    assert model.predict(["a\ud800"]).tolist() == model.predict(["a?"]).tolist()


def test_a_very_long_text(text_model):
    words = ["ab", "b" * 9_999, "a"]
    found = text_model.predict(pd.DataFrame({"text": words})).tolist()
    short = text_model.predict(pd.DataFrame({"text": ["ab", "a"]})).tolist()
    assert [found[0], found[2]] == short
    assert found[1] in LABELS


@pytest.mark.parametrize("wrong", [3, 3.5, True, b"bytes", {"a": 1}, pd.Timestamp("2020-01-01")])
def test_what_is_no_text_is_named(wrong):
    model = RnnmodModel(tiny_parent("text"))
    with pytest.raises(MlflowException, match="text in row 1 is the") as error:
        model.predict(pd.DataFrame({"text": pd.Series(["a", wrong], dtype=object)}))
    assert type(wrong).__name__ in str(error.value)
    assert "expected text" in str(error.value)


@pytest.mark.parametrize("wrong", [[1, 2], [1.5], [["a"], [2]]])
def test_mlflow_or_we_refuse_what_is_no_text(text_model, wrong):
    with pytest.raises(MlflowException):
        text_model.predict(pd.DataFrame({"text": wrong}))


def test_wrong_columns(text_model):
    with pytest.raises(MlflowException, match="text"):
        text_model.predict(pd.DataFrame({"words": ["a"]}))
    with pytest.raises(MlflowException, match=r"columns \['words'\]; expected a column 'text'"):
        RnnmodModel(tiny_parent("text")).predict(pd.DataFrame({"words": ["a"]}))
    with pytest.raises(MlflowException, match="row 1"):
        read_inputs([{"text": "a"}, {"word": "b"}], "text")
    with pytest.raises(MlflowException, match="is a int; expected a DataFrame"):
        read_inputs(3, "text")


def test_batches_change_nothing():
    parent = tiny_parent("text")
    words = {"text": [text * n for n, text in enumerate(tiny_inputs(parent, 23), 1)]}
    expected = RnnmodModel(parent, {"batch_size": 1}).predict(words, {"scores": True})
    for size in (2, 22, 23, 100):
        found = RnnmodModel(parent, {"batch_size": size}).predict(words, {"scores": True})
        assert found["prediction"].tolist() == expected["prediction"].tolist()
        columns = list(LABELS)
        assert np.allclose(found[columns], expected[columns], atol=1e-5)


# --- tokens ---


@pytest.mark.parametrize(
    "cells",
    [
        [[1, 2, 3], [4]],
        [np.array([1, 2, 3]), np.array([4], dtype=np.int32)],
        [(1, 2, 3), (4,)],
        [[np.int64(1), np.int8(2), 3], [4]],
        [torch.tensor([1, 2, 3]), torch.tensor([4])],
        [[[1, 2, 3], [4]]],
    ],
)
def test_every_form_of_tokens(cells):
    for data in ({"tokens": cells}, cells, pd.DataFrame({"tokens": pd.Series(cells)})):
        assert read_inputs(data, "tokens", 20) == [[1, 2, 3], [4]]


@pytest.mark.parametrize("kind", ["tokens", "features"])
def test_through_mlflow(tmp_path, kind):
    parent = tiny_parent(kind)
    mlflow_rnnmod.save_model(parent, tmp_path)
    model = mlflow.pyfunc.load_model(str(tmp_path))
    inputs = tiny_inputs(parent, 5)
    cells = [item.tolist() if kind == "features" else item for item in inputs]
    expected = RnnmodModel(parent).predict(inputs).tolist()
    assert model.predict(pd.DataFrame({kind: cells})).tolist() == expected
    assert model.predict([{kind: cell} for cell in cells]).tolist() == expected
    assert model.predict(pd.DataFrame({kind: []})).shape == (0,)
    with pytest.raises(MlflowException):
        model.predict(pd.DataFrame({kind: ["text"]}))
    with pytest.raises(MlflowException):
        model.predict(pd.DataFrame({"others": cells}))


def test_missing_tokens_are_an_empty_row():
    model = RnnmodModel(tiny_parent("tokens"))
    assert model.predict([None, [], [1]])[0] == model.predict([[]])[0]


@pytest.mark.parametrize("wrong", [[1, 20], [-1], [1.5], [True], ["a"], "12", 3, [[1], 2], [None]])
def test_tokens_that_do_not_fit_are_named(wrong):
    with pytest.raises(MlflowException, match="tokens in row 1 ") as error:
        read_inputs([[1], wrong], "tokens", 20)
    assert "expected a list of token ids from 0 to 19" in str(error.value)


# --- features ---


def test_every_form_of_features():
    steps = [[1.0, 2.0], [3.0, 4.0]]
    nested = np.empty(2, dtype=object)  # an array of arrays, as Spark hands over
    nested[:] = [np.array(step) for step in steps]
    for cells in ([steps], [np.array(steps)], [nested], [torch.tensor(steps)], np.array([steps])):
        (found,) = read_inputs(cells, "features", 2)
        assert found.tolist() == steps
    (found,) = read_inputs([[[1, 2]]], "features", 2)
    assert found.tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize(
    "wrong", [[[1.0]], [[1.0, 2.0], [3.0]], [1.0, 2.0], "text", 3, None, [["a", "b"]], [[1, 2, 3]]]
)
def test_features_that_do_not_fit_are_named(wrong):
    with pytest.raises(MlflowException, match="features in row 1 ") as error:
        read_inputs([[[1.0, 2.0]], wrong], "features", 2)
    assert "each a list of 2 numbers" in str(error.value)


def test_features_without_a_step_are_none_of_the_labels():
    model = RnnmodModel(tiny_parent("features"))
    first, second = model.predict([np.zeros((0, 5)), np.zeros((2, 5))])
    assert first == "none of these"
    assert second in LABELS


# --- params ---


def test_params_of_the_wrong_type_are_refused(text_model):
    with pytest.raises(MlflowException, match="reject_below"):
        text_model.predict({"text": ["a"]}, params={"reject_below": "high"})


def test_whole_numbers_do_as_threshold(text_model):
    found = text_model.predict({"text": ["a"]}, params={"reject_below": 1000})
    assert found.tolist() == ["none of these"]
    for none in (None, float("nan")):
        assert text_model.predict({"text": ["a"]}, params={"reject_below": none})[0] in LABELS


@pytest.mark.parametrize("there", [False, True])
def test_half_a_model_is_not_in_the_way(tmp_path, monkeypatch, there):
    """A full disk: what was written is removed again, and only that."""
    path = tmp_path / "model"
    if there:
        path.mkdir()
    real = mlflow.models.Model.save

    def full(self, *arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mlflow.models.Model, "save", full)
    with pytest.raises(OSError, match="No space left"):
        mlflow_rnnmod.save_model(tiny_parent("text"), path)
    assert path.exists() is there
    monkeypatch.setattr(mlflow.models.Model, "save", real)
    mlflow_rnnmod.save_model(tiny_parent("text"), path)
    with pytest.raises(MlflowException, match="not empty"):
        mlflow_rnnmod.save_model(tiny_parent("text"), path)
    assert mlflow_rnnmod.load_model(path).labels


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("example", [True, False])
@pytest.mark.parametrize("given", [True, False])
def test_signature_and_example(tracking_uri, kind, example, given):
    thing = make("parent", kind)
    data = frame(kind, tiny_inputs(thing, 2))
    signature = signature_for(kind) if given else None
    if given:
        signature = ModelSignature(inputs=signature.inputs)
    info = mlflow_rnnmod.log_model(
        thing, signature=signature, input_example=data if example else None
    )
    saved = Model.load(info.model_uri)
    assert saved.signature == (signature or signature_for(kind))
    if example:
        stored = saved.load_input_example(info.artifact_path)
        assert stored.equals(data)
    else:
        assert saved.saved_input_example_info is None
    assert len(mlflow.pyfunc.load_model(info.model_uri).predict(data)) == 2


def test_signature_says_what_comes_in_and_out(tmp_path):
    mlflow_rnnmod.save_model(make("parent"), tmp_path)
    signature = Model.load(str(tmp_path)).signature
    assert signature.inputs == Schema([ColSpec("string", "text")])
    assert signature.outputs == Schema([ColSpec("string")])
    assert [(p.name, p.dtype.name, p.default) for p in signature.params] == [
        ("scores", "boolean", False),
        ("reject_below", "double", None),
        ("reject_label", "string", "none of these"),
    ]


def test_model_config(tmp_path):
    mlflow_rnnmod.save_model(make("parent"), tmp_path / "a")
    saved = Model.load(str(tmp_path / "a"))
    assert saved.flavors["python_function"]["config"] == DEFAULTS
    for wrong in ({"batch_size": 0}, {"batch_size": "many"}, {"device": "abacus"}):
        with pytest.raises(MlflowException, match="model_config"):
            mlflow.pyfunc.load_model(str(tmp_path / "a"), model_config=wrong)
    mlflow_rnnmod.save_model(make("parent"), tmp_path / "b", model_config={"batch_size": 2})
    found = mlflow.pyfunc.load_model(str(tmp_path / "b")).predict(frame("text", ["a"] * 5))
    assert len(found) == 5


def test_the_device_is_the_loaded_models_own(tmp_path):
    """``meta`` holds no numbers, so that a parent which moved there could answer nobody else."""
    mlflow_rnnmod.save_model(make("parent"), tmp_path)
    kept = mlflow.pyfunc.load_model(str(tmp_path))
    mlflow.pyfunc.load_model(str(tmp_path), model_config={"device": "meta"})
    assert len(kept.predict(frame("text", ["a"]))) == 1
