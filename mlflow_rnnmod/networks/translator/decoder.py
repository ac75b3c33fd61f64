"""A decoder as plain tensors, run one token at a time: a translator's own, or through a trunk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mlflow_rnnmod._locks import cached_property
from mlflow_rnnmod.networks.products import Product
from mlflow_rnnmod.networks.recurrent.config import STEPS, State

States = tuple[State, ...]
"""What a decoder carries from token to token: for each layer ``(h,)`` or ``(h, c)``."""

Weights = tuple[Tensor, Tensor, Tensor, Tensor]
"""``weight_ih``, ``weight_hh``, ``bias_ih`` and ``bias_hh`` of one layer."""


def layer_weights(state: Mapping[str, Tensor], prefix: str) -> Weights:
    """The weights of one layer, from a network's state."""
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    found = [state[f"{prefix}.{name}"].detach() for name in names]
    return found[0], found[1], found[2], found[3]


@dataclass(frozen=True, eq=False)
class Decoder:
    """Embedding, recurrent layers and output layer of a translator.

    Args:
        cell: kind of recurrent cell.
        embedding: ``(tokens, size)``.
        layers: weights of each layer.
        weight: of the output layer, ``(tokens, units)``.
        bias: of the output layer, ``(tokens,)``.
    """

    cell: str
    embedding: Tensor
    layers: Sequence[Weights]
    weight: Tensor
    bias: Tensor

    def start(self, states: States) -> States:
        """The states that it starts from, given those that the encoder hands over."""
        return states

    def step(self, tokens: Tensor, states: States, number: int) -> tuple[Tensor, States]:
        """Read one token of each row.

        Args:
            tokens: int64 ``(rows,)``.
            states: before.
            number: of the step, from 0.

        Returns:
            logits of the next token, ``(rows, tokens)``, and the states afterwards.
        """
        x = F.embedding(tokens, self.embedding)
        after = []
        for (weight_ih, weight_hh, bias_ih, bias_hh), state in zip(
            self.layers, states, strict=True
        ):
            projected = F.linear(x, weight_ih, bias_ih)
            state = STEPS[self.cell](projected, state, weight_hh, bias_hh)
            after.append(state)
            x = state[0]
        return self.finish(x), tuple(after)

    def run(self, tokens: Tensor, states: States) -> Tensor:
        """Logits after each of some tokens, ``(rows, steps, tokens)`` from ``(rows, steps)``."""
        states = self.start(states)
        found = []
        for t in range(tokens.shape[1]):
            logits, states = self.step(tokens[:, t], states, t)
            found.append(logits)
        return torch.stack(found, dim=1)

    def finish(self, x: Tensor) -> Tensor:
        """The output layer: ``(rows, tokens)`` from ``(rows, units)``."""
        return self._product(x, self.bias)

    @cached_property
    def _product(self) -> Product:
        return Product(self.weight)


def picked(states: States, rows: Tensor) -> States:
    """The states of some rows."""
    return tuple(tuple(part[rows] for part in state) for state in states)
