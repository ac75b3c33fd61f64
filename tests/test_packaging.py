"""The package as it is installed: light imports, floors, entry points, files of the project."""

from __future__ import annotations

import ast
import configparser
import os
import re
import subprocess
import sys
from functools import cache
from importlib.metadata import distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Floors, and within one who may ask whom: what is on the same floor and step is one thing.
FLOORS = {
    "mlflow_rnnmod._digest": 1,
    "mlflow_rnnmod._locks": 1,
    "mlflow_rnnmod.network": 1.3,
    "mlflow_rnnmod.answers": 1.1,
    "mlflow_rnnmod.inputs": 1.2,
    "mlflow_rnnmod.networks": 1.3,
    "mlflow_rnnmod.decomposition": 2,
    "mlflow_rnnmod.composition": 3,
    "mlflow_rnnmod.storage": 4,
    "mlflow_rnnmod.pages": 5,
    "mlflow_rnnmod.tracking": 5.1,
    "mlflow_rnnmod": 6,
    "mlflow_rnnmod.cli": 7,
    "lightning_callbacks": 7,
}
ABOVE_THE_CORE = ("mlflow", "lightning", "pytorch_lightning", "datasets", "click", "rich")


def floor_of(module: str) -> float | None:
    """The floor of a module of ours; ``None`` for anybody else's."""
    for package in sorted(FLOORS, key=len, reverse=True):
        if module == package or module.startswith(package + "."):
            return FLOORS[package]
    return None


@cache
def imports_of(path: Path) -> set[str]:
    """Absolute names of all modules that a file imports, anywhere in it."""
    package = path.relative_to(ROOT).parent.parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            name = ".".join([*base, *([node.module] if node.module else [])])
            members = {f"{name}.{alias.name}" for alias in node.names}
            found |= members if name == "mlflow_rnnmod" else {name} | members
    return found


def sources() -> list[Path]:
    return sorted(
        path
        for top in ("mlflow_rnnmod", "lightning_callbacks")
        for path in (ROOT / top).rglob("*.py")
    )


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def run_python(code: str, *options: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter outside of the checkout, which finds the installed package."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, *options, "-c", code],
        capture_output=True,
        text=True,
        cwd=Path(sys.prefix),
        env=environment,
        check=False,
    )


@pytest.mark.parametrize("path", sources(), ids=module_name)
def test_imports_go_down_only(path: Path) -> None:
    name = module_name(path)
    own = floor_of(name) or 0
    up = {other for other in imports_of(path) if (floor_of(other) or 0) > own}
    assert not up, f"{name} is on floor {own} and imports {sorted(up)}"


@pytest.mark.parametrize("path", sources(), ids=module_name)
def test_the_core_knows_neither_mlflow_nor_lightning(path: Path) -> None:
    if (floor_of(module_name(path)) or 0) <= 4:
        tops = {name.split(".")[0] for name in imports_of(path)}
        assert not tops & set(ABOVE_THE_CORE)


FOLDERS = ("recurrent", "translator", "graph")
ARCHITECTURES = tuple(f"mlflow_rnnmod.networks.{name}" for name in FOLDERS)
# One reader for each architecture, and the table of readers.
READERS = "lightning_callbacks.readers"


@pytest.mark.parametrize("path", sources(), ids=module_name)
def test_floors_above_know_no_architecture(path: Path) -> None:
    """A new one is a folder, a row of ``ARCHITECTURES``, a reader and a row of ``READERS``."""
    name = module_name(path)
    if (floor_of(name) or 0) >= 2 and not name.startswith(READERS):
        known = {other for other in imports_of(path) if other.startswith(ARCHITECTURES)}
        assert not known, f"{name} imports {sorted(known)}"


