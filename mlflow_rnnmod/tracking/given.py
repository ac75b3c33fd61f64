"""Rows that people hand over, as files or tables: inputs of a model, and what is right for them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.exceptions import MlflowException

from mlflow_rnnmod.tracking.columns import WORDS, read_inputs
from mlflow_rnnmod.tracking.searching import suggestion

if TYPE_CHECKING:
    import pandas as pd

TARGETS = ("label", "labels", "target", "targets")
"""Columns that are taken for what is right, where none is named."""
_READERS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")


@dataclass(frozen=True)
class Given:
    """Rows to ask a model.

    Args:
        inputs: checked, as the model's kind of input reads them.
        targets: what is right for each: a label, or a list of labels; of translations a dict of
            them by language. Empty where nobody asked for it.
        name: where they are from, for people.
        table: the rows as they came, a column for what ``read_inputs`` reads.
    """

    inputs: list[Any]
    targets: list[Any]
    name: str
    table: pd.DataFrame

    @property
    def pair(self) -> tuple[list[Any], Any]:
        """Inputs and what is right, as ``evaluate_on=`` takes them: translations by language."""
        if self.targets and isinstance(self.targets[0], dict):
            languages = self.targets[0]
            return self.inputs, {y: [right[y] for right in self.targets] for y in languages}
        return self.inputs, self.targets

    def __len__(self) -> int:
        return len(self.inputs)


def read_given(data: Any, thing: Any, column: str | None = None, targets: bool = True) -> Given:
    """The rows of a file or a table, for a parent, a module or a composite.

    Args:
        data: a file (``.jsonl``, ``.json``, ``.csv``, ``.tsv``, ``.parquet``), a DataFrame, a list
            of dicts, a dict of columns, or a pair of inputs and targets.
        thing: the model they are for: it says which column it reads.
        column: what is right stands here; by default in ``label``, ``labels`` or ``target``, or in
            the only other column. Of translations, each language has a column of its own.
        targets: whether there must be such a column.
    """
    import pandas as pd

    from mlflow_rnnmod.inputs import input_of
    from mlflow_rnnmod.tracking.directory import answer_in, input_kind, labels_of, size_of

    reads = input_of(input_kind(thing))
    answer = answer_in(thing)
    name = os.path.basename(os.fspath(data)) if isinstance(data, str | os.PathLike) else "rows"
    table = _table(data, reads.column)
    own = reads.column
    words = answer.each_step and reads.split
    if not len(table):
        raise MlflowException.invalid_parameter_value(f"{name} has no rows; expected some.")
    if own not in table.columns and not (words and WORDS in table.columns):
        raise _missing(name, own, table, "the model's input")
    for read, parsed in ((own, reads.parsed), (WORDS, json.loads)):
        if read in table.columns:
            cells = [_parsed(cell, parsed, name, i) for i, cell in enumerate(table[read])]
            table = table.assign(**{read: pd.Series(cells, dtype=object)})
    found = read_inputs(table, reads.name, size_of(thing), words)
    if len(found) != len(table):
        raise MlflowException.invalid_parameter_value(
            f"{name} has {len(table)} rows with {len(found)} inputs in them; expected one a row."
        )
    if not found:
        raise MlflowException.invalid_parameter_value(f"{name} has no rows; expected some.")
    right: list[Any] = []
    if targets and not answer.scored:
        right = _translations(table, name, labels_of(thing))
    elif targets:
        right = _right(table, name, column, own, answer.form().columns is not None)
    return Given(found, right, name, table)


def _table(data: Any, column: str) -> pd.DataFrame:
    import pandas as pd

    if isinstance(data, pd.DataFrame):
        return data.reset_index(drop=True)
    if isinstance(data, str | os.PathLike):
        return _read(Path(data))
    if isinstance(data, tuple) and len(data) == 2:
        inputs, right = (list(part) for part in data)
        if len(inputs) != len(right):
            raise MlflowException.invalid_parameter_value(
                f"data has {len(inputs)} inputs and {len(right)} targets; expected as many of both."
            )
        return pd.DataFrame(
            {column: pd.Series(inputs, dtype=object), TARGETS[0]: pd.Series(right, dtype=object)}
        )
    if isinstance(data, Mapping):
        return pd.DataFrame({k: pd.Series(list(v), dtype=object) for k, v in data.items()})
    if isinstance(data, Sequence) and all(isinstance(row, Mapping) for row in data):
        return pd.DataFrame(list(data))
    raise MlflowException.invalid_parameter_value(
        f"data is {data!r:.80}; expected a file, a DataFrame, a list of dicts, or a pair of inputs "
        "and targets."
    )


def _read(path: Path) -> pd.DataFrame:
    """A file's rows; texts stay as they are, an empty one and "NA" too."""
    import pandas as pd

    ending = path.suffix.lower()
    try:
        if ending in (".jsonl", ".ndjson"):
            lines = path.read_text("utf-8").splitlines()
            rows = [_line(line, path, i) for i, line in enumerate(lines) if line.strip()]
            return pd.DataFrame(rows)
        if ending == ".json":
            return pd.DataFrame(json.loads(path.read_text("utf-8")))
        if ending in (".csv", ".tsv"):
            return pd.read_csv(
                path, sep="\t" if ending == ".tsv" else ",", dtype=str, keep_default_na=False
            )
        if ending == ".parquet":
            return pd.read_parquet(path)
    except (ValueError, OSError, ImportError, TypeError) as error:
        raise MlflowException.invalid_parameter_value(
            f"data={str(path)!r} can't be read: {error}"
        ) from error
    raise MlflowException.invalid_parameter_value(
        f"data={str(path)!r} ends in {ending!r}; expected one of {', '.join(_READERS)}."
    )


