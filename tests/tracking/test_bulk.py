"""Logging whole decompositions to a real store, and what is left where that breaks off."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import requests
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelStatus, RunStatus
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

import mlflow_rnnmod
from benchmarks.logging import server
from mlflow_rnnmod.composition import compose
from mlflow_rnnmod.tracking.bulk import log_decomposition
from mlflow_rnnmod.tracking.flavor import model_directory
from mlflow_rnnmod.tracking.names import slugs
from tests.builders import (
    LABELS,
    tiny_decomposition,
    tiny_inputs,
    tiny_modules,
    tiny_parent,
    tiny_texts,
)


def models(experiment_id: str = "0") -> list[LoggedModel]:
    """All LoggedModels that are not deleted, as MLflow's list shows them: the newest first."""
    found = MlflowClient().search_logged_models([experiment_id], max_results=500)
    return [model for model in found if model.model_type and "rnnmod" in model.model_type]


def versions() -> list[tuple[str, str]]:
    """All registered versions; databases give numbers where servers give text."""
    found = MlflowClient().search_model_versions(max_results=500)
    return sorted((version.name, str(version.version)) for version in found)


@pytest.fixture
def dataset() -> Any:
    rows = pd.DataFrame({"text": ["a", "b"], "label": ["german", "irish"]})
    return mlflow.data.from_pandas(rows, name="held-out", targets="label")


def test_every_module_is_a_model_of_its_own(tracking_uri: str, dataset: Any) -> None:
    parent = tiny_parent("text")
    decomposition = tiny_decomposition(parent)
    logged = log_decomposition(decomposition, dataset=dataset)
    found = models()
    short = parent.digest[:6]
    names = [f"parent-{short}", *(f"{label}-{short}" for label in LABELS)]
    assert [m.name for m in found] == names, "the newest first: the parent, then the labels' order"
    assert {m.status for m in found} == {LoggedModelStatus.READY}
    assert {m.source_run_id for m in found} == {logged.run_id}
    assert logged.model_ids == {m.params["label"]: m.model_id for m in found[1:]}
    assert found[0].model_id == logged.parent_model_id
    assert found[0].model_type == "rnnmod-parent"
    assert found[0].params["digest"] == parent.digest
    for model, module in zip(found[1:], decomposition.modules, strict=True):
        assert model.model_type == "rnnmod-module"
        assert model.params["label"] == module.label
        assert model.params["kept_units"] == str(module.trunk.kept)
        assert model.params["parent_model_id"] == logged.parent_model_id
        assert model.params["dataset"] == "held-out"
        assert model.params["technique"] == "25.0 % by random"
        assert model.tags["rnnmod.kind"] == "module"
        assert model.tags["rnnmod.label"] == module.label
        assert model.tags["rnnmod.parent"] == parent.digest
        assert model.tags["rnnmod.fingerprint"] == found[0].tags["rnnmod.fingerprint"]
        assert model.tags["mlflow.user"]
        card = model.tags["mlflow.note.content"]
        assert f'load_model("models:/{model.model_id}")' in card
        assert f'compose([\n    "models:/{model.model_id}",' in card
        for uri in re.findall(r'"(models:/[^"]+)"', card):
            assert uri.removeprefix("models:/") in logged.model_ids.values()
        metrics = {metric.key: metric for metric in model.metrics}
        assert {key: metric.value for key, metric in metrics.items()} == pytest.approx(
            {name: module.figures[name] for name in ("f1", "precision", "recall", "agreement")}
        )
        assert {(m.dataset_name, m.dataset_digest) for m in model.metrics} == {
            ("held-out", dataset.digest)
        }
    files = mlflow.artifacts.download_artifacts(f"models:/{logged.model_ids['irish']}")
    card = Path(files, "card", "README.md").read_text(encoding="utf-8")
    assert card == found[2].tags["mlflow.note.content"]


def test_no_module_speaks_for_the_run(tracking_uri: str, dataset: Any) -> None:
    """MLflow puts a model's figures on their run, where the last one's would stand for all."""
    decomposition = tiny_decomposition(tiny_parent("text"))
    logged = log_decomposition(decomposition, dataset=dataset)
    client = MlflowClient()
    own = client.get_run(logged.run_id).data.metrics
    assert not {"f1", "precision", "recall", "agreement"} & set(own)
    assert own["accuracy"] == decomposition.figures["parent_accuracy"]
    (figures,) = [r for r in client.search_runs(["0"]) if r.info.run_id != logged.run_id]
    assert figures.data.tags["mlflow.parentRunId"] == logged.run_id
    assert figures.info.status == "FINISHED"
    for name in ("f1", "precision", "recall", "agreement"):
        values = [module.figures[name] for module in decomposition.modules]
        assert figures.data.metrics[name] == pytest.approx(sum(values) / len(values))


