"""What a logged model needs around it: requirements, our own code and the users'."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from zipfile import ZipFile

import mlflow
import numpy as np
import pytest
import torch
import yaml
from mlflow.models import Model

import mlflow_rnnmod
from mlflow_rnnmod.tracking.environment import environment_files, torch_index
from mlflow_rnnmod.tracking.flavor import model_directory
from tests.builders import tiny_module, tiny_modules, tiny_parent
from tests.tracking.test_flavor import THINGS, make


def test_default_environment(tmp_path):
    mlflow_rnnmod.save_model(make("parent"), tmp_path)
    requirements = (tmp_path / "requirements.txt").read_text().split("\n")
    default = mlflow_rnnmod.get_default_pip_requirements()
    assert requirements == [f"mlflow=={mlflow.__version__}", *torch_index(), *default]
    found = yaml.safe_load((tmp_path / "conda.yaml").read_text())
    pip = found["dependencies"][-1]["pip"]
    expected = mlflow_rnnmod.get_default_conda_env()["dependencies"][-1]["pip"]
    assert sorted(pip) == sorted(expected)
    assert "python" in yaml.safe_load((tmp_path / "python_env.yaml").read_text())


@pytest.mark.parametrize(
    ("build", "options"), [("2.13.0+cpu", 1), ("2.13.0", 0), ("2.13.0+cu130", 0)]
)
def test_a_container_gets_the_build_of_torch_that_runs_here(monkeypatch, build, options):
    """The build for CPUs is in an index of its own; the other one takes gigabytes."""
    from mlflow_rnnmod.tracking import environment

    version = environment.metadata.version
    known = {"torch": build}
    monkeypatch.setattr(
        environment.metadata, "version", lambda name: known.get(name) or version(name)
    )
    lines = environment_files().files["requirements.txt"].splitlines()
    found = [line for line in lines if line.startswith("--extra-index-url https://")]
    assert len(found) == options
    assert "torch==2.13.0" in lines
    assert environment_files(pip_requirements=["numpy"]).files["requirements.txt"].count("--") == 0


def test_requirements_are_pinned_to_what_runs():
    pins = dict(pin.split("==") for pin in mlflow_rnnmod.get_default_pip_requirements())
    assert pins["torch"] == torch.__version__.partition("+")[0]
    assert pins["numpy"] == np.__version__


@pytest.mark.parametrize("form", ["dict", "path"])
def test_conda_env(tmp_path, form):
    given = {"name": "mine", "dependencies": ["python=3.11", "pip", {"pip": ["mlflow", "regex"]}]}
    path = tmp_path / "env.yaml"
    path.write_text(yaml.safe_dump(given))
    mlflow_rnnmod.save_model(
        make("parent"), tmp_path / "m", conda_env=given if form == "dict" else str(path)
    )
    assert yaml.safe_load((tmp_path / "m" / "conda.yaml").read_text()) == given
    assert (tmp_path / "m" / "requirements.txt").read_text().split("\n") == ["mlflow", "regex"]


def test_pip_requirements(tmp_path):
    (tmp_path / "reqs.txt").write_text("regex")
    (tmp_path / "limits.txt").write_text("numpy<99")
    own = f"mlflow=={mlflow.__version__}"
    cases = {
        "file": (str(tmp_path / "reqs.txt"), [own, "regex"]),
        "list": ([f"-r {tmp_path / 'reqs.txt'}", "attrs"], [own, "regex", "attrs"]),
        "limits": (
            [f"-c {tmp_path / 'limits.txt'}", "attrs"],
            [own, "attrs", "-c constraints.txt"],
        ),
    }
    for name, (given, expected) in cases.items():
        mlflow_rnnmod.save_model(make("parent"), tmp_path / name, pip_requirements=given)
        assert (tmp_path / name / "requirements.txt").read_text().split("\n") == expected
    assert (tmp_path / "limits" / "constraints.txt").read_text() == "numpy<99"


def test_extra_pip_requirements(tmp_path):
    mlflow_rnnmod.save_model(make("parent"), tmp_path, extra_pip_requirements=["regex"])
    found = (tmp_path / "requirements.txt").read_text().split("\n")
    default = mlflow_rnnmod.get_default_pip_requirements()
    assert found[1:] == [*torch_index(), *default, "regex"]


def test_two_kinds_of_environment_are_refused(tmp_path):
    with pytest.raises(ValueError, match="Only one of"):
        mlflow_rnnmod.save_model(
            make("parent"), tmp_path, conda_env={"name": "x"}, pip_requirements=["y"]
        )


def sources() -> set[str]:
    package = Path(mlflow_rnnmod.__file__).parent
    return {f"mlflow_rnnmod/{p.relative_to(package).as_posix()}" for p in package.rglob("*.py")}


def test_code_goes_along_where_pip_cannot_get_it(tmp_path):
    for what in THINGS:
        mlflow_rnnmod.save_model(make(what), tmp_path / what)
    archive = "code/mlflow_rnnmod.zip"
    for what in THINGS:
        assert set(ZipFile(tmp_path / what / archive).namelist()) == sources()
        assert Model.load(str(tmp_path / what)).flavors["python_function"]["code"] == archive
    assert len({(tmp_path / what / archive).read_bytes() for what in THINGS}) == 1


def test_a_module_by_reference_borrows_its_parents_code(tracking_uri, tmp_path):
    info = mlflow_rnnmod.log_model(tiny_module(tiny_parent()))
    path = Path(mlflow.artifacts.download_artifacts(info.model_uri, dst_path=str(tmp_path)))
    files = [p for p in (path / "code").rglob("*") if p.is_file()]
    assert [p.name for p in files] == ["__init__.py"]
    assert files[0].stat().st_size < 5000
    # Without a server to ask whose code the parent has, a module brings all of it.
    module = tiny_module(tiny_parent().known_as("m-1", "sqlite:///x.db"))
    mlflow_rnnmod.save_model(module, tmp_path / "saved")
    assert (tmp_path / "saved" / "code" / "mlflow_rnnmod.zip").is_file()


def test_code_of_the_users_own_is_added(tmp_path):
    (tmp_path / "helper.py").write_text("x = 1\n")
    mlflow_rnnmod.save_model(
        make("parent"), tmp_path / "m", code_paths=[str(tmp_path / "helper.py")]
    )
    assert {p.name for p in (tmp_path / "m" / "code").iterdir()} == {"helper.py", "mlflow_rnnmod"}
    assert (tmp_path / "m" / "code" / "mlflow_rnnmod" / "__init__.py").is_file()
    with pytest.raises(TypeError, match="code_paths"):
        mlflow_rnnmod.save_model(make("parent"), tmp_path / "n", code_paths="helper.py")


def test_native_loading_leaves_the_path_alone(tmp_path):
    """Nothing that comes with a model can be imported by loading it."""
    mlflow_rnnmod.save_model(make("parent"), tmp_path)
    before = list(sys.path)
    mlflow_rnnmod.load_model(tmp_path)
    assert sys.path == before


class Distribution:
    """An installed distribution, as importlib.metadata shows it."""

    version = "9.9"

    def __init__(self, folder: Path, files: dict[str, str]) -> None:
        self.folder, self.files = folder, files

    def locate_file(self, name: str) -> Path:
        return self.folder / name

    def read_text(self, name: str) -> str | None:
        return self.files.get(name)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"RECORD": ""}, "mlflow-rnnmod==9.9"),
        ({}, None),
        ({"RECORD": "", "direct_url.json": '{"url": "file:///x", "dir_info": {}}'}, None),
        (
            {
                "RECORD": "",
                "direct_url.json": json.dumps(
                    {"url": "https://x/y", "vcs_info": {"vcs": "git", "commit_id": "abc"}}
                ),
            },
            "mlflow-rnnmod @ git+https://x/y@abc",
        ),
    ],
)
def test_how_pip_can_get_us(monkeypatch, tmp_path, files, expected):
    from mlflow_rnnmod.tracking import environment

    here = Path(mlflow_rnnmod.__file__).parent.parent
    monkeypatch.setattr(
        environment.metadata, "distribution", lambda name: Distribution(here, files)
    )
    assert environment.own_requirement() == expected
    # Another copy is installed than the one that runs.
    monkeypatch.setattr(
        environment.metadata, "distribution", lambda name: Distribution(tmp_path, files)
    )
    assert environment.own_requirement() is None


def test_from_an_index_no_code_is_needed(monkeypatch, tmp_path):
    from mlflow_rnnmod.tracking import directory, environment

    own = "mlflow-rnnmod==9.9"
    monkeypatch.setattr(environment, "own_requirement", lambda: own)
    monkeypatch.setattr(directory, "own_requirement", lambda: own)
    mlflow_rnnmod.save_model(make("parent"), tmp_path)
    assert not (tmp_path / "code").exists()
    assert own in (tmp_path / "requirements.txt").read_text().split("\n")


def test_environment_files_serve_many_models(tmp_path):
    environment = environment_files()
    parent = tiny_parent().known_as("m-1", "sqlite:///x.db")
    for module in tiny_modules(parent):
        model_directory(module, tmp_path / module.label, environment)
    contents = {(tmp_path / label / "requirements.txt").read_text() for label in parent.labels}
    assert contents == {
        "\n".join(
            [
                f"mlflow=={mlflow.__version__}",
                *torch_index(),
                *mlflow_rnnmod.get_default_pip_requirements(),
            ]
        )
    }


@pytest.mark.parametrize("what", ["parent", "module", "composite"])
def test_loading_leaves_no_archive_on_the_path(tmp_path, what):
    """Of a hundred, each would be searched at every import."""
    for number in range(2):
        mlflow_rnnmod.save_model(make(what), tmp_path / str(number))
        assert (tmp_path / str(number) / "code").exists()
        mlflow.pyfunc.load_model(str(tmp_path / str(number)))
    assert not [entry for entry in sys.path if entry.startswith(str(tmp_path))]
