"""Any parent, module or composite behind MLflow's ``python_function`` interface."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from mlflow.exceptions import MlflowException
from torch import Tensor

from mlflow_rnnmod.composition import NONE_OF_THESE, compose
from mlflow_rnnmod.composition.inputs import check_inputs, to_rows
from mlflow_rnnmod.decomposition.module import Module, all_log_odds
from mlflow_rnnmod.network import Parent

COLUMNS = {"text": "text", "tokens": "tokens", "features": "features"}
"""Name of the input column, by kind of input."""

DEFAULTS: dict[str, Any] = {"device": None, "batch_size": 256}
"""What ``mlflow.pyfunc.load_model(..., model_config=...)`` can set."""


class Answers(Protocol):
    """What is asked of a composite here, and of a parent in its place."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the columns of :meth:`scores`."""

    @property
    def input_kind(self) -> str:
        """``"text"``, ``"tokens"`` or ``"features"``."""

    def scores(self, inputs: Any) -> Tensor:
        """Float ``(inputs, labels)``."""

    def answers(
        self, scores: Tensor, reject_below: float | None = None, reject_label: str = NONE_OF_THESE
    ) -> list[str]:
        """A label for each row of scores."""


class ParentAnswers:
    """A parent that is asked like a composite; its scores are its log-odds.

    Args:
        parent: the parent.
        device: where it should run; the parent itself stays where it is.
    """

    def __init__(self, parent: Parent, device: str | None = None) -> None:
        self.parent = parent if device is None else parent.to(device)

    @property
    def labels(self) -> tuple[str, ...]:
        """The parent's labels."""
        return self.parent.labels

    @property
    def input_kind(self) -> str:
        """The parent's."""
        return self.parent.input_kind

    def answers(
        self, scores: Tensor, reject_below: float | None = None, reject_label: str = NONE_OF_THESE
    ) -> list[str]:
        """The label with the largest log-odds, or ``reject_label`` where they are too small."""
        if reject_below is not None and reject_label in self.labels:
            raise ValueError(
                f"reject_label={reject_label!r} is a label of this model; expected another text."
            )
        if len(scores) == 0:
            return []
        best, index = scores.max(dim=1)
        return [
            reject_label if reject_below is not None and score < reject_below else self.labels[i]
            for score, i in zip(best.tolist(), index.tolist(), strict=True)
        ]

    @torch.no_grad()
    def scores(self, inputs: Any) -> Tensor:
        """Log-odds of each label, float ``(inputs, labels)``."""
        network = self.parent.network
        checked = check_inputs(inputs, self.input_kind, network.config.input_size)
        if len(checked) == 0:
            return torch.zeros(0, len(self.labels))
        return all_log_odds(network(to_rows(self.parent, checked).to(network.device))).cpu()


class RnnmodModel:
    """What ``mlflow.pyfunc.load_model`` wraps.

    Args:
        thing: parent, module or composite.
        model_config: ``device`` and ``batch_size`` (see :data:`DEFAULTS`).

    Raises:
        MlflowException: if ``model_config`` does not fit.
    """

    def __init__(self, thing: Any, model_config: Mapping[str, Any] | None = None) -> None:
        config = {**DEFAULTS, **(model_config or {})}
        if type(config["batch_size"]) is not int or config["batch_size"] < 1:
            raise MlflowException.invalid_parameter_value(
                f"model_config['batch_size'] is {config['batch_size']!r}; expected a positive "
                "number of rows."
            )
        self._batch_size: int = config["batch_size"]
        self._thing = thing
        try:
            self._answers = _answers(thing, config["device"])
        except RuntimeError as error:  # torch, for a device that is not there
            raise MlflowException.invalid_parameter_value(
                f"model_config['device'] is {config['device']!r}: {error}"
            ) from error

    def get_raw_model(self) -> Any:
        """The parent, module or composite itself."""
        return self._thing

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:
        """Labels, or scores.

        Args:
            data: a DataFrame with the column that the signature names; outside of MLflow also a
                dict of columns, a Series, or the plain list of inputs.
            params: ``scores`` (False), ``reject_below`` (none), ``reject_label``.

        Returns:
            A 1-D array of labels; with ``scores`` a DataFrame with the column ``prediction`` and
            one for each label. A module by itself answers its label where its score is at least 0.

        Raises:
            MlflowException: if the data do not fit; the first value that does not is named.
        """
        params = params or {}
        reject_below = params.get("reject_below")
        if reject_below is not None and math.isnan(reject_below):
            reject_below = None
        reject_label = params.get("reject_label")
        reject_label = NONE_OF_THESE if reject_label is None else reject_label
        inputs = read_inputs(data, self._answers.input_kind, self._size)
        batches = [
            inputs[start : start + self._batch_size]
            for start in range(0, len(inputs), self._batch_size)
        ]
        try:
            tables = [self._answers.scores(batch) for batch in batches]
            scores = torch.cat(tables) if tables else torch.zeros(0, len(self._answers.labels))
            labels = self._answers.answers(scores, reject_below, reject_label)
        except (ValueError, TypeError) as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        if params.get("scores"):
            return _table(labels, scores, self._answers.labels)
        return np.array(labels, dtype=object)

    @property
    def _size(self) -> int | None:
        """Size of the vocabulary or of one step's features; ``None`` where parents differ."""
        if isinstance(self._thing, Parent):
            return self._thing.network.config.input_size
        modules = (self._thing,) if isinstance(self._thing, Module) else self._thing.modules
        sizes = {module.contract.input_size for module in modules}
        return min(sizes)


