"""Where a module's parent is looked for, in which order, and what is said when it is nowhere."""

from __future__ import annotations

import gc
import json
import shutil
import socket
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

import mlflow_rnnmod
from mlflow_rnnmod._digest import canonical_json, digest_text
from mlflow_rnnmod.networks import Parent
from mlflow_rnnmod.tracking import download, parents
from mlflow_rnnmod.tracking.memory import Memory
from tests.builders import tiny_module, tiny_modules, tiny_parent


@pytest.fixture
def logged(tracking_uri):
    """A module that was logged by reference, in a process that has forgotten everything."""
    info = mlflow_rnnmod.log_model(tiny_module(tiny_parent("text")))
    parents.forget_parents()
    return info


@pytest.fixture
def asked(monkeypatch):
    """Every question put to a server for a parent: (server, model id)."""
    questions = []
    original = parents._logged

    def spy(client, server, model_id, *rest):
        questions.append((server, model_id))
        return original(client, server, model_id, *rest)

    monkeypatch.setattr(parents, "_logged", spy)
    return questions


def parent_ids() -> list[str]:
    found = MlflowClient().search_logged_models(["0"])
    return [m.model_id for m in found if m.tags["rnnmod.kind"] == "parent"]


def cache() -> Path:
    folder = parents.cache_folder()
    assert folder is not None
    return folder


def test_under_its_id_then_in_the_process_then_on_disk(logged, asked, tracking_uri):
    (parent_id,) = parent_ids()
    first = mlflow_rnnmod.load_model(logged.model_uri)
    assert asked == [(tracking_uri, parent_id)]
    assert (first.parent.model_id, first.parent.tracking_uri) == (parent_id, tracking_uri)
    second = mlflow_rnnmod.load_model(logged.model_uri)
    assert second.parent is first.parent
    parents.forget_parents()
    third = mlflow_rnnmod.load_model(logged.model_uri)
    assert len(asked) == 1
    assert third.parent is not first.parent
    assert third.parent.digest == first.parent.digest
    assert third.parent.model_id == parent_id
    assert [p.name for p in cache().iterdir()] == [first.parent.digest]


def test_by_tag_where_the_id_is_gone(logged, asked):
    (first,) = parent_ids()
    MlflowClient().delete_logged_model(first)
    again = mlflow_rnnmod.log_model(tiny_parent("text"))
    parents.forget_parents()
    module = mlflow_rnnmod.load_model(logged.model_uri)
    assert module.parent.model_id == again.model_id
    assert [model_id for _, model_id in asked] == [first, again.model_id]


def test_in_another_experiment(tracking_uri):
    parent = tiny_parent()
    other = MlflowClient().create_experiment("other")
    mlflow.set_experiment(experiment_id=other)
    info = mlflow_rnnmod.log_model(parent)
    mlflow.set_experiment(experiment_id="0")
    assert parents.logged_id(parent) == info.model_id


def test_a_spoilt_cache_is_replaced(logged, asked, caplog):
    digest = mlflow_rnnmod.load_model(logged.model_uri).parent.digest
    parents.forget_parents()
    weights = cache() / digest / "weights.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[:-4] + b"....")
    assert mlflow_rnnmod.load_model(logged.model_uri).parent.digest == digest
    assert len(asked) == 2
    assert weights.read_bytes() == good
    assert "is removed, as it is not what was written" in caplog.text


def test_without_a_cache(logged, asked, monkeypatch, tmp_path):
    monkeypatch.setenv("RNNMOD_CACHE", "")
    assert parents.cache_folder() is None
    for _ in range(2):
        parents.forget_parents()
        mlflow_rnnmod.load_model(logged.model_uri)
    assert len(asked) == 2


