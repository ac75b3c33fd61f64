"""Rows of steps as networks read them: lengths, padding, and steps that change no answer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mlflow_rnnmod.inputs.rows import IGNORE, Rows, fitted


def lengths_of(config: Any, rows: Rows) -> Tensor:
    """Valid steps of each row, int64 ``(rows,)``, at least 1: an empty row is one padding step.

    Where the rows do not say, the last (padding on the left: first) token that is not padding
    decides; for features every step is valid.
    """
    values, steps = rows.values, rows.values.shape[1]
    if rows.lengths is not None:
        lengths = rows.lengths.to(values.device)
    elif config.pad_index is None or values.is_floating_point():
        lengths = torch.full((len(rows),), steps, device=values.device)
    else:
        content = values != config.pad_index
        if config.side == "left":
            content = content.flip(1)
        position = torch.arange(1, steps + 1, device=content.device)
        lengths = (content * position).amax(dim=1)
    return lengths.clamp(min=1, max=steps)


def valid_of(config: Any, lengths: Tensor, steps: int) -> Tensor:
    """Bool ``(rows, steps)``: which steps are not padding."""
    position = torch.arange(steps, device=lengths.device)
    if config.side == "left":
        position = steps - 1 - position
    return position < lengths[:, None]


def resized(config: Any, rows: Rows, steps: int, answered: bool) -> Rows:
    """Rows cut or padded to so many steps; targets, too, where each step is ``answered``."""
    if steps == rows.values.shape[1]:
        return rows
    lengths = lengths_of(config, rows).clamp(max=steps)
    targets = rows.targets
    if targets is not None and answered:
        targets = fitted(targets, steps, IGNORE, config.side)
    values = fitted(rows.values, steps, config.pad_index or 0, config.side)
    return Rows(values, lengths, targets)


def prepared(config: Any, rows: Rows) -> Rows:
    """Rows cut or padded to ``config.steps``, or to as many as there must be at least."""
    present = rows.values.shape[1]
    steps = max(present, config.least_steps) if config.steps is None else config.steps
    return resized(config, rows, steps, config.answer.stepwise)


def trimmed(config: Any, rows: Rows) -> Rows:
    """The rows without steps that are padding in all of them, where those change no answer."""
    if config.steps is not None or config.side == "left" or len(rows) == 0:
        return rows
    steps = max(int(lengths_of(config, rows).max()), config.least_steps)
    if steps >= rows.values.shape[1]:
        return rows
    targets = rows.targets
    if targets is not None and config.answer.stepwise:
        targets = targets[:, :steps]
    return Rows(rows.values[:, :steps], rows.lengths, targets)