def _answers(thing: Any, device: str | None) -> Answers:
    if isinstance(thing, Parent):
        return ParentAnswers(thing, device)
    if isinstance(thing, Module):
        thing = compose([thing])
    return thing if device is None else thing.to(device)


def _table(labels: list[str], scores: Tensor, names: Sequence[str]) -> pd.DataFrame:
    prediction = "prediction"
    while prediction in names:
        prediction += "_"
    table = pd.DataFrame(scores.double().numpy(), columns=list(names))
    table.insert(0, prediction, np.array(labels, dtype=object))
    return table


# --- inputs ---


def read_inputs(data: Any, kind: str, size: int | None = None) -> list[Any]:
    """The inputs in whatever a user or a server hands over, as a plain list.

    A cell that holds a list of texts counts as that many rows: MLflow makes one such row of
    ``{"text": ["a", "b"]}``. ``None`` and NaN are empty texts, or sequences without a step.

    Args:
        data: DataFrame, dict of columns, list of such dicts, Series, array, or plain inputs.
        kind: ``"text"``, ``"tokens"`` or ``"features"``.
        size: of the vocabulary, or of one step's features.

    Raises:
        MlflowException: naming the first input that does not fit, or the columns found.

    Example:
        >>> read_inputs({"text": ["a", "b", None]}, "text")
        ['a', 'b', '']
    """
    cells = _cells(data, COLUMNS[kind])
    if kind == "text":
        return [text for row, cell in enumerate(cells) for text in _texts(cell, row)]
    if kind == "tokens":
        return [ids for row, cell in enumerate(cells) for ids in _ids(cell, row, size)]
    return [_features(cell, row, size) for row, cell in enumerate(cells)]


def _cells(data: Any, column: str) -> list[Any]:
    if isinstance(data, pd.DataFrame):
        if column in data.columns:
            return data[column].tolist()
        if len(data) == 0:
            return []
        found: list[Any] = list(data.columns)
    elif isinstance(data, Mapping):
        if column in data:
            cells = data[column]
            return list(cells) if isinstance(cells, list | tuple | np.ndarray) else [cells]
        found = list(data)
    elif isinstance(data, pd.Series | np.ndarray):
        return data.tolist() if data.dtype == object or data.ndim == 1 else list(data)
    elif isinstance(data, list | tuple):
        if not any(isinstance(item, Mapping) for item in data):
            return list(data)
        missing = [
            i for i, item in enumerate(data) if not isinstance(item, Mapping) or column not in item
        ]
        if not missing:
            return [item[column] for item in data]
        found = [f"row {missing[0]}: {data[missing[0]]!r:.60}"]
    elif isinstance(data, str):
        return [data]
    else:
        raise _misfit(
            f"The input is a {type(data).__name__}", f"a DataFrame with a column {column!r}"
        )
    raise _misfit(f"The input has the columns {found}", f"a column {column!r}")


def _texts(cell: Any, row: int) -> list[str]:
    if isinstance(cell, list | tuple | np.ndarray):
        return [text for item in cell for text in _texts(item, row)]
    if _missing(cell):
        return [""]
    if not isinstance(cell, str):
        raise _misfit(f"text in row {row} is the {type(cell).__name__} {cell!r:.60}", "text")
    # Half of a surrogate pair is a Python string, but no text that a tokenizer can be given.
    return [cell if cell.isascii() else cell.encode(errors="replace").decode()]


def _ids(cell: Any, row: int, size: int | None) -> list[list[int]]:
    if _missing(cell):
        return [[]]
    if isinstance(cell, np.ndarray | pd.Series | Tensor):
        cell = cell.tolist()
    expected = "a list of token ids" + ("" if size is None else f" from 0 to {size - 1}")
    if not isinstance(cell, list | tuple):
        raise _misfit(f"tokens in row {row} is the {type(cell).__name__} {cell!r:.60}", expected)
    cell = [item.tolist() if isinstance(item, np.ndarray | np.generic) else item for item in cell]
    if cell and all(isinstance(item, list | tuple) for item in cell):
        return [ids for item in cell for ids in _ids(item, row, size)]
    for item in cell:
        if type(item) is not int or item < 0 or (size is not None and item >= size):
            raise _misfit(f"tokens in row {row} holds {item!r:.60}", expected)
    return [list(cell)]


def _features(cell: Any, row: int, size: int | None) -> np.ndarray:
    numbers = "numbers" if size is None else f"{size} numbers"
    expected = f"a list of steps, each a list of {numbers}"
    if _missing(cell):
        raise _misfit(f"features in row {row} is {cell!r}", expected)
    try:
        # Arrays in arrays, as pandas and Spark hand them over, have to be unpacked by hand.
        steps = [np.asarray(step, dtype=np.float64) for step in cell]
        array = np.stack(steps) if steps else np.zeros((0, size or 0))
    except (TypeError, ValueError) as error:
        raise _misfit(f"features in row {row} is {cell!r:.60} ({error})", expected) from error
    if array.ndim != 2 or (size is not None and array.shape[1] != size):
        raise _misfit(f"features in row {row} has shape {array.shape}", expected)
    return array


def _missing(cell: Any) -> bool:
    return cell is None or cell is pd.NA or (isinstance(cell, float) and math.isnan(cell))


def _misfit(found: str, expected: str) -> MlflowException:
    return MlflowException.invalid_parameter_value(f"{found}; expected {expected}.")
