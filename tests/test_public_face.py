"""The typed and lazy face of the package, and the old names of what has moved."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path

import pytest

import mlflow_rnnmod

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


@pytest.mark.parametrize(
    ("old", "new"), [("network", "mlflow_rnnmod.networks"), ("flavor", "mlflow_rnnmod")]
)
def test_old_names_give_the_same_and_warn(
    old: str, new: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, f"mlflow_rnnmod.{old}", raising=False)
    with pytest.warns(DeprecationWarning, match=f"mlflow_rnnmod.{old} is now {new}$"):
        moved = importlib.import_module(f"mlflow_rnnmod.{old}")
    there = importlib.import_module(new)
    names = [name for name in there.__all__ if new != "mlflow_rnnmod" or name in moved.__all__]
    assert names
    assert all(getattr(moved, name) is getattr(there, name) for name in names)
