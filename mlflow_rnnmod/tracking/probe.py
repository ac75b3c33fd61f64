"""Whether a model loads by its URI and answers, tried in a process that knows nothing of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_STATE

from mlflow_rnnmod.inputs import input_of
from mlflow_rnnmod.tracking.directory import input_kind
from mlflow_rnnmod.tracking.given import input_size
from mlflow_rnnmod.tracking.parents import CACHE_VARIABLE

ROWS = 64
"""Rows that are asked, at the most."""
_SECONDS = 600
_MARK = "rnnmod-answers:"
_LAST_LINES = 5


def probe(uri: str, column: str, inputs: Sequence[Any], timeout: float = _SECONDS) -> list[Any]:
    """What the model under ``uri`` answers in a fresh process, through ``mlflow.pyfunc``.

    Args:
        uri: as others will load it.
        column: of the inputs.
        inputs: plain ones, at least one.
        timeout: seconds.

    Raises:
        MlflowException: if it does not load, does not answer, or takes too long.
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
    return _made_up(input_of(input_kind(thing)).column_type, input_size(thing))


def _made_up(column_type: Any, size: int) -> Any:
    if isinstance(column_type, str):
        return {"string": "some text", "long": 0, "double": 0.5}[column_type]
    inner = column_type[1]
    return [_made_up(inner, size)] * (size if inner == "double" else 3)


def main() -> None:
    """What :func:`probe` runs: a question on the standard input, answers on the output."""
    import pandas as pd

    asked = json.load(sys.stdin)
    model = mlflow.pyfunc.load_model(asked["uri"])
    frame = pd.DataFrame({asked["column"]: pd.Series(asked["inputs"], dtype=object)})
    print(_MARK + json.dumps(answers_in(model.predict(frame))), flush=True)


if __name__ == "__main__":
    main()
