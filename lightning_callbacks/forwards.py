"""The user's model: a copy of it with the weights to take apart, and called as the user does."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import torch
from torch import Tensor, nn

from lightning_callbacks.batches import LENGTH_KEYS, MASK_KEYS, TARGET_KEYS, Batch, describe
from mlflow_rnnmod.networks import Rows


def copied(module: nn.Module) -> nn.Module:
    """A copy on the CPU, in evaluation mode, without a trainer."""
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

    ``spare``: is changed and returned, unless its structure is no longer that of ``live``;
    ``checkpoint``: a Lightning checkpoint's path or URL; ``None`` for the weights of ``live``.
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
    """The weights in a checkpoint; nothing in it is executed."""
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


ForwardFunction = Callable[[Any, Any], Any]
Call = Callable[[nn.Module], Tensor]
Way = tuple[str, Callable[[nn.Module], Any]]
"""A way to call a model, in words and as a function."""


def find_forward(
    module: nn.Module,
    batch: Batch,
    forward: ForwardFunction | None = None,
    ways: Iterable[Way] | None = None,
    check: Callable[[Any], Tensor] | None = None,
) -> Call:
    """How to get the answers to a batch out of a module.

    Args:
        module: in evaluation mode, on the batch's device; it is called.
        batch: a real batch.
        forward: the user's own way, from the module and the batch as the dataloader gives it. It
            goes before all others.
        ways: what else is tried, in this order. By default what fits the signature: by keyword
            from a mapping, inputs alone, inputs with lengths or mask, the whole batch.
        check: from a module's answer to its logits, with a ``ValueError`` where it has none.
            By default logits of labels, for each row or each row and step.

    Returns:
        A function from a module (this one, or a copy with other weights) to its output on the
        batch, as ``check`` gives it: floats of shape ``(rows, outputs)``, or with an axis of steps.
    """
    check = check or partial(_label_logits, batch.rows)
    if forward is not None:
        raw, ask = batch.raw, forward
        ways = [("forward(module, batch)", lambda module: ask(module, raw))]
    failures = []
    for name, way in _usual_ways(module, batch) if ways is None else ways:
        try:
            check(way(module))
        except Exception as error:  # a user's forward may raise anything
            failures.append(f"  {name}: {type(error).__name__}: {str(error)[:200]}")
        else:
            return lambda module: check(way(module))
    raise ValueError(
        f"{type(module).__name__} could not be called on a batch. Tried:\n"
        + "\n".join(failures)
        + f"\nThe batch is {describe(batch.raw)}. Give forward=, a function "
        "(module, batch) -> logits that calls it as your training_step does."
    )


def with_arguments(*args: Any, **kwargs: Any) -> Callable[[nn.Module], Any]:
    """The way to call a model with these arguments."""
    return lambda module: module(*args, **kwargs)


def logits_in(answer: Any, expected: str) -> Tensor:
    """The logits in a model's answer: itself, its ``logits``, or the first of a tuple."""
    found = answer
    if isinstance(found, Mapping):
        found = found.get("logits", found)
    elif hasattr(found, "logits"):
        found = found.logits
    elif isinstance(found, tuple | list) and found:
        found = found[0]
    if not isinstance(found, Tensor) or not found.is_floating_point():
        raise ValueError(f"its answer is {describe(answer)}; expected float logits{expected}")
    return found


def count_outputs(module: nn.Module, answers: Tensor) -> int:
    """How many labels answers have: along an axis behind the rows that a dense layer can fill."""
    sizes = {part.out_features for part in module.modules() if isinstance(part, nn.Linear)}
    axes = [*reversed(answers.shape[1:])]
    return next((size for size in axes if size in sizes), 1 if 1 in sizes else axes[0])


def _usual_ways(module: nn.Module, batch: Batch) -> Iterator[Way]:
    """The ways that fit a signature, the likeliest first."""
    names, required = _parameters(module)
    # The signature first: a forward with optional lengths must get them where the batch has them.
    whole = ("module(batch)", with_arguments(batch.raw))
    takes_batch = names[:1] == ["batch"]
    if takes_batch:
        yield whole
    if isinstance(batch.raw, Mapping):
        usable = {
            key: value
            for key, value in batch.raw.items()
            if key in names and key not in TARGET_KEYS
        }
        if usable and set(required) <= set(usable):
            yield f"module(**batch), of it {sorted(usable)}", with_arguments(**usable)
    second = {"lengths": batch.lengths, "mask": batch.mask}
    second = {name: value for name, value in second.items() if value is not None}
    expects = {"lengths": ("len", *LENGTH_KEYS), "mask": MASK_KEYS}
    wanted = sorted(
        second,
        key=lambda kind: not any(word in name for name in names[1:] for word in expects[kind]),
    )
    asked = any(word in name for name in names[1:] for kind in second for word in expects[kind])
    alone = ("module(inputs)", with_arguments(batch.inputs))
    if not asked and len(required) <= 1:
        yield alone
    for kind in wanted:
        yield f"module(inputs, {kind})", with_arguments(batch.inputs, second[kind])
    if asked or len(required) > 1:
        yield alone
    if not takes_batch:
        yield whole
    if isinstance(batch.raw, tuple | list) and isinstance(batch.raw[0], tuple | list):
        yield "module(batch[0])", with_arguments(batch.raw[0])


def _parameters(module: nn.Module) -> tuple[list[str], list[str]]:
    """Names of forward's parameters, and of those without a default."""
    parameters = inspect.signature(module.forward).parameters.values()
    plain = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return [p.name for p in plain], [p.name for p in plain if p.default is p.empty]


def _label_logits(rows: Rows, answer: Any) -> Tensor:
    """Logits for each row, or for each row and step."""
    found = logits_in(answer, " (rows, labels), or (rows, steps, labels)")
    count, targets = len(rows), rows.targets
    if found.ndim == 1 and len(found) == count:
        found = found[:, None]
    flattened = targets is not None and targets.ndim == 2 and len(found) == targets.numel()
    if (
        found.ndim not in (2, 3)
        or count not in found.shape[: found.ndim - 1]
        and not (flattened and found.ndim == 2)
    ):
        raise ValueError(
            f"its answer is {describe(found)}; expected logits of shape ({count}, labels), or "
            f"({count}, steps, labels)"
        )
    return found
