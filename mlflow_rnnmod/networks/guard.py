"""Comparing with a user's module: without a trace on it or on random numbers, and how closely."""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """Run code in evaluation mode, without gradients, and put everything back afterwards.

    Put back are the train mode of every submodule, parameters and buffers that were changed (an
    embedding with ``max_norm`` rescales its rows when it is asked), and the random states of
    PyTorch, NumPy and Python. Autocast is off inside, and float32 products are not shortened to
    TF32 or bfloat16, which would hide real differences.

    ``module``: what is looked at; its tensors are copied, so twice its memory is needed.

    Example:
        >>> layer = nn.Dropout()
        >>> with undisturbed(layer):
        ...     inside = layer.training
        >>> inside, layer.training
        (False, True)
    """
    modes = [(part, part.training) for part in module.modules()]
    tensors = list(chain(module.parameters(), module.buffers()))
    saved = [tensor.detach().clone() for tensor in tensors]
    numpy = sys.modules.get("numpy")
    numpy_state = numpy.random.get_state() if numpy else None
    python_state = random.getstate()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    kinds = {tensor.device.type for tensor in tensors} & {"cpu", "cuda"} or {"cpu"}
    try:
        with (
            torch.random.fork_rng(devices),
            torch.no_grad(),
            full_precision(),
            autocast_off(kinds),
        ):
            for part, _ in modes:
                part.training = False
            yield
    finally:
        for part, mode in modes:
            part.training = mode
        with torch.no_grad():
            for tensor, before in zip(tensors, saved, strict=True):
                if not torch.equal(tensor, before):
                    tensor.copy_(before)
        random.setstate(python_state)
        if numpy:
            numpy.random.set_state(numpy_state)


@contextmanager
def perturbed(module: nn.Module) -> Iterator[None]:
    """Random weights near those of ``module``, put back afterwards.

    Weights may start at zero, and networks of different habits be alike until they are trained.
    The zeros that an embedding has for padding are kept: training keeps them too. Running
    statistics start at 0 and 1, which is as good as no norm: they become others.
    """
    saved = [(weight, weight.detach().clone()) for weight in module.parameters()]
    norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._NormBase)]
    found = [x for part in norms for x in (part.running_mean, part.running_var) if x is not None]
    kept = [(statistic, statistic.clone()) for statistic in found]
    try:
        with torch.no_grad():
            for weight, before in saved:
                fan_in = weight[0].numel() if weight.ndim > 1 else 1
                weight.add_(torch.randn_like(before) * (0.3 / max(1, fan_in) ** 0.5))
            for statistic in found:
                statistic.uniform_(0.5, 1.5)
            for part in module.modules():
                if isinstance(part, nn.Embedding) and part.padding_idx is not None:
                    before = next(old for weight, old in saved if weight is part.weight)
                    part.weight[part.padding_idx] = before[part.padding_idx]
        yield
    finally:
        with torch.no_grad():
            for tensor, before in saved + kept:
                tensor.copy_(before)


@contextmanager
def autocast_off(kinds: set[str]) -> Iterator[None]:
    """Autocast switched off on these kinds of devices (``"cpu"``, ``"cuda"``)."""
    outer = torch.autocast("cuda", enabled=False) if "cuda" in kinds else nullcontext()
    with outer, torch.autocast("cpu", enabled=False):
        yield


@contextmanager
def full_precision() -> Iterator[None]:
    """Float32 matrix products and recurrent kernels in full float32.

    cuDNN's recurrent layers use TF32 unless told otherwise, which is off by about 1e-3.
    """
    backends: Any = torch.backends
    switches: list[tuple[Any, str, object]]
    if hasattr(backends.cudnn, "rnn"):  # a switch for each operation; mixing old and new ones fails
        switches = [
            (backends.cuda.matmul, "fp32_precision", "ieee"),
            (backends.cudnn.rnn, "fp32_precision", "ieee"),
            (backends.mkldnn.matmul, "fp32_precision", "ieee"),
        ]
    else:
        switches = [
            (backends.cuda.matmul, "allow_tf32", False),
            (backends.cudnn, "allow_tf32", False),
        ]
    before = [getattr(place, name) for place, name, _ in switches]
    try:
        for place, name, value in switches:
            setattr(place, name, value)
        yield
    finally:
        for (place, name, _), value in zip(switches, before, strict=True):
            setattr(place, name, value)


def tolerance(
    dtype: torch.dtype, value: Tensor | float = 1.0, units: int = 1, steps: int = 1
) -> Tensor:
    """Largest difference that rounding explains, for each of some values.

    Rounding grows with the value and, as terms add up, with the square root of their number.

    Args:
        dtype: ``torch.float64`` or ``torch.float32``, what was computed in.
        value: what should be reproduced, any shape.
        units: recurrent units of the network.
        steps: steps of the input.

    Returns:
        Of the shape of ``value``: 1e-10 for float64, and for float32
        ``1e-5 * max(1, |value|, sqrt(units * steps) / 40)``.

    Raises:
        ValueError: for any other dtype.

    Example:
        >>> tolerance(torch.float32, torch.tensor([0.5, -20.0]), units=100, steps=16)
        tensor([1.0000e-05, 2.0000e-04])
    """
    value = torch.as_tensor(value).abs()
    if dtype == torch.float64:
        return torch.full_like(value, 1e-10)
    if dtype == torch.float32:
        return 1e-5 * value.clamp(min=max(1.0, math.sqrt(units * steps) / 40))
    raise ValueError(f"dtype={dtype}; expected torch.float32 or torch.float64.")
