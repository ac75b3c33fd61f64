"""Composing what is registered on a real server: which requests are made, and which again."""

from __future__ import annotations

import threading

import mlflow
import pytest
import torch
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

import mlflow_rnnmod
from benchmarks.loading import counted
from benchmarks.logging import server
from mlflow_rnnmod.tracking import _mlflow, parents
from tests.builders import LABELS, tiny_decomposition, tiny_parent, tiny_texts

pytestmark = pytest.mark.slow

WORDS = tiny_texts(6)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A server with the modules of two parents, ``a.<label>`` and ``b.<label>``."""
    with server(tmp_path_factory.mktemp("server"), workers=1) as uri:
        other = tiny_parent("text", labels=("welsh", "dutch"), seed=1)
        for prefix, parent in (("a", tiny_parent("text")), ("b", other)):
            mlflow_rnnmod.log_decomposition(
                tiny_decomposition(parent), tracking_uri=uri, registered_model_prefix=prefix
            )
        yield uri


@pytest.fixture
def fetched(address, monkeypatch, tracking_uri):
    """Names of the files that are fetched one by one; nothing is cached."""
    monkeypatch.setenv("RNNMOD_CACHE", "")
    mlflow.set_tracking_uri(address)
    parents.forget_parents()
    names = []
    original = _mlflow.download_file

    def spy(folder, name, path):
        names.append(name)
        return original(folder, name, path)

    monkeypatch.setattr(_mlflow, "download_file", spy)
    return names


URIS = [
    *(f"models:/a.{label}/1" for label in LABELS[:2]),
    f"models:/a.{LABELS[2]}@champion",
    "models:/b.welsh@champion",
    "models:/b.dutch/1",
]


def test_each_file_is_fetched_once_and_nothing_twice(fetched):
    with counted() as asked:
        first = mlflow_rnnmod.compose(URIS)
    assert sorted(fetched) == ["module.json"] * 5 + ["module.safetensors"] * 5
    # Two parents, each listed, and then its document, tokenizer and weights.
    of_parents = asked["files"] - len(fetched)
    assert 2 * 3 <= of_parents <= 2 * 5
    fetched.clear()
    with counted() as asked:
        second = mlflow_rnnmod.compose(reversed(URIS))
    assert (fetched, asked["files"]) == ([], 0)
    assert asked["tables"] == len(URIS)  # whether they are still there
    assert second.labels == first.labels[::-1]
    assert torch.allclose(second.scores(WORDS).flip(1), first.scores(WORDS), atol=1e-5)
    assert [m.origin for m in second.modules][::-1] == [m.origin for m in first.modules]
    assert len({id(m.parent) for m in (*first.modules, *second.modules)}) == 2
    # Another name for the same model: its files are known.
    with counted() as asked:
        again = mlflow_rnnmod.compose(f"models:/a.{LABELS[0]}@champion")
    assert asked["files"] == 0
    assert again.modules[0].origin["uri"] == f"models:/a.{LABELS[0]}@champion"


def test_a_plan_first_fetches_no_more(fetched):
    assert mlflow_rnnmod.plan(URIS).fits
    assert fetched == ["module.json"] * 5
    mlflow_rnnmod.compose(URIS)
    assert sorted(fetched) == ["module.json"] * 5 + ["module.safetensors"] * 5


def test_without_memory_each_parent_is_still_fetched_once(fetched, monkeypatch):
    monkeypatch.setenv("RNNMOD_MEMORY", "0")
    asked = []
    original = parents._logged
    monkeypatch.setattr(parents, "_logged", lambda *a: asked.append(a[2]) or original(*a))
    composite = mlflow_rnnmod.compose(URIS)
    assert len(asked) == len({m.parent.digest for m in composite.modules}) == 2
    assert len({id(m.parent) for m in composite.modules}) == 2
    fetched.clear()
    mlflow_rnnmod.compose(URIS)
    assert sorted(fetched) == ["module.json"] * 5 + ["module.safetensors"] * 5


def test_many_threads_compose_at_once(fetched):
    expected = mlflow_rnnmod.compose(URIS).predict(WORDS)
    parents.forget_parents()
    found, failed = [], []

    def work() -> None:
        try:
            found.append(mlflow_rnnmod.compose(URIS))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert [composite.predict(WORDS) for composite in found] == [expected] * 4
    assert len({id(m.parent) for composite in found for m in composite.modules}) == 2


def test_what_was_deleted_is_not_composed_from_memory(fetched, address):
    with mlflow.start_run():
        info = mlflow_rnnmod.log_model(
            tiny_decomposition(tiny_parent("text")).modules[0], registered_model_name="gone"
        )
    uris = [info.model_uri, "models:/gone/1"]
    for uri in uris:
        mlflow_rnnmod.compose(uri)
    MlflowClient().delete_model_version("gone", "1")
    MlflowClient().delete_logged_model(info.model_id)
    for uri in uris:
        with pytest.raises(MlflowException):
            mlflow_rnnmod.compose(uri)
