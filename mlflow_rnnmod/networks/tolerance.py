"""How closely two computations of the same thing must agree."""

from __future__ import annotations

import math

import torch
from torch import Tensor


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
