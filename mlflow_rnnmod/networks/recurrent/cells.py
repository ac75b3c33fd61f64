"""One step of each recurrent cell, written out, where a whole-sequence kernel hides too much.

The formulas are PyTorch's own (``torch.nn.RNN``, ``LSTM``, ``GRU``), gates in its order. Working
step by step lets each answer be fed to the next step.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# A state is the tuple of what a cell carries from step to step: (h,) or (h, c).
State = tuple[Tensor, ...]
Step = Callable[[Tensor, State, Tensor, Tensor], State]


def _rnn_tanh(projected: Tensor, state: State, weight: Tensor, bias: Tensor) -> State:
    return (torch.tanh(projected + F.linear(state[0], weight, bias)),)


def _rnn_relu(projected: Tensor, state: State, weight: Tensor, bias: Tensor) -> State:
    return (torch.relu(projected + F.linear(state[0], weight, bias)),)


def _lstm(projected: Tensor, state: State, weight: Tensor, bias: Tensor) -> State:
    h, c = state
    i, f, g, o = (projected + F.linear(h, weight, bias)).chunk(4, dim=-1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def _gru(projected: Tensor, state: State, weight: Tensor, bias: Tensor) -> State:
    (h,) = state
    input_r, input_z, input_n = projected.chunk(3, dim=-1)
    state_r, state_z, state_n = F.linear(h, weight, bias).chunk(3, dim=-1)
    r, z = torch.sigmoid(input_r + state_r), torch.sigmoid(input_z + state_z)
    n = torch.tanh(input_n + r * state_n)
    return (n + z * (h - n),)


STEPS: dict[str, Step] = {"rnn_tanh": _rnn_tanh, "rnn_relu": _rnn_relu, "lstm": _lstm, "gru": _gru}


def cell_weights(layer: nn.RNNBase) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``weight_ih``, ``weight_hh``, ``bias_ih`` and ``bias_hh`` of a one-layer recurrent module."""
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    found = [getattr(layer, name).detach() for name in names]
    return found[0], found[1], found[2], found[3]
