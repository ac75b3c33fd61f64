"""Recipes: read, refused, and carried by composites."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

import mlflow_rnnmod
from mlflow_rnnmod import composition
from mlflow_rnnmod.operating.recipes import compose_recipe
from mlflow_rnnmod.tracking import download
from mlflow_rnnmod.tracking.recipes import composite_digest, read_recipe, recipe_of
from tests.builders import LABELS, tiny_modules, tiny_parent, tiny_texts
from tests.composition.test_kinds import parent_of

WORDS = tiny_texts(8)


@pytest.fixture
def registry(tracking_uri):
    for module in tiny_modules(tiny_parent("text")):
        mlflow_rnnmod.log_model(module, registered_model_name=f"a.{module.label}")
        MlflowClient().set_registered_model_alias(f"a.{module.label}", "champion", "1")
    composite = mlflow_rnnmod.compose([f"models:/a.{label}/1" for label in LABELS])
    mlflow_rnnmod.log_model(composite, registered_model_name="names")
    return composite


def written(folder: Path, text: str, name: str = "recipe.yml") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_all_forms_of_modules(registry, tmp_path):
    written(tmp_path, "modules: [models:/a.zulu@champion]", "more.yml")
    path = written(
        tmp_path,
        """
        name: mine
        register: mine
        modules:
          - models:/a.german@champion
          - {uri: models:/names/1, label: irish}
          - more.yml
        score: logit
        """,
    )
    found = read_recipe(path)
    assert (found.name, found.register, found.score) == ("mine", "mine", "logit")
    composite = compose_recipe(path)
    assert (composite.labels, composite.score) == (LABELS, "logit")
    mapping = written(tmp_path, "modules: {german: models:/names/1, zulu: models:/names/1}")
    assert compose_recipe(mapping).labels == ("german", "zulu")


def test_a_composite_carries_its_recipe(registry, tmp_path):
    """Aliases are resolved, and composed again it has the same digest and answers."""
    composite = mlflow_rnnmod.compose([f"models:/a.{label}@champion" for label in LABELS])
    info = mlflow_rnnmod.log_model(composite, name="carrying")
    location = MlflowClient().get_logged_model(info.model_id).artifact_location
    with download.downloaded(f"{location}/recipe.yml") as file:
        text = Path(file).read_text("utf-8")
    carried = yaml.safe_load(text)
    assert [entry["uri"] for entry in carried["modules"]] == [f"models:/a.{y}/1" for y in LABELS]
    assert carried["digest"] == composite_digest(composite)
    again = compose_recipe(written(tmp_path, text))
    assert composite_digest(again) == carried["digest"]
    assert again.predict(WORDS) == composite.predict(WORDS)
    loaded = mlflow_rnnmod.load_model(info.model_uri)
    assert composite_digest(loaded) == carried["digest"]
    assert recipe_of(loaded)["modules"] == carried["modules"]


def test_another_version_under_the_name_is_another_digest(registry, tmp_path):
    other = recipe_of(registry)
    other["digest"] = "0" * 64
    with pytest.raises(MlflowException, match="says the digest 000"):
        compose_recipe(written(tmp_path, yaml.safe_dump(other)))


def test_the_digest_tells_modules_scores_and_order():
    modules = tiny_modules(tiny_parent("text"))
    one = composition.compose(modules)
    others = [
        composition.compose(modules, "logit"),
        composition.compose(modules[::-1]),
        composition.compose(modules[:2]),
        composition.compose(tiny_modules(tiny_parent("text"), seed=1)),
    ]
    digests = {composite_digest(composite) for composite in (one, *others)}
    assert len(digests) == 5
    assert composite_digest(composition.compose(modules)) == composite_digest(one)


def test_scales_and_thresholds_are_carried(tracking_uri, tmp_path):
    modules = tiny_modules(tiny_parent("text"))
    joint = composition.compose(modules, calibrate_on=(WORDS, [LABELS[i % 3] for i in range(8)]))
    several = composition.compose(tiny_modules(parent_of("multilabel")), thresholds={"b": 0.5})
    for composite in (joint, several):
        infos = [mlflow_rnnmod.log_model(module) for module in composite.modules]
        loaded = [mlflow_rnnmod.load_model(info.model_uri) for info in infos]
        moved = composition.Composite(tuple(loaded), composite.score, composite.parameters)
        recipe = recipe_of(moved)
        again = compose_recipe(written(tmp_path, yaml.safe_dump(recipe)))
        assert composite_digest(again) == recipe["digest"]
        assert again.predict(WORDS) == composite.predict(WORDS)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds a NoneType"),
        ("- a", "holds a list"),
        ("modules: [", "can't be read"),
        ("modulse: [a]", "did you mean 'modules'?"),
        ("modules: []", "there are none"),
        ("modules: 3", "modules: 3; expected a list"),
        ("modules: [3]", "modules[0]: 3; expected a URI"),
        ("modules: [{uri: a, labl: b}]", "modules[0]"),
        ("modules: [a]\nscore: 1", "score: 1; expected a text"),
        ("modules: [a]\nthresholds: {x: high}", "x: 'high'; expected a number"),
        ("modules: [a]\nreject_below: true", "reject_below: True; expected a number"),
        ("modules: {x: a, x: b}", "'x' is there twice"),
        ("modules: [{uri: a, label: x}, {uri: b, label: x}]", "label 'x' is there twice"),
        ("modules: [models:/a/1, models:/a/1]", "models:/a/1 is there twice"),
        ("[" * 3000, "nested too deep"),
        ("modules: [other.yml]", "can't be read"),
        ("modules: [!!python/name:os.system a]", "can't be read"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, text, said):
    with pytest.raises(MlflowException) as error:
        read_recipe(written(tmp_path, text))
    assert said in str(error.value)


def test_all_problems_at_once(tmp_path):
    with pytest.raises(MlflowException) as error:
        read_recipe(written(tmp_path, "modules: [3]\nscore: 1\nnam: x"))
    assert all(said in str(error.value) for said in ("modules[0]", "score: 1", "'nam'"))


def test_a_circle_is_named(tmp_path):
    written(tmp_path, "modules: [b.yml]", "a.yml")
    written(tmp_path, "modules: [c.yml]", "b.yml")
    written(tmp_path, "modules: [a.yml]", "c.yml")
    with pytest.raises(MlflowException, match=r"a\.yml -> b\.yml -> c\.yml -> a\.yml"):
        read_recipe(tmp_path / "a.yml")


def test_labels_that_are_not_there(registry, tmp_path):
    with pytest.raises(MlflowException, match="Did you mean 'irish'"):
        compose_recipe(written(tmp_path, "modules: {irsh: models:/names/1}"))
