"""How a user calls a network: where the input is among the arguments, and what else it is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.node import map_aggregate

from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.networks.graph.feeding import INPUT
from mlflow_rnnmod.networks.spec import UnreadableNetwork

# So many rows are traced: more than one, so that ``squeeze()`` takes no row for a needless axis.
_ROWS = 3


@dataclass(frozen=True)
class Input:
    """Stands where an input is among the arguments of a call.

    Args:
        name: of what goes into the graph: ``"input"``, ``"lengths"``, or the ``"mask"`` of steps.
        turned: whether steps come before rows.
    """

    name: str = INPUT
    turned: bool = False


@dataclass(frozen=True)
class Call:
    """How a user calls the network.

    Args:
        args, kwargs: with :class:`Input` in the place of the input; of other tensors a few rows.
        examples: a few rows of the inputs as they are given, by name.
        kind: of input, where there are steps: ``"tokens"`` or ``"features"``.
        turned: inputs whose steps come before rows.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    examples: Mapping[str, Tensor]
    kind: str | None = None
    turned: frozenset[str] = frozenset()

    @property
    def example(self) -> Tensor:
        """A few rows of the input as they are given."""
        return self.examples[INPUT]


def find_call(module: nn.Module, rows: Rows, forward: Callable[[], Any]) -> Call:
    """How ``forward`` calls ``module``; where it does not, the batch is its only argument.

    Raises:
        UnreadableNetwork: if the network is given something else than the batch.
    """
    seen: list[tuple[Any, Any]] = []
    hook = module.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append((args, kwargs)), with_kwargs=True
    )
    try:
        forward()
    finally:
        hook.remove()
    args, kwargs = seen[0] if seen else ((rows.values,), {})
    known, kind = {INPUT: rows.values}, kind_over_steps(module, rows)
    if kind is not None:
        known |= _known_of(rows)
    few = _few(rows)
    given: list[str] = []
    examples: dict[str, Tensor] = {}
    turned: set[str] = set()

    def own(value: Any) -> Any:
        if not isinstance(value, Tensor) or value.ndim == 0:
            return value
        steps_first = len(value) != len(rows)
        found = value
        if steps_first:
            if kind is None or value.ndim < 2 or value.shape[1] != len(rows):
                return value
            found = value.transpose(0, 1)
        given.append(str(tuple(value.shape)))
        for name, wanted in known.items():
            if name not in examples and _same(found, wanted):
                chosen = found[few].detach().clone()
                examples[name] = chosen.transpose(0, 1) if steps_first else chosen
                if steps_first:
                    turned.add(name)
                return Input(name, steps_first)
        return value[:, few] if steps_first else value[few]

    def listed(value: Any) -> Any:
        """Lengths may come as a list."""
        numbers = isinstance(value, list | tuple) and all(type(item) is int for item in value)
        return torch.tensor(value) if numbers and len(value) == len(rows) else value

    if kind is not None:
        args = tuple(map(listed, args))
        kwargs = {name: listed(value) for name, value in kwargs.items()}
    args, kwargs = map_aggregate(tuple(args), own), map_aggregate(dict(kwargs), own)
    if INPUT not in examples:
        raise UnreadableNetwork(
            f"The network {type(module).__name__} is not given the batch, of shape "
            f"{tuple(rows.values.shape)}, but {' and '.join(given) or 'no tensor'} with other "
            "numbers; expected the values of rows, in any shape"
        )
    return Call(args, dict(kwargs), examples, kind, frozenset(turned))


def kind_over_steps(module: nn.Module, rows: Rows) -> str | None:
    """The kind of input where there are steps in it: ``"tokens"`` or ``"features"``."""
    values = rows.values
    if not values.is_floating_point():
        return "tokens" if values.ndim == 2 else None
    steps = (nn.RNNBase, nn.Conv1d)
    over = rows.lengths is not None or any(isinstance(part, steps) for part in module.modules())
    return "features" if values.ndim == 3 and over else None


def _few(rows: Rows) -> Tensor:
    """Numbers of a few rows, the longest among them, so that no step is left out."""
    count = min(len(rows), _ROWS)
    longest = 0 if rows.lengths is None else int(rows.lengths.argmax())
    if rows.lengths is None and not rows.values.is_floating_point() and rows.values.ndim == 2:
        longest = int((rows.values != 0).sum(1).argmax())
    others = [i for i in range(len(rows)) if i != longest]
    return torch.tensor([longest, *others[: count - 1]])


def _known_of(rows: Rows) -> dict[str, Tensor]:
    """Lengths and a mask of valid steps, where they are known."""
    if rows.lengths is None:
        return {}
    steps = torch.arange(rows.values.shape[1], device=rows.lengths.device)
    return {"lengths": rows.lengths, "mask": steps < rows.lengths[:, None]}


def _same(value: Tensor, wanted: Tensor) -> bool:
    if value.ndim == wanted.ndim == 1:
        return value.shape == wanted.shape and bool((value.cpu() == wanted.cpu()).all())
    if min(value.ndim, wanted.ndim) < 2:
        return False
    flat, wanted = value.flatten(1), wanted.flatten(1)
    if flat.shape != wanted.shape:
        return False
    flat = flat.float() if flat.dtype == torch.bool else flat
    return torch.allclose(flat, wanted.to(flat), rtol=0, atol=0, equal_nan=True)
