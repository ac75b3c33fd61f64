"""Convolutions."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from mlflow_rnnmod.networks.graph.calls.base import Called, Handler, NotCovered, Rows


def listed(value: Any, dimensions: int) -> list[int]:
    """A number for each dimension, where one may stand for all."""
    found = list(value) if isinstance(value, tuple | list) else [value]
    found = found * dimensions if len(found) == 1 else found
    if len(found) != dimensions or not all(isinstance(number, int) for number in found):
        raise NotCovered(f"expected {dimensions} whole numbers, got {value!r}")
    return [int(number) for number in found]


def around_of(padding: Any, kernel: list[int], dilation: list[int]) -> list[list[int]]:
    """Places before and behind."""
    if padding == "valid":
        padding = 0
    if padding == "same":
        total = [apart * (size - 1) for size, apart in zip(kernel, dilation, strict=True)]
        return [[both // 2, both - both // 2] for both in total]
    return [[size, size] for size in listed(padding, len(kernel))]


def _convolution(dimensions: int) -> Handler:
    def handle(call: Called) -> str:
        weight, bias, stride, padding, dilation, groups = call.settings(
            weight=None, bias=None, stride=1, padding=0, dilation=1, groups=1
        )
        mode = getattr(call.module, "padding_mode", "zeros")
        made = call.made
        name = call.straight(made, dimensions + 2)
        if made.shape[1] != weight.shape[1] * groups:
            raise NotCovered(f"it reads {made.shape} with a weight of {tuple(weight.shape)}")
        kernel, apart = list(weight.shape[2:]), listed(dilation, dimensions)
        settings = {
            "units": len(weight),
            "kernel": kernel,
            "stride": listed(stride, dimensions),
            "dilation": apart,
            "padding": around_of(padding, kernel, apart),
            "mode": mode,
        }
        op = "conv"
        if groups > 1:
            op = "depthwise" if groups == made.shape[1] else "grouped_conv"
            settings |= {"groups": groups} if op == "grouped_conv" else {}
        bias = weight.new_zeros(len(weight)) if bias is None else bias
        weights = {"weight": weight, "bias": bias}
        return call.node(op, name, call.shape[1:], settings, weights)

    return handle


ROWS_OF_CALLS: Rows = (
    (_convolution(1), (nn.Conv1d, functional.conv1d, torch.conv1d)),
    (_convolution(2), (nn.Conv2d, functional.conv2d, torch.conv2d)),
    (_convolution(3), (nn.Conv3d, functional.conv3d, torch.conv3d)),
)
