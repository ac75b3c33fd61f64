from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from rich.console import Console

import mlflow_rnnmod
from mlflow_rnnmod import composition
from mlflow_rnnmod.composition import IncompatibleModules
from mlflow_rnnmod.storage import files
from mlflow_rnnmod.tracking import _mlflow, parents
from tests.builders import tiny_module, tiny_modules, tiny_parent


@pytest.fixture
def uris(tracking_uri, monkeypatch):
    monkeypatch.setenv("RNNMOD_CACHE", "")
    mlflow.set_experiment("plans")
    parent = tiny_parent("text")
    with mlflow.start_run():
        logged = mlflow_rnnmod.log_model(parent, name="parent")
        parent = parent.known_as(logged.model_id, mlflow.get_tracking_uri())
        found = [
            mlflow_rnnmod.log_model(module, name=f"module-{i}").model_uri
            for i, module in enumerate(tiny_modules(parent))
        ]
    parents.forget_parents()
    return parent, logged.model_id, found


@pytest.fixture
def no_weights(monkeypatch):
    """Weights can neither be fetched nor read."""
    fetched = []
    one, whole = _mlflow.download_file, mlflow.artifacts.download_artifacts

    def spy(folder, name, path):
        fetched.append(name)
        return one(folder, name, path)

    monkeypatch.setattr(_mlflow, "download_file", spy)
    monkeypatch.setattr(
        mlflow.artifacts,
        "download_artifacts",
        lambda **given: fetched.append(given["artifact_uri"]) or whole(**given),
    )
    monkeypatch.setattr(files, "load", lambda data: pytest.fail("weights were read"))
    return fetched


def test_a_plan_says_what_the_composite_is_without_loading_a_weight(uris, no_weights):
    parent, _, found = uris
    plan = mlflow_rnnmod.plan(found, batch_size=8)
    assert plan.fits and plan.labels == parent.labels
    assert [p["digest"] for p in plan.parents] == [parent.digest]
    assert plan.trunks == 3
    weights = sum(w.numel() for w in parent.network.parameters())
    heads = 3 * 2 * (parent.network.config.readout_size + 1)
    assert plan.parameters == weights + heads
    assert plan.bytes > parent.bytes
    assert plan.passes > 0 and plan.milliseconds > 0
    figures = [module.figures for module in tiny_modules(parent)]
    expected = sum(f["recall"] * f["support"] for f in figures) / sum(f["support"] for f in figures)
    assert plan.accuracy == pytest.approx(expected)
    body = json.loads(plan.to_json())
    assert body["fits"] is True and body["labels"] == list(parent.labels)
    out = StringIO()
    Console(file=out, width=120).print(plan)
    assert "distinct trunks" in out.getvalue()


def test_a_plan_of_objects_is_the_plan_of_their_uris(uris):
    parent, _, found = uris
    one, two = mlflow_rnnmod.plan(found), mlflow_rnnmod.plan(tiny_modules(parent))
    assert (one.parameters, one.trunks, one.passes) == (two.parameters, two.trunks, two.passes)


def test_every_problem_is_told_at_once(uris):
    parent, model_id, found = uris
    other = tiny_module(tiny_parent("features", labels=("x", "y")), "x")
    MlflowClient().delete_logged_model(model_id)
    plan = mlflow_rnnmod.plan([*found, found[0], other, "models:/nobody/1"])
    told = "\n".join(plan.problems)
    assert not plan.fits
    for part in ("2 modules answer for label", "input kind", "models:/nobody/1", "neither here"):
        assert part in told
    assert len(plan.problems) == 4
    # compose says the same.
    with pytest.raises(MlflowException) as error:
        mlflow_rnnmod.compose([*found, found[0], other, "models:/nobody/1"])
    for problem in plan.problems:
        assert problem in error.value.message
    with pytest.raises(IncompatibleModules, match="2 modules answer"):
        mlflow_rnnmod.compose([*tiny_modules(parent), tiny_module(parent), other])


