"""How a batch is taken apart into inputs, lengths or padding mask, and targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from mlflow_rnnmod.networks import Rows
from mlflow_rnnmod.networks.rows import IGNORE

INPUT_KEYS = ("input_ids", "inputs", "input", "x", "tokens", "token_ids", "features")
LENGTH_KEYS = ("lengths", "length", "lens", "seq_lengths", "seq_lens", "input_lengths")
MASK_KEYS = ("attention_mask", "mask")
TARGET_KEYS = ("labels", "label", "targets", "target", "y")

SplitFunction = Callable[[Any], Any]


@dataclass(frozen=True, eq=False)
class Batch:
    """A batch as it came, and what it is made of.

    Args:
        raw: the batch as the dataloader gave it, after the batch transfer hooks.
        inputs: the part that goes into the network, untouched.
        lengths: valid steps of each row, untouched, where the batch has them.
        mask: attention mask, untouched, where the batch has one.
        rows: the same as :class:`Rows`: rows first, lengths from the mask, targets as indices, or
            bools where they are zeros and ones for several labels.
    """

    raw: Any
    inputs: Any
    lengths: Any
    mask: Any
    rows: Rows


def split(raw: Any, split_batch: SplitFunction | None = None, time_first: bool = False) -> Batch:
    """Take a batch apart.

    Args:
        raw: ``(x, y)``, ``(x, lengths, y)``, ``(x, mask, y)``, ``((x, lengths), y)``, a named tuple
            or a mapping with the usual keys; ``x`` is int ``(rows, steps)``, float
            ``(rows, steps, features)`` or ``(rows, steps)``, or a ``PackedSequence``; ``y`` is a
            label index a row, ``(rows,)``, or a step, ``(rows, steps)``, or zeros and ones as
            floats or bools, ``(rows, labels)``.
        split_batch: gives ``(x, y)``, ``(x, lengths, y)`` or a mapping with the usual keys from a
            batch of any other kind.
        time_first: whether steps come before rows where the shape does not tell.

    Raises:
        ValueError: saying what the batch looks like and what would be accepted.

    Example:
        >>> batch = split((torch.tensor([[4, 2, 0], [3, 0, 0]]), torch.tensor([1, 0])))
        >>> batch.rows.values.shape, batch.rows.targets.tolist()
        (torch.Size([2, 3]), [1, 0])
    """
    parts = raw if split_batch is None else split_batch(raw)
    source = "the batch" if split_batch is None else "what split_batch returned"
    inputs, lengths, mask, targets = _parts(parts, source)
    values = inputs
    if isinstance(values, PackedSequence):
        values, lengths = pad_packed_sequence(values, batch_first=True)
    problems = []
    if not isinstance(values, Tensor) or values.ndim not in (2, 3):
        problems.append(
            f"its inputs are {describe(values)}; expected token ids (rows, steps), float features "
            "(rows, steps, features) or a PackedSequence"
        )
    targets, problem = _targets(targets)
    problems += [problem] if problem else []
    if (
        problem is None
        and isinstance(values, Tensor)
        and _is_turned(values, targets, lengths, time_first)
    ):
        targets = targets.T
    if not problems:
        rows = len(targets)
        if rows not in values.shape[:2]:
            problems.append(
                f"it has {rows} targets and inputs of shape {tuple(values.shape)}; expected as "
                "many rows in both"
            )
        else:
            values = _rows_first(values, rows, time_first)
            lengths_found, problem = _lengths(lengths, mask, rows, values.shape[1])
            problems += [problem] if problem else []
    if problems:
        raise ValueError(
            f"{source} can't be taken apart: " + "; ".join(problems) + f". It is {describe(raw)}. "
            "Give split_batch=, a function from a batch to (inputs, targets) or "
            "(inputs, lengths, targets)."
        )
    return Batch(raw, inputs, lengths, mask, Rows(_numbers(values), lengths_found, targets))


def is_time_first(batch: Batch) -> bool:
    """Whether the batch's steps come before its rows."""
    values = batch.inputs
    return isinstance(values, Tensor) and values.shape[0] != len(batch.rows)


def describe(value: Any) -> str:
    """What a batch or a part of it looks like, in one line.

    Example:
        >>> describe((torch.zeros(2, 3), ["a"]))
        'a tuple of (float32 tensor (2, 3), a list of (str))'
    """
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} tensor {tuple(value.shape)}"
    if isinstance(value, Mapping):
        inner = ", ".join(f"{key!r}: {describe(item)}" for key, item in value.items())
        return f"a {type(value).__name__} of ({inner})"
    if isinstance(value, tuple | list):
        inner = ", ".join(map(describe, value[:4])) + (", ..." if len(value) > 4 else "")
        return f"a {type(value).__name__} of ({inner})"
    return type(value).__name__


def _parts(parts: Any, source: str) -> tuple[Any, Any, Any, Any]:
    """Inputs, lengths, mask and targets, as they are."""
    if isinstance(parts, PackedSequence):
        raise ValueError(f"{source} is a PackedSequence alone; expected inputs and targets.")
    if hasattr(parts, "_fields"):
        parts = parts._asdict()
    if isinstance(parts, Mapping):
        return _from_mapping(parts, source)
    if isinstance(parts, tuple | list) and len(parts) in (2, 3):
        inputs, *between, targets = parts
        pair = isinstance(inputs, tuple | list) and not isinstance(inputs, PackedSequence)
        if not between and pair and len(inputs) == 2 and not isinstance(inputs[0], str):
            inputs, *between = inputs
        lengths, mask = _between(between[0]) if between else (None, None)
        return inputs, lengths, mask, targets
    raise ValueError(
        f"{source} is {describe(parts)}; expected (inputs, targets), (inputs, lengths, targets) or "
        f"a mapping with inputs under one of {INPUT_KEYS} and targets under one of {TARGET_KEYS}. "
        "Give split_batch=, a function from a batch to (inputs, targets) or "
        "(inputs, lengths, targets)."
    )


