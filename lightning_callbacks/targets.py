"""Targets in the shapes that people train with, as the network's kind of answer has them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from mlflow_rnnmod.networks import NetworkConfig, RecurrentNetwork, Rows
from mlflow_rnnmod.networks.rows import IGNORE, fitted


def conform(rows: Rows, config: NetworkConfig, source: str) -> Rows:
    """Rows with the targets that :class:`~mlflow_rnnmod.networks.Rows` wants for a kind of answer.

    Steps that have no label hold ``IGNORE``: those whose target is negative (as -100, PyTorch's
    ``ignore_index``), that are padding, or that stand behind the label that ends a list.

    Args:
        rows: with int64 targets ``(rows,)`` or ``(rows, steps)``, or bool ``(rows, labels)`` or
            ``(rows, steps)``.
        config: of the network that answers them.
        source: what to call the data in errors.

    Raises:
        ValueError: if the targets have another shape, or hold what is no label.

    Example:
        >>> config = NetworkConfig(
        ...     "features", 2, None, "gru", ((3,),), ("a", "b"), readout="all_steps", output="tags"
        ... )
        >>> targets = torch.tensor([[1, 0, -100], [0, 1, 1]])
        >>> rows = Rows(torch.zeros(2, 3, 2), torch.tensor([3, 1]), targets)
        >>> conform(rows, config, "batch").targets.tolist()
        [[1, 0, -1], [0, -1, -1]]
    """
    targets = rows.targets
    if targets is None:
        raise ValueError(f"The {source} has no targets; expected the right answer to each row.")
    if config.output == "label":
        targets = _labels(targets, config, source)
    elif config.output == "multilabel":
        targets = _several(targets, config, source)
    else:
        targets = _steps(targets, rows, config, source)
    return replace(rows, targets=targets)


def _labels(targets: Tensor, config: NetworkConfig, source: str) -> Tensor:
    if targets.ndim != 1:
        raise ValueError(
            f"The {source} has targets of shape {tuple(targets.shape)}, and the network answers "
            "with one label a row; expected one label index for each row, (rows,). For any number "
            "of labels a row give network_spec={'kind': 'multilabel'}."
        )
    _check_range(targets, config, source, ignoring=False)
    return targets


def _several(targets: Tensor, config: NetworkConfig, source: str) -> Tensor:
    wanted = (len(targets), len(config.labels))
    if targets.shape != wanted or bool(((targets != 0) & (targets != 1)).any()):
        low, high = int(targets.min()), int(targets.max())
        raise ValueError(
            f"The {source} has targets of shape {tuple(targets.shape)}, from {low} to "
            f"{high}, and the network answers with several labels a row; expected "
            f"zeros and ones of shape (rows, {wanted[1]}), one for whether each label is right."
        )
    return targets.bool()


def _steps(targets: Tensor, rows: Rows, config: NetworkConfig, source: str) -> Tensor:
    targets = targets.long()
    targets = targets[:, None] if targets.ndim == 1 else targets
    with torch.device("meta"):
        network = RecurrentNetwork(config)
    answered = network.answered(rows)
    steps = answered.shape[1]
    if targets.shape[1] > steps:
        raise ValueError(
            f"The {source} has targets of shape {tuple(targets.shape)}, and the network answers at "
            f"{steps} steps; expected a label index for each of them."
        )
    targets = fitted(targets, steps, IGNORE, config.side if config.feed == "steps" else "right")
    targets = torch.where(answered.to(targets.device) & (targets >= 0), targets, IGNORE)
    if config.end_label is not None:
        ends = targets == config.labels.index(config.end_label)
        targets = targets.masked_fill(ends.cumsum(dim=1) - ends.long() > 0, IGNORE)
    _check_range(targets, config, source, ignoring=True)
    return targets


def _check_range(targets: Tensor, config: NetworkConfig, source: str, ignoring: bool) -> None:
    low, high, labels = int(targets.min()), int(targets.max()), len(config.labels)
    if (low < 0 and not ignoring) or high >= labels:
        rest = " or, where a step has no label, a negative number" if ignoring else ""
        raise ValueError(
            f"The {source} has targets from {low} to {high}; expected the index of one of "
            f"{labels} labels, 0 to {labels - 1}{rest}. Check labels=, and in a batch of three "
            "that the order is (inputs, lengths, targets)."
        )
