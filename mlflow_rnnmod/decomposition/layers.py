"""Names of what units are watched and removed by: a layer, or one of its steps and gates."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

GATE_NAMES = {"lstm": "ifgo", "gru": "rzn", "rnn_tanh": "h", "rnn_relu": "h"}
"""A letter for each gate, in PyTorch's order."""
TANH_GATES = "gnh"
"""Gates that pass a tanh (a plain cell's only if it is no ReLU); the others pass a sigmoid."""


def layer_name(layer: str, step: int | None = None, gate: str | None = None) -> str:
    """The name under which a part of ``layer`` is watched.

    Example:
        >>> layer_name("recurrent.0.fwd"), layer_name("recurrent.0.fwd", 3, "f")
        ('recurrent.0.fwd', 'recurrent.0.fwd@3#f')
    """
    at = "" if step is None else f"@{step}"
    return layer + at + ("" if gate is None else f"#{gate}")


def split_name(name: str) -> tuple[str, int | None, str | None]:
    """The layer, step and gate of a name that :func:`layer_name` made.

    Example:
        >>> split_name("recurrent.0.fwd@3#f"), split_name("hidden.0")
        (('recurrent.0.fwd', 3, 'f'), ('hidden.0', None, None))
    """
    rest, _, gate = name.partition("#")
    layer, _, step = rest.partition("@")
    return layer, int(step) if step else None, gate or None


def stacked(parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by name as one tensor a layer: ``([steps,] [gates,] ...)``.

    Args:
        parts: of all steps from 0 up and all gates, each of the same shape within a layer.

    Example:
        >>> stacked({"a@0": torch.tensor([1, 2]), "a@1": torch.tensor([3, 4])})["a"].tolist()
        [[1, 2], [3, 4]]
    """
    layers: dict[str, dict[tuple[int, int], Tensor]] = {}
    kinds: dict[str, tuple[bool, bool]] = {}
    for name, tensor in parts.items():
        layer, step, gate = split_name(name)
        place = (step or 0, 0 if gate is None else _place(gate))
        layers.setdefault(layer, {})[place] = tensor
        kinds[layer] = (step is not None, gate is not None)
    found = {}
    for layer, tensors in layers.items():
        steps, gates = (max(place[i] for place in tensors) + 1 for i in (0, 1))
        table = torch.stack(
            [torch.stack([tensors[t, g] for g in range(gates)]) for t in range(steps)]
        )
        by_step, by_gate = kinds[layer]
        table = table if by_gate else table[:, 0]
        found[layer] = table if by_step else table[0]
    return found


def _place(gate: str) -> int:
    """The number of a gate among its cell's."""
    return next(names.index(gate) for names in GATE_NAMES.values() if gate in names)
