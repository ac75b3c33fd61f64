"""How the user calls a network, found out on a real batch; and how it reads padding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.node import map_aggregate

from mlflow_rnnmod.inputs.rows import Rows, fitted
from mlflow_rnnmod.networks.forms import answer_tensor
from mlflow_rnnmod.networks.graph.feeding import INPUT, LENGTHS, MASK
from mlflow_rnnmod.networks.guard import tolerance
from mlflow_rnnmod.networks.recurrent.candidates import look_at_padding
from mlflow_rnnmod.networks.spec import NetworkSpec, UnreadableNetwork

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
    """How ``forward`` calls ``module``; where it does not, the batch is its only argument."""
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


_MORE = 3


def padding_of(module: nn.Module, rows: Rows, spec: NetworkSpec) -> dict[str, Any]:
    """Which token pads, and on which side: by the spec, the batch or an embedding."""
    pads = [p.padding_idx for p in module.modules() if isinstance(p, nn.Embedding)]
    known = next((pad for pad in pads if pad is not None), None)
    found = look_at_padding(rows, known, spec)
    return {"pad_index": found.pad_index, "side": found.sides[0]}


def reads_padding(module: nn.Module, network: Any, call: Call, rows: Rows) -> str | None:
    """Why an answer depends on how far rows are padded; ``None`` where it does not.

    ``network``: ours, with the weights of ``module`` and any number of steps.
    """
    config = network.config
    rows = network.content(rows.to(network.device)).to(network.device)
    steps = rows.values.shape[1]
    filler = config.pad_index or 0
    more = replace(rows, values=fitted(rows.values, steps + _MORE, filler, config.side))
    plain, padded = network(rows), network(more)
    if padded.ndim == 3:
        padded = padded[:, :steps] if config.side == "right" else padded[:, _MORE:]
        valid = network.answered(rows)
        plain, padded = plain[valid], padded[valid]
    if bool((plain - padded).abs().gt(tolerance(plain.dtype, plain, 100, steps)).any()):
        return "The network reads its padding: an answer depends on how far a row is padded."
    if not _follows(module, network, call, steps):
        return "The network does other things with more steps than it has in this batch."
    return None


def _follows(module: nn.Module, network: Any, call: Call, steps: int) -> bool:
    """Whether the user's network does with more steps what ours does."""
    config, like = network.config, network.like
    filler = config.pad_index or 0
    examples: dict[str, Tensor] = {}
    for name, example in call.examples.items():
        found = example.transpose(0, 1) if name in call.turned else example
        if name != LENGTHS:
            fill = filler if name == INPUT else 0
            found = fitted(found, steps + _MORE, fill, config.side)
        examples[name] = found
    values = examples[INPUT].to(like.device)
    lengths = examples.get(LENGTHS)
    if lengths is None and MASK in examples:
        lengths = examples[MASK].bool().sum(1)
    if lengths is None:
        lengths = network.lengths(
            Rows(
                call.example.to(like.device)
                if INPUT not in call.turned
                else call.example.T.to(like.device)
            )
        )
    rows = Rows(values, lengths.to(like.device))

    def own(value: Any) -> Any:
        if isinstance(value, Input):
            given = examples[value.name]
            given = given.transpose(0, 1) if value.turned else given
            return given if given.ndim == 1 else given.to(like.device)
        return value

    args, kwargs = torch.fx.node.map_aggregate((call.args, call.kwargs), own)  # type: ignore[misc]
    try:
        wanted = answer_tensor(module(*args, **kwargs))
    except Exception:  # noqa: BLE001  a user's code may take so many steps and no others
        return False
    found = network(rows)
    if found.ndim == 3:
        return True  # answers were compared step by step before
    if found.shape[1] == 2 and wanted.numel() == len(found):
        found = found[:, 1:] - found[:, :1]
    wanted = wanted.reshape(len(found), -1).to(found)
    for end in (lambda x: x, lambda x: x.log_softmax(-1), lambda x: x.softmax(-1), torch.sigmoid):
        gap = (end(found) - wanted).abs()
        if bool((gap <= tolerance(found.dtype, wanted, 100, steps) * 3).all()):
            return True
    return False
