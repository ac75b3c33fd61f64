"""The verbs over URIs and objects; what they mean for modules is tested in tests/composition."""

from __future__ import annotations

import shutil
import zipfile

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

import mlflow_rnnmod
from mlflow_rnnmod import composition, verbs
from mlflow_rnnmod.networks import Parent
from mlflow_rnnmod.tracking import download, fetch, parents
from tests.builders import (
    LABELS,
    tiny_decomposition,
    tiny_module,
    tiny_modules,
    tiny_parent,
    tiny_texts,
)

WORDS = tiny_texts(10)


@pytest.fixture
def parent() -> Parent:
    return tiny_parent("text")


@pytest.fixture
def other() -> Parent:
    return tiny_parent("text", labels=("welsh", "irish", "dutch"), seed=1)


@pytest.fixture(scope="module")
def store(tmp_path_factory, template_database):
    """A store with the modules of two parents, ``a.<label>`` and ``b.<label>``."""
    folder = tmp_path_factory.mktemp("registered")
    shutil.copy(template_database, folder / "mlflow.db")
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = mlflow.create_experiment("modules", str(folder / "artifacts"))
    other = tiny_parent("text", labels=("welsh", "irish", "dutch"), seed=1)
    infos = {}
    for prefix, source in (("a", tiny_parent("text")), ("b", other)):
        with mlflow.start_run(experiment_id=experiment):
            for module in tiny_modules(source):
                name = f"{prefix}.{module.label}"
                infos[name] = mlflow_rnnmod.log_model(module, registered_model_name=name)
                MlflowClient().set_registered_model_alias(name, "champion", "1")
    mlflow.set_tracking_uri(None)
    return folder / "mlflow.db", infos


@pytest.fixture
def registered(store, tracking_uri):
    """What :func:`store` logged, by name, in a store of the test's own."""
    database, infos = store
    shutil.copy(database, tracking_uri.removeprefix("sqlite:///"))
    parents.forget_parents()
    return infos


def test_every_form_of_uri_in_one_list(registered, parent):
    uris = [
        "models:/a.german@champion",
        "models:/b.irish/1",
        registered["a.zulu"].model_uri,
        f"runs:/{registered['b.dutch'].run_id}/dutch",
        tiny_module(tiny_parent("text", labels=("x", "y"), seed=2)),
    ]
    composite = mlflow_rnnmod.compose(uris)
    assert composite.labels == ("german", "irish", "zulu", "dutch", "x")
    assert [module.origin.get("uri") for module in composite.modules] == [*uris[:4], None]
    assert [module.origin.get("version") for module in composite.modules[:2]] == ["1", "1"]
    # Of each parent there is one, though it was asked for twice.
    parents = [module.parent for module in composite.modules]
    assert parents[0] is parents[2]
    assert parents[1] is parents[3]
    assert composite.sources[0]["uri"] == uris[0]
    expected = composition.compose(
        [
            *(m for m in tiny_modules(parent) if m.label == "german"),
            *composite.modules[1:],
        ]
    )
    assert composite.predict(WORDS) == expected.predict(WORDS)


def test_a_run_stands_for_its_modules(registered):
    run = registered["a.german"].run_id
    for uri in (f"runs:/{run}", f"runs:/{run}/"):
        assert mlflow_rnnmod.compose(uri).labels == LABELS
    both = mlflow_rnnmod.compose([f"runs:/{run}", "models:/b.welsh/1"])
    assert both.labels == (*LABELS, "welsh")


def test_a_run_in_the_order_of_its_labels(tracking_uri, parent):
    """Bulk logging creates the last label first, for the tracking server's own page."""
    with mlflow.start_run() as run:
        for index, module in reversed(list(enumerate(tiny_modules(parent)))):
            mlflow_rnnmod.log_model(module, params={"index": index})
    assert mlflow_rnnmod.compose(f"runs:/{run.info.run_id}").labels == LABELS


