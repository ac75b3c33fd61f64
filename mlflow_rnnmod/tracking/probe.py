"""A fresh process that loads a version by its URI and asks it: for an answer, or for figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_STATE

from mlflow_rnnmod.inputs import input_of
from mlflow_rnnmod.tracking import fetch
from mlflow_rnnmod.tracking.directory import answer_in, input_kind, labels_of, size_of
from mlflow_rnnmod.tracking.figures import figures, set_figures
from mlflow_rnnmod.tracking.given import TARGETS, Given
from mlflow_rnnmod.tracking.parents import CACHE_VARIABLE
from mlflow_rnnmod.tracking.pyfunc import RnnmodModel

if TYPE_CHECKING:
    import pandas as pd

    from mlflow_rnnmod.tracking.directory import Thing


ROWS = 64
"""Rows that are asked, at the most."""
_SECONDS = 600
_MARK = "rnnmod-answers:"
_LAST_LINES = 5


def probe(uri: str, column: str, inputs: Sequence[Any], timeout: float = _SECONDS) -> list[Any]:
    """What the model under ``uri`` answers in a fresh process, through ``mlflow.pyfunc``.

    ``timeout``: seconds.
    """
    asked = {"uri": uri, "column": column, "inputs": [_plain(item) for item in inputs]}
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri(),
        "MLFLOW_REGISTRY_URI": mlflow.get_registry_uri(),
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        CACHE_VARIABLE: "",
    }
    command = [sys.executable, "-m", __name__]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(asked),
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _failed(uri, f"there was no answer within {timeout:g} seconds") from error
    answers = [x for x in done.stdout.splitlines() if x.startswith(_MARK)]
    if done.returncode or not answers:
        said = done.stderr.strip().splitlines()[-_LAST_LINES:]
        raise _failed(uri, " ".join(said) or f"exit code {done.returncode}")
    return list(json.loads(answers[-1].removeprefix(_MARK)))


def _failed(uri: str, why: str) -> MlflowException:
    return MlflowException(
        f"{uri} does not load and answer in a process of its own: {why}", error_code=INVALID_STATE
    )


def answers_in(found: Any) -> list[Any]:
    """Answers as plain lists, of an array or a table of one column or of several."""
    if hasattr(found, "columns"):
        if len(found.columns) == 1:
            return [_plain(cell) for cell in found[found.columns[0]]]
        return [_plain(row) for row in found.to_dict(orient="records")]
    return [_plain(cell) for cell in found]


def _plain(item: Any) -> Any:
    if hasattr(item, "tolist"):
        item = item.tolist()
    if isinstance(item, list | tuple):
        return [_plain(part) for part in item]
    if isinstance(item, dict):
        return {key: _plain(part) for key, part in item.items()}
    return item


def made_up(thing: Any) -> Any:
    """An input that a parent, a module or a composite can read."""
    return input_of(input_kind(thing)).made_up(size_of(thing))


def main() -> None:
    """What :func:`probe` runs: a question on the standard input, answers on the output."""
    import numpy as np
    import pandas as pd

    asked = json.load(sys.stdin)
    model = mlflow.pyfunc.load_model(asked["uri"])
    given: Any = pd.DataFrame({asked["column"]: pd.Series(asked["inputs"], dtype=object)})
    schema = model.metadata.get_input_schema()
    if schema is not None and schema.is_tensor_spec():
        given = np.asarray(asked["inputs"], schema.inputs[0].type)
    print(_MARK + json.dumps(answers_in(model.predict(given))), flush=True)


if __name__ == "__main__":
    main()


def measure(
    uri: str, thing: Thing, rows: Given, log: bool = True
) -> tuple[dict[str, float], pd.DataFrame]:
    """Figures over all rows and a table of each label's; logged to the model, too.

    ``uri``: of the model, by which MLflow's evaluation finds it; ``log``: whether
    ``mlflow.models.evaluate`` logs them, in a run of its own.
    """
    answer = answer_in(thing)
    if not answer.scored:
        raise MlflowException.invalid_parameter_value(
            f"{uri} translates; expected a model that answers labels. Two translating models are "
            "compared by diff OLD NEW --data."
        )
    answers = answers_in(RnnmodModel(thing).predict(rows.inputs))
    labels = list(labels_of(thing))
    try:
        if answer.each_step:
            pairs = [
                (str(right), said)
                for rights, saids in zip(rows.targets, answers, strict=True)
                for right, said in zip(rights, saids, strict=True)
                if right is not None
            ]
            found = figures([r for r, _ in pairs], [s for _, s in pairs], labels)
        elif answer.metric == "accuracy":
            found = figures(rows.targets, answers, labels)
        else:
            found = set_figures(rows.targets, answers, labels, getattr(thing, "end_label", None))
    except ValueError as error:
        raise MlflowException.invalid_parameter_value(str(error)) from error
    if log:
        _log(uri, rows)
    return found


def _log(uri: str, rows: Given) -> None:
    table: Any = rows.table.copy()
    target = "_right"
    table[target] = rows.targets
    table = table[[c for c in table.columns if c not in TARGETS or c == target]]
    # By its id: figures of a version belong to the model that it is a version of.
    model_id = fetch.model_id_of(fetch.origin_of(uri))
    known = {} if model_id is None else {"model_id": model_id}
    uri = f"models:/{model_id}" if model_id else uri
    with mlflow.start_run(run_name="evaluation"):
        mlflow.models.evaluate(uri, table, targets=target, model_type="rnnmod", **known)