def test_modules_can_have_an_experiment_of_their_own(tracking_uri: str) -> None:
    with mlflow.start_run() as run:
        mlflow.set_tag("mlflow.note.content", "Mine.")
        logged = log_decomposition(tiny_decomposition(tiny_parent()), experiment="words | modules")
    client = MlflowClient()
    apart = client.get_experiment_by_name("words | modules")
    assert apart is not None and logged.experiment_id == apart.experiment_id
    assert not models() and len(models(apart.experiment_id)) == 4
    note = client.get_run(run.info.run_id).data.tags["mlflow.note.content"]
    assert f"(#/experiments/{apart.experiment_id}/runs/{logged.run_id}?" in note.split("\n\n")[0]
    assert note.endswith("Mine.")
    again = log_decomposition(tiny_decomposition(tiny_parent()), experiment="words | modules")
    assert again.experiment_id == apart.experiment_id and again.run_id != logged.run_id


def test_the_description_begins_with_links(tracking_uri: str) -> None:
    with mlflow.start_run() as run:
        mlflow.set_tag("mlflow.note.content", "My own words.")
        logged = log_decomposition(tiny_decomposition(tiny_parent()))
    note = MlflowClient().get_run(run.info.run_id).data.tags["mlflow.note.content"]
    first, second = note.split("\n\n")[:2]
    for target in ("artifacts/rnnmod/modules.md", "artifacts/rnnmod/report.html"):
        assert f"/runs/{run.info.run_id}/{target}?workflowType=machine_learning)" in first
    assert f"/models/{logged.parent_model_id}?workflowType=machine_learning)" in first
    assert second == "My own words."


@pytest.mark.parametrize(
    ("words", "context"),
    [
        ("the other 50 of 100 validation rows, by a hash", "validation"),
        ("20 training rows held out (the parent was trained on them)", "training"),
        ("50 rows given for the report alone", "test"),
    ],
)
def test_rows_are_called_what_they_are(
    tracking_uri: str, dataset: Any, words: str, context: str
) -> None:
    rows = {"figures": words}
    logged = log_decomposition(tiny_decomposition(tiny_parent(), rows=rows), dataset=dataset)
    (given,) = MlflowClient().get_run(logged.run_id).inputs.dataset_inputs
    assert {tag.key: tag.value for tag in given.tags}["mlflow.data.context"] == context


def test_modules_answer_as_before(tracking_uri: str) -> None:
    for kind in ("text", "tokens", "features"):
        parent = tiny_parent(kind)
        modules = tiny_modules(parent)
        logged = log_decomposition(tiny_decomposition(parent, modules=modules))
        inputs = tiny_inputs(parent)
        loaded = [mlflow_rnnmod.load_model(uri) for uri in logged.uris.values()]
        assert [module.label for module in loaded] == list(LABELS)
        assert {module.parent.digest for module in loaded} == {parent.digest}
        expected = compose(modules)
        np.testing.assert_allclose(
            compose(loaded).scores(inputs), expected.scores(inputs), rtol=1e-5, atol=1e-5
        )
        again = mlflow_rnnmod.load_model(logged.parent_uri)
        assert again.digest == parent.digest


def test_a_module_is_an_mlflow_model(tracking_uri: str) -> None:
    parent = tiny_parent("text")
    modules = tiny_modules(parent)
    logged = log_decomposition(tiny_decomposition(parent, modules=modules))
    frame = pd.DataFrame({"text": tiny_texts()})
    for module in modules:
        by_id = mlflow.pyfunc.load_model(f"models:/{logged.model_ids[module.label]}")
        name = f"{module.label}-{parent.digest[:6]}"
        by_run = mlflow.pyfunc.load_model(f"runs:/{logged.run_id}/{name}")
        expected = compose([module]).predict(list(frame["text"]))
        assert list(by_id.predict(frame)) == list(by_run.predict(frame)) == expected


