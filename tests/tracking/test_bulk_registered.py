"""Logging in bulk as people find it by names: registered models, versions, aliases, labels."""

from __future__ import annotations

import json

import pytest
from mlflow import MlflowClient

import mlflow_rnnmod
from mlflow_rnnmod.tracking.bulk import log_decomposition
from mlflow_rnnmod.tracking.names import slugs
from tests.builders import LABELS, ODD_LABELS, tiny_decomposition, tiny_parent
from tests.tracking.test_bulk import models


def aliases(name: str) -> dict[str, str]:
    found = MlflowClient().get_registered_model(name).aliases
    return {alias: str(version) for alias, version in found.items()}


def test_names_of_two_parents_modules_differ(tracking_uri: str) -> None:
    for seed in range(2):
        log_decomposition(tiny_decomposition(tiny_parent(seed=seed)))
    assert len({model.name for model in models()}) == 8


@pytest.mark.parametrize("registered", [True, False])
def test_labels_can_hold_anything(tracking_uri: str, registered: bool) -> None:
    parent = tiny_parent("text", labels=ODD_LABELS)
    logged = log_decomposition(
        tiny_decomposition(parent), registered_model_prefix="odd" if registered else None
    )
    names = slugs(ODD_LABELS)
    short = parent.digest[:6]
    assert [m.name for m in models()[1:]] == [f"{name}-{short}" for name in names.values()]
    loaded = [mlflow_rnnmod.load_model(logged.uris[label]) for label in ODD_LABELS]
    assert [module.label for module in loaded] == list(ODD_LABELS)
    if registered:
        assert logged.registered_names == {label: f"odd.{names[label]}" for label in ODD_LABELS}


def test_a_label_named_parent(tracking_uri: str) -> None:
    logged = log_decomposition(tiny_decomposition(tiny_parent(labels=("parent", "child"))))
    assert len({model.model_id for model in models()}) == 3
    assert mlflow_rnnmod.load_model(logged.uris["parent"]).label == "parent"


def test_registration(tracking_uri: str) -> None:
    client = MlflowClient()
    parent = tiny_parent("text")
    first = log_decomposition(tiny_decomposition(parent), registered_model_prefix="surnames")
    assert first.registered_names == {label: f"surnames.{label}" for label in LABELS}
    assert set(first.versions.values()) == {"1"}
    assert first.parent_uri == "models:/surnames/1"
    irish = client.get_registered_model("surnames.irish")
    assert aliases("surnames.irish") == {"champion": "1"}
    assert irish.tags["rnnmod.kind"] == "module"
    assert irish.tags["rnnmod.label"] == "irish"
    assert 'compose([\n    "models:/surnames.irish@champion"' in irish.description
    version = client.get_model_version("surnames.irish", "1")
    assert version.tags["rnnmod.parent"] == parent.digest[:12]
    assert not any(len(value) > 40 for value in {**irish.tags, **version.tags}.values())
    assert version.source == f"models:/{first.model_ids['irish']}"
    linked = json.loads(models()[2].tags["mlflow.modelVersions"])
    assert [(link["name"], str(link["version"])) for link in linked] == [("surnames.irish", "1")]
    assert version.run_id == first.run_id
    assert "units kept" in version.description
    module = mlflow_rnnmod.load_model("models:/surnames.irish@champion")
    assert (module.label, module.parent.digest) == ("irish", parent.digest)
    second = log_decomposition(tiny_decomposition(parent), registered_model_prefix="surnames")
    assert second.uris["irish"] == "models:/surnames.irish/2"
    assert aliases("surnames.irish") == {"champion": "1"}
    client.delete_registered_model_alias("surnames.irish", "champion")
    client.set_registered_model_alias("surnames.irish", "mine", "2")
    client.delete_registered_model_alias("surnames.zulu", "champion")
    log_decomposition(tiny_decomposition(parent), registered_model_prefix="surnames")
    assert aliases("surnames.irish") == {"mine": "2"}
    assert aliases("surnames.zulu") == {"champion": "3"}, "a model without any alias gets one"


def test_an_empty_registered_model_gets_the_alias_too(tracking_uri: str) -> None:
    MlflowClient().create_registered_model("surnames.irish", description="mine")
    log_decomposition(tiny_decomposition(tiny_parent()), registered_model_prefix="surnames")
    irish = MlflowClient().get_registered_model("surnames.irish")
    assert aliases("surnames.irish") == {"champion": "1"}
    assert irish.description == "mine"
