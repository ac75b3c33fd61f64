"""Functions of each unit by itself, and what only an answer may end with."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from mlflow_rnnmod.networks.graph.calls.base import (
    ROWS,
    UNITS,
    Called,
    Handler,
    NotCovered,
    Rows,
    Turned,
)
from mlflow_rnnmod.networks.graph.operations import OPERATIONS, Activation

ENDS = ("log_softmax", "softmax", "sigmoid")
"""What an answer may end with, to be taken off so that logits are left."""


def _activation(operation: Activation) -> Handler:
    def handle(call: Called) -> Any:
        made = call.made
        call.plain(*operation.defaults, "inplace")
        settings = {
            name: call.setting(1 + at, name, default)
            for at, (name, default) in enumerate(operation.defaults.items())
        }
        return made.like(call.node(operation.name, made.name, settings=settings))

    return handle


def _end(name: str) -> Handler:
    """A softmax or its logarithm: over labels, where an answer ends with it."""

    def handle(call: Called) -> str | Turned:
        made = call.made
        call.plain("dim", "_stacklevel", "dtype")
        dim = call.setting(1, "dim")
        if dim is None:
            dim = 1 if len(made.shape) == 2 else None
        if dim is None:
            raise NotCovered("it does not say over which dimension it goes")
        given, axis = call.axis(made, dim)
        if len(made.shape) == 2 and axis == UNITS:
            return made.like(call.node(name, given))
        if name != "softmax" or axis == ROWS:
            raise NotCovered(f"it goes over dimension {dim} of {made.shape}")
        op, settings = (
            ("softmax_units", {}) if axis == UNITS else ("softmax_places", {"axis": axis - 2})
        )
        return made.like(call.node(op, given, settings=settings))

    return handle


ACTIVATIONS: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("relu", (nn.ReLU, functional.relu, torch.relu, "relu")),
    ("relu", (functional.relu_, torch.relu_, "relu_")),
    ("tanh", (nn.Tanh, functional.tanh, torch.tanh, torch.tanh_, "tanh", "tanh_")),
    ("sigmoid", (nn.Sigmoid, functional.sigmoid, torch.sigmoid, torch.special.expit)),
    ("sigmoid", (torch.sigmoid_, "sigmoid", "sigmoid_")),
    ("gelu", (nn.GELU, functional.gelu)),
    ("leaky_relu", (nn.LeakyReLU, functional.leaky_relu, functional.leaky_relu_)),
    ("elu", (nn.ELU, functional.elu, functional.elu_)),
    ("silu", (nn.SiLU, functional.silu)),
    ("softplus", (nn.Softplus, functional.softplus)),
    ("relu_six", (nn.ReLU6, functional.relu6)),
    ("selu", (nn.SELU, functional.selu, torch.selu)),
    ("mish", (nn.Mish, functional.mish)),
    ("hardswish", (nn.Hardswish, functional.hardswish)),
    ("hardsigmoid", (nn.Hardsigmoid, functional.hardsigmoid)),
    ("softsign", (nn.Softsign, functional.softsign)),
    ("absolute", (torch.abs, torch.absolute, operator.abs, "abs")),
)


def _rows() -> Rows:
    found: list[tuple[Handler, tuple[Any, ...]]] = []
    for name, targets in ACTIVATIONS:
        operation = OPERATIONS[name]
        assert isinstance(operation, Activation)
        found.append((_activation(operation), targets))
    return tuple(found)


UNIT_BY_UNIT = _rows()
ROWS_OF_CALLS: Rows = (
    *UNIT_BY_UNIT,
    (_end("log_softmax"), (nn.LogSoftmax, functional.log_softmax, torch.log_softmax)),
    (_end("log_softmax"), ("log_softmax",)),
    (_end("softmax"), (nn.Softmax, functional.softmax, torch.softmax, "softmax")),
)
