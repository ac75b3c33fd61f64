"""The canonical list of what an MLflow flavor has to do: save, log, load, answer."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import Model

import mlflow_rnnmod
from mlflow_rnnmod import composition
from mlflow_rnnmod.answers.targets import all_log_odds
from mlflow_rnnmod.inputs import input_of
from mlflow_rnnmod.networks import Parent
from mlflow_rnnmod.tracking import download, parents
from mlflow_rnnmod.tracking.flavor import model_directory
from tests.builders import LABELS, ODD_LABELS, tiny_inputs, tiny_module, tiny_modules, tiny_parent

INPUTS = ["text", "tokens", "features"]
THINGS = ["parent", "module", "composite"]


def make(what: str, kind: str = "text", **options):
    parent = tiny_parent(kind, **options)
    if what == "parent":
        return parent
    return tiny_module(parent) if what == "module" else composition.compose(tiny_modules(parent))


def answers(thing, inputs: list) -> list[str]:
    """What a thing answers, without MLflow."""
    if isinstance(thing, Parent):
        return [thing.labels[i] for i in log_odds(thing, inputs).argmax(dim=1).tolist()]
    if not isinstance(thing, composition.Composite):
        thing = composition.compose([thing])
    return thing.predict(inputs)


def log_odds(parent: Parent, inputs: list) -> torch.Tensor:
    """Each input by itself, so that nothing is padded."""
    rows = []
    for item in inputs:
        if parent.tokenizer is not None:
            item = parent.tokenizer.tokenizer.encode(item).ids
        dtype = parent.network.dtype if parent.input_kind == "features" else torch.int64
        values = torch.as_tensor(np.asarray(item), dtype=dtype)[None]
        rows.append(parent.network(mlflow_rnnmod.Rows(values)))
    return all_log_odds(torch.cat(rows))


def frame(kind: str, inputs: list) -> pd.DataFrame:
    cells = [item.tolist() if isinstance(item, np.ndarray) else item for item in inputs]
    return pd.DataFrame({input_of(kind).column: cells})


# --- save and load ---


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("what", THINGS)
def test_saved_and_loaded_it_answers_the_same(tmp_path, what, kind, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    thing = make(what, kind)
    inputs = tiny_inputs(tiny_parent(kind), 20)
    expected = answers(thing, inputs)
    mlflow_rnnmod.save_model(thing, tmp_path / "model")
    parents.forget_parents()
    native = mlflow_rnnmod.load_model(tmp_path / "model")
    assert type(native) is type(thing)
    assert answers(native, inputs) == expected
    pyfunc = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    found = pyfunc.predict(frame(kind, inputs))
    assert found.ndim == 1
    assert found.tolist() == expected
    assert type(pyfunc.get_raw_model()) is type(thing)
    if what == "parent":
        assert len(set(expected)) > 1, "a model that always answers the same proves nothing"


@pytest.mark.parametrize("kind", INPUTS)
def test_scores_of_a_parent_are_its_log_odds(tmp_path, kind):
    parent = make("parent", kind)
    inputs = tiny_inputs(parent, 9)
    mlflow_rnnmod.save_model(parent, tmp_path)
    pyfunc = mlflow.pyfunc.load_model(str(tmp_path), model_config={"batch_size": 4})
    table = pyfunc.predict(frame(kind, inputs), params={"scores": True})
    assert list(table.columns) == ["prediction", *LABELS]
    assert np.allclose(table[list(LABELS)], log_odds(parent, inputs), atol=1e-5)
    assert table["prediction"].tolist() == answers(parent, inputs)


def test_scores_of_a_composite_are_its_own(tmp_path):
    composite = make("composite")
    inputs = tiny_inputs(tiny_parent("text"), 9)
    mlflow_rnnmod.save_model(composite, tmp_path)
    table = mlflow.pyfunc.load_model(str(tmp_path)).predict(
        frame("text", inputs), params={"scores": True}
    )
    assert list(table.columns) == ["prediction", *LABELS]
    assert np.allclose(table[list(LABELS)], composite.scores(inputs), atol=1e-5)


@pytest.mark.parametrize("what", THINGS)
def test_none_of_these(tmp_path, what):
    mlflow_rnnmod.save_model(make(what), tmp_path)
    model = mlflow.pyfunc.load_model(str(tmp_path))
    data = frame("text", ["abc", "xyz"])
    assert model.predict(data, params={"reject_below": 1e9}).tolist() == ["none of these"] * 2
    params = {"reject_below": 1e9, "reject_label": "other"}
    assert model.predict(data, params=params).tolist() == ["other"] * 2
    assert set(model.predict(data, params={"reject_below": -1e9})) <= set(LABELS)
    with pytest.raises(MlflowException, match="reject_label"):
        model.predict(data, params={"reject_below": 0.0, "reject_label": LABELS[0]})


def test_a_module_by_itself_says_yes_or_no(tmp_path):
    parent = tiny_parent("text")
    module = tiny_module(parent, removal=0.0, repaired=False)
    inputs = tiny_inputs(parent, 30)
    mlflow_rnnmod.save_model(module, tmp_path)
    found = mlflow.pyfunc.load_model(str(tmp_path)).predict(frame("text", inputs)).tolist()
    odds = log_odds(parent, inputs)[:, 0]
    assert found == [LABELS[0] if value >= 0 else "none of these" for value in odds]
    assert len(set(found)) == 2


@pytest.mark.parametrize("label", ODD_LABELS)
def test_any_label(tracking_uri, label):
    parent = tiny_parent("text", labels=ODD_LABELS)
    info = mlflow_rnnmod.log_model(tiny_module(parent, label))
    assert mlflow_rnnmod.load_model(info.model_uri).label == label
    table = mlflow.pyfunc.load_model(info.model_uri).predict(
        frame("text", ["a"]), params={"scores": True}
    )
    assert list(table.columns) == ["prediction", label]
    assert MlflowClient().get_logged_model(info.model_id).tags["rnnmod.label"] == label


def test_a_label_called_prediction(tmp_path):
    mlflow_rnnmod.save_model(make("parent", labels=("prediction", "b")), tmp_path)
    table = mlflow.pyfunc.load_model(str(tmp_path)).predict(
        frame("text", ["a"]), params={"scores": True}
    )
    assert list(table.columns) == ["prediction_", "prediction", "b"]


def test_what_is_no_thing_is_refused(tmp_path):
    with pytest.raises(MlflowException, match="is a LSTM; expected a Parent, a Module or"):
        mlflow_rnnmod.save_model(torch.nn.LSTM(1, 1), tmp_path)


def test_a_model_of_another_flavor_is_refused(tmp_path):
    mlflow.pyfunc.save_model(
        str(tmp_path / "other"), loader_module="json", data_path=__file__, pip_requirements=[]
    )
    with pytest.raises(MlflowException, match="rnnmod"):
        mlflow_rnnmod.load_model(tmp_path / "other")


def test_a_path_that_is_not_empty_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MlflowException, match="not empty"):
        mlflow_rnnmod.save_model(make("parent"), tmp_path)


def test_altered_files_are_refused(tmp_path):
    mlflow_rnnmod.save_model(make("module"), tmp_path)
    path = tmp_path / "data" / "module.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    for load in (mlflow_rnnmod.load_model, mlflow.pyfunc.load_model):
        with pytest.raises(MlflowException, match=r"module\.safetensors is truncated or altered"):
            load(str(tmp_path))


# --- logging ---


@pytest.mark.parametrize("active", [True, False])
@pytest.mark.parametrize("what", THINGS)
def test_log_model(tracking_uri, what, active):
    thing = make(what)
    expected = answers(thing, ["abc", "xyz"])
    if active:
        with mlflow.start_run() as run:
            info = mlflow_rnnmod.log_model(thing, name="mine")
    else:
        info = mlflow_rnnmod.log_model(thing, name="mine")
        assert mlflow.active_run() is None
    parents.forget_parents()
    logged = MlflowClient().get_logged_model(info.model_id)
    assert logged.name == "mine"
    assert logged.status == "READY"
    assert logged.source_run_id == info.run_id
    if active:
        assert info.run_id == run.info.run_id
    else:  # a composite's figures and lineage need one
        assert (info.run_id is None) is (what != "composite")
    kinds = {"parent": "parent", "module": "module", "composite": "composed"}
    assert logged.model_type == f"rnnmod-{kinds[what]}"
    assert logged.tags["rnnmod.kind"] == what
    assert info.model_uri in logged.tags["mlflow.note.content"]
    if what == "module":
        assert logged.params["label"] == thing.label
        assert logged.tags["rnnmod.label"] == thing.label
        assert logged.tags["rnnmod.parent"] == thing.parent.digest
    loaded = mlflow_rnnmod.load_model(info.model_uri)
    assert answers(loaded, ["abc", "xyz"]) == expected
    found = mlflow.pyfunc.load_model(info.model_uri).predict(frame("text", ["abc", "xyz"]))
    assert found.tolist() == expected
    if active:
        assert (
            answers(mlflow_rnnmod.load_model(f"runs:/{run.info.run_id}/mine"), ["abc", "xyz"])
            == expected
        )


def test_a_module_is_logged_by_reference_and_its_parent_once(tracking_uri):
    parent = tiny_parent("text")
    with mlflow.start_run() as run:
        infos = [mlflow_rnnmod.log_model(module) for module in tiny_modules(parent)]
    experiment = run.info.experiment_id
    logged = MlflowClient().search_logged_models([experiment])
    kinds = [model.tags["rnnmod.kind"] for model in logged]
    assert sorted(kinds) == ["module"] * 3 + ["parent"]
    (of_parent,) = [model for model in logged if model.tags["rnnmod.kind"] == "parent"]
    assert of_parent.source_run_id == run.info.run_id
    for info in infos:
        parents.forget_parents()
        module = mlflow_rnnmod.load_model(info.model_uri)
        assert module.parent.model_id == of_parent.model_id
        files = {p.name for p in Path(info.artifact_path, "data").iterdir()}
        assert files == {"module.json", "module.safetensors"}
        assert not Path(info.artifact_path, "code", "mlflow_rnnmod.zip").exists()


def test_a_deleted_parent_is_logged_again(tracking_uri):
    parent = tiny_parent("text")
    info = mlflow_rnnmod.log_model(parent)
    MlflowClient().delete_logged_model(info.model_id)
    known = parent.known_as(info.model_id, tracking_uri)
    logged = mlflow_rnnmod.log_model(tiny_module(known))
    parents.forget_parents()
    assert mlflow_rnnmod.load_model(logged.model_uri).parent.model_id != info.model_id


def test_a_standalone_module_outlives_everything(tracking_uri):
    info = mlflow_rnnmod.log_model(make("module"), standalone=True)
    assert len(MlflowClient().search_logged_models(["0"])) == 1
    parents.forget_parents()
    assert mlflow_rnnmod.load_model(info.model_uri).label == LABELS[0]


def test_saved_modules_can_always_be_loaded(tmp_path):
    """A parent that was never logged goes along; one that was is referred to."""
    parent = tiny_parent("text")
    mlflow_rnnmod.save_model(tiny_module(parent), tmp_path / "alone")
    known = parent.known_as("m-1", "sqlite:///nowhere.db")
    mlflow_rnnmod.save_model(tiny_module(known), tmp_path / "referring")
    assert (tmp_path / "alone" / "data" / "parents" / parent.digest).is_dir()
    assert not (tmp_path / "referring" / "data" / "parents").exists()


@pytest.mark.parametrize("what", THINGS)
def test_registered(tracking_uri, what):
    thing = make(what)
    info = mlflow_rnnmod.log_model(thing, name="x", registered_model_name="surnames", tags={"a": 1})
    assert info.registered_model_version == 1
    version = MlflowClient().get_model_version("surnames", "1")
    assert version.source == f"models:/{info.model_id}"
    assert version.tags["a"] == "1"
    assert version.tags["rnnmod.kind"] == what
    mlflow_rnnmod.log_model(thing, name="x", registered_model_name="surnames")
    MlflowClient().set_registered_model_alias("surnames", "champion", "1")
    for uri in ("models:/surnames/1", "models:/surnames@champion", "models:/surnames/latest"):
        loaded = mlflow_rnnmod.load_model(uri)
        if what == "module":
            assert loaded.origin["uri"] == uri
            assert loaded.origin["name"] == "surnames"
            assert loaded.origin["version"] == ("2" if uri.endswith("latest") else "1")
            assert loaded.origin["tracking_uri"] == tracking_uri


def test_params_tags_type_and_step(tracking_uri):
    with mlflow.start_run() as run:
        info = mlflow_rnnmod.log_model(
            make("parent"), params={"a": 1}, tags={"t": "u"}, model_type="mine", step=3
        )
    logged = MlflowClient().get_logged_model(info.model_id)
    assert logged.params["a"] == "1"
    assert logged.tags["t"] == "u"
    assert logged.model_type == "mine"
    assert MlflowClient().get_run(run.info.run_id).outputs.model_outputs[0].step == 3


def test_a_model_made_before_is_filled_in(tracking_uri):
    made = mlflow.initialize_logged_model(name="before")
    info = mlflow_rnnmod.log_model(make("parent"), model_id=made.model_id)
    assert info.model_id == made.model_id
    assert isinstance(mlflow_rnnmod.load_model(info.model_uri), Parent)


def test_origin_of_a_logged_module(tracking_uri):
    with mlflow.start_run() as run:
        info = mlflow_rnnmod.log_model(make("module"), name="m")
    loaded = mlflow_rnnmod.load_model(f"runs:/{run.info.run_id}/m")
    assert loaded.origin == {
        "uri": f"runs:/{run.info.run_id}/m",
        "model_id": info.model_id,
        "run_id": run.info.run_id,
        "tracking_uri": tracking_uri,
    }


def test_no_credentials_in_artifacts(tracking_uri, tmp_path, monkeypatch):
    module = tiny_module(tiny_parent().known_as("m-1", "https://me:secret@there/x"))
    monkeypatch.setattr(parents, "logged_id", lambda parent: "m-1")
    monkeypatch.setattr(mlflow, "get_tracking_uri", lambda: "https://me:secret@there/x")
    module = replace(module, origin={"tracking_uri": download.server()})
    model_directory(module, tmp_path / "m")
    assert not any(b"secret" in p.read_bytes() for p in (tmp_path / "m").rglob("*") if p.is_file())


def test_metadata_and_extra_files(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    mlflow_rnnmod.save_model(
        make("parent"),
        tmp_path / "m",
        metadata={"author": "me"},
        extra_files=[str(tmp_path / "notes.txt")],
    )
    saved = Model.load(str(tmp_path / "m"))
    assert saved.metadata == {"author": "me"}
    assert saved.flavors["rnnmod"]["extra_files"] == [{"path": "extra_files/notes.txt"}]
    assert (tmp_path / "m" / "extra_files" / "notes.txt").read_text() == "hello"


def test_arguments_that_only_log_model_knows(tracking_uri):
    with mlflow.start_run() as run:
        other = mlflow.MlflowClient().create_run("0").info.run_id
        example = frame("text", ["a"])
        info = mlflow_rnnmod.log_model(
            make("parent"), input_example=example, validate_serving_input=False, run_id=other
        )
    assert MlflowClient().get_logged_model(info.model_id).source_run_id == other != run.info.run_id
    with pytest.raises(TypeError, match="nonsense"):
        mlflow_rnnmod.log_model(make("parent"), nonsense=1)


# --- what importing costs ---


def test_importing_is_light():
    script = (
        "import sys, mlflow_rnnmod; assert mlflow_rnnmod.FLAVOR_NAME == 'rnnmod'; "
        "print(sorted({'torch', 'mlflow', 'pandas'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (found.stdout.strip(), found.stderr) == ("[]", "")


def test_every_public_name_is_there():
    for name in mlflow_rnnmod.__all__:
        assert getattr(mlflow_rnnmod, name) is not None
    assert set(mlflow_rnnmod.__all__) <= set(dir(mlflow_rnnmod))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        mlflow_rnnmod.nonsense  # noqa: B018
