"""A made-up input of every kind: what checks and rollbacks ask, and the example of a composite."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from click.testing import CliRunner
from mlflow.models import Model

import mlflow_rnnmod
from mlflow_rnnmod.cli import main
from mlflow_rnnmod.composition import Composite, compose
from mlflow_rnnmod.operating.promotion import try_version
from mlflow_rnnmod.tracking.given import read_given
from tests.builders import tiny_modules, tiny_parent
from tests.tracking.test_images import FILES, PIXELS, PREPARATION, parent_of_images

KINDS = ("text", "tokens", "features", "images", "pixels")


def composite_of(kind: str) -> Composite:
    if kind in ("images", "pixels"):
        return compose(tiny_modules(parent_of_images(PREPARATION if kind == "images" else None)))
    return compose(tiny_modules(tiny_parent(kind)))


@pytest.mark.parametrize("kind", KINDS)
def test_check_asks_every_kind(kind: str, tracking_uri: str) -> None:
    composite = composite_of(kind)
    assert composite.input_kind == kind
    info = mlflow_rnnmod.log_model(composite)
    found = CliRunner().invoke(main, ["check", info.model_uri, "--json"])
    assert json.loads(found.stdout)[0]["problem"] is None


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["images", "pixels"])
def test_images_are_tried_in_a_process_of_their_own(kind: str, tracking_uri: str) -> None:
    """As a rollback does, which has no rows, and the gate, which has some."""
    composite = composite_of(kind)
    mlflow_rnnmod.log_model(composite, registered_model_name="seen")
    try_version("models:/seen/1", composite)
    inputs: list[Any] = FILES if kind == "images" else (PIXELS.double() / 255).tolist()
    try_version("models:/seen/1", composite, read_given((inputs, ["cat"] * 8), composite))


@pytest.mark.parametrize("kind", KINDS)
def test_a_composite_has_an_example(kind: str, tracking_uri: str) -> None:
    info = mlflow_rnnmod.log_model(composite_of(kind))
    example = Model.load(info.model_uri).load_input_example()
    if kind == "pixels":
        assert example is None
        return
    assert len(example) == 1
    assert len(mlflow.pyfunc.load_model(info.model_uri).predict(example)) == 1


def test_the_example_is_the_users_own_where_there_is_one(tmp_path: Path) -> None:
    own = pd.DataFrame({"text": ["Zapatero"]})
    mlflow_rnnmod.save_model(composite_of("text"), tmp_path / "own", input_example=own)
    assert Model.load(str(tmp_path / "own")).load_input_example(str(tmp_path / "own")).equals(own)
    mlflow_rnnmod.save_model(tiny_parent("text"), tmp_path / "none")
    assert Model.load(str(tmp_path / "none")).saved_input_example_info is None


@pytest.mark.parametrize("written", ["path", "base64"])
@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_rows_of_images_in_a_file(written: str, suffix: str, tmp_path: Path) -> None:
    """As paths, or as base64, and what is neither is said with its row."""
    composite = composite_of("images")
    (tmp_path / "a.png").write_bytes(FILES[0])
    cell = str(tmp_path / "a.png") if written == "path" else base64.b64encode(FILES[0]).decode()
    table = pd.DataFrame({"image": [cell, cell], "label": ["cat", "dog"]})
    file = tmp_path / f"rows{suffix}"

    def write(frame: pd.DataFrame) -> None:
        if suffix == ".csv":
            frame.to_csv(file, index=False)
        else:
            frame.to_json(file, orient="records", lines=True)

    write(table)
    given = read_given(file, composite)
    assert given.targets == ["cat", "dog"]
    assert [bool((image == PIXELS[0]).all()) for image in given.inputs] == [True, True]
    write(table.assign(image=[cell, "no such file"]))
    with pytest.raises(mlflow.MlflowException, match="row 1: 'no such file' is no file"):
        read_given(file, composite)
