"""What comes in: the questions that floors above ask of a kind of input."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any, ClassVar, Protocol, TypeAlias

import torch
from torch import Tensor

from mlflow_rnnmod.inputs.likelihood import Density
from mlflow_rnnmod.inputs.rows import Rows

ColumnType: TypeAlias = "str | tuple[str, ColumnType]"
"""Type of a column's cells: ``"string"``, ``"long"``, ``"double"``, or ``("array", type)``."""

Size: TypeAlias = "int | tuple[int, ...]"
"""Of a vocabulary or of one vector; or channels, height and width, 0 for any."""


class Reader(Protocol):
    """What is asked here of a network."""

    @property
    def config(self) -> Any:
        """With ``input_size``, and for steps ``pad_index``, ``side`` and ``stepwise``."""

    @property
    def dtype(self) -> torch.dtype:
        """Of its weights."""

    def prepare(self, rows: Rows) -> Rows:
        """Rows cut or padded to what it reads."""

    def lengths(self, rows: Rows) -> Tensor:
        """Valid steps of each row, int64 ``(rows,)``."""


class Input(ABC):
    """A kind of input. There is one object of each, in ``INPUTS``; it holds nothing but answers.

    ``size``, where it is asked for, is the parent's: of its vocabulary, or of one vector.
    """

    name: ClassVar[str]
    """The kind, as contracts and files have it."""
    column: ClassVar[str]
    """Name of the column in tables."""
    column_type: ClassVar[ColumnType]
    """Type of the column's cells."""
    tensor: ClassVar[bool] = False
    """Whether models take one array of all inputs, in the place of a table."""
    ids: ClassVar[bool] = False
    """Whether rows hold token ids, so that a network's tokenizer may stand before them."""
    whole: ClassVar[bool] = False
    """Whether a row is read at once, so that it may be what an image was prepared to."""
    split: ClassVar[bool] = False
    """Whether an input may come split into words."""

    def check(self, inputs: Any, size: Any) -> Any:
        """``inputs``, as somebody handed them over in Python, as :meth:`rows` takes them.

        Args:
            inputs: a list of inputs; :class:`Rows` pass as they are, but for text.
            size: of the vocabulary, or of one vector.

        Raises:
            TypeError: if something is not of this kind, with its position.
            ValueError: if a token id or the size of a vector is not the parent's, or a number is
                NaN or infinity.
        """
        if isinstance(inputs, Rows):
            self.check_rows(inputs, size)
            return inputs
        return [self.read(item, f"inputs[{i}]", size) for i, item in listed(inputs, self.name)]

    @abstractmethod
    def read(self, value: Any, where: str, size: Any, expected: str | None = None) -> Any:
        """One input, checked.

        Args:
            value: as somebody handed it over.
            where: what an error names it by.
            size: of the vocabulary, or of one vector.
            expected: what an error says would be accepted, where this kind's own words do not do.

        Raises:
            TypeError: if it is not of this kind.
            ValueError: if it does not fit ``size``, or holds NaN or infinity.
        """

    def read_cell(self, cell: Any, row: int, size: Any) -> list[Any]:
        """The inputs in a table's cell: one, of kinds of which MLflow can't have put several there.

        Raises:
            TypeError: if it is not of this kind, naming column and row.
            ValueError: if it does not fit ``size``, or holds NaN or infinity.
        """
        where = f"{self.column} in row {row}"
        return [self.read(None if is_missing(cell) else cell, where, size)]

    @abstractmethod
    def check_rows(self, rows: Rows, size: Any) -> None:
        """Whether rows are of this kind.

        Raises:
            TypeError: if they are not.
            ValueError: if they do not fit ``size``, or hold NaN or infinity.
        """

    def is_blank(self, value: Any) -> bool:
        """Whether a checked input holds nothing that could be answered for."""
        return False

    def length(self, value: Any, tokenizer: Any = None) -> int:
        """Steps of a checked input, at the most; 0 where it has none."""
        return 0

    def cut(self, value: Any, steps: int, tokenizer: Any = None) -> Any:
        """A checked input with no more than its first ``steps`` steps."""
        return value

    def of_batch(self, values: Tensor) -> Tensor | None:
        """A batch's tensor, rows first, as :class:`Rows` of this kind hold it; ``None``: it isn't.

        Args:
            values: as a dataloader gave it.
        """
        return None

    @abstractmethod
    def rows(self, inputs: Any, network: Reader, tokenizer: Any = None) -> Rows:
        """Checked inputs as the rows that a network reads, on the CPU.

        Args:
            inputs: what :meth:`check` returned, at least one.
            network: the parent's.
            tokenizer: the parent's, where it has one.
        """

    @abstractmethod
    def background(
        self, rows: Rows, config: Any, count: int, seed: int, unknown: int | None = None
    ) -> Rows:
        """Made-up rows, each a "none of these": pairs of rows mixed into ones without a label.

        A head fitted with such rows among its negatives learns where the parent's knowledge ends,
        without any other parent's data.

        Args:
            rows: training rows; of steps with lengths.
            config: the parent's structure.
            count: rows to make.
            seed: for the drawing.
            unknown: id of the tokenizer's unknown token, where it has one.

        Returns:
            ``count`` rows of the same shape, without targets.
        """

    def density(self, config: Any, tokenizer: Any = None) -> Density | None:
        """What likelihoods of a parent's inputs are made of; ``None`` where there are none.

        Args:
            config: the parent's structure.
            tokenizer: the parent's, where it has one.
        """
        return None

    def joint_size(self, sizes: Sequence[Any]) -> Any:
        """The size that all of some modules' inputs can have.

        Args:
            sizes: what each module's contract says; of vocabularies they may differ.
        """
        return min(sizes)

    def settled(self, size: Any, joint: Any) -> Any:
        """One module's ``size`` with whatever is open in it as in ``joint``, to be compared."""
        return size

    def common_size(self, parents: int) -> str | None:
        """What ``size`` is, where modules of this many parents must agree in it to be composed."""
        return None

    @abstractmethod
    def words(self, size: Any, steps: int | None = None) -> str:
        """What goes in, in words for a card.

        Args:
            size: of the vocabulary, or of one vector.
            steps: to which every input is padded or cut, where that is fixed.
        """

    @abstractmethod
    def example(self, size: Any) -> str:
        """A list with one made-up input, as Python."""

    def made_up(self, size: Any) -> Any:
        """One input that such a model can read, as JSON types.

        Example:
            >>> from mlflow_rnnmod.inputs import input_of
            >>> [input_of(kind).made_up(2) for kind in ("text", "tokens", "vectors", "features")]
            ['some text', [0, 0, 0], [0.5, 0.5], [[0.5, 0.5], [0.5, 0.5], [0.5, 0.5]]]
        """

        def cell(column_type: ColumnType) -> Any:
            if isinstance(column_type, str):
                return {"string": "some text", "long": 0, "double": 0.5}[column_type]
            inner = column_type[1]
            return [cell(inner)] * (size if inner == "double" else 3)

        return cell(self.column_type)

    def picture(self, values: Tensor, tokenizer: Any = None) -> bytes | None:
        """A row as people see it, a PNG; ``None`` where there is nothing to see.

        Args:
            values: of the row, as the network reads it.
            tokenizer: the parent's, where it has one.
        """
        return None

    def table(self, size: Any) -> str:
        """What ``mlflow.pyfunc`` is handed with :meth:`example` in it, as Python."""
        return f'pd.DataFrame({{"{self.column}": {self.example(size)}}})'

    def parsed(self, line: str) -> Any:
        """An input from a line of text, as a command line has it.

        Raises:
            ValueError: if it is not JSON.
        """
        return json.loads(line)

    def __repr__(self) -> str:
        return f"<input {self.name!r}>"


