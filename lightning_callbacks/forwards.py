"""Calling the user's model on a batch as the user does, and finding the logits in its answer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from lightning_callbacks.batches import LENGTH_KEYS, MASK_KEYS, TARGET_KEYS, Batch, describe
from mlflow_rnnmod.networks import Rows

ForwardFunction = Callable[[Any, Any], Any]


def find_forward(
    module: nn.Module, batch: Batch, forward: ForwardFunction | None = None
) -> Callable[[nn.Module], Tensor]:
    """How to get the answers to a batch out of a module.

    Args:
        module: in evaluation mode, on the batch's device; it is called.
        batch: a real batch.
        forward: the user's own way, from the module and the batch as the dataloader gives it. By
            default the ways that fit the signature are tried: by keyword from a mapping, inputs
            alone, inputs with lengths or mask, the whole batch.

    Returns:
        A function from a module (this one, or a copy with other weights) to its output on the
        batch: floats of shape ``(rows, outputs)``, or with an axis of steps.

    Raises:
        ValueError: if no way gives such an output; it lists what was tried.
    """
    ways: list[tuple[str, Callable[[nn.Module], Tensor]]]
    if forward is None:
        ways = list(_ways(module, batch))
    else:
        rows, raw, ask = batch.rows, batch.raw, forward
        ways = [("forward(module, batch)", lambda module: _output(ask(module, raw), rows))]
    failures = []
    for name, way in ways:
        try:
            way(module)
        except Exception as error:  # a user's forward may raise anything
            failures.append(f"  {name}: {type(error).__name__}: {str(error)[:200]}")
        else:
            return way
    raise ValueError(
        f"{type(module).__name__} could not be called on a batch. Tried:\n"
        + "\n".join(failures)
        + f"\nThe batch is {describe(batch.raw)}. Give forward=, a function "
        "(module, batch) -> logits that calls it as your training_step does."
    )


def _ways(module: nn.Module, batch: Batch) -> Iterator[tuple[str, Callable[[nn.Module], Tensor]]]:
    names, required = _parameters(module)
    rows = batch.rows

    def way(*args: Any, **kwargs: Any) -> Callable[[nn.Module], Tensor]:
        return lambda module: _output(module(*args, **kwargs), rows)

    # The signature first: a forward with optional lengths must get them where the batch has them.
    whole = ("module(batch)", way(batch.raw))
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
            yield f"module(**batch), of it {sorted(usable)}", way(**usable)
    second = {"lengths": batch.lengths, "mask": batch.mask}
    second = {name: value for name, value in second.items() if value is not None}
    expects = {"lengths": ("len", *LENGTH_KEYS), "mask": MASK_KEYS}
    wanted = sorted(
        second,
        key=lambda kind: not any(word in name for name in names[1:] for word in expects[kind]),
    )
    asked = any(word in name for name in names[1:] for kind in second for word in expects[kind])
    alone = ("module(inputs)", way(batch.inputs))
    if not asked and len(required) <= 1:
        yield alone
    for kind in wanted:
        yield f"module(inputs, {kind})", way(batch.inputs, second[kind])
    if asked or len(required) > 1:
        yield alone
    if not takes_batch:
        yield whole
    if isinstance(batch.raw, tuple | list) and isinstance(batch.raw[0], tuple | list):
        yield "module(batch[0])", way(batch.raw[0])


def _parameters(module: nn.Module) -> tuple[list[str], list[str]]:
    """Names of forward's parameters, and of those without a default."""
    parameters = inspect.signature(module.forward).parameters.values()
    plain = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return [p.name for p in plain], [p.name for p in plain if p.default is p.empty]


def _output(answer: Any, rows: Rows) -> Tensor:
    """The logits in a model's answer: itself, its ``logits``, or the first of a tuple."""
    found = answer
    if isinstance(found, Mapping):
        found = found.get("logits", found)
    elif hasattr(found, "logits"):
        found = found.logits
    elif isinstance(found, tuple | list) and found:
        found = found[0]
    if not isinstance(found, Tensor) or not found.is_floating_point():
        raise ValueError(
            f"its answer is {describe(answer)}; expected float logits (rows, labels), or (rows, "
            "steps, labels)"
        )
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
