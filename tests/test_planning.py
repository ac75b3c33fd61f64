from __future__ import annotations

import json
from io import StringIO

import pytest
from mlflow import MlflowClient
from rich.console import Console

import mlflow_rnnmod
from mlflow_rnnmod import parents
from mlflow_rnnmod.composition import IncompatibleModules
from tests.builders import tiny_module, tiny_modules, tiny_parent


@pytest.fixture
def uris(tracking_uri, monkeypatch):
    monkeypatch.setenv("RNNMOD_CACHE", "")
    import mlflow

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


def test_a_plan_says_what_the_composite_is_without_loading_a_weight(uris, monkeypatch):
    parent, _, found = uris
    from safetensors import torch as safe

    monkeypatch.setattr(safe, "load", lambda *a: pytest.fail("weights were loaded"))
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
    with pytest.raises(IncompatibleModules, match="2 modules answer"):
        mlflow_rnnmod.compose([*tiny_modules(parent), tiny_module(parent), other])


def test_a_standalone_module_misses_no_parent(uris, tmp_path):
    parent, model_id, _ = uris
    MlflowClient().delete_logged_model(model_id)
    mlflow_rnnmod.save_model(tiny_module(parent), tmp_path / "alone", standalone=True)
    parents.forget_parents()
    assert mlflow_rnnmod.plan(str(tmp_path / "alone")).fits


def test_sizes_of_the_batch_are_checked(uris):
    with pytest.raises(ValueError, match="batch_size=0"):
        mlflow_rnnmod.plan(uris[2], batch_size=0)
