"""Which rows a decomposition looks at, and which it keeps for later."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from mlflow_rnnmod.network.rows import Rows


@dataclass(frozen=True, eq=False)
class Sample:
    """Training rows, balanced over labels.

    Args:
        rows: at most so many of each label.
        rivals: int64 ``(rows,)``: for each row one *other* label, for which it stands as a
            negative. Every label gets about as many negatives as positives, drawn evenly from every
            other label (RNN-D, section III; its code takes the first rows of the data instead).
        weights: float32 ``(rows,)``: how many training rows each stands for, so that fits see the
            labels as often as they really occur; mean 1.
    """

    rows: Rows
    rivals: Tensor
    weights: Tensor


def draw_sample(rows: Rows, labels: int, per_label: int, seed: int) -> Sample:
    """Draw a :class:`Sample` of ``per_label`` rows of each label, or all where there are fewer.

    Raises:
        ValueError: if rows have no targets, targets outside the labels, or fewer than two labels.
    """
    if labels < 2:
        raise ValueError(f"labels={labels}; expected at least two: a label needs a rival.")
    targets = checked_targets(rows, labels)
    generator = torch.Generator().manual_seed(seed)
    picked, rivals = [], []
    counts = torch.bincount(targets, minlength=labels)
    for label in range(labels):
        found = (targets == label).nonzero()[:, 0]
        chosen = found[torch.randperm(len(found), generator=generator)[:per_label]]
        others = torch.cat([torch.arange(label), torch.arange(label + 1, labels)])
        others = others[torch.randperm(len(others), generator=generator)]
        picked.append(chosen)
        rivals.append(others[torch.arange(len(chosen)) % len(others)])
    index = torch.cat(picked)
    taken = torch.bincount(targets[index], minlength=labels).clamp(min=1)
    weights = (counts / taken)[targets[index]]
    # In the order of the data, so that rows of one length stay together where the data keeps them.
    order = index.argsort()
    weights = weights[order].to(torch.float32)
    return Sample(rows[index[order]], torch.cat(rivals)[order], weights / weights.mean())


def checked_targets(rows: Rows, labels: int) -> Tensor:
    """The rows' targets.

    Raises:
        ValueError: if there are none, or some are no index of a label.
    """
    targets = rows.targets
    if targets is None or len(targets) == 0:
        raise ValueError("rows has no targets; expected the index of a label for every row.")
    if targets.ndim != 1 or targets.is_floating_point():
        raise ValueError(
            f"targets is {targets.dtype} of shape {tuple(targets.shape)}; expected whole numbers "
            "of shape (rows,)."
        )
    low, high = int(targets.min()), int(targets.max())
    if low < 0 or high >= labels:
        raise ValueError(
            f"targets go from {low} to {high}; expected the index of one of {labels} labels, "
            f"0 to {labels - 1}."
        )
    return targets.to("cpu", torch.int64)


def split_by_hash(rows: Rows, seed: int, side: str = "right") -> tuple[Tensor, Tensor]:
    """Split rows in two halves by a seeded hash of what is in them.

    The same row always falls on the same side, whatever its place, so rows that size and calibrate
    never give figures, even across runs.

    Args:
        rows: with lengths, where how far they are padded must not decide.
        seed: another one splits otherwise.
        side: where padding stands.

    Returns:
        two bool masks ``(rows,)``; the first half (calibration) and the second (figures).
    """
    key = seed.to_bytes(8, "little", signed=True)
    values = rows.values.to("cpu").contiguous()
    lengths = rows.lengths
    sides = []
    for i, row in enumerate(values):
        # Padding is not part of a row: how far a batch was padded must not decide.
        content = row
        if lengths is not None:
            length = int(lengths[i])
            content = row[:length] if side == "right" else row[len(row) - length :]
        data = content.contiguous().view(torch.uint8).numpy().tobytes()
        sides.append(hashlib.blake2b(data, key=key, digest_size=1).digest()[0] & 1)
    first = torch.tensor(sides, dtype=torch.bool)
    return first, ~first
