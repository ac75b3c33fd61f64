"""From what a user's code does to a graph: calls become nodes, norms go into their neighbours."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from mlflow_rnnmod.networks.graph.calling import Call
from mlflow_rnnmod.networks.graph.calls import (
    ENDS,
    Called,
    Made,
    NotCovered,
    handler_of,
    in_place,
    value_of,
)
from mlflow_rnnmod.networks.graph.calls.base import ROWS, UNITS
from mlflow_rnnmod.networks.graph.config import GraphConfig
from mlflow_rnnmod.networks.graph.draft import Draft, Drafted
from mlflow_rnnmod.networks.graph.feeding import INPUT
from mlflow_rnnmod.networks.graph.sequences import (
    STEPS,
    Order,
    Packed,
    Stepped,
    handler_over_steps,
    whole,
)
from mlflow_rnnmod.networks.graph.tracing import trace
from mlflow_rnnmod.networks.spec import AXES, UnreadableNetwork, problem_of_kinds


@dataclass(frozen=True, eq=False)
class Followed:
    """A network that was followed from its input to its answer.

    Args:
        draft: its nodes without the output layer.
        readout: the node that the output layer reads.
        weight, bias: of the output layer, float64.
        end: what the answer ended with.
        dtype: of the weights.
        read: names of parameters and of submodules that were met.
        kind: of input, where there are steps.
        axes: where rows, steps and labels stand in an answer (see :class:`~.spec.NetworkSpec`).
    """

    draft: Draft
    readout: str
    weight: Tensor
    bias: Tensor
    end: str
    dtype: torch.dtype
    read: frozenset[str]
    kind: str | None = None
    axes: str = "rows_labels"

    @property
    def outputs(self) -> int:
        """Numbers in an answer."""
        return len(self.weight)

    def config(self, labels: tuple[str, ...], kind: str, **steps: Any) -> GraphConfig:
        """The structure; what has none is refused."""
        nodes, _, names = self.draft.finished()
        shape = self.draft.nodes[INPUT].shape
        given = self.kind or ("vectors" if len(shape) == 1 else "pixels")
        if self.kind is not None:
            shape = (shape[0], steps.get("steps"))  # type: ignore[assignment]
        try:
            return GraphConfig(nodes, labels, shape, names[self.readout], kind, given, **steps)
        except ValueError as error:
            line = self.draft.nodes[self.readout].line
            raise UnreadableNetwork(f"The network can't be read{line}: {error}") from error

    def tensors(self) -> dict[str, Tensor]:
        """Weights by the names of the structure."""
        _, tensors, _ = self.draft.finished()
        weight, bias = self.weight, self.bias
        if len(weight) == 1:
            # One output z for two labels: the logits (0, z) have the same log-odds.
            weight, bias = (torch.cat([torch.zeros_like(t), t]) for t in (weight, bias))
        found = {**tensors, "output.weight": weight, "output.bias": bias}
        return {name: tensor.to(self.dtype).contiguous() for name, tensor in found.items()}


def follow(module: nn.Module, call: Call) -> Followed:
    """A network as a draft of a graph, from its input to its output layer.

    Args:
        module: the user's, in evaluation mode.
        call: how it is called.

    Raises:
        UnreadableNetwork: naming what is not covered, and its line.
    """
    name = type(module).__name__

    def refused(reason: str, line: str = "") -> UnreadableNetwork:
        return UnreadableNetwork(f"The network {name} can't be read{line}: {reason}")

    graph = trace(module, call)
    draft, answer, read = _drafted(module, graph, call)
    if isinstance(answer, NotCovered):
        raise refused(*answer.args)
    if not isinstance(answer, Made):
        raise refused("its answer does not depend on the input")
    last, end, axes = answer.name, "logits", "rows_labels"
    if isinstance(answer, Stepped):
        axes = answered_as(answer)
    if answer.axes is not None or not axes:
        raise refused(
            "its answer is not (rows, labels)" + (" or (rows, steps, labels)" * (not axes)),
            draft.nodes[last].line,
        )
    final = "softmax" if draft.nodes[last].op == "softmax_units" else draft.nodes[last].op
    if final in ENDS:
        end = final
        last = draft.nodes[last].inputs[0]
    last = draft.fold(last)
    for node in draft.nodes.values():
        node.op = "softmax_units" if node.op == "softmax" else node.op
    softmax = [node for node in draft.nodes.values() if node.op == ENDS[0]]
    if softmax:
        raise refused("a log-softmax before the last layer is not covered", softmax[0].line)
    if call.kind is None:
        last = _ended(draft, last)
    output = draft.nodes[last]
    shared = any(last in node.inputs for node in draft.nodes.values())
    if output.op != "linear" or shared:
        found = "the input itself" if output.op == INPUT else f"{output.op!r}"
        raise refused(
            f"answers come from {found}{', which is read elsewhere too' if shared else ''}; "
            "expected a dense layer, then at most a softmax, log-softmax or sigmoid",
            output.line,
        )
    del draft.nodes[last]
    if output.inputs[0] == INPUT:
        raise refused("it has no hidden layer, so there is nothing to take apart")
    problem = problem_of_kinds(module.parameters())
    if problem is not None:
        raise refused(problem)
    weights = output.weights
    return Followed(
        draft,
        output.inputs[0],
        weights["weight"],
        weights["bias"],
        end,
        next(module.parameters()).dtype,
        read,
        call.kind,
        axes,
    )


_POOLS = ("mean", "adaptive_avg_pool", "avg_pool", "largest", "adaptive_max_pool")


def _ended(draft: Draft, last: str) -> str:
    """The output layer; where channels are pooled to answers, one that passes them on."""
    node, shape = draft.nodes[last], draft.nodes[last].shape
    inner = draft.nodes[node.inputs[0]] if node.op == "reshape" else node
    if inner.op not in _POOLS or shape[0] != prod(shape):
        return last
    flat = draft.reshaped(last, shape[:1], node.line)
    return draft.linear(flat, torch.eye(shape[0], dtype=torch.float64), None, node.line)


def answered_as(answer: Stepped) -> str:
    """How an answer is arranged; nothing where that is not covered."""
    places = {ROWS: "rows", UNITS: "labels", STEPS: "steps"}
    if any(f.axis == ROWS and f.stride != 1 for dim in answer.dims for f in dim):
        return ""  # rows are in another order than they came
    order = [["?" if f.axis is None else places[f.axis] for f in dim] for dim in answer.dims]
    words = "_".join("".join(dim) for dim in order)
    if words in ("rows_labels", "rows", "rows_"):  # one output for two labels
        return "rows_labels"
    if order and order[0] == ["rows", "steps"]:
        return "flattened"
    return words if words in AXES else {"rows_steps": "rows_steps_labels"}.get(words, "")


def _drafted(module: nn.Module, graph: fx.Graph, call: Call) -> tuple[Draft, Any, frozenset[str]]:
    """Nodes of a draft, what came out, or why that is not covered, and names of what was read.

    What is not covered is no matter until an answer depends on it.
    """
    draft = Draft((1,), torch.device("cpu"))
    values: dict[fx.Node, Any] = {}
    read: set[str] = set()
    learned: set[int] = set()
    for node in graph.nodes:
        found = node.meta.get("value")
        if node.op == "placeholder":
            if call.kind is not None:
                if node.target == INPUT:
                    draft = begun(call)
                values[node] = draft.given_values[str(node.target)]
                continue
            draft = Draft(tuple(found.shape[1:]), found.device)
            values[node] = Made(INPUT, tuple(found.shape))
            continue
        args, kwargs = map_arg((node.args, node.kwargs), lambda n: values[n])
        if node.op == "output":
            return draft, _first(args[0]), frozenset(read)
        if node.op in ("get_attr", "call_module"):
            read.add(str(node.target))
        needed = [values[given] for given in node.all_input_nodes]
        missing = next((value for value in needed if isinstance(value, NotCovered)), None)
        if not any(map(_depends, needed)):
            values[node] = found
            weights = node.op == "get_attr" and isinstance(found, nn.Parameter)
            if weights or any(id(value) in learned for value in needed):
                learned.add(id(found))
            continue
        is_module = node.op == "call_module"
        target = module.get_submodule(str(node.target)) if is_module else node.target
        part = target if is_module else None
        shape = tuple(found.shape) if isinstance(found, Tensor) else ()
        line = node.meta["line"]
        several = isinstance(found, tuple | list) and all(isinstance(x, Tensor) for x in found)
        shapes = tuple(tuple(x.shape) for x in found) if several else ()
        called = Called(
            draft,
            args,
            dict(kwargs),
            shape,
            line,
            part,
            shapes,
            found,
            partial(_wanted, node),
            lambda constant: id(constant) in learned,
        )
        given_back = _given_back(node, target, called)
        values[node] = missing or (
            values[given_back] if given_back is not None else _value(node, target, called)
        )
        if in_place(target, called) and node.all_input_nodes:
            _changed(values, node)
    raise AssertionError("a traced graph ends with its output")


def _given_back(node: fx.Node, target: Any, called: Called) -> fx.Node | None:
    """The argument that a call gave back as it was, as what drops parts in training alone does."""
    if isinstance(target, nn.Module) or in_place(target, called):
        return None
    known = handler_over_steps(target) if called.draft.rows else handler_of(target)
    if known is not None:
        return None
    same = (given for given in node.all_input_nodes if given.meta["value"] is node.meta["value"])
    return next(same, None)


def begun(call: Call) -> Draft:
    """A draft over steps, with all that goes in."""
    example = call.example.transpose(0, 1) if INPUT in call.turned else call.example
    rows, steps = example.shape[:2]
    plain = example.ndim == 2  # one number at each step
    draft = Draft((1 if plain else example.shape[2], steps), example.device)
    draft.rows = rows
    draft.nodes["lengths"] = Drafted("lengths", [], (1,))
    draft.nodes["mask"] = Drafted("mask", [], (1, steps))
    draft.whole.update({"lengths", "mask", *([] if example.is_floating_point() else [INPUT])})
    draft.flags.add("mask")
    orders: dict[str, list[int | None]] = {
        INPUT: [ROWS, STEPS] if plain else [ROWS, STEPS, UNITS],
        "lengths": [ROWS],
        "mask": [ROWS, STEPS],
    }
    for name, order in orders.items():
        if name in call.turned:
            order[:2] = order[1::-1]
        draft.given_values[name] = whole(draft, name, order)
    return draft


def _depends(value: Any) -> bool:
    """Whether something of the input is in a value, or in the items of one."""
    if isinstance(value, tuple | list):
        return any(map(_depends, value))
    return isinstance(value, Made | NotCovered | Packed | Order)


def _wanted(node: fx.Node, what: str) -> bool:
    """Whether anything reads the last cells of an LSTM."""
    for state in node.users:
        if state.target is not operator.getitem or state.args[1] not in (1, -1):
            if state.target is operator.getitem and state.args[1] == 0:
                continue
            return True
        for one in state.users:
            if one.target is not operator.getitem or (one.args[1] in (1, -1) and one.users):
                return True
    return False


def _changed(values: dict[fx.Node, Any], node: fx.Node) -> None:
    """What a call changed in place is what it gave; other views of that can't be followed."""
    changed = node.all_input_nodes[0]
    given, line = values[node], node.meta["line"]
    for other in values:
        if isinstance(values[other], Made) and _share(other.meta["value"], changed.meta["value"]):
            values[other] = NotCovered("a value is changed in place through another view", line)
    values[changed] = values[node] = given