def test_the_newest_modules_of_a_run_count(tracking_uri, parent):
    first, second = tiny_modules(parent, seed=1), tiny_modules(parent, seed=2)
    run_id = mlflow_rnnmod.log_decomposition(tiny_decomposition(parent, modules=first)).run_id
    logged = mlflow_rnnmod.log_decomposition(
        tiny_decomposition(parent, modules=second[:2]), run_id=run_id
    )
    found = mlflow_rnnmod.compose(f"runs:/{run_id}")
    assert found.labels == LABELS
    newest = [*logged.model_ids.values()]
    assert [source["model_id"] for source in found.sources][:2] == newest
    expected = composition.compose([*second[:2], *first[2:]])
    assert found.explain("Ann") == pytest.approx(expected.explain("Ann"), abs=1e-4)


def test_only_finished_modules_of_a_run_count(tracking_uri, parent):
    client = MlflowClient()
    with mlflow.start_run() as run:
        for module in tiny_modules(parent)[:2]:
            mlflow_rnnmod.log_model(module)
        tags = {"rnnmod.kind": "module"}
        mlflow.initialize_logged_model(name="pending", tags=tags)
        failed = mlflow.initialize_logged_model(name="failed", tags=tags)
        client.finalize_logged_model(failed.model_id, "FAILED")
    assert mlflow_rnnmod.compose(f"runs:/{run.info.run_id}").labels == LABELS[:2]


def test_a_run_without_modules(tracking_uri):
    with mlflow.start_run() as run:
        pass
    with pytest.raises(MlflowException, match="has no modules") as error:
        mlflow_rnnmod.compose(f"runs:/{run.info.run_id}")
    assert run.info.run_id in str(error.value)
    with pytest.raises(MlflowException, match="0123"):
        mlflow_rnnmod.compose("runs:/0123")


def test_a_parent_is_named_in_one_line(parent):
    for attempt in (verbs.compose, verbs.select):
        with pytest.raises(MlflowException, match=f"parent {parent.digest[:12]}.*is a Parent") as e:
            attempt(parent)
        assert "\n" not in e.value.message


def test_composites_decompositions_and_lists_contribute_all(parent, other):
    composite = composition.compose(tiny_modules(parent)[:1])
    rest = list(tiny_modules(parent))[1:]
    assert verbs.compose([composite, rest]).labels == LABELS
    assert verbs.compose(composite).labels == LABELS[:1]
    assert verbs.compose(iter(rest)).labels == LABELS[1:]
    assert verbs.compose(rest[0]).labels == LABELS[1:2]
    assert verbs.compose(tiny_decomposition(parent)).labels == LABELS


def test_what_was_logged_can_be_composed(tracking_uri, parent):
    logged = mlflow_rnnmod.log_decomposition(tiny_decomposition(parent))
    parents.forget_parents()
    assert mlflow_rnnmod.compose(logged).labels == LABELS
    assert mlflow_rnnmod.compose(logged.uris).labels == LABELS
    assert mlflow_rnnmod.compose(f"runs:/{logged.run_id}").labels == LABELS


def test_settings_are_handed_on(parent, monkeypatch):
    asked = {}
    monkeypatch.setattr(
        composition,
        "compose",
        lambda modules, *rest, **named: asked.update({"given": rest, "named": named}),
    )
    verbs.compose(tiny_modules(parent), score="joint", calibrate_on=(WORDS, ["german"] * 10))
    assert asked.pop("given") == ("joint", (WORDS, ["german"] * 10), None, None)
    assert set(asked["named"].values()) == {None}


def test_replace(registered, parent):
    before = mlflow_rnnmod.compose([f"models:/a.{label}/1" for label in LABELS])
    modules = before.modules
    answers = before.predict(WORDS)
    after = mlflow_rnnmod.replace(before, "irish", "models:/b.irish@champion")
    assert after.labels == LABELS
    assert [m.origin["uri"] for m in after.modules] == [
        "models:/a.german/1",
        "models:/b.irish@champion",
        "models:/a.zulu/1",
    ]
    assert before.modules == modules
    assert before.predict(WORDS) == answers
    assert [step["verb"] for step in after.recipe] == ["compose", "replace"]
    with pytest.raises(ValueError, match="french"):
        mlflow_rnnmod.replace(before, "french", "models:/b.irish/1")
    with pytest.raises(MlflowException, match="expected one module"):
        mlflow_rnnmod.replace(before, "irish", before)


