"""Drift, staleness, models that are pushed, and whether all load."""

from __future__ import annotations

import json
import shutil
import socket
import threading
import urllib.request
from typing import Any

import mlflow
import pytest
import torch
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from PIL import Image

import mlflow_rnnmod
from mlflow_rnnmod import composition
from mlflow_rnnmod.operating import promotion
from mlflow_rnnmod.operating.push import push
from mlflow_rnnmod.operating.watch import STALE, is_signed, stale, watch
from mlflow_rnnmod.tracking import searching
from mlflow_rnnmod.tracking.drift import drift, stability, with_expected
from mlflow_rnnmod.tracking.parents import forget_parents
from mlflow_rnnmod.tracking.recipes import composite_digest
from tests.builders import LABELS, tiny_module, tiny_modules, tiny_parent, tiny_texts
from tests.composition.test_kinds import parent_of
from tests.operating.test_promotion import in_this_process
from tests.test_cli_gate import run

WORDS = tiny_texts(400)
OTHER = ["z" * (1 + number % 9) for number in range(400)]


def composite() -> composition.Composite:
    return composition.compose(tiny_modules(tiny_parent("text")))


def served(words: list[str]) -> list[dict[str, str]]:
    return [{"text": word} for word in words]


def test_drift_is_seen_and_chance_is_not():
    remembering = with_expected(composite(), WORDS)
    same = drift(remembering, served(tiny_texts(400, seed=7)))
    assert {found.verdict for found in same.modules} == {"same"}
    moved = drift(remembering, served(OTHER))
    assert moved.drifted
    assert moved.modules[0].psi == max(found.psi for found in moved.modules)
    assert {found.verdict for found in drift(remembering, served(WORDS[:20])).modules} == {
        "unknown"
    }


def test_what_is_remembered_is_carried_and_changes_nothing(tmp_path):
    plain = composite()
    remembering = with_expected(plain, WORDS)
    assert composite_digest(remembering) == composite_digest(plain)
    assert remembering.predict(WORDS) == plain.predict(WORDS)
    mlflow_rnnmod.save_model(remembering, tmp_path / "m")
    loaded = mlflow_rnnmod.load_model(tmp_path / "m")
    assert drift(loaded, served(OTHER)).to_dict() == drift(remembering, served(OTHER)).to_dict()
    other = tiny_module(tiny_parent("text", seed=1), "irish")
    replaced = mlflow_rnnmod.replace(loaded, "irish", other)
    known = {found.label: found.verdict for found in drift(replaced, served(WORDS)).modules}
    assert known["irish"] == "unknown"


@pytest.mark.parametrize("kind", ["tags", "list", "multilabel"])
def test_drift_of_other_answers(kind):
    other = composition.compose(tiny_modules(parent_of(kind)))
    found = drift(with_expected(other, WORDS), served(WORDS))
    assert {module.verdict for module in found.modules} == {"same"}
    assert all(module.psi == 0 for module in found.modules)
    assert all(module.expected.share == module.served.share for module in found.modules)


def test_nothing_is_remembered():
    with pytest.raises(
        MlflowException, match="--reference FILE of rnnmod drift, reference= in Python"
    ):
        drift(composite(), served(WORDS))
    found = drift(composite(), served(OTHER), reference=served(WORDS))
    assert found.drifted
    with pytest.raises(MlflowException, match="at least 50"):
        drift(composite(), served(OTHER), reference=served(WORDS[:9]))


def test_chance_is_rarely_called_drift():
    """Counts of one world: the p of a chi-squared test is spread evenly."""
    from scipy.stats import chi2_contingency

    draw = torch.Generator().manual_seed(0)
    few = 0
    for _ in range(500):
        a, b = (
            torch.bincount(torch.randint(10, (n,), generator=draw), minlength=10).tolist()
            for n in (300, 120)
        )
        _, p = stability(a, b)
        assert p == pytest.approx(chi2_contingency([a, b], correction=False).pvalue)
        few += p < 0.05
    assert 10 < few < 45


@pytest.fixture
def registry(tracking_uri, monkeypatch):
    """``names@champion`` of three registered modules."""
    monkeypatch.setattr(promotion, "probe", in_this_process)
    client = MlflowClient()
    for module in tiny_modules(tiny_parent("text")):
        mlflow_rnnmod.log_model(module, registered_model_name=f"a.{module.label}")
        client.set_registered_model_alias(f"a.{module.label}", "champion", "1")
    old = mlflow_rnnmod.compose([f"models:/a.{label}@champion" for label in LABELS])
    mlflow_rnnmod.log_model(old, registered_model_name="names")
    client.set_registered_model_alias("names", "champion", "1")
    return client


