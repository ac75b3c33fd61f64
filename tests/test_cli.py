"""``rnnmod`` from the command line, over a real store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from click.testing import CliRunner

import mlflow_rnnmod
from mlflow_rnnmod import cli, composition
from mlflow_rnnmod.cli import finding, tables
from mlflow_rnnmod.tracking import fetch, parents
from tests.builders import (
    LABELS,
    ODD_LABELS,
    tiny_inputs,
    tiny_module,
    tiny_modules,
    tiny_parent,
    tiny_texts,
)
from tests.composition.test_kinds import parent_of

WORDS = tiny_texts(5)


def rnnmod(*arguments: str, stdin: str | None = None, fails: bool = False) -> str:
    found = CliRunner().invoke(cli.main, list(arguments), input=stdin)
    assert (found.exit_code != 0) is fails, found.output
    if found.exception and not fails:
        raise found.exception
    return found.output


@pytest.fixture
def logged(tracking_uri):
    """Modules of a parent, registered as ``a.<label>``; URIs by label."""
    infos = [
        mlflow_rnnmod.log_model(m, registered_model_name=f"a.{m.label}")
        for m in tiny_modules(tiny_parent("text"))
    ]
    parents.forget_parents()
    return dict(zip(LABELS, (info.model_uri for info in infos), strict=True))


def test_list(logged):
    found = json.loads(rnnmod("list", "--json"))
    assert [item["kind"] for item in found].count("parent") == 1
    modules = {item["label"]: item for item in found if item["kind"] == "module"}
    assert {label: item["uri"] for label, item in modules.items()} == logged
    assert modules["irish"]["registered"] == "a.irish/1"
    assert modules["irish"]["parent"] == tiny_parent("text").digest[:12]
    (row,) = [line for line in rnnmod("list", "--label", "irish").splitlines() if "irish" in line]
    assert row.split("\t")[:4] == ["module", "irish", logged["irish"], "a.irish/1"]
    assert len(rnnmod("list", "--kind", "parent").splitlines()) == 2
    assert rnnmod("list", "--kind", "composite") == "There are none.\n"
    assert len(json.loads(rnnmod("list", "--json", "--experiment", "Default"))) == 4
    assert "'nobody' is not on this tracking server" in rnnmod(
        "list", "--experiment", "nobody", fails=True
    )


def test_list_with_odd_labels(tracking_uri):
    parent = tiny_parent("text", labels=ODD_LABELS)
    for label in ODD_LABELS[:3]:
        mlflow_rnnmod.log_model(tiny_module(parent, label))
    for label in ODD_LABELS[:3]:
        (found,) = json.loads(rnnmod("list", "--json", "--label", label))
        assert found["label"] == label


def test_show(logged):
    text = rnnmod("show", "models:/a.german/1")
    assert "# german" in text
    assert tiny_parent("text").digest[:12] in text


def test_show_prints_text_where_it_is_piped(logged):
    text = rnnmod("show", "models:/a.german/1")
    assert "&" not in text
    assert "| label | german (1 of 3) |" in text
    assert "&emsp;" in json.loads(rnnmod("show", "models:/a.german/1", "--json"))["card"]


def test_show_asks_for_the_card_alone(tracking_uri, monkeypatch):
    with mlflow.start_run() as run:
        module = tiny_module(tiny_parent("text"), "german")
        info = mlflow_rnnmod.log_model(module, name="one", registered_model_name="a.german")
    uris = ("models:/a.german/1", "models:/a.german@1st", info.model_uri)
    mlflow.MlflowClient().set_registered_model_alias("a.german", "1st", "1")
    uris += (f"runs:/{run.info.run_id}/one",)
    place = mlflow.get_logged_model(info.model_id).artifact_location
    folder = Path(place.removeprefix("file://"))
    fetched, download = [], mlflow.artifacts.download_artifacts

    def watched(artifact_uri, **options):
        fetched.append(artifact_uri)
        return download(artifact_uri, **options)

    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", watched)
    for uri in uris:
        assert "# german" in rnnmod("show", uri)
    assert all(uri.endswith("/card/README.md") for uri in fetched)
    (folder / "card" / "README.md").unlink()
    loaded, load = [], fetch.load
    monkeypatch.setattr(fetch, "load", lambda uri: loaded.append(uri) or load(uri))
    fetched.clear()
    assert "# german" in rnnmod("show", uris[0])
    assert loaded == [uris[0]]
    assert fetched == []  # not a second time; loading asks for the data alone


def test_show_needs_no_torch(logged):
    script = (
        "import sys; from mlflow_rnnmod.cli import main; "
        f"main(['show', '{logged['german']}'], standalone_mode=False); "
        "assert 'torch' not in sys.modules"
    )
    environment = {**os.environ, "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri()}
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment
    )
    assert found.returncode == 0, found.stderr
    assert "# german" in found.stdout


def test_compose_predict_replace_export(logged, tmp_path):
    uris = [f"models:/a.{label}/1" for label in LABELS]
    output = rnnmod("compose", *uris, "--register", "european", "--name", "mine")
    assert "models:/european/1" in output
    assert [line.split("\t")[0] for line in output.splitlines()[1:4]] == list(LABELS)
    composite = mlflow_rnnmod.load_model("models:/european/1")
    assert composite.labels == LABELS
    assert rnnmod("predict", "models:/european/1", *WORDS).split() == composite.predict(WORDS)
    piped = rnnmod("predict", "models:/european/1", stdin="\n".join(WORDS) + "\n")
    assert piped.split() == composite.predict(WORDS)
    lines = rnnmod("predict", "models:/european/1", "--scores", *WORDS).splitlines()
    scores = composite.scores(WORDS)
    for line, row in zip(lines, scores.tolist(), strict=True):
        assert [json.loads(line)[label] for label in LABELS] == pytest.approx(row, abs=1e-5)
    assert rnnmod("predict", "models:/european/1", "a", "--reject-below", "1e9") == (
        "none of these\n"
    )
    other = mlflow_rnnmod.log_model(tiny_module(tiny_parent("text", seed=1), "irish"))
    rnnmod("replace", "models:/european/1", "irish", other.model_uri, "--register", "european")
    assert mlflow_rnnmod.load_model("models:/european/2").sources[1]["uri"] == other.model_uri
    assert rnnmod("export", "models:/european/2", str(tmp_path / "out")) == f"{tmp_path}/out\n"
    assert mlflow_rnnmod.load_model(tmp_path / "out").labels == LABELS


def test_save_in_a_folder(logged, tmp_path):
    before = len(mlflow.search_logged_models(output_format="list"))
    output = rnnmod("compose", logged["german"], logged["zulu"], "--save", str(tmp_path / "two"))
    assert output.splitlines()[-1] == str(tmp_path / "two")
    assert mlflow_rnnmod.load_model(tmp_path / "two").labels == ("german", "zulu")
    assert len(mlflow.search_logged_models(output_format="list")) == before
    both = ["--save", str(tmp_path / "three"), "--register", "x"]
    assert "exclude each other" in rnnmod("compose", logged["german"], *both, fails=True)


def test_tokens_are_given_as_json(tmp_path):
    parent = tiny_parent("tokens")
    mlflow_rnnmod.save_model(parent, tmp_path / "m")
    inputs = tiny_inputs(parent, 4)
    found = rnnmod("predict", str(tmp_path / "m"), *(json.dumps(ids) for ids in inputs))
    all_modules = composition.compose(tiny_modules(parent, removal=0.0, repaired=False))
    assert found.split() == all_modules.predict(inputs)
    assert "Expecting value" in rnnmod("predict", str(tmp_path / "m"), "words", fails=True)


def test_what_is_not_there_is_said_plainly(tracking_uri):
    for arguments in (["show", "models:/nobody/1"], ["compose", "runs:/0"], ["export", "x", "y"]):
        output = rnnmod(*arguments, fails=True)
        assert output.startswith("Error: ")
        assert "Traceback" not in output


def test_two_modules_for_one_label(logged):
    assert "german" in rnnmod("compose", logged["german"], logged["german"], fails=True)


def test_another_server(logged, tmp_path, template_database, tracking_uri):
    (tmp_path / "other.db").write_bytes(template_database.read_bytes())
    other = f"sqlite:///{tmp_path / 'other.db'}"
    assert rnnmod("--tracking-uri", other, "list") == "There are none.\n"
    assert mlflow.get_tracking_uri() == other


def test_for_people_it_is_a_table(logged, monkeypatch):
    for module in (tables, finding):
        monkeypatch.setattr(module, "somebody_looks_on", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    output = rnnmod("list")
    assert any(
        line.split()[:3] == ["models:/a.german/1", "module", "german"]
        for line in output.splitlines()
    )
    for width in ("80", "40"):
        monkeypatch.setenv("COLUMNS", width)
        output = rnnmod("list")
        assert all(
            len(line) <= int(width) or line.startswith("models:/m-") for line in output.splitlines()
        )
        assert all(text in output for text in ("models:/a.german/1", "german", "kept"))
    assert "german" in rnnmod("show", logged["german"])


def test_help_is_quick_and_complete():
    script = (
        "import sys; from mlflow_rnnmod.cli import main; main(['--help'], standalone_mode=False); "
        "assert not {'torch', 'mlflow'} & set(sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    for command in ("list", "show", "compose", "replace", "export", "predict"):
        assert f"  {command} " in found.stdout


def test_thresholds(tmp_path):
    composite = composition.compose(tiny_modules(parent_of("multilabel")))
    source, target = str(tmp_path / "m"), str(tmp_path / "t")
    mlflow_rnnmod.save_model(composite, source)
    given = ["--threshold", "b=0.5", "--threshold", "c=-1e9"]
    rnnmod("compose", source, *given, "--save", target)
    found = mlflow_rnnmod.load_model(target)
    assert found.parameters == {"thresholds": {"b": 0.5, "c": -1e9}}
    assert all("c" in answer for answer in found.predict(WORDS))
    for wrong, said in (("b", "expected LABEL=NUMBER"), ("x=1", "'x' is none of the labels")):
        assert said in rnnmod("compose", source, "--threshold", wrong, fails=True)


@pytest.mark.parametrize("kind", ["tags", "list", "multilabel"])
def test_answers_that_are_lists(kind, tmp_path):
    composite = composition.compose(tiny_modules(parent_of(kind)))
    mlflow_rnnmod.save_model(composite, tmp_path / "m")
    found = rnnmod("predict", str(tmp_path / "m"), *WORDS).splitlines()
    assert [json.loads(line) for line in found] == composite.predict(WORDS)
    lines = rnnmod("predict", str(tmp_path / "m"), "--scores", *WORDS).splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["prediction"] for row in rows] == composite.predict(WORDS)
    assert all(isinstance(row["a"], float if kind == "multilabel" else list) for row in rows)
    if kind == "tags":
        rejected = rnnmod("predict", str(tmp_path / "m"), "abc", "--reject-below", "1e9")
        assert json.loads(rejected) == ["none of these"] * 3
    else:
        said = rnnmod("predict", str(tmp_path / "m"), "abc", "--reject-below", "0", fails=True)
        assert "expected None" in said
