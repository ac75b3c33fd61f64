"""Commands that change what is served, and what they say of what is wrong; over a real store."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from mlflow import MlflowClient

import mlflow_rnnmod
from mlflow_rnnmod import cli, composition
from mlflow_rnnmod.operating import promotion
from mlflow_rnnmod.tracking import all_or_nothing, servers
from tests.builders import LABELS, tiny_module, tiny_modules, tiny_parent, tiny_texts
from tests.composition.test_kinds import parent_of
from tests.operating.test_promotion import in_this_process, state

WORDS = tiny_texts(60)
ROOT = Path(mlflow_rnnmod.__file__).parent.parent


def run(*arguments: str, code: int = 0) -> Result:
    found = CliRunner().invoke(cli.main, list(arguments))
    assert found.exit_code == code, (found.output, found.exception)
    return found


def rows(path: Path, composite: composition.Composite) -> str:
    answers = zip(WORDS, composite.predict(WORDS), strict=True)
    path.write_text("".join(json.dumps({"text": x, "label": y}) + "\n" for x, y in answers))
    return str(path)


@pytest.fixture
def registry(tracking_uri, monkeypatch, tmp_path) -> dict[str, str]:
    """``names@champion`` of three modules, and ``more.irish/1``; files of rows."""
    monkeypatch.setattr(promotion, "probe", in_this_process)
    for module in tiny_modules(tiny_parent("text")):
        mlflow_rnnmod.log_model(module, registered_model_name=f"a.{module.label}")
    old = mlflow_rnnmod.compose([f"models:/a.{label}/1" for label in LABELS])
    mlflow_rnnmod.log_model(old, registered_model_name="names")
    MlflowClient().set_registered_model_alias("names", "champion", "1")
    other = tiny_module(tiny_parent("text", seed=1), "irish")
    mlflow_rnnmod.log_model(other, registered_model_name="more.irish")
    new = mlflow_rnnmod.replace(old, "irish", other)
    return {"old": rows(tmp_path / "old.jsonl", old), "new": rows(tmp_path / "new.jsonl", new)}


REPLACE = [
    "replace",
    "models:/names@champion",
    "--label",
    "irish",
    "--with",
    "models:/more.irish/1",
]


def test_replace_behind_the_gate_and_back(registry):
    promote = ["--max-drop", "0.5", "--min-rows", "0", "--promote", "champion"]
    output = run(*REPLACE, "--data", registry["new"], *promote).output
    assert "McNemar p" in output
    assert "models:/names@champion: version 1 -> 2" in output
    assert run("where-used", "models:/more.irish/1").output.splitlines()[1].split("\t") == [
        "models:/names/2",
        "champion",
        "irish",
        "more.irish/1",
    ]
    tried = run("rollback", "models:/names@champion", "--dry-run").output
    assert "version 2 -> 1 (only tried)" in tried
    assert "version 2 -> 1" in run("rollback", "models:/names@champion").output
    found = json.loads(run("diff", "models:/names/1", "models:/names/2", "--json").output)
    assert found["differences"] == [
        {"what": "module of irish", "old": "a.irish/1", "new": "more.irish/1"}
    ]
    assert "same modules" in run("diff", "models:/names/1", "models:/names/1").output
    data = ["--data", registry["new"]]
    found = json.loads(run("diff", "models:/names/1", "models:/names/2", "--json", *data).output)
    assert found["comparison"]["overall"]["new"] == 1.0
    forward = ["promote", "models:/names/2", "--to", "champion", "--min-rows", "0", *data]
    assert "version 1 -> 2" in run(*forward).output


def test_refusals_have_a_code_of_their_own_and_change_nothing(registry):
    before = state()
    promote = ["--min-rows", "0", "--promote", "champion"]
    found = run(*REPLACE, "--data", registry["old"], *promote, code=3)
    assert "points were lost by" in found.output
    found = run(*REPLACE, "--data", registry["old"], *promote, "--json", code=3)
    assert json.loads(found.stdout)["comparison"]["rows"] == len(WORDS)
    few = ["--min-rows", "1000", "--promote", "champion"]
    assert "too few rows" in run(*REPLACE, "--data", registry["new"], *few, code=3).output
    limited = ["--data", registry["old"], "--max-drop", "0", "--min-rows", "0"]
    assert "Nothing was logged" in run(*REPLACE, *limited, code=3).output
    assert state() == before


def test_nothing_is_done_by_dry_runs(registry, tmp_path):
    before = state()
    data = ["--data", registry["new"], "--min-rows", "0", "--dry-run"]
    assert "only tried" in run(*REPLACE, *data, "--promote", "champion").output
    assert "Nothing was logged" in run(*REPLACE, "--dry-run").output
    assert "Nothing was logged" in run("compose", "models:/names/1", "--dry-run").output
    for verb, labels in (("remove", ["zulu"]), ("select", ["zulu", "irish"])):
        assert "Nothing was logged" in run(verb, "models:/names/1", *labels, "--dry-run").output
    evaluate = ["evaluate", "models:/names/1", "--data", registry["old"], "--dry-run"]
    assert "accuracy: 1.000" in run(*evaluate).output
    run("export", "models:/names/1", str(tmp_path / "x"), "--dry-run")
    assert not (tmp_path / "x").exists()
    assert state() == before


def test_recipes(registry, tmp_path):
    (tmp_path / "r.yml").write_text("name: mine\nregister: mine\nmodules: [models:/names/1]\n")
    assert "modules\t3" in run("plan", str(tmp_path / "r.yml")).output
    assert "models:/mine/1" in run("compose", str(tmp_path / "r.yml")).output
    one = "modules: [models:/a.german/1, {uri: models:/names/1, label: %s}]\n"
    (tmp_path / "one.yml").write_text(one % "irish")
    planned = json.loads(run("plan", str(tmp_path / "one.yml"), "--json").output)
    assert planned["labels"] == ["german", "irish"] and not planned["problems"]
    (tmp_path / "one.yml").write_text(one % "irsh")
    for command in ("plan", "compose"):
        output = run(command, str(tmp_path / "one.yml"), code=1).output
        assert "Did you mean 'irish'?" in " ".join(output.split())
    found = json.loads(run("plan", "models:/a.irish/1", "--json").output)
    assert found["labels"] == ["irish"]
    assert "2 modules answer" in run("plan", *["models:/a.irish/1"] * 2, code=1).output


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["lst"], 2, "list"),
        (["show", "models:/nobody/1"], 1, "nobody"),
        (["show", "models:/names/9"], 1, "9"),
        (["show", "models:/nams/1"], 1, "Did you mean 'names'?"),
        (["show", "models:/nams@champion"], 1, "Did you mean 'names'?"),
        (["show", "models:/names@best"], 1, "best"),
        (["compose", "models:/names/1", "--register", "a/b"], 1, "--register='a/b' can't be"),
        (["compose", "models:/names/1", "--name", "a.b"], 1, "--name='a.b' can't be"),
        (["compose", "x.yml"], 1, "can't be read"),
        (["compose", "x.yml", "y"], 2, "is a recipe"),
        (["remove", "models:/names/1", "irsh"], 1, "Did you mean 'irish'?"),
        (["replace", "models:/names/1"], 2, "at least one"),
        (["replace", "models:/names/1", "irish"], 2, "LABEL and MODULE"),
        ([*REPLACE, "--promote", "champion"], 2, "needs --data"),
        ([*REPLACE, "--promote", "champion", "--data", "no.jsonl"], 1, "can't be read"),
        ([*REPLACE, "--max-drop", "200"], 2, "200"),
        (["promote", "models:/names/1", "--to", "champion"], 2, "--data, or --unmeasured"),
        (["rollback", "models:/nams@champion"], 1, "no such alias"),
        (["where-used", "models:/names/1"], 1, "expected a module"),
        (["evaluate", "models:/names/1", "--data", "rows.doc"], 1, "expected one of .jsonl"),
        (["list", "--experiment", "Defalt"], 1, "Did you mean 'Default'?"),
        (["search", "--figure", "f1"], 2, "expected NAME>NUMBER"),
        (["open", "models:/nobody"], 1, "nobody"),
        (["show", "models:/names@chmpion"], 1, "models:/names@chmpion is not there"),
        (["compose", "models:/names@chmpion"], 1, "It has 1, @champion is 1."),
        (["predict", "models:/names/9", "x"], 1, "It has 1, @champion is 1."),
        (["open", "here"], 1, "has no page"),
    ],
)
def test_what_is_wrong_is_one_clear_message(registry, arguments, code, said):
    before = state()
    output = run(*arguments, code=code).output
    assert said in output
    assert "Traceback" not in output
    assert state() == before


def test_rows_of_labels_that_neither_model_has(registry, tmp_path):
    (tmp_path / "x.jsonl").write_text('{"text": "a", "label": "Irish"}\n')
    given = ["--data", str(tmp_path / "x.jsonl"), "--promote", "champion"]
    output = run(*REPLACE, *given, code=3).output
    assert "rows are labelled 'Irish', which is no label of either model" in output


def test_data_without_what_is_right(registry, tmp_path):
    (tmp_path / "x.jsonl").write_text('{"text": "a", "lable": "b", "more": 1}\n')
    output = run("evaluate", "models:/names/1", "--data", str(tmp_path / "x.jsonl"), code=1).output
    assert "Did you mean 'lable'?" in output
    (tmp_path / "y.csv").write_text("text,language\na,german\nb,irish\n")
    run("evaluate", "models:/names/1", "--data", str(tmp_path / "y.csv"), "--dry-run")


def test_composites_with_rows_have_figures_and_remember(registry):
    data = ["--data", registry["old"], "--register", "good"]
    run("compose", *(f"models:/a.{label}/1" for label in LABELS), *data)
    made = mlflow_rnnmod.load_model("models:/good/1")
    assert made.parameters["expected"]["rows"] == len(WORDS)
    assert "same" in run("drift", "models:/good/1", "--data", registry["old"]).output
    assert "rows" in run("drift", "models:/names/1", "--data", registry["old"], code=1).output
    limited = ["compose", "models:/names/1", "--reject-at", "0.2", *data]
    run(*limited)
    assert "reject_below" in mlflow_rnnmod.load_model("models:/good/2").parameters
    assert (
        "--reject-at needs" in run("compose", "models:/names/1", "--reject-at", "1", code=2).output
    )


def test_evaluate_logs_to_the_model(registry, tmp_path):
    run("evaluate", "models:/names@champion", "--data", registry["old"], "--experiment", "figures")
    (model,) = json.loads(run("list", "--kind", "composite", "--json").output)
    assert model["figures"]["accuracy"] == 1.0
    several = composition.compose(tiny_modules(parent_of("multilabel")))
    info = mlflow_rnnmod.log_model(several)
    lines = zip(WORDS, several.predict(WORDS), strict=True)
    path = tmp_path / "several.jsonl"
    path.write_text("".join(json.dumps({"text": x, "labels": y}) + "\n" for x, y in lines))
    output = run("evaluate", info.model_uri, "--data", str(path)).output
    assert "exact: 1.000" in output
    found = json.loads(run("search", "--figure", "exact=1", "--json").output)
    assert [item["uri"] for item in found] == [info.model_uri]


def test_search_and_open(registry):
    found = json.loads(run("search", "IRISH", "--json").output)
    assert {item["registered"] for item in found} == {"a.irish/1", "more.irish/1"}
    digest = tiny_parent("text").digest[:12]
    found = json.loads(run("search", "irish", "--parent", digest, "--json").output)
    assert [item["registered"] for item in found] == ["a.irish/1"]
    for none in ("f1>2", "nothing!=1"):
        assert run("search", "--figure", none).output == "There are none.\n"
    link = run("open", "models:/names@champion").stdout.strip()
    assert link.endswith("/#/models/names/versions/1?workflowType=machine_learning")
    (model,) = json.loads(run("list", "--kind", "composite", "--json").output)
    assert model["uri"].removeprefix("models:/") in run("open", model["uri"]).stdout


@pytest.mark.parametrize("error", [KeyboardInterrupt, ConnectionError("the network is gone")])
@pytest.mark.parametrize("step", ["finalize_logged_model", "create_model_version"])
def test_what_is_interrupted_leaves_nothing(registry, monkeypatch, error, step):
    """Ctrl-C, or a server that goes, in the middle of logging or registering."""
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as Registry
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as Tracking

    before = state()

    def stopped(*arguments, **named):
        raise error

    with monkeypatch.context() as patch:
        store = Registry if hasattr(Registry, step) else Tracking
        patch.setattr(store, step, stopped)
        code = 130 if error is KeyboardInterrupt else 1
        output = run("compose", "models:/names/1", "--register", "fresh", code=code).output
    assert "Traceback" not in output
    assert state() == before


def test_an_attempt_is_taken_back_as_a_whole(registry, monkeypatch):
    before = state()
    attempt = all_or_nothing.Attempt(MlflowClient())
    attempt.log(mlflow_rnnmod.load_model("models:/names/1"), "x", "fresh")
    assert state() != before
    attempt.undo()
    assert state() == before


def environment(**more: str) -> dict[str, str]:
    found = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_HTTP")}
    return {**found, "PYTHONPATH": str(ROOT), **more}


def process(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mlflow_rnnmod.cli", *arguments],
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_servers_error_comes_without_its_code():
    """As a database's does."""
    from mlflow.exceptions import RestException

    from mlflow_rnnmod.cli.base import _told

    error = RestException({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "No such thing"})
    assert str(error).startswith("RESOURCE_DOES_NOT_EXIST")
    assert _told(error).message == "No such thing"