def test_add_remove_select(registered):
    before = mlflow_rnnmod.compose(["models:/a.german/1", "models:/a.zulu/1"])
    more = mlflow_rnnmod.add(before, "models:/b.welsh/1", ["models:/b.dutch/1"])
    assert more.labels == ("german", "zulu", "welsh", "dutch")
    assert mlflow_rnnmod.remove(more, "zulu", "welsh").labels == ("german", "dutch")
    assert mlflow_rnnmod.select(more, "dutch", "german").labels == ("dutch", "german")
    assert before.labels == ("german", "zulu")
    assert more.labels == ("german", "zulu", "welsh", "dutch")


def test_a_logged_composite_goes_on(registered, tmp_path):
    """Composites are taken by URI too, and keep where their modules came from."""
    first = mlflow_rnnmod.compose(["models:/a.german/1", "models:/b.irish/1"])
    mlflow_rnnmod.log_model(first, name="first", registered_model_name="first")
    parents.forget_parents()
    loaded = mlflow_rnnmod.load_model("models:/first/1")
    assert [m.origin for m in loaded.modules] == [m.origin for m in first.modules]
    assert loaded.score == first.score
    assert loaded.parameters == first.parameters
    assert loaded.recipe == first.recipe
    assert loaded.predict(WORDS) == first.predict(WORDS)
    more = mlflow_rnnmod.add("models:/first/1", "models:/a.zulu/1")
    assert more.labels == ("german", "irish", "zulu")
    # The bundled parent and the registered one are the same, and held once.
    assert more.modules[0].parent is more.modules[2].parent
    assert mlflow_rnnmod.select("models:/first/1", "irish").labels == ("irish",)


def test_export_makes_a_module_stand_alone(registered, tmp_path, monkeypatch):
    path = mlflow_rnnmod.export("models:/a.german/1", tmp_path / "german")
    expected = composition.compose([mlflow_rnnmod.load_model("models:/a.german/1")]).predict(WORDS)
    parents.forget_parents()
    monkeypatch.setattr(fetch, "find_parent", None)
    module = mlflow_rnnmod.load_model(path)
    assert composition.compose([module]).predict(WORDS) == expected
    (carried,) = (path / "code").rglob("*.zip")
    assert "mlflow_rnnmod/__init__.py" in zipfile.ZipFile(carried).namelist()
    with pytest.raises(MlflowException, match="not empty"):
        mlflow_rnnmod.export(module, path)


def test_a_composite_outlives_its_sources(registered):
    composite = mlflow_rnnmod.compose([f"models:/a.{label}/1" for label in LABELS])
    expected = composite.predict(WORDS)
    info = mlflow_rnnmod.log_model(composite)
    client = MlflowClient()
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    for model in client.search_logged_models(experiments):
        if model.model_id != info.model_id:
            client.delete_logged_model(model.model_id)
    parents.forget_parents()
    assert mlflow_rnnmod.load_model(info.model_uri).predict(WORDS) == expected


@pytest.mark.parametrize("wrong", [3, None, {"a": 1.5}])
def test_what_is_no_module_is_refused(wrong):
    with pytest.raises(MlflowException, match="expected a module"):
        verbs.compose([wrong])


def test_a_parent_is_no_module(parent):
    with pytest.raises(MlflowException, match="mlflow_rnnmod.decompose"):
        verbs.compose([parent])


def test_a_module_is_no_composite(parent):
    with pytest.raises(MlflowException, match="is a Module; expected a composite"):
        verbs.remove(tiny_module(parent), "german")


def test_no_module():
    with pytest.raises(ValueError, match="module"):
        verbs.compose([])


def test_two_modules_for_one_label(parent, other):
    with pytest.raises(composition.IncompatibleModules):
        verbs.compose([*tiny_modules(parent), *tiny_modules(other)])


def test_modules_of_different_inputs(parent):
    tokens = tiny_parent("tokens", labels=("x", "y"))
    with pytest.raises(composition.IncompatibleModules):
        verbs.compose([*tiny_modules(parent), *tiny_modules(tokens)])


def test_the_progress_bar_is_back_afterwards(monkeypatch):
    name = "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"
    monkeypatch.delenv(name, raising=False)
    import os

    with download.quiet_downloads():
        assert os.environ[name] == "false"
    assert name not in os.environ
    monkeypatch.setenv(name, "true")
    with download.quiet_downloads():
        assert os.environ[name] == "true"