def test_each_architecture_is_in_a_table() -> None:
    from lightning_callbacks.readers import READERS as readers
    from mlflow_rnnmod.networks.architectures import ARCHITECTURES as rows

    folders = set(FOLDERS)
    found = {path.parent.name for path in (ROOT / "mlflow_rnnmod/networks").glob("*/__init__.py")}
    assert found == folders == {type(reader).__module__.split(".")[-1] for reader in readers}
    assert {row.network.__module__.split(".")[-2] for row in rows.values()} == folders


@pytest.mark.parametrize("path", sources(), ids=module_name)
def test_nothing_is_pickled(path: Path) -> None:
    tops = {name.split(".")[0] for name in imports_of(path)}
    assert not tops & {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}


@pytest.mark.slow
def test_importing_mlflow_is_clean_and_light() -> None:
    code = "import sys, mlflow; print('torch' in sys.modules, 'mlflow_rnnmod' in sys.modules)"
    done = run_python(code, "-W", "error::UserWarning")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == "False"
    assert "Failure attempting to register" not in done.stderr
    assert "Warning" not in done.stderr


def test_importing_the_package_needs_neither_torch_nor_mlflow() -> None:
    code = (
        "import sys, mlflow_rnnmod; "
        "print([m for m in ('torch', 'mlflow', 'pytorch_lightning') if m in sys.modules])"
    )
    done = run_python(code, "-W", "error")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_the_core_runs_without_mlflow_and_lightning() -> None:
    code = (
        "import sys\n"
        "for name in ('mlflow', 'lightning', 'pytorch_lightning'): sys.modules[name] = None\n"
        "import mlflow_rnnmod.networks, mlflow_rnnmod.decomposition\n"
        "import mlflow_rnnmod.composition, mlflow_rnnmod.storage\n"
        "print('fine')"
    )
    done = run_python(code)
    assert done.stdout.strip() == "fine", done.stderr


def test_every_public_name_is_there() -> None:
    import mlflow_rnnmod

    missing = [name for name in mlflow_rnnmod.__all__ if not hasattr(mlflow_rnnmod, name)]
    assert not missing
    assert mlflow_rnnmod.__version__ == distribution("mlflow-rnnmod").version


def test_entry_points_can_be_loaded() -> None:
    found = distribution("mlflow-rnnmod").entry_points
    for entry_point in found:
        assert callable(entry_point.load())
    assert {(e.group, e.name) for e in found} == {
        ("console_scripts", "rnnmod"),
        ("mlflow.artifact_repository", "rnnmod"),
        ("mlflow.model_evaluator", "rnnmod"),
    }


def test_versions_that_the_tests_ran_with_are_allowed() -> None:
    from packaging.requirements import Requirement

    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = config["options"]["install_requires"].splitlines()
    for extra in config["options.extras_require"].values():
        lines += extra.splitlines()
    lines = [line for line in lines if line.strip()]
    pins = {}
    for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            name, version = line.split("==")
            pins[name.casefold()] = version
    for requirement in map(Requirement, lines):
        if requirement.name == "mlflow-rnnmod":  # an extra that asks for another
            continue
        assert requirement.name.casefold() in pins, (
            f"{requirement.name} has no version to test with"
        )
        assert pins[requirement.name.casefold()] in requirement.specifier


def written() -> list[Path]:
    return [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]


@pytest.mark.parametrize("path", written(), ids=lambda path: path.name)
def test_links_lead_to_files_of_the_repository(path: Path) -> None:
    links = re.findall(r"\]\(([^)\s#]+)", path.read_text("utf-8"))
    missing = [x for x in links if "://" not in x and not (path.parent / x).exists()]
    assert not missing


def test_commands_in_texts_are_targets_and_modules() -> None:
    told = "\n".join(path.read_text("utf-8") for path in written())
    targets = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", told, re.MULTILINE)) <= set(targets)
    modules = set(re.findall(r"python -m (benchmarks\.\w+)", told))
    assert modules
    paths = [ROOT / name.replace(".", "/") for name in modules]
    assert all(p.with_suffix(".py").is_file() or (p / "__main__.py").is_file() for p in paths)
