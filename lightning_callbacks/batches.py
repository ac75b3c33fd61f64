"""How a batch is taken apart into inputs, lengths or padding mask, and targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from mlflow_rnnmod.inputs.rows import IGNORE
from mlflow_rnnmod.networks import Rows, concatenate

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


@dataclass(frozen=True)
class Steps:
    """Rows of steps: a token id or some floats at each.

    Args:
        time_first: whether steps come before rows where the shape does not tell.
    """

    expected: ClassVar[str] = (
        "token ids (rows, steps), float features (rows, steps, features) or a PackedSequence"
    )
    time_first: bool = False

    def fits(self, values: Tensor) -> bool:
        """Whether there is a token id or a vector at each step."""
        return values.ndim in (2, 3)

    def rows(self, values: Tensor, lengths: Any, mask: Any, targets: Tensor) -> Rows:
        """Rows first, lengths from the mask where there are none; a ``ValueError`` on a misfit."""
        if _is_turned(values, targets, lengths, self.time_first):
            targets = targets.T
        count = len(targets)
        _check_count(count, values, values.shape[:2])
        values = _rows_first(values, count, self.time_first)
        found = _lengths(lengths, mask, count, values.shape[1])
        return Rows(_numbers(values), found, targets)

    def as_seen(self, batch: Batch) -> Steps:
        """Steps come first where they did so in this batch."""
        return Steps(is_time_first(batch))

    def joined(self, parts: list[Rows], config: Any, source: str) -> Rows:
        """All rows in one, padded as the network of ``config`` has it."""
        steps = {part.values.shape[1] for part in parts}
        if len(steps) > 1 and parts[0].values.ndim == 3 and parts[0].lengths is None:
            raise ValueError(
                f"The {source} comes in batches of {min(steps)} to {max(steps)} steps without "
                "lengths; with float features padding can't be told from content. Give the "
                "lengths, in the batch or by split_batch=."
            )
        return concatenate(parts, config.pad_index or 0, config.side)


@dataclass(frozen=True)
class Whole:
    """Rows that are read at once: vectors of floats, images."""

    expected: ClassVar[str] = "vectors (rows, numbers) or images (rows, channels, height, width)"

    def fits(self, values: Tensor) -> bool:
        """Whether each row has some numbers."""
        return values.ndim >= 2

    def rows(self, values: Tensor, lengths: Any, mask: Any, targets: Tensor) -> Rows:
        """Inputs as floats in the shape that they have."""
        _check_count(len(targets), values, values.shape[:1])
        values = values.detach().cpu()
        return Rows(values if values.is_floating_point() else values.float(), None, targets)

    def as_seen(self, batch: Batch) -> Whole:
        """Rows always come first."""
        return self

    def joined(self, parts: list[Rows], config: Any, source: str) -> Rows:
        """All rows in one."""
        shapes = {tuple(part.values.shape[1:]) for part in parts}
        if len(shapes) > 1:
            raise ValueError(f"The {source} has rows of {sorted(shapes)}; expected one shape.")
        return concatenate(parts)


Layout = Steps | Whole
"""What the inputs of a batch are: a reader of models says it of those that it reads."""


def split(
    raw: Any,
    split_batch: SplitFunction | None = None,
    layout: Layout = Steps(),  # noqa: B008
) -> Batch:
    """Take a batch apart.

    Args:
        raw: ``(x, y)``, ``(x, lengths, y)``, ``(x, mask, y)``, ``((x, lengths), y)``, a named tuple
            or a mapping with the usual keys; ``x`` is int ``(rows, steps)``, float
            ``(rows, steps, features)`` or ``(rows, steps)``, or a ``PackedSequence``, or what
            ``layout`` says; ``y`` is a label index a row, ``(rows,)``, or a step, ``(rows,
            steps)``, or zeros and ones as floats or bools, ``(rows, labels)``.
        split_batch: gives ``(x, y)``, ``(x, lengths, y)`` or a mapping with the usual keys from a
            batch of any other kind.
        layout: what the inputs are.

    Example:
        >>> batch = split((torch.tensor([[4, 2, 0], [3, 0, 0]]), torch.tensor([1, 0])))
        >>> batch.rows.values.shape, batch.rows.targets.tolist()
        (torch.Size([2, 3]), [1, 0])
        >>> pixels = torch.zeros(2, 5), torch.tensor([1, 0])
        >>> split(pixels).rows.values.shape, split(pixels, layout=Whole()).rows.values.shape
        (torch.Size([2, 5, 1]), torch.Size([2, 5]))
    """
    parts = raw if split_batch is None else split_batch(raw)
    source = "the batch" if split_batch is None else "what split_batch returned"
    inputs, lengths, mask, targets = _parts(parts, source)
    values, rows, problems = inputs, None, []
    if isinstance(values, PackedSequence):
        values, lengths = pad_packed_sequence(values, batch_first=True)
    if not isinstance(values, Tensor) or not layout.fits(values):
        problems.append(f"its inputs are {describe(values)}; expected {layout.expected}")
    try:
        targets = _targets(targets)
        rows = None if problems else layout.rows(values, lengths, mask, targets)
    except ValueError as error:
        problems.append(str(error))
    if rows is None:
        raise ValueError(
            f"{source} can't be taken apart: " + "; ".join(problems) + f". It is {describe(raw)}. "
            "Give split_batch=, a function from a batch to (inputs, targets) or "
            "(inputs, lengths, targets)."
        )
    return Batch(raw, inputs, lengths, mask, rows)


def with_one_label(batch: Batch) -> Batch | None:
    """The batch with label indices as targets, where these are one 1 and else zeros in each row.

    Example:
        >>> batch = split((torch.zeros(2, 3).long(), torch.tensor([[0.0, 1.0], [1.0, 0.0]])))
        >>> with_one_label(batch).rows.targets.tolist()
        [1, 0]
    """
    targets = batch.rows.targets
    if targets is None or targets.dtype != torch.bool or targets.ndim != 2 or not len(targets):
        return None
    if not bool((targets.sum(dim=1) == 1).all()):
        return None
    return replace(batch, rows=replace(batch.rows, targets=targets.long().argmax(dim=1)))


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
    """What stands between inputs and targets: lengths have one number a row, a mask one a step.

    A last batch may have one row; of a single step, lengths and mask say the same.
    """
    if isinstance(value, Tensor) and value.ndim == 2 and value.shape[1] != 1:
        return None, value
    return value, None


def _targets(targets: Any) -> Tensor:
    """Targets as int64 ``(rows,)`` or ``(rows, steps)``, or bool; a ``ValueError`` otherwise."""
    if isinstance(targets, PackedSequence):
        targets, _ = pad_packed_sequence(targets, batch_first=True, padding_value=IGNORE)
    given = f"its targets are {describe(targets)}"
    if isinstance(targets, Sequence) and not isinstance(targets, str):
        try:
            targets = torch.tensor(targets)
        except (TypeError, ValueError):
            raise ValueError(f"{given}; expected label indices") from None
    if not isinstance(targets, Tensor):
        raise ValueError(f"{given}; expected label indices")
    found = targets[:, 0] if targets.ndim == 2 and targets.shape[1] == 1 else targets
    if found.ndim not in (1, 2):
        raise ValueError(
            f"{given}; expected one label index for each row, (rows,), or for each step, (rows, "
            "steps), or zeros and ones (rows, labels)"
        )
    if found.is_floating_point() and not torch.equal(found, found.round()):
        raise ValueError(
            f"{given} with fractions in it; expected label indices, or zeros and ones (rows, "
            "labels)"
        )
    found = found.detach().cpu()
    if found.ndim == 1:
        return found.long()
    yes_or_no = not bool(((found != 0) & (found != 1)).any())
    if found.dtype == torch.bool or (found.is_floating_point() and yes_or_no):
        return found.bool()
    found = found.long()
    return torch.where(found < 0, IGNORE, found)


def _check_count(count: int, values: Tensor, sizes: Sequence[int]) -> None:
    """Raise unless there are as many targets as one of ``sizes``."""
    if count not in sizes:
        raise ValueError(
            f"it has {count} targets and inputs of shape {tuple(values.shape)}; expected as many "
            "rows in both"
        )


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


def _lengths(lengths: Any, mask: Any, rows: int, steps: int) -> Tensor | None:
    """Lengths as int64 ``(rows,)``, from the mask where there are none; ``None`` without both."""
    if lengths is None and mask is None:
        return None
    if lengths is None:
        mask = torch.as_tensor(mask).cpu()
        if mask.shape == (steps, rows) and rows != steps:
            mask = mask.T
        if mask.shape != (rows, steps):
            raise ValueError(f"its mask has shape {tuple(mask.shape)}; expected {(rows, steps)}")
        return mask.bool().sum(dim=1)
    given = f"its lengths are {describe(lengths)}"
    try:
        found = torch.as_tensor(lengths).detach().cpu().flatten()
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{given}; expected one whole number for each row") from None
    if found.is_floating_point() or len(found) != rows:
        raise ValueError(f"{given}; expected {rows} whole numbers, one a row")
    if len(found) and (int(found.min()) < 0 or int(found.max()) > steps):
        raise ValueError(
            f"its lengths go from {int(found.min())} to {int(found.max())}; expected 0 to {steps}, "
            "the number of steps"
        )
    return found.long()
