"""One direction of one recurrent layer: a node each, so that every layer's states can be masked."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence

from mlflow_rnnmod.networks.graph.operations.base import (
    Flow,
    Operation,
    Reads,
    Settings,
    Shape,
    Sizes,
    Weights,
    is_count,
    is_flag,
    units_of,
)
from mlflow_rnnmod.networks.graph.operations.steps import valid_steps
from mlflow_rnnmod.networks.graph.units import Layout
from mlflow_rnnmod.networks.recurrent.config import GATES, STEPS, State
from mlflow_rnnmod.networks.recurrent.layers import reversed_steps

_KERNELS: dict[str, Any] = {
    "rnn_tanh": torch.rnn_tanh,
    "rnn_relu": torch.rnn_relu,
    "lstm": torch.lstm,
    "gru": torch.gru,
}


class _Recurrent(Operation):
    """Inputs are steps, then lengths where they are packed, then first states where they are given.

    Settings:
        units: of the state that is put out.
        cells: of the LSTM's cells, where its states are projections of them, or 0.
        backward: whether it goes from the last step to the first.
        packed: whether each row ends with its length: what comes behind is zeros.
        starts: whether first states are given, and not zeros.
        ends: whether the last state of the cells stands behind the last step.
    """

    settings = {
        "units": is_count,
        "cells": lambda value: value == 0 or is_count(value),
        "backward": is_flag,
        "packed": is_flag,
        "starts": is_flag,
        "ends": is_flag,
    }
    # Dimensions are worked out below.
    parameters = {"weight_ih": (), "weight_hh": (), "bias_ih": (), "bias_hh": ()}
    reads = recurs = True

    def __init__(self, cell: str) -> None:
        self.name, self.cell, self.gates = cell, cell, GATES[cell]
        self.bounded, self.idles = cell != "rnn_relu", cell == "rnn_relu"

    def bounds(self, settings: Settings) -> bool:
        # A GRU's state begins with what is given; projections and cells are as large as they are.
        begun = self.cell == "gru" and settings["starts"]
        return self.bounded and not (begun or settings["cells"] or settings["ends"])

    def problems(self, settings: Settings, inputs: int) -> list[str]:
        found = super().problems(settings, 1)
        if found:
            return found
        wanted = 1 + settings["packed"] + settings["starts"] * (1 + (self.cell == "lstm"))
        if inputs != wanted:
            found.append(f"has {inputs} inputs, expected {wanted}")
        if self.cell != "lstm" and (settings["cells"] or settings["ends"]):
            found.append("has cells of its own, which only an LSTM has")
        if settings["cells"] and settings["starts"]:
            found.append("has projections of cells, and first states; expected one of them")
        return found

    def shape(self, settings: Settings, shapes: Sequence[Shape]) -> Shape:
        x, units = shapes[0], settings["units"]
        if len(x) != 2:
            raise ValueError(f"reads shape {x}, expected units and steps")
        others = shapes[1:]
        if settings["packed"]:
            if others[0] != (1,):
                raise ValueError(f"reads lengths of shape {others[0]}, expected one number a row")
            others = others[1:]
        if any(shape != (units,) for shape in others):
            raise ValueError(f"starts with states of shapes {list(others)}, expected {(units,)}")
        steps = x[1]
        return (units, steps + 1 if settings["ends"] and steps is not None else steps)

    def parameter_shapes(
        self, settings: Settings, shapes: Sequence[Shape], put_out: Shape
    ) -> dict[str, Sizes]:
        units, read = settings["units"], units_of(shapes[0])
        rows = self.gates * (settings["cells"] or units)
        found: dict[str, Sizes] = {
            "weight_ih": (rows, read),
            "weight_hh": (rows, units),
            "bias_ih": (rows,),
            "bias_hh": (rows,),
        }
        if settings["cells"]:
            found["weight_hr"] = (units, settings["cells"])
        return found

    def added_shape(self, settings: Settings, inputs: Sequence[Tensor]) -> Sizes:
        steps = inputs[0].shape[2] + settings["ends"]
        return (len(inputs[0]), settings["units"], steps)

    def weights_of(self, settings: Settings) -> tuple[str, ...]:
        return (*self.parameters, *(("weight_hr",) if settings["cells"] else ()))

    def owned(self, settings: Settings) -> dict[str, int]:
        if settings["cells"]:
            return {"weight_hr": 1}
        return dict.fromkeys(self.parameters, self.gates)

    def readers(self, settings: Settings) -> Sequence[Reads]:
        """Constants that recurrent weights read stay inside a GRU's reset gate with its bias."""
        itself = Reads("weight_hh", "bias_hh", own=True)
        return Reads("weight_ih", "bias_ih"), itself

    def folded_inputs(self, settings: Settings) -> Sequence[int]:
        """First states are of the same units: those removed start, and stay, at zero."""
        return (0, 1, 2, 3)

    def flow(self, flow: Flow) -> Layout:
        own = flow.units.new(flow.settings["units"])
        starts = flow.layouts[1 + flow.settings["packed"] :]
        return flow.units.joined([own, *starts]) if starts else own

    def resized(self, settings: Settings, read: Sequence[Tensor], put_out: Tensor) -> Settings:
        return {**settings, "units": int(put_out.sum())}

    def work(
        self, settings: Settings, read: Sequence[Sizes], put_out: Sizes, weights: int
    ) -> float:
        return float(weights * prod(read[0][1:]))

    def run(self, settings: Settings, inputs: Sequence[Tensor], weights: Weights) -> Tensor:
        x, lengths, state, valid = self._given(settings, inputs)
        own = [weights[name] for name in self.weights_of(settings)]
        if not settings["ends"]:
            hx = tuple(s[None] for s in state)
            found = self._kernel(x, hx, own)[0]
            return self._put_out(found, settings, lengths, valid)
        return self._with_ends(settings, x, state, own, lengths, valid)

    def run_added(
        self, settings: Settings, inputs: Sequence[Tensor], weights: Weights, added: Tensor
    ) -> Tensor:
        """With something added to each state before anything reads it, the next step too."""
        x, lengths, state, valid = self._given(settings, inputs)
        steps, moved = x.shape[1], added[..., : x.shape[1]].transpose(1, 2)
        if settings["backward"]:
            moved = reverse(moved, lengths)
        w_ih, w_hh, b_ih, b_hh, *w_hr = [weights[name] for name in self.weights_of(settings)]
        projected = torch.nn.functional.linear(x, w_ih, b_ih)
        outputs, cells = [], []
        for t in range(steps):
            state = self._step(projected[:, t], state, w_hh, b_hh, w_hr)
            state = (state[0] + moved[:, t], *state[1:])
            outputs.append(state[0])
            cells.append(state[-1])
        found = self._put_out(torch.stack(outputs, 1), settings, lengths, valid)
        if not settings["ends"]:
            return found
        last = torch.stack(cells, 1)
        if lengths is None:
            end = last[:, -1]
        else:
            end = last[torch.arange(len(last), device=last.device), lengths - 1]
        return torch.cat([found, (end + added[..., -1])[..., None]], dim=2)

    def _step(
        self, x: Tensor, state: State, weight: Tensor, bias: Tensor, projection: list[Tensor]
    ) -> State:
        found = STEPS[self.cell](x, state, weight, bias)
        if projection:
            return torch.nn.functional.linear(found[0], projection[0]), found[1]
        return found

    def _given(
        self, settings: Settings, inputs: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor | None, State, Tensor | None]:
        """Steps in the order in which they are taken, lengths, first states and valid steps."""
        x, *others = inputs
        x = x.transpose(1, 2)
        lengths = valid = None
        if settings["packed"]:
            lengths = others.pop(0)[:, 0].long().clamp(min=1, max=x.shape[1])
            valid = valid_steps(lengths, x.shape[1])
        if settings["backward"]:
            x = reverse(x, lengths)
        if others:
            state = tuple(s.expand(len(x), -1).contiguous() for s in others)
        else:
            state = (x.new_zeros(len(x), settings["units"]),)
            if self.cell == "lstm":
                cells = settings["cells"] or settings["units"]
                state = (state[0], x.new_zeros(len(x), cells))
        return x, lengths, state, valid

    def _put_out(
        self, found: Tensor, settings: Settings, lengths: Tensor | None, valid: Tensor | None
    ) -> Tensor:
        if settings["backward"]:
            found = reverse(found, lengths)
        if valid is not None:
            found = found * valid[..., None]
        return found.transpose(1, 2)

    def _kernel(self, x: Any, hx: tuple[Tensor, ...], own: list[Tensor], *packed: Tensor) -> Any:
        state = hx if self.cell == "lstm" else hx[0]
        if packed:
            return _KERNELS[self.cell](x, *packed, state, own, True, 1, 0.0, False, False)
        return _KERNELS[self.cell](x, state, own, True, 1, 0.0, False, False, True)

    def _with_ends(
        self,
        settings: Settings,
        x: Tensor,
        state: State,
        own: list[Tensor],
        lengths: Tensor | None,
        valid: Tensor | None,
    ) -> Tensor:
        """States, and the last cells behind them."""
        found, _, cells = self._kernel(x, tuple(s[None] for s in state), own)
        end = cells[0]
        if lengths is not None:
            packed = pack_padded_sequence(x, lengths.cpu(), True, enforce_sorted=False)
            order = packed.sorted_indices
            assert order is not None and packed.unsorted_indices is not None
            hx = tuple(s[order][None] for s in state)
            end = self._kernel(packed.data, hx, own, packed.batch_sizes)[2][0]
            end = end[packed.unsorted_indices]
        found = self._put_out(found, settings, lengths, valid)
        return torch.cat([found, end[..., None]], dim=2)


def reverse(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Steps ``(rows, steps, ...)`` in reverse order: valid ones where there are lengths."""
    if lengths is None:
        return x.flip(1)
    return reversed_steps(x, lengths)


ROWS = tuple(_Recurrent(cell) for cell in GATES)