@pytest.mark.slow
def test_a_dead_server_is_named():
    """One that refuses connections, and one that takes them and says nothing."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            unused = free.getsockname()[1]
        for at in (unused, port):
            uri = f"http://me:secret@127.0.0.1:{at}"
            # MLflow itself would try for minutes; benchmarks.commands prints how soon it is said.
            found = process("list", MLFLOW_TRACKING_URI=uri)
            assert found.returncode == 4, found.stderr
            assert f"http://127.0.0.1:{at} does not answer" in found.stderr
            assert "secret" not in found.stderr
            assert len(found.stderr.splitlines()) == 1
        assert f"within {servers.BRIEF:g} seconds; it may be busy: with {servers.TIMEOUT}=60" in (
            found.stderr
        )


class Closed(BaseHTTPRequestHandler):
    """A server that is there, and lets nobody in."""

    code = 403

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health" else self.code)
        self.end_headers()

    do_POST = do_GET

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.mark.slow
@pytest.mark.parametrize("code", [401, 403])
def test_no_permission_is_said(code, monkeypatch):
    monkeypatch.setattr(Closed, "code", code)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Closed)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        found = process("list", MLFLOW_TRACKING_URI=f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        server.server_close()
    assert found.returncode == 1
    assert f"No permission ({code})" in found.stderr
    assert "Traceback" not in found.stderr


def test_no_database_is_made_by_looking(tmp_path):
    found = process("list", MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path}/none.db")
    assert found.returncode == 1
    assert "There is no database" in found.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_closed_pipes_and_torch(registry, tracking_uri):
    script = (
        "import sys; from mlflow_rnnmod.cli import main; main(['list'], standalone_mode=False); "
        "assert not {'mlflow', 'torch', 'rich'} & set(sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(MLFLOW_TRACKING_URI=tracking_uri),
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    reading, writing = os.pipe()
    os.close(reading)
    found = subprocess.run(
        [sys.executable, "-m", "mlflow_rnnmod.cli", "list"],
        env=environment(MLFLOW_TRACKING_URI=tracking_uri),
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert (found.returncode, found.stderr) == (141, "")


@pytest.mark.slow
def test_predict_streams_and_ctrl_c_is_quiet(registry, tracking_uri):
    asked = subprocess.Popen(
        [sys.executable, "-m", "mlflow_rnnmod.cli", "predict", "models:/names/1"],
        env=environment(MLFLOW_TRACKING_URI=tracking_uri),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    expected = mlflow_rnnmod.load_model("models:/names/1").predict(WORDS[:3])
    for word, answer in zip(WORDS[:3], expected, strict=True):
        asked.stdin.write(word + "\n")
        asked.stdin.flush()
        assert asked.stdout.readline() == answer + "\n"  # before the next line is there
    asked.send_signal(signal.SIGINT)
    _, said = asked.communicate(timeout=60)
    assert (asked.returncode, said) == (130, "")