def _share(one: Any, other: Any) -> bool:
    """Whether two tensors are views of the same numbers."""
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        return False
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


def _value(node: fx.Node, target: Any, called: Called) -> Made | NotCovered | list[Any]:
    """What a call gives, or why that is not covered, with its line."""
    over_steps = bool(called.draft.rows)
    if not over_steps and target is operator.getitem and isinstance(called.args[0], list):
        found: Made | NotCovered = called.args[0][called.args[1]]
        return NotCovered(*found.args, called.line) if isinstance(found, NotCovered) else found
    handler = handler_over_steps(target) if over_steps else handler_of(target)
    words = _words(node, target)
    if handler is None:
        return NotCovered(f"{words} is not covered", called.line)
    try:
        given = handler(called)
        if over_steps:
            return _told(given, called)
        if not isinstance(given, list):
            return value_of(given, called.shape)
        return [
            found if isinstance(found, NotCovered) else value_of(found, shape)
            for found, shape in zip(given, called.shapes, strict=True)
        ]
    except (NotCovered, AttributeError, RuntimeError, TypeError, ValueError) as error:
        return NotCovered(f"{words} is not covered: {error}", called.line)


def _told(given: Any, called: Called) -> Any:
    """What a handler over steps gives, checked against what the call gave."""
    if isinstance(given, Stepped) and given.shape != called.shape:
        raise NotCovered(f"it is followed as {given.shape}, and gives {called.shape}")
    return given


def _words(node: fx.Node, target: Any) -> str:
    if isinstance(target, nn.Module):
        return f"{node.target} ({type(target).__name__})"
    if isinstance(target, str):
        return f"the method {target!r}"
    return f"the function {getattr(target, '__name__', repr(target))!r}"


def _first(answer: Any) -> Any:
    """What counts in what a forward gave (see :func:`~.forms.answer_tensor`)."""
    if isinstance(answer, Mapping):
        return answer.get("logits")
    return answer[0] if isinstance(answer, tuple | list) and answer else answer
