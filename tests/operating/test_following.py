"""Models that follow an alias, and URIs that compose when they are asked for."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import _artifact_repository_registry

import mlflow_rnnmod
from mlflow_rnnmod import composition
from mlflow_rnnmod.operating.repository import SCHEME, ComposingRepository, read_uri
from mlflow_rnnmod.tracking.follow import FollowingModel
from tests.builders import tiny_module, tiny_modules, tiny_parent, tiny_texts

TARGET = "models:/names@champion"
WORDS = tiny_texts(60)


@pytest.fixture
def registry(tracking_uri) -> dict[str, list[str]]:
    """Two versions of ``names``; what each answers."""
    parent = tiny_parent("text")
    composites = {
        "1": composition.compose(tiny_modules(parent)),
        "2": composition.compose(tiny_modules(tiny_parent("text", seed=1))),
    }
    for composite in composites.values():
        mlflow_rnnmod.log_model(composite, registered_model_name="names")
    move("1")
    for module in composites["1"].modules:
        mlflow_rnnmod.log_model(module, registered_model_name=f"a.{module.label}")
        MlflowClient().set_registered_model_alias(f"a.{module.label}", "champion", "1")
    _artifact_repository_registry.register(SCHEME, ComposingRepository)
    return {version: c.predict(WORDS) for version, c in composites.items()}


def move(version: str) -> None:
    MlflowClient().set_registered_model_alias("names", "champion", version)


def test_it_follows_the_alias(registry):
    model = mlflow_rnnmod.follow(TARGET, seconds=0)
    assert (model.version, model.predict(WORDS).tolist()) == ("1", registry["1"])
    assert not model.look()
    move("2")
    assert model.predict(WORDS).tolist() == registry["1"]
    assert model.look()
    assert (model.version, model.predict(WORDS).tolist()) == ("2", registry["2"])


def test_what_can_not_be_served_is_said_once_and_the_old_one_answers(registry, caplog):
    model = FollowingModel(TARGET, 0)
    tokens = composition.compose([tiny_module(tiny_parent("tokens"), "irish")])
    mlflow_rnnmod.log_model(tokens, registered_model_name="names")
    client = MlflowClient()
    for change, said in (
        (lambda: move("3"), "version 3 reads tokens"),
        (lambda: client.delete_registered_model_alias("names", "champion"), "is gone"),
    ):
        change()
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert [model.look() for _ in range(3)] == [False] * 3
        assert len(caplog.records) == 1
        assert said in caplog.text
        assert model.predict(WORDS).tolist() == registry["1"]
    move("2")
    assert model.look()


def test_no_alias(registry):
    for target, said in (("models:/names@best", "no such alias"), ("models:/names/1", "expected")):
        with pytest.raises(MlflowException, match=said):
            mlflow_rnnmod.follow(target)


def test_clients_while_it_is_swapped(registry):
    """Every answer is one version's, whole; none fails."""
    model = FollowingModel(TARGET, 0)
    seen: list[Any] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            try:
                seen.append(model.predict(WORDS).tolist())
            except Exception as error:
                seen.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for version in ("2", "1", "2"):
        move(version)
        assert model.look()
    done.set()
    for thread in threads:
        thread.join()
    assert seen
    assert all(answers in registry.values() for answers in seen)


def test_it_looks_by_itself_and_stops_when_nobody_holds_it(registry):
    model = FollowingModel(TARGET, 0.01)
    thread = next(t for t in threading.enumerate() if t.name == "rnnmod")
    move("2")
    while model.version == "1":
        thread.join(0.05)
        assert thread.is_alive()
    del model
    thread.join(30)
    assert not thread.is_alive()


def frame() -> pd.DataFrame:
    return pd.DataFrame({"text": WORDS})


def test_uris_that_compose(registry):
    uri = "rnnmod:/?modules=a.german@champion,a.irish/1,models:/a.zulu/1"
    model = mlflow.pyfunc.load_model(uri)
    assert model.predict(frame()).tolist() == registry["1"]
    assert model.metadata.flavors["rnnmod"]["kind"] == "composite"
    assert mlflow.models.get_model_info(uri).flavors["rnnmod"]["kind"] == "composite"
    assert "torch==" in Path(mlflow.pyfunc.get_model_dependencies(uri)).read_text()
    reversed_ = mlflow.pyfunc.load_model("rnnmod:/?modules=a.zulu/1,a.irish/1&score=logit")
    assert reversed_.get_raw_model().labels == ("zulu", "irish")
    assert reversed_.get_raw_model().score == "logit"


def test_uris_that_follow(registry):
    model = mlflow.pyfunc.load_model(f"rnnmod:/?follow={TARGET}&every=3600")
    assert model.predict(frame()).tolist() == registry["1"]
    move("2")
    assert model._model_impl.look()
    assert model.predict(frame()).tolist() == registry["2"]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("", "expected one of modules="),
        ("modules=", "'modules' is empty"),
        ("module=a.x/1", "did you mean 'modules'?"),
        ("modules=a.x/1&follow=models:/names@champion", "expected one of"),
        ("modules=a&modules=b", "2 times"),
        ("follow=models:/names@champion&every=soon", "every='soon' is no number"),
    ],
)
def test_uris_that_are_wrong(query, said):
    with pytest.raises(MlflowException) as error:
        read_uri(f"rnnmod:/?{query}")
    assert said in str(error.value)


def test_what_uris_name_must_be_there(registry):
    with pytest.raises(MlflowException, match=r"a\.nobody"):
        mlflow.pyfunc.load_model("rnnmod:/?modules=a.nobody/1,a.irish/1")
    with pytest.raises(MlflowException, match="nothing can be written"):
        ComposingRepository("rnnmod:/?modules=a.irish/1").log_artifacts(".")


@pytest.mark.slow
def test_mlflow_serves_what_follows(tracking_uri, tmp_path):
    """Eight clients at a server of MLflow's own, while the alias moves."""
    from benchmarks import hot_swap

    rows, right = hot_swap.fill()
    with hot_swap.following(tmp_path) as address:
        seen = hot_swap.swap(hot_swap.over_http(address), rows, right, 8, 400, 0.5)
    assert seen["version 1"] + seen["version 2"] == 400, seen
