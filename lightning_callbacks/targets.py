"""Targets in the shapes that people train with, as the network's kind of answer has them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from mlflow_rnnmod.networks import Rows
from mlflow_rnnmod.networks.architectures import network_of


def conform(rows: Rows, config: Any, source: str) -> Rows:
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
        >>> import torch
        >>> from mlflow_rnnmod.networks import NetworkConfig
        >>> config = NetworkConfig(
        ...     "features", 2, None, "gru", ((3,),), ("a", "b"), readout="all_steps", output="tags"
        ... )
        >>> targets = torch.tensor([[1, 0, -100], [0, 1, 1]])
        >>> rows = Rows(torch.zeros(2, 3, 2), torch.tensor([3, 1]), targets)
        >>> conform(rows, config, "batch").targets.tolist()
        [[1, 0, -1], [0, -1, -1]]
    """
    if rows.targets is None:
        raise ValueError(f"The {source} has no targets; expected the right answer to each row.")

    def shown() -> tuple[Tensor | None, str]:
        network = network_of(config)
        return network.answered(rows), network.answer_side

    return replace(rows, targets=config.answer.conform(rows.targets, config, source, shown))
