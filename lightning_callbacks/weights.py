"""A copy of the user's model with the weights to take apart; the live one is never changed."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fsspec
import torch
from torch import nn


def copied(module: nn.Module) -> nn.Module:
    """A copy on the CPU, in evaluation mode, without a trainer.

    Raises:
        ValueError: if the module can't be copied.
    """
    try:
        duplicate = copy.deepcopy(module)
    except Exception as error:  # whatever the user's attributes raise
        raise ValueError(
            f"{type(module).__name__} can't be copied: {error}. Attributes that hold tensors of a "
            "computation, files or connections should not be kept on the model."
        ) from error
    return uncompiled(duplicate).cpu().eval().requires_grad_(False)


def uncompiled(module: nn.Module) -> nn.Module:
    """A module as it was before ``torch.compile``, which a network is read from; it is changed.

    Compiled code is made for the machine and the mode it first ran in, and can't be followed.

    Example:
        >>> compiled = nn.Sequential(torch.compile(nn.Linear(2, 3)))
        >>> [type(part).__name__ for part in uncompiled(compiled)]
        ['Linear']
    """
    module = getattr(module, _COMPILED, module)
    for part in list(module.modules()):
        part._compiled_call_impl = None  # of `module.compile()`
        if getattr(part, "_compiler_ctx", None) is not None:  # as Lightning keeps it
            for name in _STEPS:
                part.__dict__.pop(name, None)
            part._compiler_ctx = None
        for name, child in part.named_children():
            if (inner := getattr(child, _COMPILED, None)) is not None:
                part._modules[name] = inner
    return module


_COMPILED = "_orig_mod"
_STEPS = ("forward", "training_step", "validation_step", "test_step", "predict_step")


def _names(state: Mapping[str, Any]) -> dict[str, Any]:
    """Weights by their names in the module that was not compiled."""
    return {name.replace(f"{_COMPILED}.", ""): value for name, value in state.items()}


def with_weights(spare: nn.Module, live: nn.Module, checkpoint: str | Path | None) -> nn.Module:
    """``spare``, an earlier copy of ``live``, with the weights of a checkpoint or of ``live`` now.

    Args:
        spare: is changed and returned, unless its structure is no longer that of ``live``.
        live: the user's model.
        checkpoint: a Lightning checkpoint's path or URL; ``None`` for the weights of ``live``.

    Raises:
        ValueError: if the checkpoint does not fit.
    """
    if checkpoint is None:
        try:
            spare.load_state_dict(_names(live.state_dict()))
        except RuntimeError:  # pruning and the like change the structure during training
            return copied(live)
        return spare
    state = read_checkpoint(checkpoint)
    try:
        spare.load_state_dict(_names(state))
    except RuntimeError as error:
        raise ValueError(f"The checkpoint {checkpoint} does not fit the model: {error}") from error
    return spare


def read_checkpoint(path: str | Path) -> Mapping[str, Any]:
    """The weights in a checkpoint; nothing in it is executed.

    Raises:
        ValueError: if it can't be read that way.
    """
    try:
        with fsspec.open(str(path), "rb") as file:
            data = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"The checkpoint {path} can't be read: {type(error).__name__}: {str(error)[:300]}"
        ) from error
    state = data.get("state_dict", data) if isinstance(data, Mapping) else None
    if not isinstance(state, Mapping) or not state:
        raise ValueError(f"The checkpoint {path} holds no weights; expected a `state_dict` in it.")
    return state
