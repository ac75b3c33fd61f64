"""Files of composites: they stand alone, hold each parent once, and notice every change."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mlflow_rnnmod._digest import canonical_json
from mlflow_rnnmod.composition import Composite, compose
from mlflow_rnnmod.networks import Parent, Rows
from mlflow_rnnmod.storage import FORMAT, kind_of, read_composite, write_composite, write_module
from mlflow_rnnmod.storage.files import write_tensors
from tests.builders import tiny_inputs, tiny_module, tiny_modules, tiny_parent


def two_parents(kind: str = "text") -> Composite:
    first = tiny_parent(kind).known_as("m-1", "http://here")
    second = tiny_parent(kind, labels=("c", "d"), cell="gru", seed=1)
    modules = [*tiny_modules(first), *tiny_modules(second)]
    return compose([replace(m, origin={"uri": f"models:/{m.label}/1"}) for m in modules])


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def edit(path: Path, change) -> None:
    """Change a document by hand, with a digest that fits again."""
    body = json.loads(path.read_text(encoding="utf-8"))
    change(body)
    body.pop("sha256")
    body["sha256"] = hashlib.sha256(canonical_json(body).encode()).hexdigest()
    path.write_text(json.dumps(body), encoding="utf-8")


@pytest.mark.parametrize("kind", ["text", "tokens", "features"])
def test_a_composite_comes_back_as_it_was(tmp_path, kind):
    composite = two_parents(kind)
    write_composite(composite, tmp_path)
    assert kind_of(tmp_path) == "composite"
    found = read_composite(tmp_path)
    inputs = tiny_inputs(composite.modules[0].parent, 12)
    assert torch.equal(found.scores(inputs), composite.scores(inputs))
    assert found.labels == composite.labels
    assert found.score == composite.score
    assert found.parameters == composite.parameters
    assert list(found.recipe) == json.loads(json.dumps(composite.recipe))
    assert found.sources == composite.sources


def test_each_parent_is_there_once(tmp_path):
    composite = two_parents()
    write_composite(composite, tmp_path)
    digests = sorted({module.parent.digest for module in composite.modules})
    assert sorted(p.name for p in (tmp_path / "parents").iterdir()) == digests
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == [
        "composition.json", "modules.json", "modules.safetensors",
    ]  # fmt: skip
    found = read_composite(tmp_path)
    assert len({id(module.parent) for module in found.modules}) == 2
    assert found.modules[0].parent.model_id == "m-1"


def test_scales_fitted_on_joint_rows_are_kept(tmp_path):
    composite = two_parents()
    texts = tiny_inputs(composite.modules[0].parent, 40)
    labels = [composite.labels[i % 5] for i in range(40)]
    fitted = compose(composite.modules, calibrate_on=(texts, labels))
    assert fitted.score == "joint"
    write_composite(fitted, tmp_path)
    found = read_composite(tmp_path)
    assert torch.equal(found.scores(texts), fitted.scores(texts))
    assert found.predict(texts) == fitted.predict(texts)


NAMES = ["composition.json", "modules.json", "modules.safetensors", "parents"]


@pytest.mark.parametrize("name", NAMES)
def test_every_file_is_checked(tmp_path, name):
    write_composite(two_parents(), tmp_path)
    one = (tmp_path / name).is_file()
    paths = [tmp_path / name] if one else sorted((tmp_path / name).rglob("*.*"))
    for path in paths:
        good = path.read_bytes()
        for bad in (good[: len(good) // 2], good[:-2] + b"!" + good[-1:], b""):
            path.write_bytes(bad)
            with pytest.raises(ValueError, match="expected") as error:
                read_composite(tmp_path)
            assert str(path) in str(error.value)
            assert hashlib.sha256(bad).hexdigest() in str(error.value)
        path.write_bytes(good)
    assert len(read_composite(tmp_path).modules) == 5


def test_a_module_in_the_place_of_another_is_noticed(tmp_path):
    """Each file fits its own digest; the composite says which belongs where."""
    write_composite(two_parents(), tmp_path / "a")
    other = two_parents()
    other = replace(other, modules=(tiny_module(tiny_parent("text"), seed=9), *other.modules[1:]))
    write_composite(other, tmp_path / "b")
    for name in ("modules.json", "modules.safetensors"):
        (tmp_path / "a" / name).write_bytes((tmp_path / "b" / name).read_bytes())
    with pytest.raises(ValueError, match=r"modules\.json is truncated or altered"):
        read_composite(tmp_path / "a")


def write_as_format_1(composite, directory):
    """A folder for each module, as older versions wrote it."""
    write_composite(composite, directory)
    folders = [f"modules/{number:03d}" for number in range(len(composite.modules))]
    found = [
        {"folder": folder, "sha256": write_module(module, directory / folder)}
        for folder, module in zip(folders, composite.modules, strict=True)
    ]

    def older(body):
        del body["files"]
        body["format"] = 1
        for entry, more in zip(body["modules"], found, strict=True):
            entry.update(more)

    edit(directory / "composition.json", older)
    for name in ("modules.json", "modules.safetensors"):
        (directory / name).unlink()


def test_the_old_layout_still_loads(tmp_path):
    composite = two_parents()
    write_as_format_1(composite, tmp_path)
    assert files(tmp_path / "modules") == [
        f"{n:03d}/{name}" for n in range(5) for name in ("module.json", "module.safetensors")
    ]
    found = read_composite(tmp_path)
    inputs = tiny_inputs(composite.modules[0].parent, 12)
    assert torch.equal(found.scores(inputs), composite.scores(inputs))
    assert found.sources == composite.sources


def test_tensors_of_no_module_are_noticed(tmp_path):
    write_composite(two_parents(), tmp_path)
    path = tmp_path / "modules.safetensors"
    sha256 = write_tensors(path, {"7/keep.x": torch.zeros(1)})
    edit(tmp_path / "modules.json", lambda body: body["files"].update({path.name: sha256}))
    found = hashlib.sha256((tmp_path / "modules.json").read_bytes()).hexdigest()
    edit(tmp_path / "composition.json", lambda body: body["files"].update({"modules.json": found}))
    with pytest.raises(ValueError, match="'7/keep.x', of no module"):
        read_composite(tmp_path)


@pytest.mark.parametrize("folder", ["../elsewhere", "/etc", "modules/../x", "modules", ""])
def test_a_folder_never_leads_elsewhere(tmp_path, folder):
    write_as_format_1(two_parents(), tmp_path)
    edit(tmp_path / "composition.json", lambda body: body["modules"][0].update(folder=folder))
    with pytest.raises(ValueError, match="expected modules/<number>"):
        read_composite(tmp_path)


def test_a_newer_format_is_refused(tmp_path):
    write_composite(two_parents(), tmp_path)
    edit(tmp_path / "composition.json", lambda body: body.update(format=FORMAT + 1))
    with pytest.raises(ValueError, match=rf"has format {FORMAT + 1}.*Upgrade"):
        read_composite(tmp_path)


def test_a_score_that_is_not_known_is_refused(tmp_path):
    write_composite(two_parents(), tmp_path)
    edit(tmp_path / "composition.json", lambda body: body.update(score="tea leaves"))
    with pytest.raises(ValueError, match="tea leaves"):
        read_composite(tmp_path)


def test_one_network_with_two_tokenizers(tmp_path):
    parent = tiny_parent("text")
    modules = (tiny_module(parent, "german"), tiny_module(Parent(parent.network), "irish"))

    class Both:
        score, parameters, recipe = "margin", {}, ()

    Both.modules = modules
    with pytest.raises(ValueError, match="two tokenizers"):
        write_composite(Both(), tmp_path)


def test_identity_survives_the_files(tmp_path):
    """Nothing removed, nothing repaired, written and read: the parent's own answers."""
    parent = tiny_parent("tokens", dtype=torch.float64)
    composite = compose(tiny_modules(parent, removal=0.0, repaired=False))
    write_composite(composite, tmp_path)
    inputs = tiny_inputs(parent, 30)
    found = read_composite(tmp_path).scores(inputs)
    for row, ids in zip(found, inputs, strict=True):
        logits = parent.network(Rows(torch.tensor([ids])))[0]
        for index in range(len(logits)):
            rest = torch.cat([logits[:index], logits[index + 1 :]]).logsumexp(0)
            assert abs(float(row[index] - (logits[index] - rest))) < 1e-10
