"""Modules whose parent is gone are shown as such."""

from __future__ import annotations

import json

from click.testing import CliRunner
from mlflow import MlflowClient

from mlflow_rnnmod.cli import main
from mlflow_rnnmod.tracking.bulk import log_decomposition
from mlflow_rnnmod.tracking.listing import dead_modules, listed
from tests.builders import tiny_decomposition, tiny_parent


def test_modules_of_a_deleted_parent_are_dead(tracking_uri: str) -> None:
    client = MlflowClient()
    lost = log_decomposition(tiny_decomposition(tiny_parent("text")))
    kept = log_decomposition(tiny_decomposition(tiny_parent("text", seed=1)))
    found = listed()
    assert dead_modules(found, listed(("parent",))) == set()
    client.delete_logged_model(lost.parent_model_id)
    found = listed()
    assert dead_modules(found, listed(("parent",))) == set(lost.model_ids.values())
    said = CliRunner().invoke(main, ["list", "--json"])
    assert said.exit_code == 0, said.output
    dead = {item["uri"] for item in json.loads(said.output) if item["dead"]}
    assert dead == {f"models:/{model_id}" for model_id in lost.model_ids.values()}
    shown = CliRunner().invoke(main, ["list"]).output.splitlines()
    kinds = [line.split("\t")[0] for line in shown]  # ids are random, and may hold "dead"
    assert kinds.count("dead") == 3 and kinds.count("module") == 3
    # Logged again, by whomever, the parent is found by its digest.
    log_decomposition(tiny_decomposition(tiny_parent("text")))
    assert dead_modules(found, listed(("parent",))) == set()
    assert kept.parent_model_id != lost.parent_model_id
