"""Names of what units are watched and removed by: a group, or one of its steps and gates."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mlflow_rnnmod.networks.groups import Groups


def part_name(group: str, step: int | None = None, gate: str | None = None) -> str:
    """The name under which a part of a group is watched.

    Example:
        >>> part_name("recurrent.0.fwd"), part_name("recurrent.0.fwd", 3, "f")
        ('recurrent.0.fwd', 'recurrent.0.fwd@3#f')
    """
    at = "" if step is None else f"@{step}"
    return group + at + ("" if gate is None else f"#{gate}")


def split_name(name: str) -> tuple[str, int | None, str | None]:
    """The group, step and gate of a name that :func:`part_name` made.

    Example:
        >>> split_name("recurrent.0.fwd@3#f"), split_name("hidden.0")
        (('recurrent.0.fwd', 3, 'f'), ('hidden.0', None, None))
    """
    rest, _, gate = name.partition("#")
    group, _, step = rest.partition("@")
    return group, int(step) if step else None, gate or None


def stacked(parts: Mapping[str, Tensor], groups: Groups) -> dict[str, Tensor]:
    """Tensors by name as one tensor a group: ``([steps,] [gates,] ...)``.

    Example:
        >>> from mlflow_rnnmod.networks.groups import Group
        >>> parts = {"a@0": torch.tensor([1, 2]), "a@1": torch.tensor([3, 4])}
        >>> stacked(parts, {"a": Group("a", 2, ())})["a"].tolist()
        [[1, 2], [3, 4]]
    """
    found: dict[str, dict[tuple[int, int], Tensor]] = {}
    kinds: dict[str, tuple[bool, bool]] = {}
    for name, tensor in parts.items():
        group, step, gate = split_name(name)
        place = (step or 0, 0 if gate is None else groups[group].gate(gate))
        found.setdefault(group, {})[place] = tensor
        kinds[group] = (step is not None, gate is not None)
    tables = {}
    for group, tensors in found.items():
        steps, gates = (max(place[i] for place in tensors) + 1 for i in (0, 1))
        table = torch.stack(
            [torch.stack([tensors[t, g] for g in range(gates)]) for t in range(steps)]
        )
        by_step, by_gate = kinds[group]
        table = table if by_gate else table[:, 0]
        tables[group] = table if by_step else table[0]
    return tables
