"""Every kind of input: what it takes, refuses, and makes of it, at both doors alike."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.exceptions import MlflowException
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from mlflow.types.schema import Array

from mlflow_rnnmod.composition import compose
from mlflow_rnnmod.inputs import input_of, inputs_of_batch
from mlflow_rnnmod.networks import Rows
from mlflow_rnnmod.tracking.columns import read_inputs
from mlflow_rnnmod.tracking.directory import signature_for
from tests.builders import tiny_inputs, tiny_modules, tiny_parent

SIZE = 3
GOOD = {
    "text": ["ab", "", "c"],
    "tokens": [[1, 2], [], [0]],
    "features": [[[1.0, 2.0, 3.0]] * 2, np.ones((1, 3))],
    "vectors": [[1.0, 2.0, 3.0], np.ones(3, dtype=np.float32)],
}
# Images have tests of their own (test_images.py).
KINDS = list(GOOD)


def as_lists(items: list) -> list:
    return [item.tolist() if hasattr(item, "tolist") else item for item in items]


def same(given: list, found: list) -> bool:
    return as_lists(given) == as_lists(found)


@pytest.mark.parametrize("kind", KINDS)
def test_both_doors_read_the_same(kind):
    good, reads = GOOD[kind], input_of(kind)
    assert same(good, reads.check(good, SIZE))
    table = pd.DataFrame({reads.column: pd.Series(as_lists(good), dtype=object)})
    for data in (good, table, {reads.column: good}, [{reads.column: each} for each in good]):
        found = read_inputs(data, kind, SIZE)
        assert same(good, found)
        assert same(good, reads.check(found, SIZE))  # what tables give is checked once more


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "wrong", [pd.DataFrame({"text": ["a"]}), {"text": ["a"]}, {"a", "b"}, frozenset("ab")]
)
def test_tables_and_sets_are_no_lists(kind, wrong):
    """Iterating one gives the names of its columns, or an order that nobody chose."""
    name = type(wrong).__name__
    with pytest.raises(TypeError, match=f"inputs is a {name}; expected a list of t?"):
        input_of(kind).check(wrong, SIZE)


def test_composites_refuse_tables():
    parent = tiny_parent("text")
    composite = compose(tiny_modules(parent))
    texts = tiny_inputs(parent, 3)
    with pytest.raises(TypeError, match="inputs is a DataFrame; expected a list of texts"):
        composite.predict(pd.DataFrame({"text": texts}))
    assert composite.predict(pd.Series(texts)) == composite.predict(texts)


@pytest.mark.parametrize("kind", KINDS)
def test_the_example_is_a_good_input(kind):
    reads = input_of(kind)
    assert len(reads.check(eval(reads.example(SIZE)), SIZE)) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_signatures_take_the_column(kind):
    reads, types = input_of(kind), {"string": DataType.string, "long": DataType.long}
    (column,) = signature_for(kind).inputs.inputs
    assert column.name == reads.column
    plain, found = reads.column_type, column.type
    while isinstance(plain, tuple):
        assert isinstance(found, Array)
        plain, found = plain[1], found.dtype
    assert found == types.get(plain, DataType.double)


def test_lines_are_inputs():
    assert input_of("text").parsed("[1, 2]") == "[1, 2]"
    for kind in ("tokens", "features", "vectors"):
        assert input_of(kind).parsed("[1, 2]") == [1, 2]


def test_no_such_input():
    with pytest.raises(ValueError, match=r"input='sound', expected one of \('text', 'tokens'"):
        input_of("sound")


# --- vectors ---


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        ([1.0, 2.0], ValueError, r"has shape \(2,\)"),
        ([[1.0, 2.0, 3.0]], ValueError, r"has shape \(1, 3\)"),
        ([], ValueError, r"has shape \(0,\)"),
        (["a", "b", "c"], TypeError, r"is \['a', 'b', 'c'\]"),
        ("abc", TypeError, "is 'abc'"),
        (3.0, TypeError, "is 3.0"),
        (None, TypeError, "is None"),
        ([1.0, float("nan"), 3.0], ValueError, r"holds nan at \[1\]; expected finite"),
        ([1.0, None, 3.0], TypeError, "is "),
    ],
)
def test_what_is_no_vector_is_named(wrong, error, said):
    good = [1.0, 2.0, 3.0]
    with pytest.raises(error, match=r"inputs\[1\] " + said) as found:
        input_of("vectors").check([good, wrong], 3)
    assert "finite" in str(found.value) or "a list of 3 numbers" in str(found.value)
    with pytest.raises(MlflowException, match="features in row 1 " + said):
        read_inputs({"features": [good, wrong]}, "vectors", 3)


def test_vectors_of_a_tensor_signature():
    """What MLflow hands over for ``TensorSpec(float64, (-1, n))``, perhaps not to be written to."""
    values = np.arange(6, dtype=np.float64).reshape(2, 3)
    values.flags.writeable = False
    schema = Schema([TensorSpec(np.dtype("float64"), (-1, 3))])
    assert not any(isinstance(each, ColSpec) for each in schema.inputs)
    for data in (values, values.astype(np.float32)):
        found = read_inputs(data, "vectors", 3)
        assert same(values.tolist(), found) and found[0].dtype == torch.float64


def test_vectors_become_rows():
    network = SimpleNamespace(dtype=torch.float32, prepare=lambda rows: rows)
    reads = input_of("vectors")
    rows = reads.rows(reads.check([[1, 2, 3], [4, 5, 6]], 3), network)
    assert rows.values.dtype == torch.float32 and rows.lengths is None
    assert rows.values.tolist() == [[1, 2, 3], [4, 5, 6]]
    again = reads.rows(reads.check(rows, 3), network)
    assert torch.equal(again.values, rows.values)


@pytest.mark.parametrize(
    ("values", "error", "said"),
    [
        (torch.zeros(2, 3, dtype=torch.int64), TypeError, "expected floats of shape"),
        (torch.zeros(2, 4), ValueError, r"expected \(rows, 3\)"),
        (torch.zeros(2, 3, 1), ValueError, r"expected \(rows, 3\)"),
        (torch.full((2, 3), torch.inf), ValueError, r"holds inf at \[0, 0\]"),
    ],
)
def test_rows_that_are_no_vectors(values, error, said):
    with pytest.raises(error, match=said):
        input_of("vectors").check(Rows(values), 3)


# --- batches ---


def test_batches_are_told_by_their_tensors():
    def names(values: torch.Tensor) -> list[str]:
        return [each.name for each in inputs_of_batch(values)]

    whole, floats = torch.zeros(2, 3, dtype=torch.int32), torch.zeros(2, 3)
    assert names(whole) == ["tokens"]
    assert names(floats) == ["features", "vectors"]
    assert names(floats[..., None]) == names(whole[..., None]) == ["features"]
    assert names(floats[0]) == names(floats[None, None, None]) == []
    assert input_of("tokens").of_batch(whole).dtype == torch.int64
    assert input_of("features").of_batch(floats).shape == (2, 3, 1)
    assert input_of("features").of_batch(whole[..., None]).dtype == torch.float32
    assert input_of("vectors").of_batch(floats) is floats