def _line(line: str, path: Path, number: int) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise ValueError(f"line {number + 1}: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"line {number + 1} is {line:.60}; expected an object, as {{...}}")
    return found


def _parsed(cell: Any, parsed: Callable[[str], Any], name: str, row: int) -> Any:
    """A cell that is a text, because CSV makes one of a list, or because it stands for a file."""
    if not isinstance(cell, str):
        return cell
    try:
        return parsed(cell)
    except json.JSONDecodeError as error:
        told = f"{cell!r:.60} is not JSON; expected a list."
        raise MlflowException.invalid_parameter_value(f"{name}, row {row}: {told}") from error
    except ValueError as error:
        raise MlflowException.invalid_parameter_value(f"{name}, row {row}: {error}") from error


def _right(table: pd.DataFrame, name: str, column: str | None, own: str, lists: bool) -> list[Any]:
    others = [c for c in table.columns if c not in (own, WORDS)]
    if column is None:
        known = [c for c in TARGETS if c in others]
        column = known[0] if known else others[0] if len(others) == 1 else None
    if column is None or column not in table.columns:
        raise _missing(name, column or TARGETS[0], table, "what is right")
    cells = [c.tolist() if hasattr(c, "tolist") else c for c in table[column]]
    if lists:
        return [_list(cell, name, column, row) for row, cell in enumerate(cells)]
    for row, cell in enumerate(cells):
        if cell is None or cell != cell or isinstance(cell, list | dict):
            raise MlflowException.invalid_parameter_value(
                f"{name}, column {column!r}, row {row}: {cell!r:.60}; expected a label."
            )
    return [str(cell) for cell in cells]


def _list(cell: Any, name: str, column: str, row: int) -> list[str | None]:
    if isinstance(cell, str):
        cell = _parsed(cell, json.loads, name, row) if cell.lstrip().startswith("[") else None
    if not isinstance(cell, list | tuple):
        raise MlflowException.invalid_parameter_value(
            f"{name}, column {column!r}, row {row}: {cell!r:.60}; expected a list of labels, as "
            "the model answers."
        )
    return [None if label is None else str(label) for label in cell]


def _translations(table: pd.DataFrame, name: str, labels: Sequence[str]) -> list[dict[str, str]]:
    """What is right in each language that has a column."""
    known = [label for label in labels if label in table.columns]
    if not known:
        raise _missing(name, labels[0], table, "each language")
    return [
        {label: str(cell) for label, cell in zip(known, row, strict=True)}
        for row in table[known].itertuples(index=False)
    ]


def _missing(name: str, column: str, table: pd.DataFrame, what: str) -> MlflowException:
    known = [str(c) for c in table.columns]
    return MlflowException.invalid_parameter_value(
        f"{name} has the columns {known}; expected a column {column!r} for {what}."
        + suggestion(column, known)
    )