def listed(inputs: Any, kind: str) -> Iterator[tuple[int, Any]]:
    """Inputs with their positions."""
    if isinstance(inputs, str | bytes):
        raise TypeError(f"inputs is the text {inputs!r:.60}; expected a list of {kind}.")
    if isinstance(inputs, Mapping | Set) or hasattr(inputs, "columns"):
        raise TypeError(
            f"inputs is a {type(inputs).__name__}; expected a list of {kind}. Tables are read by "
            "the model that mlflow.pyfunc loads."
        )
    return enumerate(inputs)


def numbers(value: Any, where: str, expected: str, dtype: torch.dtype | None = None) -> Tensor:
    """``value`` as a tensor; an empty one where it holds nothing."""
    try:
        if not len(value):
            return torch.zeros(0, dtype=dtype)
        if isinstance(value, Tensor):
            return value if dtype is None else value.to(dtype)
        # Arrays in arrays, as pandas and Spark hand them over, have to be unpacked by hand.
        array = hasattr(value, "__array_interface__") and value.dtype != object
        if hasattr(value, "tolist") and not array:
            value = value.tolist()
        if isinstance(value, list | tuple) and hasattr(value[0], "tolist"):
            value = [item.tolist() if hasattr(item, "tolist") else item for item in value]
        return torch.tensor(value, dtype=dtype)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{where} is {value!r:.60}; expected {expected}.") from error


def check_finite(values: Tensor, where: str) -> None:
    """One NaN reaches all that a network makes of a row: its answer would mean nothing."""
    finite = torch.isfinite(values)
    if not bool(finite.all()):
        place = (~finite).nonzero()[0].tolist()
        raise ValueError(
            f"{where} holds {float(values[tuple(place)])} at {place}; expected finite numbers. "
            "Fill or leave out what is missing."
        )


def check_floats(rows: Rows, size: tuple[int, ...], shape: str) -> None:
    """Whether rows are finite floats ``(rows, *size)``, which ``shape`` is in words."""
    values = rows.values
    if not values.is_floating_point():
        raise TypeError(
            f"values is {values.dtype} of shape {tuple(values.shape)}; expected floats of shape "
            f"{shape}."
        )
    if tuple(values.shape[1:]) != size:
        raise ValueError(f"values has shape {tuple(values.shape)}; expected {shape}.")
    check_finite(values, "values")


def check_numbers(rows: Rows) -> Rows:
    """Rows that a network reads, as its own numbers; what is too large for these is refused."""
    if rows.values.is_floating_point():
        check_finite(rows.values, f"inputs, as {str(rows.values.dtype).removeprefix('torch.')},")
    return rows


def is_missing(cell: Any) -> bool:
    """Whether a cell is empty: ``None``, NaN, or pandas' NA."""
    if isinstance(cell, float):
        return math.isnan(cell)
    return cell is None or type(cell).__name__ == "NAType"