def newer(client: MlflowClient) -> None:
    """A second version of ``a.irish``, which is the champion from now on."""
    other = tiny_module(tiny_parent("text", seed=1), "irish")
    mlflow_rnnmod.log_model(other, registered_model_name="a.irish")
    client.set_registered_model_alias("a.irish", "champion", "2")


def test_composites_are_flagged_while_a_modules_alias_is_elsewhere(registry):
    assert stale() == []
    newer(registry)
    assert STALE not in registry.get_model_version("names", "1").tags
    (found,) = stale(flag=False)
    assert STALE not in registry.get_model_version("names", "1").tags
    assert (found.alias.uri, found.version) == ("models:/names@champion", "1")
    assert found.modules == {"a.irish": ("1", "2")}
    assert stale() == [found]
    assert registry.get_model_version("names", "1").tags[STALE] == "a.irish: 1 -> 2"
    registry.set_registered_model_alias("a.irish", "champion", "1")
    assert stale(["models:/names@champion"]) == []
    assert STALE not in registry.get_model_version("names", "1").tags
    with pytest.raises(MlflowException, match="models:/nobody@champion: no such alias"):
        stale(["models:/nobody@champion"])


def test_watch_runs_the_gate(registry, tmp_path):
    assert "Nothing is stale" in run("watch", "--once").output
    newer(registry)
    assert "a.irish: 1 -> 2" in run("watch", "--once", code=5).output
    new = mlflow_rnnmod.replace("models:/names/1", "irish", "models:/a.irish/2")
    rows = [{"text": x, "label": y} for x, y in zip(WORDS, new.predict(WORDS), strict=True)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    gate = ["--data", str(tmp_path / "rows.jsonl"), "--max-drop", "0.5", "--min-rows", "0"]
    assert "version 1 -> 2" in run("watch", "--once", *gate, code=5).output
    assert "Nothing is stale" in run("watch", "--once").output
    assert "expected --data and --max-drop" in run("watch", "--max-drop", "1", code=2).output


def test_a_signed_message_wakes_the_watch(registry, monkeypatch):
    """The server's, that is; the registry is asked then, whatever the message says."""
    import base64
    import hashlib
    import hmac
    import time

    made: dict[str, Any] = {}

    class Webhook:
        webhook_id = "w"

    def create(self, name, url, events, secret, **_):
        made.update(url=url, secret=secret, events=events)
        return Webhook()

    monkeypatch.setattr(MlflowClient, "create_webhook", create)
    monkeypatch.setattr(MlflowClient, "delete_webhook", lambda self, i: made.update(deleted=i))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/"
    looked, stop = threading.Semaphore(0), threading.Event()
    watching = threading.Thread(target=watch, args=(looked.release, 3600.0, url, None, stop))
    watching.start()
    assert looked.acquire(timeout=30)
    while not made:
        time.sleep(0.01)

    def post(secret: str) -> int:
        headers = {"X-MLflow-Delivery-Id": "d", "X-MLflow-Timestamp": "t"}
        text = b"d.t.{}"
        digest = hmac.new(secret.encode(), text, hashlib.sha256).digest()
        headers["X-MLflow-Signature"] = f"v1,{base64.b64encode(digest).decode()}"
        assert is_signed(made["secret"], headers, b"{}") is (secret == made["secret"])
        request = urllib.request.Request(url, b"{}", headers)
        try:
            return urllib.request.urlopen(request, timeout=10).status
        except urllib.error.HTTPError as error:
            return error.code

    assert post("somebody else's") == 403
    assert post(made["secret"]) == 200
    assert looked.acquire(timeout=30)
    stop.set()
    assert post(made["secret"]) == 200
    watching.join(30)
    assert not watching.is_alive()
    assert made["deleted"] == "w"


def test_push(registry, tmp_path, template_database):
    """Modules, their parent, and the composite: each once, with where it came from there."""
    shutil.copy(template_database, tmp_path / "other.db")
    other = f"sqlite:///{tmp_path}/other.db"
    before = mlflow.get_tracking_uri()
    assert [one.uri for one in push("models:/names/1", other, dry_run=True)] == [None] * 4
    found = push("models:/names@champion", other)
    assert [(one.kind, one.uri, one.new) for one in found] == [
        *(("module", f"models:/a.{label}/1", True) for label in LABELS),
        ("composite", "models:/names/1", True),
    ]
    assert mlflow.get_tracking_uri() == before
    right = mlflow_rnnmod.load_model("models:/names/1").predict(WORDS)
    assert [one.new for one in push("models:/names@champion", other)] == [False] * 4
    mlflow.set_tracking_uri(other)
    forget_parents()
    try:
        client = MlflowClient()
        there = mlflow_rnnmod.load_model("models:/names/1")
        assert there.predict(WORDS) == right
        assert [s["version"] for s in there.sources] == ["1"] * 3
        assert len(list(searching.logged_models(client, kinds=["parent"]))) == 1
        (use,) = mlflow_rnnmod.where_used("models:/a.irish/1")
        assert use.uri == "models:/names/1"
    finally:
        mlflow.set_tracking_uri(before)
    with pytest.raises(MlflowException, match="expected another one"):
        push("models:/names/1", before)


def test_figures_and_tags_are_pushed(registry, tmp_path, template_database):
    shutil.copy(template_database, tmp_path / "other.db")
    other = f"sqlite:///{tmp_path}/other.db"
    info = mlflow_rnnmod.log_model(tiny_module(tiny_parent("text"), "zulu"), tags={"team": "x"})
    with mlflow.start_run():
        mlflow.log_metric("f1", 0.5, model_id=info.model_id)
    found = push(info.model_uri, other)[-1]
    there = MlflowClient(other).get_logged_model(found.uri.removeprefix("models:/"))
    assert {metric.key: metric.value for metric in there.metrics}["f1"] == 0.5
    assert there.tags["team"] == "x"


def test_check_drift_and_push_on_the_command_line(registry, tmp_path, template_database):
    assert "loads and answers" in run("check", "models:/names/1").output
    found = json.loads(run("check", "--kind", "module", "--json").stdout)
    assert [item["problem"] for item in found] == [None] * 3
    (parent,) = searching.logged_models(registry, kinds=["parent"])
    registry.delete_logged_model(parent.model_id)
    forget_parents()
    assert "parent" in run("check", "--kind", "module", code=5).output
    remembering = with_expected(mlflow_rnnmod.load_model("models:/names/1"), WORDS)
    mlflow_rnnmod.save_model(remembering, tmp_path / "m")
    for name, words in (("same", WORDS), ("other", OTHER)):
        rows = "\n".join(json.dumps({"text": word}) for word in words)
        (tmp_path / f"{name}.jsonl").write_text(rows)
    same, other = (str(tmp_path / f"{name}.jsonl") for name in ("same", "other"))
    assert "same" in run("drift", str(tmp_path / "m"), "--data", same).output
    picture = tmp_path / "drift.png"
    output = run(
        "drift", str(tmp_path / "m"), "--data", other, "--picture", str(picture), code=5
    ).output
    assert "drifted" in output
    assert Image.open(picture).size[0] > 300
    assert (
        "expected a file .png"
        in run("drift", "x", "--data", other, "--picture", "a.txt", code=2).output
    )
    shutil.copy(template_database, tmp_path / "other.db")
    to = ["--to", f"sqlite:///{tmp_path}/other.db"]
    assert "would be pushed" in run("push", "models:/names/1", *to, "--dry-run").output
    assert "models:/names/1" in run("push", "models:/names/1", *to).output


def test_decompose_a_checkpoint_on_the_command_line(tracking_uri, tmp_path, monkeypatch):
    from tests.callbacks import models
    from tests.callbacks.models import Classifier
    from tests.callbacks.training import make_trainer

    model = Classifier()
    trainer = make_trainer(enable_checkpointing=True, default_root_dir=tmp_path)
    trainer.fit(model, *models.loaders())
    trainer.save_checkpoint(tmp_path / "m.ckpt")
    asked = ["decompose", str(tmp_path / "m.ckpt"), "--model", "tests.callbacks.models:Classifier"]
    asked += ["--data", "tests.callbacks.models:loaders", "--labels", "low,middle,high"]
    assert "Nothing was logged" in run(*asked, "--dry-run").output
    assert run("list").output == "There are none.\n"
    output = run(*asked, "--prefix", "thirds", "--set", "removal=0.2").output
    assert "models:/thirds.low/1" in output
    for change, said, code in (
        (["--model", "tests.callbacks.models:Clasifier"], "Did you mean 'Classifier'?", 1),
        (["--model", "nowhere:X"], "No module named 'nowhere'", 1),
        (["--model", "X"], "expected MODULE:NAME", 2),
        (["--set", "removal"], "expected KEY=VALUE", 2),
        (["--set", "removal=7"], "removal=7", 1),
        (["--prefix", "a/b"], "'a/b'", 1),
        (["--labels", "low,high"], "labels", 1),
    ):
        assert said in run(*asked, *change, code=code).output
