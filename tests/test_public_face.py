"""The typed and lazy face of the package, and the old names of what has moved."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path

import pytest

import mlflow_rnnmod
from mlflow_rnnmod._moved import MOVED

FACE = Path(mlflow_rnnmod.__file__)
# The class of loaded models is MLflow's way in, not ours; the flavor's name stands in the face.
PRIVATE, OWN = {"_load_pyfunc"}, {"FLAVOR_NAME"}


def typed_homes() -> dict[str, str]:
    """Homes of names by name, as type checkers read them: the imports under ``TYPE_CHECKING``."""
    blocks = [
        node
        for node in ast.parse(FACE.read_text("utf-8")).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    return {
        alias.asname or alias.name: str(node.module)
        for block in blocks
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_type_checkers_see_what_is_there() -> None:
    lazy = {name: home for home, names in mlflow_rnnmod._HOMES.items() for name in names}
    assert set(mlflow_rnnmod.__all__) == set(lazy) - PRIVATE | OWN
    assert typed_homes() == {name: home for name, home in lazy.items() if name not in PRIVATE}


def test_public_names_are_listed_once_and_in_order() -> None:
    names = mlflow_rnnmod.__all__
    assert len(set(names)) == len(names)
    assert names == sorted(names, key=lambda name: (not name.isupper(), name.islower(), name))


def test_every_public_thing_is_described() -> None:
    things = {name: getattr(mlflow_rnnmod, name) for name in mlflow_rnnmod.__all__}
    assert not [name for name, thing in things.items() if name not in OWN and not thing.__doc__]


def test_old_names_of_modules_are_the_new_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    for old, new in MOVED.items():
        monkeypatch.delitem(sys.modules, old, raising=False)
        with pytest.warns(DeprecationWarning, match=f"{old} is now {new}$"):
            moved = importlib.import_module(old)
        there = vars(importlib.import_module(new))
        names = [name for name in there if not name.startswith("__")]
        assert names
        assert all(getattr(moved, name) is there[name] for name in names), old


def test_old_names_are_not_in_use_here() -> None:
    """No module of ours is imported by its old name, and no new name is itself an old one."""
    assert not set(MOVED.values()) & set(MOVED)
    root = FACE.parent.parent
    tops = ("mlflow_rnnmod", "lightning_callbacks", "examples", "benchmarks", "tests", "docs")
    for path in (path for top in tops for path in (root / top).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                used = {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            elif isinstance(node, ast.Import):
                used = {alias.name for alias in node.names}
            else:
                continue
            assert not used & set(MOVED), f"{path.relative_to(root)}:{node.lineno}"