def test_the_run_says_what_happened(tracking_uri: str, dataset: Any) -> None:
    decomposition = tiny_decomposition(tiny_parent(), warnings=("mind | this",))
    logged = log_decomposition(decomposition, dataset=dataset)
    run = MlflowClient().get_run(logged.run_id)
    assert run.info.status == RunStatus.to_string(RunStatus.FINISHED)
    assert run.data.tags["rnnmod.role"] == "decomposition"
    assert run.data.tags["rnnmod.parent"] == decomposition.parent.digest[:12]
    assert run.data.metrics["rnnmod/composed_accuracy"] == 0.93
    assert run.data.metrics["rnnmod/mean_jaccard"] == 0.6
    assert len(run.outputs.model_outputs) == 4
    (given,) = run.inputs.dataset_inputs
    assert given.dataset.digest == dataset.digest
    assert {tag.key: tag.value for tag in given.tags}["mlflow.data.context"] == "validation"
    index = mlflow.artifacts.load_text(f"runs:/{logged.run_id}/rnnmod/modules.md")
    for model_id in logged.model_ids.values():
        assert f"(#/experiments/0/models/{model_id}?workflowType=machine_learning)" in index
    assert "rnnmod/modules.md" in run.data.tags["mlflow.note.content"]
    table = MlflowClient().load_table(logged.experiment_id, "rnnmod/modules_table.json")
    assert list(table["label"]) == list(LABELS)
    names = {f.path for f in MlflowClient().list_artifacts(logged.run_id, "rnnmod")}
    assert names == {
        f"rnnmod/{name}"
        for name in (
            "modules.md",
            "modules.csv",
            "modules_table.json",
            "overlap.png",
            "settings.png",
            "report.html",
        )
    }


def test_what_was_on_the_run_stays(tracking_uri: str) -> None:
    with mlflow.start_run() as run:
        mlflow.log_metric("precision", 0.123)
        mlflow.log_metric("accuracy", 0.456, step=7)
        mlflow.set_tag("mlflow.note.content", "My own words.")
        mlflow.log_table({"a": [1]}, "mine.json")
        first = log_decomposition(tiny_decomposition(tiny_parent()))
        log_decomposition(tiny_decomposition(tiny_parent(seed=1)))
        assert mlflow.active_run() is not None, "the run is the user's to end"
    assert first.run_id == run.info.run_id
    data = MlflowClient().get_run(run.info.run_id).data
    assert data.metrics["precision"] == 0.123
    assert data.metrics["accuracy"] == 0.456
    note = data.tags["mlflow.note.content"]
    assert "\n\nMy own words.\n\n## " in note
    assert note.count("My own words.") == note.count("**Modules:**") == 1
    assert note.count("## ") == 1
    tables = json.loads(data.tags["mlflow.loggedArtifacts"])
    assert [table["path"] for table in tables] == ["mine.json", "rnnmod/modules_table.json"]


