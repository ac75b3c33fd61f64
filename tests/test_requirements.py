"""Everything that is imported is declared in setup.cfg, where those who need it get it."""

from __future__ import annotations

import ast
import configparser
import re
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
OWN = "mlflow-rnnmod"
# Who runs the code of a folder has installed these extras.
EXTRAS = {
    "mlflow_rnnmod": ("codecarbon",),  # only where emissions are asked for
    "lightning_callbacks": ("lightning",),
    "examples": ("demo",),
    "benchmarks": ("benchmarks", "codecarbon", "spark"),
    "docs": ("docs",),
    "tests": ("test", "browser", "spark"),
}
# Imported by strings.
BY_NAME = {"examples": {"faker"}, "lightning_callbacks": {"pytorch_lightning"}}


def declared(*extras: str) -> set[str]:
    """Names of all distributions that an installation with these extras asks for."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = config["options"]["install_requires"].splitlines()
    for extra in extras:
        lines += config["options.extras_require"][extra].splitlines()
    found = [Requirement(line) for line in lines if line.strip()]
    names = {canonicalize_name(each.name) for each in found if each.name != OWN}
    for own in (each for each in found if each.name == OWN):
        names |= declared(*own.extras)
    return names


def imported(path: Path) -> Iterator[str]:
    """Top-level names of all that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.importorskip":
            yield ast.literal_eval(node.args[0]).partition(".")[0]


@pytest.mark.slow
@pytest.mark.parametrize("folder", EXTRAS)
def test_everything_imported_is_declared(folder: str) -> None:
    paths = sorted((ROOT / folder).rglob("*.py"))
    assert paths
    ours = {*EXTRAS, *(path.stem for path in (ROOT / "examples").glob("*.py"))}
    names = {name for path in paths for name in imported(path)} | BY_NAME.get(folder, set())
    known, there = packages_distributions(), declared(*EXTRAS[folder])
    missing = {
        name
        for name in names - ours - set(sys.stdlib_module_names)
        # What is not installed is called as it is imported.
        if not {canonicalize_name(each) for each in known.get(name, [name])} & there
    }
    assert not missing, f"{folder} imports {sorted(missing)}, which setup.cfg does not declare"


@pytest.mark.slow
def test_nothing_is_declared_that_nobody_imports() -> None:
    """Tools that are run and not imported are the exception, and what a server imports."""
    tools = {"mypy", "ruff", "pytest-xdist", "furo", "myst-parser", "sphinx", "lightning"}
    tools |= {"boto3", "moto", "psycopg2-binary"}
    paths = [path for folder in EXTRAS for path in (ROOT / folder).rglob("*.py")]
    names = {name for path in paths for name in imported(path)}.union(*BY_NAME.values())
    known = packages_distributions()
    used = {canonicalize_name(each) for name in names for each in known.get(name, [name])}
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    unused = declared(*config["options.extras_require"]) - used - tools
    assert not unused


def test_the_core_needs_no_extra_and_says_which_python() -> None:
    assert not declared() & {"pytorch-lightning", "lightning", "datasets", "faker"}
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    lowest = re.findall(r"3\.\d+", config["options"]["python_requires"])
    classifiers = config["metadata"]["classifiers"]
    assert all(f"Python :: {version}" in classifiers for version in lowest)
