"""Models in other processes: MLflow's command line, a server, and one without this package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from mlflow import MlflowClient

import mlflow_rnnmod
from benchmarks import serving
from mlflow_rnnmod import composition
from mlflow_rnnmod.tracking import flavor
from tests.builders import tiny_module, tiny_modules, tiny_parent, tiny_texts

pytestmark = pytest.mark.slow

WORDS = tiny_texts(6)
REPOSITORY = Path(mlflow_rnnmod.__file__).parent.parent


def environment(tracking_uri: str | None = None) -> dict[str, str]:
    """Of a process that can neither unpickle nor see this working copy's PYTHONPATH."""
    found = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    found["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{found['PATH']}"
    found["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    if tracking_uri is not None:
        found["MLFLOW_TRACKING_URI"] = tracking_uri
    return found


def with_package(found: dict[str, str]) -> dict[str, str]:
    return {**found, "PYTHONPATH": str(REPOSITORY)}


def test_mlflow_models_predict_with_a_module_by_reference(tracking_uri, tmp_path):
    """In a process of its own it has to find the parent, too."""
    module = tiny_module(tiny_parent("text"))
    info = mlflow_rnnmod.log_model(module)
    (tmp_path / "in.json").write_text(json.dumps({"inputs": {"text": WORDS}}))
    command = ["-m", "mlflow", "models", "predict", "--env-manager", "local"]
    files = ["-i", str(tmp_path / "in.json"), "-o", str(tmp_path / "out.json")]
    done = subprocess.run(
        [sys.executable, *command, "-m", info.model_uri, *files],
        env=with_package({**environment(tracking_uri), "RNNMOD_CACHE": str(tmp_path / "empty")}),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out.json").read_text())["predictions"]
    assert found == composition.compose([module]).predict(WORDS)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A served composite: its address, and the composite itself."""
    parents = tiny_parent("text"), tiny_parent("text", labels=("c", "d"), seed=1)
    modules = [module for parent in parents for module in tiny_modules(parent)]
    composite = composition.compose(modules)
    folder = tmp_path_factory.mktemp("served")
    mlflow_rnnmod.save_model(composite, folder / "model")
    with serving.served(folder / "model", folder / "log", with_package(environment())) as address:
        yield address, composite


def ask(address: str, body: dict) -> tuple[int, dict]:
    request = urllib.request.Request(
        address, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_a_served_model_answers_every_form(served):
    address, composite = served
    expected = composite.predict(WORDS)
    split = {"columns": ["text"], "data": [[word] for word in WORDS]}
    for body in (
        {"dataframe_split": split},
        {"dataframe_records": [{"text": word} for word in WORDS]},
        {"inputs": {"text": WORDS}},
        {"inputs": WORDS},
        {"instances": WORDS},
    ):
        assert ask(address, body) == (200, {"predictions": expected})
    assert len(set(expected)) > 1


def test_a_served_model_gives_scores_and_rejects(served):
    address, composite = served
    body = {"inputs": {"text": WORDS}, "params": {"scores": True}}
    status, found = ask(address, body)
    assert status == 200
    scores = composite.scores(WORDS)
    for row, values in zip(found["predictions"], scores.tolist(), strict=True):
        assert list(row) == ["prediction", *composite.labels]
        assert [row[label] for label in composite.labels] == pytest.approx(values, abs=1e-5)
    body = {"inputs": {"text": WORDS}, "params": {"reject_below": 1e9, "reject_label": "?"}}
    assert ask(address, body) == (200, {"predictions": ["?"] * len(WORDS)})


def test_a_served_model_refuses_and_goes_on(served):
    address, _ = served
    for body in ({"inputs": {"words": WORDS}}, {"nothing": 1}):
        status, found = ask(address, body)
        assert status == 400
        assert found["message"]
    assert ask(address, {"inputs": {"text": [""]}})[0] == 200


def test_what_holds_nothing_gets_no_label_and_other_types_a_sentence(served):
    address, composite = served
    (word,) = composite.predict(WORDS[:1])
    nothing = "none of these"
    for cells in ([WORDS[0], None, "", " \t"], [None, WORDS[0]], [None, None]):
        expected = [word if cell == WORDS[0] else nothing for cell in cells]
        split = {"columns": ["text"], "data": [[cell] for cell in cells]}
        records = [{"text": cell} for cell in cells]
        for body in ({"dataframe_split": split}, {"dataframe_records": records}):
            assert ask(address, body) == (200, {"predictions": expected}), cells
    # Of these MLflow makes texts before it asks a model (docs/mlflow.md): blank ones are seen.
    assert ask(address, {"inputs": {"text": ["", " "]}}) == (200, {"predictions": [nothing] * 2})
    for cells in ([5], [1.5], [True], [WORDS[0], 5], [{"a": 1}]):
        split = {"columns": ["text"], "data": [[cell] for cell in cells]}
        status, found = ask(address, {"dataframe_split": split})
        assert status == 400, (cells, found)
        assert "text" in found["message"], (cells, found)


WITHOUT = """
import json, sys

# Neither the editable installation nor the working copy can be imported from here on.
sys.meta_path = [f for f in sys.meta_path if "editable" not in repr(f).lower()]
sys.path = [p for p in sys.path if p not in ("", {repository!r})]
try:
    import mlflow_rnnmod
    raise SystemExit(f"still there: {{mlflow_rnnmod.__file__}}")
except ModuleNotFoundError:
    pass
import warnings
warnings.simplefilter("ignore")
import mlflow
import pandas as pd
found = {{}}
for path in {paths!r}:
    model = mlflow.pyfunc.load_model(path)
    answers = model.predict(pd.DataFrame({{"text": {words!r}}})).tolist()
    found[path] = answers, sys.modules["mlflow_rnnmod"].__file__
    # Each brings its own code.
    for name in [name for name in sys.modules if name.startswith("mlflow_rnnmod")]:
        del sys.modules[name]
print("found", json.dumps(found))
"""


def test_a_process_without_this_package(tmp_path):
    parent = tiny_parent("text")
    composite = composition.compose(tiny_modules(parent))
    alone = composition.compose(composite.modules[:1])
    things = {
        "parent": (parent, flavor.RnnmodModel(parent).predict(WORDS).tolist()),
        "module": (composite.modules[0], alone.predict(WORDS)),
        "composite": (composite, composite.predict(WORDS)),
    }
    paths = [str(mlflow_rnnmod.export(thing, tmp_path / n)) for n, (thing, _) in things.items()]
    script = WITHOUT.format(repository=str(REPOSITORY), paths=paths, words=WORDS)
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**environment(), "RNNMOD_CACHE": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("found ")]
    found = json.loads(line.removeprefix("found "))
    for path, (_, expected) in zip(paths, things.values(), strict=True):
        answers, file = found[path]
        assert answers == expected
        assert Path(file).is_relative_to(Path(path) / "code" / "mlflow_rnnmod.zip")


def test_a_module_by_reference_in_a_process_without_this_package(tracking_uri, tmp_path):
    """It finds the package in its parent's model, if that is what it was."""
    module = tiny_module(tiny_parent("text"))
    info = mlflow_rnnmod.log_model(module)
    script = WITHOUT.format(repository=str(REPOSITORY), paths=[info.model_uri], words=WORDS)
    run = {
        "args": [sys.executable, "-c", script],
        "env": {**environment(tracking_uri), "RNNMOD_CACHE": ""},
        "cwd": tmp_path,
        "capture_output": True,
        "text": True,
        "timeout": 120,
    }
    done = subprocess.run(**run)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("found ")]
    answers, file = json.loads(line.removeprefix("found "))[info.model_uri]
    assert answers == composition.compose([module]).predict(WORDS)
    assert "rnnmod-code-" in file
    parent = MlflowClient().search_logged_models(["0"], "model_type = 'rnnmod-parent'")[0]
    archive = Path(parent.artifact_location) / "code" / "mlflow_rnnmod.zip"
    archive.write_bytes(archive.read_bytes() + b" ")
    done = subprocess.run(**run)
    assert done.returncode != 0
    assert "ModuleNotFoundError: This model needs the package mlflow_rnnmod" in done.stderr
    assert "has SHA-256" in done.stderr


def test_beside_a_module_the_installed_package_wins(tracking_uri, tmp_path):
    module = tiny_module(tiny_parent("text"))
    info = mlflow_rnnmod.log_model(module)
    script = f"""
import mlflow, sys
model = mlflow.pyfunc.load_model({info.model_uri!r})
print("found", sys.modules["mlflow_rnnmod"].__file__)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**with_package(environment(tracking_uri)), "RNNMOD_CACHE": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert f"found {mlflow_rnnmod.__file__}" in done.stdout


def test_import_mlflow_with_the_package_installed():
    """Entry points are loaded while MLflow is still being imported: no warning, no torch."""
    script = "import mlflow, sys; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", script],
        env=with_package(environment()),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "False"), done.stderr
    assert "rnnmod" not in done.stderr
