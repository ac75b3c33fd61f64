"""What people hand to a composite, as rows of each parent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from mlflow_rnnmod.networks.parent import Parent
from mlflow_rnnmod.networks.recurrent.config import NetworkConfig
from mlflow_rnnmod.networks.rows import Rows
from mlflow_rnnmod.networks.text import plain_texts


def check_inputs(inputs: Any, kind: str, size: int) -> Any:
    """``inputs`` as a list of plain texts, of int64 tensors or of float tensors, by kind.

    Args:
        inputs: texts; token ids, a sequence of whole numbers each; or features, ``(steps, size)``
            each. :class:`Rows` pass as they are where the kind is not text.
        kind: ``"text"``, ``"tokens"`` or ``"features"``.
        size: size of the vocabulary, or of one step's features.

    Raises:
        TypeError: if something is not of that kind, with its position.
        ValueError: if an id is outside the vocabulary, or a step has another size or holds NaN or
            infinity.
    """
    if kind == "text":
        return plain_texts(inputs)
    if isinstance(inputs, Rows):
        return _check_rows(inputs, kind, size)
    if isinstance(inputs, str | bytes):
        raise TypeError(f"inputs is the text {inputs!r:.60}; expected a list of {kind}.")
    wanted = "whole numbers" if kind == "tokens" else f"numbers of shape (steps, {size})"
    # Numbers keep their digits until it is known which parent reads them.
    dtype = None if kind == "tokens" else torch.float64
    rows = []
    for position, item in enumerate(inputs):
        try:
            row = torch.as_tensor(item if len(item) else [], dtype=dtype)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(
                f"inputs[{position}] is {item!r:.60}; expected {wanted} ({kind})."
            ) from error
        rows.append(_check_row(row, position, kind, size, wanted))
    return rows


def _check_rows(rows: Rows, kind: str, size: int) -> Rows:
    values = rows.values
    if kind == "tokens":
        if values.is_floating_point() or values.ndim != 2:
            raise TypeError(
                f"values is {values.dtype} of shape {tuple(values.shape)}; expected whole numbers "
                "of shape (rows, steps)."
            )
        if values.numel() and not 0 <= int(values.min()) <= int(values.max()) < size:
            raise ValueError(
                f"values has token ids from {int(values.min())} to {int(values.max())}; expected "
                f"ids from 0 to {size - 1}."
            )
    elif values.ndim != 3 or values.shape[2] != size:
        raise ValueError(f"values has shape {tuple(values.shape)}; expected (rows, steps, {size}).")
    else:
        _check_finite(values, "values")
    return rows


def _check_row(row: torch.Tensor, position: int, kind: str, size: int, wanted: str) -> torch.Tensor:
    if kind == "tokens":
        if row.numel() and (row.is_floating_point() or row.ndim != 1):
            raise TypeError(
                f"inputs[{position}] is {row.dtype} of shape {tuple(row.shape)}; expected {wanted}."
            )
        row = row.reshape(-1).to(torch.int64)
        if row.numel() and not 0 <= int(row.min()) <= int(row.max()) < size:
            raise ValueError(
                f"inputs[{position}] has token ids from {int(row.min())} to {int(row.max())}; "
                f"expected ids from 0 to {size - 1}."
            )
        return row
    if row.numel() == 0:
        return torch.zeros(0, size, dtype=torch.float64)
    if row.ndim != 2 or row.shape[1] != size:
        raise ValueError(
            f"inputs[{position}] has shape {tuple(row.shape)}; expected {wanted}, a vector a step."
        )
    _check_finite(row, f"inputs[{position}]")
    return row


def _check_finite(values: torch.Tensor, name: str) -> None:
    """A recurrent layer carries one NaN to all later steps: the row's answer would mean nothing."""
    finite = torch.isfinite(values)
    if not bool(finite.all()):
        place = (~finite).nonzero()[0].tolist()
        raise ValueError(
            f"{name} holds {float(values[tuple(place)])} at {place}; expected finite numbers. "
            "Fill or leave out what is missing."
        )


def to_rows(parent: Parent, inputs: Any) -> Rows:
    """Checked inputs as the rows that ``parent`` reads, on the CPU.

    Rows without a single step get one step of padding; their length is 1, or stays 0 where the
    parent answers each step.
    """
    network = parent.network
    config = network.config
    if isinstance(inputs, Rows):
        rows = inputs
    elif parent.tokenizer is not None:
        rows = parent.tokenizer(inputs)
    else:
        if config.input == "features":
            inputs = [item.to(network.dtype) for item in inputs]
        rows = _padded(inputs, config.pad_index, config.side)
    prepared = network.prepare(rows)
    lengths = network.lengths(prepared).cpu()
    if config.answer.stepwise:
        lengths[_without_step(rows, config)] = 0
    return Rows(prepared.values, lengths, prepared.targets)


def _without_step(rows: Rows, config: NetworkConfig) -> torch.Tensor:
    """Bool ``(rows,)``: those that hold nothing but padding."""
    if rows.lengths is not None:
        return (rows.lengths == 0).cpu()
    if config.pad_index is None or config.input == "features":
        return torch.zeros(len(rows), dtype=torch.bool)
    return (rows.values == config.pad_index).all(dim=1).cpu()


def _padded(items: Sequence[torch.Tensor], pad_index: int | None, side: str) -> Rows:
    lengths = torch.tensor([len(item) for item in items], dtype=torch.int64)
    steps = max(1, int(lengths.max()))
    shape = (len(items), steps, *items[0].shape[1:])
    filler = (pad_index or 0) if items[0].dtype == torch.int64 else 0
    values = torch.full(shape, filler, dtype=items[0].dtype)
    for row, item in enumerate(items):
        if side == "right":
            values[row, : len(item)] = item
        else:
            values[row, steps - len(item) :] = item
    # Padding that somebody left at the end of a row's ids is still padding.
    known = pad_index is None or items[0].dtype != torch.int64
    return Rows(values, lengths if known else None)