def _from_mapping(parts: Mapping[str, Any], source: str) -> tuple[Any, Any, Any, Any]:
    groups = {"inputs": INPUT_KEYS, "targets": TARGET_KEYS}
    groups |= {"lengths": LENGTH_KEYS, "attention mask": MASK_KEYS}
    found = {name: [key for key in keys if key in parts] for name, keys in groups.items()}
    problems = [
        f"it has {name} under {found[name]}; expected exactly one of {groups[name]}"
        for name in ("inputs", "targets")
        if len(found[name]) != 1
    ]
    if problems:
        raise ValueError(
            f"{source} can't be taken apart: " + "; ".join(problems) + f". It is {describe(parts)}."
            " Give split_batch=, a function from a batch to (inputs, targets) or "
            "(inputs, lengths, targets)."
        )
    inputs, lengths, mask, targets = (
        parts[found[name][0]] if found[name] else None
        for name in ("inputs", "lengths", "attention mask", "targets")
    )
    return inputs, lengths, mask, targets


def _between(value: Any) -> tuple[Any, Any]:
    """What stands between inputs and targets: lengths have one number a row, a mask one a step."""
    if isinstance(value, Tensor) and value.ndim == 2 and 1 not in value.shape:
        return None, value
    return value, None


def _targets(targets: Any) -> tuple[Any, str | None]:
    """Targets as int64 ``(rows,)`` or ``(rows, steps)``, or bool; or what is wrong with them."""
    if isinstance(targets, PackedSequence):
        targets, _ = pad_packed_sequence(targets, batch_first=True, padding_value=IGNORE)
    if isinstance(targets, Sequence) and not isinstance(targets, str):
        try:
            targets = torch.tensor(targets)
        except (TypeError, ValueError):
            return None, f"its targets are {describe(targets)}; expected label indices"
    if not isinstance(targets, Tensor):
        return None, f"its targets are {describe(targets)}; expected label indices"
    found = targets[:, 0] if targets.ndim == 2 and targets.shape[1] == 1 else targets
    if found.ndim not in (1, 2):
        return None, (
            f"its targets are {describe(targets)}; expected one label index for each row, (rows,), "
            "or for each step, (rows, steps), or zeros and ones (rows, labels)"
        )
    if found.is_floating_point() and not torch.equal(found, found.round()):
        return None, (
            f"its targets are {describe(targets)} with fractions in it; expected label indices, "
            "or zeros and ones (rows, labels)"
        )
    found = found.detach().cpu()
    if found.ndim == 1:
        return found.long(), None
    yes_or_no = not bool(((found != 0) & (found != 1)).any())
    if found.dtype == torch.bool or (found.is_floating_point() and yes_or_no):
        return found.bool(), None
    found = found.long()
    return torch.where(found < 0, IGNORE, found), None


def _is_turned(values: Tensor, targets: Tensor, lengths: Any, time_first: bool) -> bool:
    """Whether steps come first, in inputs and targets alike: there is a length for each row."""
    if targets.ndim != 2 or values.shape[:2] != targets.shape:
        return False
    if targets.shape[0] == targets.shape[1]:
        return time_first
    return hasattr(lengths, "__len__") and len(lengths) == targets.shape[1]


def _rows_first(values: Tensor, rows: int, time_first: bool) -> Tensor:
    values = values.detach().cpu()
    ambiguous = values.shape[0] == values.shape[1]
    swap = time_first if ambiguous else values.shape[0] != rows
    return values.transpose(0, 1) if swap else values


def _numbers(values: Tensor) -> Tensor:
    """Token ids as int64 ``(rows, steps)``, features as float ``(rows, steps, features)``."""
    if values.is_floating_point():
        return values if values.ndim == 3 else values[..., None]
    return values.long() if values.ndim == 2 else values.float()


def _lengths(lengths: Any, mask: Any, rows: int, steps: int) -> tuple[Tensor | None, str | None]:
    """Lengths as int64 ``(rows,)``, from the mask where there are none; or what is wrong."""
    if lengths is None and mask is None:
        return None, None
    if lengths is None:
        mask = torch.as_tensor(mask).cpu()
        if mask.shape == (steps, rows) and rows != steps:
            mask = mask.T
        if mask.shape != (rows, steps):
            return None, f"its mask has shape {tuple(mask.shape)}; expected {(rows, steps)}"
        return mask.bool().sum(dim=1), None
    try:
        found = torch.as_tensor(lengths).detach().cpu().flatten()
    except (TypeError, ValueError, RuntimeError):
        return None, f"its lengths are {describe(lengths)}; expected one whole number for each row"
    if found.is_floating_point() or len(found) != rows:
        return None, (
            f"its lengths are {describe(lengths)}; expected {rows} whole numbers, one a row"
        )
    if len(found) and (int(found.min()) < 0 or int(found.max()) > steps):
        return None, (
            f"its lengths go from {int(found.min())} to {int(found.max())}; expected 0 to {steps}, "
            "the number of steps"
        )
    return found.long(), None
