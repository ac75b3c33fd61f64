"""What MLflow hands over and gets back, against asking composites directly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from mlflow import pyfunc

from mlflow_rnnmod.composition import compose, whole_parent
from mlflow_rnnmod.tracking.directory import model_directory, signature_for
from mlflow_rnnmod.tracking.environment import EnvironmentFiles
from mlflow_rnnmod.tracking.pyfunc import RnnmodModel
from tests.contract.base import Subject
from tests.contract.subjects import subject, subjects
from tests.contract.test_files import modules_of


def things(subject: Subject) -> dict[str, tuple[Any, Any]]:
    """What can be logged, each with the composite that it answers as."""
    modules = modules_of(subject)
    return {
        "parent": (subject.parent, whole_parent(subject.parent)),
        "module": (modules[0], compose(modules[:1])),
        "composite": (composite := compose(modules), composite),
    }


def forms(subject: Subject, inputs: list[Any]) -> list[Any]:
    """All the forms that inputs come in."""
    column = subject.parent.input.column
    return [
        pd.DataFrame({column: pd.Series(inputs, dtype=object)}),
        [{column: item} for item in inputs],
        {column: inputs},
        pd.Series(inputs, dtype=object),
        inputs,
    ]


def plain(found: Any) -> Any:
    """Answers as plain data, whatever form they have."""
    if isinstance(found, pd.DataFrame):
        columns = list(found.columns)
        return found[columns[0]].tolist() if len(columns) == 1 else found.to_dict("records")
    assert isinstance(found, np.ndarray) and found.ndim == 1
    return found.tolist()


def batches(inputs: list[Any], size: int) -> list[list[Any]]:
    """Inputs as they are run together: where padding is read, it matters how much there is."""
    return [inputs[start : start + size] for start in range(0, len(inputs), size)]


@subjects
def test_all_forms_answer_as_the_composite_does(name):
    mine = subject(name)
    inputs = mine.inputs(7)
    for thing, composite in things(mine).values():
        for size in (3, 100):
            expected = [a for part in batches(inputs, size) for a in composite.predict(part)]
            model = RnnmodModel(thing, {"batch_size": size})
            for data in forms(mine, inputs):
                assert plain(model.predict(data)) == expected
            assert len(model.predict({mine.parent.input.column: []})) == 0


@subjects
def test_what_can_be_asked_for(name):
    """Scores where there are some, one language where answers are routed by it."""
    mine = subject(name)
    inputs = mine.inputs(7)
    for thing, composite in things(mine).values():
        model = RnnmodModel(thing, {"batch_size": 3})
        if not mine.scored:
            for label in composite.labels:
                found = plain(model.predict(inputs, {"target": label}))
                assert found == composite.predict(inputs, target=label)
            continue
        table = model.predict(inputs, {"scores": True})
        assert list(table.columns) == ["prediction", *composite.labels]
        assert plain(model.predict(inputs)) == table["prediction"].tolist()
        scores = [row for part in batches(inputs, 3) for row in composite.scores(part)]
        for number, label in enumerate(composite.labels):
            for cell, row in zip(table[label], scores, strict=True):
                column = row[..., number]
                assert np.allclose(cell, column[~column.isnan()], rtol=1e-12, atol=1e-12)


@subjects
def test_signatures_name_the_columns_and_a_loaded_model_keeps_to_them(name, tmp_path):
    mine = subject(name)
    config, inputs = mine.network.config, mine.inputs(5)
    column = mine.parent.input.column
    for what, (thing, composite) in things(mine).items():
        environment = EnvironmentFiles({})
        standalone = {"standalone": True} if what == "module" else {}
        made = model_directory(thing, tmp_path / what, environment, **standalone)
        assert made.signature == signature_for(
            mine.parent.input_kind, config.output, composite.labels, size=mine.parent.input_size
        )
        tensor = mine.parent.input.tensor
        assert made.signature.inputs.input_names() == ([0] if tensor else [column])
        model = pyfunc.load_model(str(tmp_path / what))
        for data in [np.float32(inputs)] if tensor else forms(mine, inputs)[:2]:
            found = model.predict(data)
            assert plain(found) == composite.predict(inputs)
            if isinstance(found, pd.DataFrame):
                assert made.signature.outputs.input_names() == list(found.columns)
