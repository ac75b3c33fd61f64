"""Inputs as people and servers hand them over, in columns or plain, as lists that models read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.types import DataType
from mlflow.types.schema import Array

from mlflow_rnnmod.inputs import ColumnType, Input, input_of
from mlflow_rnnmod.inputs.base import is_missing

WORDS = "words"
"""Name of a second column beside ``text``: texts that are split into words already, as lists."""


def column_type(plain: ColumnType) -> DataType | Array:
    """MLflow's name for the type of a column.

    Example:
        >>> column_type(("array", "long"))
        Array(long)
    """
    if isinstance(plain, str):
        return DataType[plain]
    return Array(column_type(plain[1]))


def read_inputs(data: Any, kind: str, size: int = 0, words: bool = False) -> list[Any]:
    """The inputs in whatever a user or a server hands over, as a plain list.

    A cell that holds a list of texts counts as that many rows: MLflow makes one such row of
    ``{"text": ["a", "b"]}``. Among several an empty list is a missing text. ``None`` and NaN are
    empty texts, or sequences without a step.

    Args:
        data: DataFrame, dict of columns, list of such dicts, Series, array, or plain inputs.
        kind: name of the input (a key of :data:`~mlflow_rnnmod.inputs.INPUTS`).
        size: of the vocabulary, or of one vector; of no matter to text.
        words: whether a column ``words`` may stand in for ``text``, with a list of words in a cell.

    Example:
        >>> read_inputs({"text": ["a", "b", None]}, "text")
        ['a', 'b', '']
    """
    reads = input_of(kind)
    try:
        if words and (found := _words_or_texts(data, reads)) is not None:
            return found
        cells = _cells(data, reads.column)
        found = [reads.read_cell(cell, row, size) for row, cell in enumerate(cells)]
        if len(found) > 1:  # a row whose list is empty stays a row
            found = [each or reads.read_cell(None, row, size) for row, each in enumerate(found)]
        return [each for several in found for each in several]
    except (TypeError, ValueError) as error:
        raise MlflowException.invalid_parameter_value(str(error)) from error


def _words_or_texts(data: Any, reads: Input) -> list[Any] | None:
    """Each row's words, or its text where it has none; ``None`` without a column of words."""
    if isinstance(data, Mapping) and WORDS in data:
        data = pd.DataFrame({name: pd.Series(list(cells)) for name, cells in data.items()})
    elif isinstance(data, list | tuple) and any(
        isinstance(item, Mapping) and WORDS in item for item in data
    ):
        data = pd.DataFrame(list(data))
    if not isinstance(data, pd.DataFrame) or WORDS not in data.columns:
        return None
    column = reads.column
    texts = data[column].tolist() if column in data.columns else [None] * len(data)
    found: list[Any] = []
    for row, (cell, text) in enumerate(zip(data[WORDS].tolist(), texts, strict=True)):
        if is_missing(cell):
            found += reads.read_cell(text, row, 0)
            continue
        if isinstance(cell, str) or not isinstance(cell, list | tuple | np.ndarray):
            raise misfit(f"words in row {row} is the {type(cell).__name__} {cell!r:.60}", "a list")
        found.append([word for item in cell for word in reads.read_cell(item, row, 0)])
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


def misfit(found: str, expected: str) -> MlflowException:
    """The error for an input that is something else than expected."""
    return MlflowException.invalid_parameter_value(f"{found}; expected {expected}.")