def test_what_does_not_fit_is_refused_before_any_weight_is_fetched(uris, no_weights):
    parent, _, found = uris
    other = tiny_module(tiny_parent("features", labels=("x", "y")), "x")
    plan = mlflow_rnnmod.plan([*found, found[0], other])
    with pytest.raises(IncompatibleModules) as error:
        mlflow_rnnmod.compose([*found, found[0], other])
    assert error.value.problems == plan.problems
    assert len(plan.problems) == 2
    composite = composition.compose(tiny_modules(parent))
    with pytest.raises(IncompatibleModules, match="2 modules answer for label 'irish'"):
        mlflow_rnnmod.add(composite, found[1])
    with pytest.raises(ValueError, match="'french' is none of"):
        mlflow_rnnmod.replace(composite, "french", found[1])
    with pytest.raises(ValueError, match="module for 'irish'"):
        mlflow_rnnmod.replace(composite, "german", found[1])
    features = tiny_modules(tiny_parent("features"))
    with pytest.raises(IncompatibleModules, match="input kind"):
        mlflow_rnnmod.replace(composition.compose(features), "irish", found[1])
    assert no_weights == ["module.json"] * 3  # each once


def test_a_missing_parent_is_told_before_any_weight_is_fetched(uris, no_weights):
    parent, model_id, found = uris
    MlflowClient().delete_logged_model(model_id)
    with pytest.raises(MlflowException, match="mlflow_rnnmod.export") as error:
        mlflow_rnnmod.compose(found)
    for part in (parent.digest, model_id, mlflow.get_tracking_uri()):
        assert part in error.value.message
    assert error.value.error_code == "RESOURCE_DOES_NOT_EXIST"
    assert error.value.message.count(parent.digest) == 1
    assert set(no_weights) == {"module.json"}


def test_a_parent_of_a_module_at_hand_is_not_missing(uris):
    parent, model_id, found = uris
    MlflowClient().delete_logged_model(model_id)
    mine = tiny_module(parent, parent.labels[0])
    composite = mlflow_rnnmod.compose([mine, *found[1:]])
    assert all(module.parent is parent for module in composite.modules)
    assert mlflow_rnnmod.add(composition.compose([mine]), found[2]).labels[1] == parent.labels[2]


def test_a_composite_is_planned_from_its_documents(uris, no_weights, tmp_path):
    parent, _, found = uris
    infos = []
    with mlflow.start_run():
        for part in (tiny_modules(parent)[:2], tiny_modules(parent)[1:]):
            infos.append(mlflow_rnnmod.log_model(composition.compose(part)).model_uri)
    mlflow_rnnmod.save_model(composition.compose(tiny_modules(parent)[:2]), tmp_path / "saved")
    parents.forget_parents()
    no_weights.clear()
    one = mlflow_rnnmod.plan(infos[0])
    assert one.fits and one.labels == parent.labels[:2]
    assert one.to_dict() == mlflow_rnnmod.plan(str(tmp_path / "saved")).to_dict()
    with pytest.raises(IncompatibleModules, match="2 modules answer for label 'irish'") as error:
        mlflow_rnnmod.compose(infos)
    assert f"{infos[1]} (irish)" in str(error.value)
    assert {name.rpartition("/")[2] for name in no_weights} == {"composition.json", "modules.json"}


def test_a_parent_is_no_module_to_plan_with(uris, no_weights):
    _, model_id, found = uris
    (problem,) = mlflow_rnnmod.plan([f"models:/{model_id}", *found]).problems
    assert "is a parent" in problem and "mlflow_rnnmod.decompose" in problem


def test_an_altered_document_is_told(uris):
    _, _, found = uris
    logged = MlflowClient().get_logged_model(found[0].rpartition("/")[2])
    file = Path(logged.artifact_location) / "data" / "module.json"
    file.write_text(file.read_text().replace('"output": "label"', '"output": "other"'))
    (problem,) = mlflow_rnnmod.plan(found).problems
    assert found[0] in problem and "altered" in problem
    with pytest.raises(MlflowException, match="altered"):
        mlflow_rnnmod.compose(found)


def test_a_standalone_module_misses_no_parent(uris, tmp_path):
    parent, model_id, _ = uris
    MlflowClient().delete_logged_model(model_id)
    mlflow_rnnmod.save_model(tiny_module(parent), tmp_path / "alone", standalone=True)
    parents.forget_parents()
    assert mlflow_rnnmod.plan(str(tmp_path / "alone")).fits


def test_sizes_of_the_batch_are_checked(uris):
    with pytest.raises(ValueError, match="batch_size=0"):
        mlflow_rnnmod.plan(uris[2], batch_size=0)
