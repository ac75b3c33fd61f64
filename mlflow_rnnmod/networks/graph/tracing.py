"""A user's ``forward`` run with stand-ins for its input, which note what becomes of it.

Stand-ins carry real values along, so that code may ask for shapes. What depends on the numbers in
them can't be followed.
"""

from __future__ import annotations

import copy
import linecache
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate, map_arg
from torch.nn.utils import rnn

from mlflow_rnnmod.networks.graph.calling import Call, Input
from mlflow_rnnmod.networks.spec import UnreadableNetwork

_OURS = (str(Path(torch.__file__).parent), str(Path(__file__).parent))
_WATCHED = ("log", "log_dict", "print")


class _Known(fx.Proxy):
    """A stand-in that knows its value's shape and type, but not its numbers."""

    @property
    def value(self) -> Any:
        return self.node.meta["value"]

    @property
    def shape(self) -> Any:
        return self.value.shape

    @property
    def ndim(self) -> Any:
        return self.value.ndim

    @property
    def dtype(self) -> Any:
        return self.value.dtype

    @property
    def device(self) -> Any:
        return self.value.device

    def size(self, *args: Any) -> Any:
        return self.value.size(*args)

    def dim(self) -> int:
        return self.value.dim()

    def numel(self) -> int:
        return self.value.numel()

    def is_floating_point(self) -> bool:
        return self.value.is_floating_point()

    def __len__(self) -> int:
        return len(self.value)

    def __iter__(self) -> Iterator[Any]:
        items: Any = self
        return (items[i] for i in range(len(self.value)))


class _Tracer(fx.Tracer):
    """Notes calls with their values and the lines of the user's code that they stand on."""

    trace_asserts = True

    def __init__(self, call: Call) -> None:
        super().__init__(autowrap_functions=tuple(_LEAVES))
        self.call, self.running = call, False

    def create_args_for_root(
        self, root_fn: Any, is_module: bool, concrete_args: Any = None
    ) -> tuple[Any, list[Any]]:
        """Arguments as the user gives them, the input as a stand-in."""
        stand_ins = {
            name: self.create_proxy("placeholder", name, (), {}) for name in self.call.examples
        }
        args, kwargs = map_aggregate(
            (self.call.args, self.call.kwargs),
            lambda value: stand_ins[value.name] if isinstance(value, Input) else value,
        )

        def _forward() -> Any:
            found = self.root.forward(*args, **kwargs)
            if isinstance(found, tuple):
                return tuple(found)
            plain = isinstance(found, fx.Proxy | list | dict) or not hasattr(found, "logits")
            return found if plain else found.logits

        return _forward, []

    def create_node(
        self, kind: str, target: Any, args: Any, kwargs: Any, *more: Any, **named: Any
    ) -> fx.Node:
        """A node with its value and its line."""
        node = super().create_node(kind, target, args, kwargs, *more, **named)
        node.meta["line"] = _line(sys._getframe())
        if kind != "output":
            self.running = True
            try:
                node.meta["value"] = self._value(node)
            finally:
                self.running = False
        return node

    def _value(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            return self.call.examples[str(node.target)]
        if node.op == "get_attr":
            found: Any = self.root
            for name in str(node.target).split("."):
                found = getattr(found, name)
            return found
        args, kwargs = map_arg((node.args, node.kwargs), lambda n: n.meta["value"])
        if node.op == "call_module":
            return self.root.get_submodule(str(node.target))(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        return node.target(*args, **kwargs)  # type: ignore[operator]

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """The stand-in of a node."""
        return _Known(node, self)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: Any) -> Any:
        """Parameters are noted where the user's own code asks for them."""
        if self.running:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        """Submodules of PyTorch's are noted as they are, the user's are followed."""
        if self.running:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)


def trace(module: nn.Module, call: Call) -> fx.Graph:
    """What becomes of the input, node by node."""
    like = next(module.parameters(), call.example)

    def moved(value: Any) -> Any:
        return value.to(like.device) if isinstance(value, Tensor) else value

    args, kwargs = map_aggregate((call.args, call.kwargs), moved)
    # Where they are packed, lengths are on the CPU.
    examples = {
        name: value if value.ndim == 1 else value.to(like.device)
        for name, value in call.examples.items()
    }
    call = replace(call, args=args, kwargs=kwargs, examples=examples)
    tracer = _Tracer(call)
    with _put_back(module), _leaves(tracer):
        try:
            return tracer.trace(module)
        except UnreadableNetwork:
            raise
        except Exception as error:  # noqa: BLE001  anything may go wrong in a user's code
            reason = f"it could not be followed: {type(error).__name__}: {error}"
            if isinstance(error, fx.proxy.TraceError):
                reason = (
                    "a decision that depends on the numbers in the input can't be followed; "
                    "expected the same operations for every row"
                )
            raise UnreadableNetwork(
                f"The network {type(module).__name__} can't be read{_place_of(error)}: {reason}"
            ) from error


_LEAVES = (rnn.pack_padded_sequence, rnn.pad_packed_sequence)


@contextmanager
def _leaves(tracer: _Tracer) -> Iterator[None]:
    """Let functions that pack steps and pad them be noted as they are."""

    def noting(function: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any, **kwargs: Any) -> Any:
            stands: list[fx.Proxy] = []
            map_aggregate(
                (args, kwargs), lambda a: stands.append(a) if isinstance(a, fx.Proxy) else None
            )
            if not stands or tracer.running:
                return function(*args, **kwargs)
            return tracer.create_proxy("call_function", function, args, kwargs)

        return noted

    for function in _LEAVES:
        setattr(rnn, function.__name__, noting(function))
    try:
        yield
    finally:
        for function in _LEAVES:
            setattr(rnn, function.__name__, function)


@contextmanager
def _put_back(module: nn.Module) -> Iterator[None]:
    """Attributes of all submodules as they were before; what Lightning logs goes nowhere."""
    saved = [(part, dict(vars(part))) for part in module.modules()]
    inside = [
        (value, copy.copy(value))
        for _, attributes in saved
        for value in attributes.values()
        if type(value) in (dict, list, set)
    ]
    for name in _WATCHED:
        if hasattr(type(module), name):
            vars(module)[name] = lambda *args, **kwargs: None
    try:
        yield
    finally:
        for part, attributes in saved:
            vars(part).clear()
            vars(part).update(attributes)
        for value, before in inside:
            value.clear()
            (value.extend if isinstance(value, list) else value.update)(before)


def _line(frame: FrameType | None) -> str:
    """The innermost line of the user's code, in words; nothing where there is none."""
    while frame is not None:
        name = frame.f_code.co_filename
        if name == __file__ and frame.f_code.co_name == "_forward":
            return ""
        if not name.startswith(_OURS):
            return _words(name, frame.f_lineno)
        frame = frame.f_back
    return ""


def _place_of(error: BaseException) -> str:
    """The innermost line of the user's code that an error comes from."""
    found, inside, step = "", False, error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        inside = inside or (code.co_filename == __file__ and code.co_name == "_forward")
        if inside and not code.co_filename.startswith(_OURS):
            found = _words(code.co_filename, step.tb_lineno)
        step = step.tb_next
    return found


def _words(name: str, line: int) -> str:
    text = linecache.getline(name, line).strip()
    return f", at line {line} of {Path(name).name}" + (f", `{text}`" if text else "")
