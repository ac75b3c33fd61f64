"""What calls in a user's code mean: a row for each operation that is covered."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlflow_rnnmod.networks.graph.draft import Draft, Drafted
from mlflow_rnnmod.networks.graph.operations import OPERATIONS, Activation


class NotCovered(Exception):
    """A call that has no place in a graph; the message says what it is."""


@dataclass(frozen=True)
class Made:
    """A value that depends on the input.

    Args:
        name: of the node that puts it out; its shape in the user's code may be another.
        shape: in the user's code, rows first.
    """

    name: str
    shape: tuple[int, ...]

    @property
    def numbers(self) -> int:
        """Of one row."""
        return torch.Size(self.shape[1:]).numel()

    @property
    def size(self) -> int:
        """Numbers of one row, where they stand in a line."""
        if len(self.shape) != 2:
            raise NotCovered(f"it reads values of shape {self.shape}, not (rows, units)")
        return self.shape[1]


@dataclass(frozen=True)
class Called:
    """One call, with values in the place of tensors.

    Args:
        draft: what new nodes go into.
        args, kwargs: constants, and :class:`Made` for what depends on the input.
        shape: of what the call gave.
        line: of the user's code, in words.
        module: the submodule that was called.
    """

    draft: Draft
    args: Sequence[Any]
    kwargs: dict[str, Any]
    shape: tuple[int, ...]
    line: str
    module: Any = None

    def given(self, position: int, name: str, default: Any = None) -> Any:
        """One argument of a function, counted from 0."""
        if len(self.args) > position:
            return self.args[position]
        return self.kwargs.get(name, default)

    @property
    def made(self) -> Made:
        """The first argument, which must depend on the input."""
        found = self.given(0, "input")
        if not isinstance(found, Made):
            raise NotCovered("its first argument does not depend on the input")
        return found

    def constant(self, position: int, name: str, default: Any = None) -> Any:
        """An argument that must not depend on the input."""
        found = self.given(position, name, default)
        if isinstance(found, Made):
            raise NotCovered(f"its {name!r} depends on the input")
        return found

    def plain(self, *names: str) -> None:
        """Raises unless all named arguments are among these."""
        more = sorted(set(self.kwargs) - {"input", *names})
        if more:
            raise NotCovered(f"its argument {more[0]!r} is not covered")


# From a call to the name of the node that puts out what it gives.
Handler = Callable[[Called], str]


def _keep(call: Called) -> str:
    """A row keeps its numbers in their order: other shapes, dropout, copies."""
    made = call.made
    if call.shape[:1] != made.shape[:1]:
        raise NotCovered(f"it turns {made.shape} into {call.shape}, across rows")
    if torch.Size(call.shape[1:]).numel() != made.numbers:
        raise NotCovered(f"it turns {made.shape} into {call.shape}")
    return made.name


def _index(call: Called) -> str:
    """New axes alone: ``x[:, None]``."""
    index = call.constant(1, "index")
    for part in index if isinstance(index, tuple) else (index,):
        if part is not None and part is not Ellipsis and part != slice(None):
            raise NotCovered("it takes a part of its input")
    return _keep(call)


def _activation(operation: Activation) -> Handler:
    def handle(call: Called) -> str:
        made = call.made
        call.plain(*operation.defaults, "inplace")
        settings = {
            name: getattr(call.module, name)
            if call.module is not None
            else call.constant(1 + at, name, default)
            for at, (name, default) in enumerate(operation.defaults.items())
        }
        return call.draft.add(
            Drafted(operation.name, [made.name], made.numbers, settings, {}, call.line)
        )

    return handle


def _linear(call: Called) -> str:
    made = call.made
    call.plain("weight", "bias")
    if call.module is not None:
        weight, bias = call.module.weight, call.module.bias
    else:
        weight, bias = call.constant(1, "weight"), call.constant(2, "bias")
    return _product(call, made, weight, bias)


def _matmul(call: Called) -> str:
    call.plain("other", "mat2")
    weight = call.constant(1, "other", call.kwargs.get("mat2"))
    return _product(call, call.made, weight.t() if weight.ndim == 2 else weight[None], None)


def _addmm(call: Called) -> str:
    call.plain("mat1", "mat2")
    made, bias = call.given(1, "mat1"), call.constant(0, "input")
    if not isinstance(made, Made) or bias.ndim != 1:
        raise NotCovered("expected a bias, what depends on the input, and a weight")
    return _product(call, made, call.constant(2, "mat2").t(), bias)


def _product(call: Called, made: Made, weight: Tensor, bias: Tensor | None) -> str:
    if weight.ndim != 2 or made.size != weight.shape[1]:
        raise NotCovered(f"it reads {made.shape} with a weight of {tuple(weight.shape)}")
    return call.draft.linear(made.name, weight, bias, call.line)


def _norm(call: Called) -> str:
    """Batch norm in evaluation mode: a scale and a shift."""
    made, part = call.made, call.module
    if part is not None:
        mean, var, weight, bias = part.running_mean, part.running_var, part.weight, part.bias
        eps = part.eps
    else:
        names = ("running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
        call.plain(*names)
        mean, var, weight, bias, training, _, eps = (
            call.constant(1 + at, name, default)
            for at, (name, default) in enumerate(
                zip(names, (None, None, None, None, False, 0.1, 1e-5), strict=True)
            )
        )
        mean, var = (None, None) if training else (mean, var)
    if mean is None or var is None:
        raise NotCovered(
            "it has no running statistics, so that a row's answer depends on the rows beside it"
        )
    scale = (var.double() + eps).rsqrt()
    scale = scale if weight is None else scale * weight.double()
    shift = -mean.double() * scale
    if len(scale) != made.size:
        raise NotCovered(f"it reads {made.shape}")
    shift = shift if bias is None else shift + bias.double()
    return call.draft.affine(made.name, scale, shift, call.line)


def _double(constant: Any) -> Tensor:
    return torch.as_tensor(constant, dtype=torch.float64)


def _scaled(call: Called, made: Made, scale: Any = 1.0, shift: Any = 0.0) -> str:
    """A value times and plus constants, which must be the same for all rows."""
    if call.shape != made.shape:
        raise NotCovered(f"it turns {made.shape} into {call.shape}")

    def vector(constant: Any) -> Tensor:
        tensor = _double(constant)
        if tensor.ndim == len(made.shape) and tensor.shape[0] != 1:
            raise NotCovered("it has other constants for each row")
        return tensor.expand(1, *made.shape[1:]).reshape(-1)

    return call.draft.affine(made.name, vector(scale), vector(shift), call.line)


def _sum(sign: float) -> Handler:
    """``a + alpha * b`` or ``a - alpha * b``."""

    def handle(call: Called) -> str:
        call.plain("other", "alpha")
        one, other = call.given(0, "input"), call.given(1, "other")
        factor = sign * call.constant(2, "alpha", 1)
        if not isinstance(other, Made):
            return _scaled(call, one, 1.0, _double(other) * factor)
        if not isinstance(one, Made):
            return _scaled(call, other, factor, one)
        if one.shape != other.shape:
            raise NotCovered(f"it adds up {one.shape} and {other.shape}")
        name = other.name
        if factor != 1:
            name = _scaled(call, other, factor)
        inputs = [one.name, name]
        return call.draft.add(Drafted("add", inputs, one.numbers, {}, {}, call.line))

    return handle


def _times(call: Called) -> str:
    call.plain("other")
    one, other = call.given(0, "input"), call.given(1, "other")
    if isinstance(one, Made) and isinstance(other, Made):
        raise NotCovered("a product of two values that both depend on the input")
    made, constant = (one, other) if isinstance(one, Made) else (other, one)
    return _scaled(call, made, constant)


def _divided(call: Called) -> str:
    call.plain("other")
    divisor = _double(call.constant(1, "other"))
    return _scaled(call, call.made, 1 / divisor)


def _negative(call: Called) -> str:
    return _scaled(call, call.made, -1.0)


def _concat(call: Called) -> str:
    call.plain("tensors", "dim", "axis")
    parts = call.given(0, "tensors")
    if not all(isinstance(part, Made) for part in parts):
        raise NotCovered("it puts constants beside what depends on the input")
    size = sum(part.size for part in parts)
    if call.shape != (parts[0].shape[0], size):
        raise NotCovered(f"it puts values together to {call.shape}, across rows")
    if len(parts) == 1:
        return parts[0].name
    names = [part.name for part in parts]
    return call.draft.add(Drafted("concat", names, size, {}, {}, call.line))


def _end(name: str) -> Handler:
    """What only an answer may end with: a softmax over its labels."""

    def handle(call: Called) -> str:
        made = call.made
        dim = call.module.dim if call.module is not None else call.constant(1, "dim")
        if dim not in (None, 1, -1) or len(made.shape) != 2:
            raise NotCovered(f"it goes over dimension {dim} of {made.shape}")
        return call.draft.add(Drafted(name, [made.name], made.size, {}, {}, call.line))

    return handle


ENDS = ("log_softmax", "softmax", "sigmoid")
"""What an answer may end with, to be taken off so that logits are left."""

_DROPOUT = nn.modules.dropout._DropoutNd
_SHAPES = "view reshape flatten squeeze unsqueeze view_as reshape_as"
_COPIES = "contiguous clone detach float double to type type_as cpu cuda requires_grad_"
_ROWS: tuple[tuple[Handler, tuple[Any, ...]], ...] = (
    (_keep, (nn.Flatten, nn.Unflatten, nn.Identity, _DROPOUT)),
    (_keep, (torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze, torch.clone)),
    (_keep, (functional.dropout, functional.alpha_dropout, functional.feature_alpha_dropout)),
    (_keep, (torch.dropout, torch.detach, *_SHAPES.split(), *_COPIES.split())),
    (_index, (operator.getitem,)),
    (_linear, (nn.Linear, functional.linear)),
    (_matmul, (operator.matmul, torch.matmul, torch.mm, "matmul", "mm")),
    (_addmm, (torch.addmm,)),
    (_norm, (nn.BatchNorm1d, nn.SyncBatchNorm, functional.batch_norm)),
    (_sum(1), (operator.add, operator.iadd, torch.add, "add", "add_")),
    (_sum(-1), (operator.sub, operator.isub, torch.sub, torch.subtract, "sub", "sub_")),
    (_times, (operator.mul, operator.imul, torch.mul, torch.multiply, "mul", "mul_")),
    (_divided, (operator.truediv, operator.itruediv, torch.div, torch.divide, "div", "div_")),
    (_negative, (operator.neg, torch.neg, "neg", "neg_")),
    (_concat, (torch.cat, torch.concat, torch.concatenate, torch.hstack)),
    (_end("log_softmax"), (nn.LogSoftmax, functional.log_softmax, torch.log_softmax)),
    (_end("log_softmax"), ("log_softmax",)),
    (_end("softmax"), (nn.Softmax, functional.softmax, torch.softmax, "softmax")),
)
_ACTIVATIONS: tuple[tuple[str, tuple[Any, ...]], ...] = (
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
)


def _activations() -> dict[Any, Handler]:
    found: dict[Any, Handler] = {}
    for name, targets in _ACTIVATIONS:
        operation = OPERATIONS[name]
        assert isinstance(operation, Activation)
        found.update(dict.fromkeys(targets, _activation(operation)))
    return found


HANDLERS: dict[Any, Handler] = {
    **{target: handler for handler, targets in _ROWS for target in targets},
    **_activations(),
}
"""By functions, names of methods, and types of submodules."""


def handler_of(target: Any) -> Handler | None:
    """What is covered, of a function, a method's name, or a submodule."""
    if not isinstance(target, nn.Module):
        return HANDLERS.get(target)
    kinds = (kind for kind in type(target).__mro__ if kind in HANDLERS)
    return HANDLERS.get(next(kinds, None))


def in_place(target: Any, called: Called) -> bool:
    """Whether a call changes its first argument."""
    if isinstance(target, nn.Module):
        return bool(getattr(target, "inplace", False))
    name = target if isinstance(target, str) else getattr(target, "__name__", "")
    operators = (operator.iadd, operator.isub, operator.imul, operator.itruediv)
    ends = name.endswith("_") and not name.endswith("__") and name != "requires_grad_"
    sets = target is operator.setitem or target == "__setitem__"
    return ends or sets or target in operators or called.kwargs.get("inplace") is True
