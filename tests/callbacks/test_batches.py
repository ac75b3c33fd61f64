"""Batches of many kinds, taken apart into the same rows."""

from collections import namedtuple

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence

from lightning_callbacks.batches import Steps, is_time_first, split

X = torch.tensor([[4, 2, 0], [3, 0, 0]])
LENGTHS = torch.tensor([2, 1])
MASK = torch.tensor([[1, 1, 0], [1, 0, 0]])
Y = torch.tensor([1, 0])
Named = namedtuple("Named", ["y", "x", "lengths"])

WITH_LENGTHS = {
    "three": (X, LENGTHS, Y),
    "list": [X, LENGTHS, Y],
    "pair": ((X, LENGTHS), Y),
    "mask": (X, MASK, Y),
    "lengths as a list": (X, [2, 1], [1, 0]),
    "mapping with lengths": {"x": X, "lengths": LENGTHS, "y": Y},
    "mapping with a mask": {"input_ids": X, "attention_mask": MASK.bool(), "labels": Y},
    "named tuple in another order": Named(Y, X, LENGTHS),
    "targets in a column": (X, LENGTHS, Y[:, None]),
    "float targets": (X, LENGTHS, Y.float()),
    "int32": (X.int(), LENGTHS.int(), Y.int()),
    "time first": (X.T, LENGTHS, Y),
    "mapping, time first": {"x": X.T, "mask": MASK.T, "y": Y},
}


@pytest.mark.parametrize("kind", WITH_LENGTHS)
def test_the_same_rows_from_batches_of_many_kinds(kind):
    rows = split(WITH_LENGTHS[kind]).rows
    assert rows.values.tolist() == X.tolist()
    assert rows.lengths.tolist() == LENGTHS.tolist()
    assert rows.targets.tolist() == Y.tolist()
    assert {rows.values.dtype, rows.lengths.dtype, rows.targets.dtype} == {torch.int64}


def test_a_mask_of_one_row_is_a_mask():
    batch = split((X[1:], MASK[1:], Y[1:]))
    assert batch.lengths is None and torch.equal(batch.mask, MASK[1:])


def test_without_lengths_there_are_none():
    batch = split((X, Y))
    assert batch.rows.lengths is None
    assert batch.inputs is X
    assert batch.lengths is None and batch.mask is None


def test_a_packed_sequence():
    packed = pack_padded_sequence(X.T, LENGTHS)
    batch = split((packed, Y))
    assert batch.rows.values.tolist() == X[:, :2].tolist()
    assert batch.rows.lengths.tolist() == [2, 1]
    assert batch.inputs is packed


@pytest.mark.parametrize(
    "values, shape",
    [
        (torch.randn(2, 5, 4), (2, 5, 4)),
        (torch.randn(2, 5), (2, 5, 1)),
        (torch.ones(2, 5, 4, dtype=torch.int64), (2, 5, 4)),
        (torch.randn(2, 5, 4).double(), (2, 5, 4)),
    ],
)
def test_features(values, shape):
    rows = split((values, Y)).rows
    assert rows.values.shape == shape
    assert rows.values.is_floating_point()
    assert torch.equal(rows.values.flatten(), values.flatten().to(rows.values.dtype))


def test_a_square_batch_is_turned_only_where_steps_are_known_to_come_first():
    square = torch.tensor([[1, 2], [3, 4]])
    assert split((square, Y)).rows.values.tolist() == [[1, 2], [3, 4]]
    assert split((square, Y), layout=Steps(time_first=True)).rows.values.tolist() == [
        [1, 3],
        [2, 4],
    ]
    assert is_time_first(split((X.T, Y)))
    assert not is_time_first(split((X, Y)))


@pytest.mark.parametrize("parts", [(X, Y), (X, LENGTHS, Y), {"x": X, "y": Y}])
def test_split_batch_is_the_users_word(parts):
    raw = {"anything": object()}
    batch = split(raw, lambda given: parts if given is raw else None)
    assert batch.rows.values.tolist() == X.tolist()
    assert batch.raw is raw


@pytest.mark.parametrize(
    "raw, words",
    [
        (X, ["int64 tensor (2, 3)", "split_batch"]),
        ((X,), ["a tuple of (int64 tensor (2, 3))", "split_batch"]),
        ((X, LENGTHS, MASK, Y), ["split_batch"]),
        ({"x": X}, ["has targets under []", "labels"]),
        ({"x": X, "inputs": X, "y": Y}, ["['inputs', 'x']", "exactly one"]),
        ((["some", "text"], Y), ["inputs are a list of (str, str)", "PackedSequence"]),
        ((X, torch.zeros(2, 3, 4, dtype=torch.int64)), ["one label index for each row"]),
        ((X, torch.tensor([0.5, 1.0])), ["fractions"]),
        ((X, ["a", "b"]), ["targets are a list of (str, str)"]),
        ((X, None), ["targets are NoneType"]),
        ((X, torch.zeros(5, dtype=torch.int64)), ["5 targets", "(2, 3)"]),
        ((X, torch.tensor([2, 4]), Y), ["lengths go from 2 to 4", "0 to 3"]),
        ((X, torch.tensor([-1, 2]), Y), ["lengths go from -1 to 2"]),
        ((X, torch.tensor([1, 2, 3]), Y), ["expected 2 whole numbers"]),
        ((X, torch.tensor([1.0, 2.0]), Y), ["expected 2 whole numbers"]),
        ((X, torch.ones(2, 4), Y), ["mask has shape (2, 4)", "(2, 3)"]),
        ((torch.zeros(2, 1, 8, 8), Y), ["float32 tensor (2, 1, 8, 8)"]),
        ((torch.zeros(2, 1, 8, 8), ["a", "b"]), ["inputs are", "targets are"]),
    ],
)
def test_what_does_not_fit_is_named(raw, words):
    with pytest.raises(ValueError) as caught:
        split(raw)
    for word in words:
        assert word in str(caught.value)


def test_no_rows():
    rows = split((X[:0], Y[:0])).rows
    assert len(rows) == 0