def test_the_history_of_metrics_is_not_read(
    tracking_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("metric history was read")

    for name in ("get_metric_history", "get_metric_history_bulk"):
        monkeypatch.setattr(
            f"mlflow.store.tracking.sqlalchemy_store.SqlAlchemyStore.{name}", refuse
        )
    log_decomposition(tiny_decomposition(tiny_parent()))


def test_a_run_has_its_parent_once(tracking_uri: str) -> None:
    parent = tiny_parent()
    with mlflow.start_run():
        first = log_decomposition(tiny_decomposition(parent))
        second = log_decomposition(tiny_decomposition(parent))
        other = log_decomposition(tiny_decomposition(tiny_parent(seed=3)))
    assert first.parent_model_id == second.parent_model_id
    assert other.parent_model_id != first.parent_model_id
    assert Counter(m.model_type for m in models()) == {"rnnmod-parent": 2, "rnnmod-module": 9}


def test_another_store_than_the_current_one(
    tracking_uri: str, template_database: Path, tmp_path: Path
) -> None:
    other = f"sqlite:///{shutil.copy(template_database, tmp_path / 'other.db')}"
    with mlflow.start_run() as run:
        logged = log_decomposition(
            tiny_decomposition(tiny_parent("text")),
            tracking_uri=other,
            registered_model_prefix="surnames",
        )
    assert logged.run_id != run.info.run_id
    assert logged.tracking_uri == other
    assert not models()
    assert not versions()
    mlflow.set_tracking_uri(other)
    assert len(models()) == 4
    assert {m.status for m in models()} == {LoggedModelStatus.READY}
    assert mlflow_rnnmod.load_model("models:/surnames.zulu@champion").label == "zulu"


def test_progress_is_told(tracking_uri: str) -> None:
    told: list[tuple[str, int, int]] = []
    log_decomposition(
        tiny_decomposition(tiny_parent()),
        registered_model_prefix="p",
        progress=lambda *step: told.append(step),
    )
    for stage in ("upload", "finalize", "register"):
        steps = [done for name, done, total in told if name == stage and total == 3]
        assert steps == sorted(steps)
        assert steps[-1] == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"registered_model_prefix": "a/b"}, "registered_model_prefix='a/b'"),
        ({"dataset": "rows.csv"}, "dataset is a str; expected a dataset of mlflow.data"),
        ({"run_id": "0" * 32}, "0" * 32),
    ],
)
def test_bad_arguments_leave_nothing(
    tracking_uri: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(MlflowException, match=message):
        log_decomposition(tiny_decomposition(tiny_parent()), **arguments)
    assert not models()
    assert len(MlflowClient().search_runs(["0"])) == 0


def test_no_module_is_an_error(tracking_uri: str) -> None:
    empty = replace(tiny_decomposition(tiny_parent()), modules=())
    with pytest.raises(MlflowException, match="modules is empty"):
        log_decomposition(empty)


# The points where an attempt can break: a method, and which of its calls.
POINTS = [
    (MlflowClient, "search_logged_models", 1),
    (MlflowClient, "create_logged_model", 1),
    (MlflowClient, "create_logged_model", 3),
    (LocalArtifactRepository, "log_artifacts", 1),
    (LocalArtifactRepository, "log_artifacts", 2),
    (LocalArtifactRepository, "log_artifacts", 4),
    (LocalArtifactRepository, "log_artifacts", 5),
    (MlflowClient, "finalize_logged_model", 1),
    (MlflowClient, "finalize_logged_model", 3),
    (MlflowClient, "log_batch", 1),
    (MlflowClient, "log_batch", 2),
    (MlflowClient, "create_registered_model", 2),
    (MlflowClient, "create_model_version", 1),
    (MlflowClient, "create_model_version", 4),
    (MlflowClient, "set_registered_model_alias", 2),
    (MlflowClient, "log_artifacts", 1),
    (MlflowClient, "log_outputs", 1),
]


@pytest.mark.slow
def test_over_http(tracking_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: Counter[str] = Counter()
    send = requests.Session.send

    def counting(self: Any, request: Any, **kwargs: Any) -> Any:
        path = request.path_url.partition("?")[0]
        sent["artifact" if "artifacts" in path else path.rpartition("/")[2]] += 1
        return send(self, request, **kwargs)

    count = 20
    parent = tiny_parent("text", labels=[f"label {i}" for i in range(count)])
    with server(tmp_path, workers=1) as uri:
        mlflow.set_tracking_uri(uri)
        with monkeypatch.context() as patch:
            patch.setattr(requests.Session, "send", counting)
            logged = log_decomposition(tiny_decomposition(parent))
        short = parent.digest[:6]
        names = [f"{name}-{short}" for name in slugs(parent.labels).values()]
        assert [m.name for m in models()] == [f"parent-{short}", *names]
        # Each file of a model is sent, and read back; the run's six are sent.
        assert sent.pop("artifact") == 2 * ((count + 1) * 8 + sent_extra(parent)) + 6
        # To make a model, to say what it is and to finalize it; the rest does not grow with them.
        assert sum(sent.values()) <= 4 * (count + 1) + 17, sent
        assert "get-history" not in sent
        registered = log_decomposition(
            tiny_decomposition(parent), run_id=logged.run_id, registered_model_prefix="surnames"
        )
        assert registered.parent_model_id == logged.parent_model_id
        loaded = mlflow_rnnmod.load_model(
            f"models:/{registered.registered_names['label 7']}@champion"
        )
        assert loaded.label == "label 7"
        assert loaded.parent.digest == parent.digest


def sent_extra(parent: Any) -> int:
    """Files that a parent has beyond a module's eight: measured where it lies."""
    with tempfile.TemporaryDirectory() as folder:
        model_directory(parent, folder)
        return sum(path.is_file() for path in Path(folder).rglob("*")) + 1 - 8
