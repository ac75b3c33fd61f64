"""Putting back the random state that reading data would otherwise disturb."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


@contextmanager
def random_state_kept(*generators: Any) -> Iterator[None]:
    """Random state of Python, NumPy, PyTorch and some generators as before, also after an error.

    Lightning's ``isolate_rng`` does not restore after an exception, and wakes up CUDA.

    Args:
        generators: ``torch.Generator`` objects to restore too; ``None`` among them is skipped.

    Example:
        >>> state = torch.get_rng_state()
        >>> with random_state_kept():
        ...     _ = torch.rand(3)
        >>> torch.equal(state, torch.get_rng_state())
        True
    """
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    kept = [(g, g.get_state()) for g in generators if isinstance(g, torch.Generator)]
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)
        for generator, state in kept:
            generator.set_state(state)
