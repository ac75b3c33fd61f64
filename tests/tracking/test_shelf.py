"""A composite as people find it: page, figures, registered model, lineage; and what cards claim."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

import mlflow_rnnmod
from mlflow_rnnmod.composition import Composite, compose, whole_parent
from mlflow_rnnmod.pages.composite import composite_page
from mlflow_rnnmod.pages.composite_report import composite_report
from mlflow_rnnmod.tracking.assessment import assess
from mlflow_rnnmod.tracking.bulk import log_decomposition
from mlflow_rnnmod.tracking.figures import figures
from mlflow_rnnmod.tracking.shelf import places_of
from tests.builders import tiny_decomposition, tiny_module, tiny_modules, tiny_parent, tiny_texts
from tests.composition.test_kinds import parent_of

TEXTS = tiny_texts(60)


def two_parents() -> Composite:
    first, second = tiny_parent("text"), tiny_parent("text", labels=("x", "y"), seed=1)
    return compose([*tiny_modules(first), *tiny_modules(second)])


def right_of(composite: Composite) -> list[str]:
    return [composite.labels[i % len(composite.labels)] for i in range(60)]


def test_figures_are_what_asking_and_counting_gives() -> None:
    composite = two_parents()
    right = right_of(composite)
    found = assess(composite, (TEXTS, right), "test rows")
    answers = composite.predict(TEXTS)
    share = sum(a == b for a, b in zip(answers, right, strict=True)) / 60
    assert found.composed == pytest.approx(share)
    assert (found.rows, found.metric, found.data) == (60, "accuracy", "test rows")
    parents = {m.parent.digest: m.parent for m in composite.modules}
    same = 0
    for one in found.parents:
        parent = parents[one.digest]
        mine = [i for i, y in enumerate(right) if y in parent.labels]
        said = whole_parent(parent).predict([TEXTS[i] for i in mine])
        assert one.rows == len(mine)
        hits = sum(a == right[i] for a, i in zip(said, mine, strict=True))
        assert one.value == pytest.approx(hits / len(mine))
        same += sum(a == answers[i] for a, i in zip(said, mine, strict=True))
    assert found.agreement == pytest.approx(same / 60)
    _, table = figures(right, answers, composite.labels)
    by_label = table.set_index("label")
    for row in found.labels:
        for name in ("precision", "recall", "f1"):
            assert row.module[name] == pytest.approx(by_label.loc[row.label, name])
        assert row.support == 12
    gaps = [row.difference for row in found.labels]
    assert gaps == sorted(gaps)
    assert found.confusion is not None
    assert int(found.confusion.sum()) == 60
    assert float(found.confusion.diagonal().sum()) / 60 == pytest.approx(share)
    assert found.reliability is not None
    assert sum(found.reliability.counts) == 60
    assert len(found.metrics()) == 4


@pytest.mark.parametrize("kind", ["multilabel", "list", "tags"])
def test_other_kinds_of_answers(kind: str) -> None:
    composite = compose(tiny_modules(parent_of(kind)))
    right = composite.predict(TEXTS[:20])
    found = assess(composite, (TEXTS[:20], right))
    assert found.composed == pytest.approx(1.0)
    assert (found.confusion is None) == (kind != "tags")
    page = composite_page(composite, places_of_nothing(), found)
    assert "100.0 %" in page
    assert "<script>" in composite_report(composite, found)


def places_of_nothing() -> Any:
    from mlflow_rnnmod.pages.composite import Places

    return Places("models:/c/1")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (5, "expected \\(inputs, what is right"),
        ((TEXTS, []), "60 inputs and 0 answers"),
        (([], []), "at least one"),
    ],
)
def test_rows_that_do_not_fit(given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        assess(two_parents(), given)


def test_a_registered_composite(tracking_uri: str) -> None:
    client = MlflowClient()
    logged = log_decomposition(
        tiny_decomposition(tiny_parent("text")), registered_model_prefix="surnames"
    )
    other = log_decomposition(
        tiny_decomposition(tiny_parent("text", labels=("x", "y"), seed=1)),
        registered_model_prefix="more",
    )
    composite = mlflow_rnnmod.compose([*logged.uris.values(), other.uris["x"]])
    right = right_of(composite)
    with mlflow.start_run() as run:
        mlflow.log_metric("accuracy", 0.123)
        info = mlflow_rnnmod.log_model(
            composite,
            name="names",
            registered_model_name="names",
            evaluate_on=(TEXTS, right),
            evaluated_on="made-up rows",
        )
        mlflow_rnnmod.log_model(composite, name="names", registered_model_name="names")
    registered = client.get_registered_model("names")
    assert registered.tags["rnnmod.kind"] == "composite"
    assert registered.tags["rnnmod.labels"] == "german, irish, zulu, x"
    assert {k: str(v) for k, v in registered.aliases.items()} == {"champion": "1"}
    assert 'load_model("models:/names@champion")' in registered.description
    line = client.get_model_version("names", "1").description
    assert line.startswith("4 modules of 2 parents; ")
    assert "accuracy on made-up rows (60 rows)" in line and line.endswith("passes of a parent")
    assert "accuracy" not in client.get_model_version("names", "2").description
    model = client.get_logged_model(info.model_id)
    card = model.tags["mlflow.note.content"]
    assert re.findall(r'"(models:/[^"]+)"', card) == [f"models:/{info.model_id}"]
    for label, uri in (*logged.uris.items(), ("x", other.uris["x"])):
        name, version = uri.removeprefix("models:/").rsplit("/", 1)
        page = f"#/models/{name}/versions/{version}?workflowType=machine_learning"
        assert f"[{label}]({page})" in card
    for parent in (logged.parent_model_id, other.parent_model_id):
        assert f"/models/{parent}?workflowType=machine_learning)" in card
    values = {metric.key: metric.value for metric in model.metrics}
    assert values["accuracy"] == assess(composite, (TEXTS, right)).composed
    assert client.get_run(run.info.run_id).data.metrics["accuracy"] == 0.123
    inputs = client.get_run(run.info.run_id).inputs.model_inputs
    expected = {*logged.model_ids.values(), other.model_ids["x"]}
    assert {given.model_id for given in inputs} == expected
    path = Path(mlflow.artifacts.download_artifacts(info.model_uri))
    assert (path / "card" / "README.md").read_text(encoding="utf-8") == card
    for name in ("report.html", "lineage.svg"):
        assert (path / "card" / name).stat().st_size > 500
    assert sum(p.is_file() for p in path.rglob("*")) <= 21  # MLflow adds one on its way down


def test_figures_are_of_composites(tracking_uri: str) -> None:
    with pytest.raises(MlflowException, match="the model is a parent; expected None"):
        mlflow_rnnmod.log_model(tiny_parent("text"), evaluate_on=(TEXTS, right_of(two_parents())))


def test_an_exported_modules_card_says_that_it_stands_alone(tmp_path: Path) -> None:
    module = tiny_module(tiny_parent("text").known_as("m-1", "https://here.example"))
    mlflow_rnnmod.export(module, tmp_path / "alone")
    card = (tmp_path / "alone" / "card" / "README.md").read_text(encoding="utf-8")
    assert "This module stands alone" in card
    assert "It is found there by itself" not in card


def test_ids_of_another_server_are_told_to_be_so(tracking_uri: str, tmp_path: Path) -> None:
    elsewhere = "https://models.example:5000"
    module = tiny_module(tiny_parent("text").known_as("m-1", elsewhere))
    mlflow_rnnmod.save_model(module, tmp_path / "m")
    card = (tmp_path / "m" / "card" / "README.md").read_text(encoding="utf-8")
    assert f"**on the server `{elsewhere}`**" in card
    moved = replace(
        module, origin={"uri": "models:/a/1", "model_id": "m-2", "tracking_uri": elsewhere}
    )
    composite = compose([moved])
    page = composite_page(composite, places_of(composite, "models:/c/1"))
    assert f"are those of the server `{elsewhere}`" in page
    assert "](#/" not in page  # its links would lead to whatever has these ids here


def test_confidence_is_a_probability_for_every_score() -> None:
    modules = two_parents().modules
    for score in ("margin", "open"):
        composite = compose(modules, score=score)
        found = assess(composite, (TEXTS, right_of(composite)))
        assert found.reliability is not None
        sure = torch.tensor([c for c in found.reliability.confidence if c == c])
        assert bool(((sure >= 0) & (sure <= 1)).all())


def test_a_composite_that_no_run_is_open_for_gets_one(
    tracking_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would have no figures, and its modules' pages would not list it."""
    client = MlflowClient()
    modules = [mlflow_rnnmod.log_model(m) for m in tiny_modules(tiny_parent("text"))]
    assert not client.search_runs(["0"])  # which is for composites alone
    composite = mlflow_rnnmod.compose([info.model_uri for info in modules])
    right = composite.predict(TEXTS)
    info = mlflow_rnnmod.log_model(composite, evaluate_on=(TEXTS, right))
    (run,) = client.search_runs(["0"])
    run = client.get_run(run.info.run_id)
    assert run.info.status == "FINISHED"
    assert {m.model_id for m in run.inputs.model_inputs} == {m.model_id for m in modules}
    assert [m.model_id for m in run.outputs.model_outputs] == [info.model_id]
    figures = {m.key: m.value for m in client.get_logged_model(info.model_id).metrics}
    assert figures["accuracy"] == 1.0

    def fails(*arguments: Any, **named: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("mlflow_rnnmod.tracking.directory.write_composite", fails)
    with pytest.raises(OSError, match="No space left"):
        mlflow_rnnmod.log_model(composite)
    assert [r.info.run_id for r in client.search_runs(["0"])] == [run.info.run_id]
    with mlflow.start_run() as mine, pytest.raises(OSError, match="No space left"):
        mlflow_rnnmod.log_model(composite)
    assert client.get_run(mine.info.run_id).info.lifecycle_stage == "active"