def test_a_cache_that_cannot_be_written(logged, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RNNMOD_CACHE", str(tmp_path / "file"))
    assert isinstance(mlflow_rnnmod.load_model(logged.model_uri).parent, Parent)


def test_default_place_of_the_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("RNNMOD_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parents.cache_folder() == tmp_path / ".cache" / "rnnmod" / "parents"


def test_nowhere_says_what_and_what_to_do(logged, tracking_uri):
    (parent_id,) = parent_ids()
    digest = tiny_parent("text").digest
    MlflowClient().delete_logged_model(parent_id)
    for load in (mlflow_rnnmod.load_model, mlflow.pyfunc.load_model):
        with pytest.raises(MlflowException, match="parent can't be found") as error:
            load(logged.model_uri)
        for part in (digest, parent_id, tracking_uri, "mlflow_rnnmod.export", str(cache())):
            assert part in str(error.value)
        assert error.value.error_code == "RESOURCE_DOES_NOT_EXIST"


def test_a_model_that_only_claims_to_be_the_parent(logged):
    """The tag is a hint; the digest of what is there decides."""
    (parent_id,) = parent_ids()
    parent = tiny_parent("text")
    MlflowClient().delete_logged_model(parent_id)
    mlflow_rnnmod.log_model(
        tiny_parent("text", seed=1), tags={"rnnmod.parent": parent.digest, "rnnmod.kind": "parent"}
    )
    parents.forget_parents()
    with pytest.raises(MlflowException, match="another parent"):
        mlflow_rnnmod.load_model(logged.model_uri)
    assert parents.logged_id(parent) is None


def test_altered_parent_on_the_server(logged):
    (parent_id,) = parent_ids()
    location = MlflowClient().get_logged_model(parent_id).artifact_location
    (weights,) = Path(location).rglob("weights.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(MlflowException, match="truncated or altered"):
        mlflow_rnnmod.load_model(logged.model_uri)


def elsewhere(tmp_path, template_database):
    """Another store, which becomes the current one."""
    database = tmp_path / "elsewhere.db"
    database.write_bytes(template_database.read_bytes())
    mlflow.set_tracking_uri(f"sqlite:///{database}")


def test_the_server_that_the_module_names_is_asked_where_it_is_allowed(
    logged, tracking_uri, tmp_path, template_database, monkeypatch
):
    """A module that was copied elsewhere finds its parent where it was logged."""
    folder = logged.artifact_path
    elsewhere(tmp_path, template_database)
    with pytest.raises(MlflowException, match="which the module names, was not asked: .*SERVERS"):
        mlflow_rnnmod.load_model(folder)
    monkeypatch.setenv("RNNMOD_SERVERS", f"http://other:1, {tracking_uri}")
    assert mlflow_rnnmod.plan(str(folder)).fits
    module = mlflow_rnnmod.load_model(folder)
    assert module.parent.tracking_uri == tracking_uri


def naming(folder, server, model_id="m-1"):
    """A saved module whose file says that its parent is on another server."""
    path = Path(folder) / "data" / "module.json"
    body = json.loads(path.read_bytes())
    body["parent"].update(tracking_uri=server, model_id=model_id)
    body.pop("sha256")
    body["sha256"] = digest_text(canonical_json(body))
    path.write_text(json.dumps(body), encoding="utf-8")


@pytest.mark.parametrize("what", ["load_model", "plan", "compose"])
def test_nothing_that_a_file_names_is_opened(
    logged, tracking_uri, tmp_path, template_database, what
):
    """Neither migrated into somebody's database, nor told to somebody's server."""
    folder = shutil.copytree(logged.artifact_path, tmp_path / "module")
    elsewhere(tmp_path, template_database)
    precious = tmp_path / "precious.db"
    with closing(sqlite3.connect(precious)) as connection, connection:
        connection.execute("CREATE TABLE mine (x)")
    before = precious.read_bytes()
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        listening.settimeout(0.1)
        port = listening.getsockname()[1]
        for server in (f"sqlite:///{precious}", f"http://127.0.0.1:{port}", "postgresql://x/y"):
            naming(folder, server)
            try:
                found = getattr(mlflow_rnnmod, what)(str(folder))
                assert not found.fits
            except MlflowException as error:
                assert "module names, was not asked" in str(error)
        with pytest.raises(TimeoutError):
            listening.accept()
    assert precious.read_bytes() == before


def test_what_is_no_model_id_reaches_no_address(logged, tmp_path, template_database, monkeypatch):
    folder = shutil.copytree(logged.artifact_path, tmp_path / "module")
    elsewhere(tmp_path, template_database)
    asked = []
    monkeypatch.setattr(
        MlflowClient, "get_logged_model", lambda self, model_id: asked.append(model_id)
    )
    naming(folder, None, "../../../secret?")
    with pytest.raises(MlflowException, match="can't be found"):
        mlflow_rnnmod.load_model(folder)
    assert asked == []


def test_one_parent_with_two_tokenizers(tracking_uri):
    """The digest is the network's; a module without a tokenizer gets a parent without one."""
    with_one = tiny_parent("text")
    without = Parent(with_one.network)
    assert with_one.digest == without.digest
    infos = [mlflow_rnnmod.log_model(tiny_module(parent)) for parent in (with_one, without)]
    for _ in range(2):
        parents.forget_parents()
        loaded = [mlflow_rnnmod.load_model(info.model_uri) for info in infos]
        assert [module.parent.input_kind for module in loaded] == ["text", "tokens"]


def test_threads_fetch_a_parent_once(tracking_uri, asked):
    infos = [mlflow_rnnmod.log_model(m) for m in tiny_modules(tiny_parent("text"))]
    parents.forget_parents()
    asked.clear()
    found = []
    threads = [
        threading.Thread(target=lambda u=info.model_uri: found.append(mlflow_rnnmod.load_model(u)))
        for info in infos
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(asked) == 1
    assert len({id(module.parent) for module in found}) == 1


def test_the_process_keeps_a_bounded_number_of_bytes():
    three = [tiny_parent(seed=seed) for seed in range(3)]
    assert len({parent.bytes for parent in three}) == 1
    digests = [parent.digest for parent in three]
    room = 2 * three[0].bytes
    kept = parents._Kept(Memory(lambda: room))
    for parent in three:
        kept.put(parent)
    # What somebody still holds is found even where there is no room for it.
    assert [kept.get(digest, None) for digest in digests] == three
    del three, parent
    gc.collect()
    assert [kept.get(digest, None) is None for digest in digests] == [True, False, False]
    kept.get(digests[1], None)
    kept.put(tiny_parent(seed=0))
    gc.collect()
    assert [kept.get(digest, None) is None for digest in digests] == [False, False, True]


def test_downloaded_files_are_gone_after_loading(logged, monkeypatch, tmp_path):
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    mlflow_rnnmod.load_model(logged.model_uri)
    assert list((tmp_path / "tmp").iterdir()) == []
    (tmp_path / "kept").mkdir()
    mlflow_rnnmod.load_model(logged.model_uri, dst_path=str(tmp_path / "kept"))
    assert (tmp_path / "kept" / "MLmodel").is_file()


def test_only_the_data_is_downloaded(logged, monkeypatch):
    """Over HTTP every file is a request; environments and code are not read."""
    asked = []
    original = download.downloaded

    def spy(uri, *rest, **options):
        asked.append(uri)
        return original(uri, *rest, **options)

    monkeypatch.setattr(download, "downloaded", spy)
    MlflowClient().create_registered_model("m")
    MlflowClient().create_model_version("m", logged.model_uri, model_id=logged.model_id)
    for uri in (logged.model_uri, "models:/m/1"):
        module = mlflow_rnnmod.load_model(uri)
        assert module.origin["model_id"] == logged.model_id
        assert module.origin["uri"] == uri
    assert all(uri.endswith("/data") for uri in asked)


@pytest.mark.parametrize("uri", ["models:/nobody/1", "models:/m-0", "runs:/0/x", "models:/x@y"])
def test_what_is_not_there(tracking_uri, uri):
    with pytest.raises(MlflowException):
        mlflow_rnnmod.load_model(uri)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises((MlflowException, OSError), match="nothing"):
        mlflow_rnnmod.load_model(tmp_path / "nothing")


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(MlflowException, match=f"{tmp_path} holds no file MLmodel; expected the"):
        mlflow_rnnmod.load_model(tmp_path)


@pytest.mark.parametrize("uri", ["", " ", "nowhere", "./no/where"])
def test_what_is_no_folder_is_said(tracking_uri, uri):
    with pytest.raises(MlflowException, match="is no folder that is here; expected one"):
        mlflow_rnnmod.load_model(uri)


@pytest.mark.parametrize("uri", ["http://localhost/x", "s3:/b/k", "strange://a/b"])
def test_what_stores_raise_bare_is_said_with_the_uri(tracking_uri, monkeypatch, uri):
    def bare(**_):
        raise ValueError("not enough values to unpack (expected 2, got 1)")

    monkeypatch.setattr("mlflow.artifacts.download_artifacts", bare)
    with pytest.raises(MlflowException, match=rf"{uri} can't be fetched: ValueError: not enough"):
        mlflow_rnnmod.load_model(uri)


@pytest.mark.parametrize("uri", ["models:/surname.irish/1", "models:/surname.irish@champion"])
def test_a_registered_model_that_is_not_there_is_told_with_the_near_name(tracking_uri, uri):
    MlflowClient().create_registered_model("surnames.irish")
    for ask in (mlflow_rnnmod.load_model, lambda uri: mlflow_rnnmod.compose([uri])):
        with pytest.raises(MlflowException, match="Did you mean 'surnames.irish'") as error:
            ask(uri)
        assert error.value.error_code == "RESOURCE_DOES_NOT_EXIST"
        assert str(error.value).count("Did you mean") == 1
