"""Inputs as people and servers hand them over, in columns or plain, as lists that models read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from torch import Tensor

COLUMNS = {"text": "text", "tokens": "tokens", "features": "features"}
"""Name of the input column, by kind of input."""

WORDS = "words"
"""Name of a second column beside ``text``: texts that are split into words already, as lists."""


def read_inputs(data: Any, kind: str, size: int | None = None, words: bool = False) -> list[Any]:
    """The inputs in whatever a user or a server hands over, as a plain list.

    A cell that holds a list of texts counts as that many rows: MLflow makes one such row of
    ``{"text": ["a", "b"]}``. ``None`` and NaN are empty texts, or sequences without a step.

    Args:
        data: DataFrame, dict of columns, list of such dicts, Series, array, or plain inputs.
        kind: ``"text"``, ``"tokens"`` or ``"features"``.
        size: of the vocabulary, or of one step's features.
        words: whether a column ``words`` may stand in for ``text``, with a list of words in a cell.

    Raises:
        MlflowException: naming the first input that does not fit, or the columns found.

    Example:
        >>> read_inputs({"text": ["a", "b", None]}, "text")
        ['a', 'b', '']
    """
    if words and (found := _words_or_texts(data)) is not None:
        return found
    cells = _cells(data, COLUMNS[kind])
    if kind == "text":
        return [text for row, cell in enumerate(cells) for text in _texts(cell, row)]
    if kind == "tokens":
        return [ids for row, cell in enumerate(cells) for ids in _ids(cell, row, size)]
    return [_features(cell, row, size) for row, cell in enumerate(cells)]


def _words_or_texts(data: Any) -> list[Any] | None:
    """Each row's words, or its text where it has none; ``None`` without a column of words."""
    if isinstance(data, Mapping) and WORDS in data:
        data = pd.DataFrame({name: pd.Series(list(cells)) for name, cells in data.items()})
    elif isinstance(data, list | tuple) and any(
        isinstance(item, Mapping) and WORDS in item for item in data
    ):
        data = pd.DataFrame(list(data))
    if not isinstance(data, pd.DataFrame) or WORDS not in data.columns:
        return None
    column = COLUMNS["text"]
    texts = data[column].tolist() if column in data.columns else [None] * len(data)
    found: list[Any] = []
    for row, (cell, text) in enumerate(zip(data[WORDS].tolist(), texts, strict=True)):
        if _missing(cell):
            found += _texts(text, row)
            continue
        if isinstance(cell, str) or not isinstance(cell, list | tuple | np.ndarray):
            raise misfit(f"words in row {row} is the {type(cell).__name__} {cell!r:.60}", "a list")
        found.append([word for item in cell for word in _texts(item, row)])
    return found


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
        raise misfit(
            f"The input is a {type(data).__name__}", f"a DataFrame with a column {column!r}"
        )
    raise misfit(f"The input has the columns {found}", f"a column {column!r}")


def _texts(cell: Any, row: int) -> list[str]:
    if isinstance(cell, list | tuple | np.ndarray):
        return [text for item in cell for text in _texts(item, row)]
    if _missing(cell):
        return [""]
    if not isinstance(cell, str):
        raise misfit(f"text in row {row} is the {type(cell).__name__} {cell!r:.60}", "text")
    # Half of a surrogate pair is a Python string, but no text that a tokenizer can be given.
    return [cell if cell.isascii() else cell.encode(errors="replace").decode()]


def _ids(cell: Any, row: int, size: int | None) -> list[list[int]]:
    if _missing(cell):
        return [[]]
    if isinstance(cell, np.ndarray | pd.Series | Tensor):
        cell = cell.tolist()
    expected = "a list of token ids" + ("" if size is None else f" from 0 to {size - 1}")
    if not isinstance(cell, list | tuple):
        raise misfit(f"tokens in row {row} is the {type(cell).__name__} {cell!r:.60}", expected)
    cell = [item.tolist() if isinstance(item, np.ndarray | np.generic) else item for item in cell]
    if cell and all(isinstance(item, list | tuple) for item in cell):
        return [ids for item in cell for ids in _ids(item, row, size)]
    for item in cell:
        if type(item) is not int or item < 0 or (size is not None and item >= size):
            raise misfit(f"tokens in row {row} holds {item!r:.60}", expected)
    return [list(cell)]


def _features(cell: Any, row: int, size: int | None) -> np.ndarray:
    numbers = "numbers" if size is None else f"{size} numbers"
    expected = f"a list of steps, each a list of {numbers}"
    if _missing(cell):
        raise misfit(f"features in row {row} is {cell!r}", expected)
    try:
        # Arrays in arrays, as pandas and Spark hand them over, have to be unpacked by hand.
        steps = [np.asarray(step, dtype=np.float64) for step in cell]
        array = np.stack(steps) if steps else np.zeros((0, size or 0))
    except (TypeError, ValueError) as error:
        raise misfit(f"features in row {row} is {cell!r:.60} ({error})", expected) from error
    if array.ndim != 2 or (size is not None and array.shape[1] != size):
        raise misfit(f"features in row {row} has shape {array.shape}", expected)
    return array


def _missing(cell: Any) -> bool:
    return cell is None or cell is pd.NA or (isinstance(cell, float) and math.isnan(cell))


def misfit(found: str, expected: str) -> MlflowException:
    """The error for an input that is something else than expected."""
    return MlflowException.invalid_parameter_value(f"{found}; expected {expected}.")
