"""Models that older commits saved: they load, and answer what they answered then.

``tests/saved/make_saved.py`` wrote them, and ``make_saved_graphs.py`` those of formats 3 to 5.
Models are asked by nothing but the package's public face, so that what lies behind it can change.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch

import mlflow_rnnmod
from mlflow_rnnmod.storage import FORMAT

SAVED = Path(__file__).parent / "saved"
NAMES = sorted(path.parent.name for path in SAVED.glob("*/answers.json"))
SAME = 1e-6
# Engines add up in other orders, and MLflow's interface takes the one that should be fastest here.
OTHER_ENGINE = 1e-5
ENGINES = ("auto", "sliced", "threads", "stacked")


@cache
def answers_of(name: str) -> dict[str, Any]:
    return json.loads((SAVED / name / "answers.json").read_text("utf-8"))


def names_of(*kinds: str) -> list[str]:
    return [name for name in NAMES if answers_of(name)["kind"] in kinds]


def folder_of(name: str) -> str:
    """The model's folder; what the model refers to is made known first."""
    if needed := answers_of(name).get("needs"):
        mlflow_rnnmod.load_model(folder_of(needed))
    return str(SAVED / name / "model")


def plain(found: Any) -> Any:
    """Anything that answers as JSON types: NaN as null, infinities by name."""
    if isinstance(found, torch.Tensor | np.ndarray):
        return plain(found.tolist())
    if isinstance(found, pd.DataFrame):
        return {name: plain(found[name].tolist()) for name in found.columns}
    if isinstance(found, dict):
        return {name: plain(value) for name, value in found.items()}
    if isinstance(found, list | tuple):
        return [plain(item) for item in found]
    if isinstance(found, float) and not math.isfinite(found):
        return None if math.isnan(found) else str(found)
    return found.item() if isinstance(found, np.generic) else found


def check(found: Any, expected: Any, tolerance: float = SAME, where: str = "answer") -> None:
    """Fractions have to be close, absolutely and relatively; everything else has to be equal."""
    if isinstance(expected, float):
        assert isinstance(found, float), (where, found, expected)
        assert abs(found - expected) <= tolerance * (1 + abs(expected)), (where, found, expected)
        return
    assert type(found) is type(expected), (where, found, expected)
    if isinstance(expected, dict):
        assert list(found) == list(expected), (where, list(found), list(expected))
        for name, value in expected.items():
            check(found[name], value, tolerance, f"{where}[{name!r}]")
    elif isinstance(expected, list):
        assert len(found) == len(expected), (where, found, expected)
        for position, value in enumerate(expected):
            check(found[position], value, tolerance, f"{where}[{position}]")
    else:
        assert found == expected, (where, found, expected)


@pytest.fixture(scope="module", autouse=True)
def _untouched() -> Iterator[None]:
    """Models are read where they are: nothing is written beside them."""

    def digests() -> dict[str, str]:
        return {
            str(path): hashlib.sha256(path.read_bytes()).hexdigest()
            for name in NAMES
            for path in (SAVED / name).rglob("*")
            if path.is_file()
        }

    before = digests()
    yield
    assert digests() == before


def test_every_kind_is_there():
    assert len(names_of("composite")) == 40
    assert len(names_of("module")) == 9
    assert len(names_of("parent")) == 7


def test_every_format_is_there():
    documents = ("network.json", "module.json", "modules.json", "composition.json")
    paths = [path for name in documents for path in SAVED.rglob(name)]
    formats = {json.loads(path.read_text("utf-8"))["format"] for path in paths}
    assert formats >= set(range(1, FORMAT + 1))


@pytest.mark.parametrize("name", names_of("composite", "module"))
def test_modules_are_what_they_were(name):
    expected, thing = answers_of(name), mlflow_rnnmod.load_model(folder_of(name))
    assert (expected["kind"] == "composite") == isinstance(thing, mlflow_rnnmod.Composite)
    composite = mlflow_rnnmod.compose([thing]) if expected["kind"] == "module" else thing
    assert composite.labels == tuple(expected["labels"])
    assert composite.output == expected["output"]
    assert composite.input_kind == expected["input"]
    assert composite.score == expected["score"]
    assert len(composite.modules) == len(expected["modules"])
    for module, known in zip(composite.modules, expected["modules"], strict=True):
        assert isinstance(module, mlflow_rnnmod.Module)
        assert module.label == known["label"]
        assert module.parent.digest == known["parent"]
        assert module.trunk.digest == known["trunk"]
        contract = plain(module.contract.to_dict())
        # Contracts may come to say more than they did.
        assert {field: contract.get(field) for field in known["contract"]} == known["contract"]
        figures = plain(dict(module.figures))
        check({field: figures.get(field) for field in known["figures"]}, known["figures"])


@pytest.mark.parametrize("name", names_of("composite", "module"))
def test_composites_answer_what_they_did(name):
    expected, thing = answers_of(name), mlflow_rnnmod.load_model(folder_of(name))
    if expected["kind"] == "module":
        thing = mlflow_rnnmod.compose([thing])
    for call in expected["calls"]:
        changed = thing
        for verb, *rest in call["verbs"]:
            changed = getattr(mlflow_rnnmod, verb)(changed, *rest)
        method = getattr(changed, call["method"])
        check(plain(method(expected["inputs"], **call["given"])), call["answer"], where=name)
        if "engine" in call["given"]:
            for engine in ENGINES:
                found = method(expected["inputs"], **{**call["given"], "engine": engine})
                check(plain(found), call["answer"], OTHER_ENGINE, f"{name} by {engine}")


@pytest.mark.parametrize("name", NAMES)
def test_mlflow_serves_what_it_did(name):
    expected = answers_of(name)
    frame: Any = np.array(expected["inputs"], np.float32) if expected["column"] is None else None
    if frame is None:
        frame = pd.DataFrame({expected["column"]: pd.Series(expected["inputs"], dtype=object)})
    model = mlflow.pyfunc.load_model(folder_of(name))
    for asked in expected["served"]:
        found = plain(model.predict(frame, params=asked["params"]))
        check(found, asked["answer"], OTHER_ENGINE, f"{name} with {asked['params']}")


@pytest.mark.parametrize("name", names_of("parent"))
@torch.no_grad()
def test_parents_answer_what_they_did(name):
    expected, parent = answers_of(name), mlflow_rnnmod.load_model(folder_of(name))
    assert isinstance(parent, mlflow_rnnmod.Parent)
    assert parent.digest == expected["digest"]
    assert parent.tokenizers == expected["tokenizers"]
    assert list(parent.labels) == expected["labels"]
    assert parent.input_kind == expected["input"]
    values, lengths = torch.tensor(expected["values"]), expected["lengths"]
    lengths = None if lengths is None else torch.tensor(lengths)
    values = values if not values.is_floating_point() else values.to(parent.network.dtype)
    rows = mlflow_rnnmod.Rows(values, lengths)
    if expected["input"] == "text":
        read = parent.tokenizer(expected["inputs"])
        assert torch.equal(read.values, values) and torch.equal(read.lengths, lengths)
    if "told" in expected:
        logits = parent.network(rows, torch.tensor(expected["told"]))
    else:
        logits = parent.network(rows)
    check(plain(logits), expected["logits"], where=name)
