"""What a graph network is made of, as plain data that fits in a JSON file."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mlflow_rnnmod._locks import cached_property
from mlflow_rnnmod.answers import ANSWERS, Answer, answer_of
from mlflow_rnnmod.inputs.rows import Rows, lengths_of, prepared, valid_of
from mlflow_rnnmod.networks.graph.feeding import FEEDS, INPUT, Feed, Stepwise
from mlflow_rnnmod.networks.graph.operations import MAX_SIZE, OPERATIONS, Node, Shape
from mlflow_rnnmod.networks.graph.operations.base import units_of
from mlflow_rnnmod.networks.graph.structure import Structure, find_structure

OUTPUTS = tuple(name for name, kind in ANSWERS.items() if kind.scored and not kind.stepwise)
OUTPUTS_OVER_STEPS = (*OUTPUTS, "tags")
_PADDING = ("pad_index", "side", "steps")
MAX_NODES = 10_000
_MAX_INPUTS = 100_000
_MAX_SHOWN = 20
# Operations that the second format of files has; networks of others are of the third.
_DENSE = ("linear", "affine", "add", "concat")
_FUNCTIONS = ("relu", "tanh", "sigmoid", "gelu", "leaky_relu", "elu", "silu", "softplus")
_FIRST = frozenset(_DENSE + _FUNCTIONS)
_NAME = re.compile(r"[a-z_]{1,40}_[0-9]{1,9}")


@dataclass(frozen=True)
class GraphConfig:
    """The structure of a :class:`~mlflow_rnnmod.networks.graph.network.GraphNetwork`.

    Args:
        nodes: each behind those that it reads.
        labels: names of the output labels, in the order of the output layer's rows.
        input_shape: of one row, ``(units, *places)``, where ``None`` is a number of steps that is
            not fixed; a number for a vector's length.
        readout: name of the node that the output layer reads.
        output: kind of answer: ``"label"``, ``"multilabel"`` (a sigmoid each), or where there are
            steps ``"tags"``, a label for each.
        input: kind of input: ``"vectors"``; ``"pixels"`` ``(channels, height, width)``;
            ``"tokens"`` ``(1, steps)`` or ``"features"`` ``(features, steps)``.
        pad_index: token id of padding; ``None`` where there is none, or lengths are told.
        side: where padding stands, ``"right"`` or ``"left"``.
        steps: that every input is padded or cut to; ``None`` where padding changes no answer.

    Raises:
        ValueError: naming everything that does not fit.

    Example:
        >>> nodes = (Node("linear_0", "linear", ("input",), {"units": 8}),
        ...          Node("relu_0", "relu", ("linear_0",)))
        >>> GraphConfig(nodes, ("yes", "no"), 5, "relu_0").shapes
        {'linear_0.weight': (8, 5), 'linear_0.bias': (8,), 'output.weight': (2, 8), \
'output.bias': (2,)}
    """

    nodes: tuple[Node, ...]
    labels: tuple[str, ...]
    input_shape: Shape
    readout: str
    output: str = "label"
    input: str = "vectors"
    pad_index: int | None = None
    side: str = "right"
    steps: int | None = None

    def __post_init__(self) -> None:
        shape: Any = self.input_shape
        shape = (shape,) if isinstance(shape, int) else shape
        object.__setattr__(self, "input_shape", tuple(shape) if type(shape) is list else shape)
        problems = self._problems_of_fields() or self._problems_of_nodes()
        if not problems:
            try:
                self.structure  # noqa: B018  shapes and groups are found, or refused
            except ValueError as error:
                problems = [str(error)]
        if problems:
            more = len(problems) - _MAX_SHOWN
            shown = problems[:_MAX_SHOWN] + ([f"and {more} more"] if more > 0 else [])
            raise ValueError("The network's structure does not fit: " + "; ".join(shown) + ".")

    def _problems_of_fields(self) -> list[str]:
        problems = []
        feed = FEEDS.get(self.input) if isinstance(self.input, str) else None
        if feed is None:
            problems.append(f"input={self.input!r:.100}, expected one of {tuple(FEEDS)}")
        else:
            problems += feed.problems(self.input_shape)
        outputs = OUTPUTS_OVER_STEPS if feed is not None and feed.stepped else OUTPUTS
        if self.output not in outputs:
            problems.append(f"output={self.output!r:.100}, expected one of {outputs}")
        if feed is not None:
            problems += self._problems_of_padding(feed)
        if not isinstance(self.readout, str):
            problems.append(f"readout={self.readout!r:.60}, expected the name of a node")
        texts = all(isinstance(label, str) for label in self.labels)
        if not texts or len(self.labels) < 2 or len(set(self.labels)) != len(self.labels):
            problems.append(
                f"labels={self.labels!r:.200}, expected at least two labels, all different"
            )
        if not 1 <= len(self.nodes) <= MAX_NODES:
            problems.append(f"{len(self.nodes)} nodes, expected 1 to {MAX_NODES}")
        elif sum(len(node.inputs) for node in self.nodes) > _MAX_INPUTS:
            problems.append(f"nodes have more than {_MAX_INPUTS} inputs together")
        return problems

    def _problems_of_padding(self, feed: Feed) -> list[str]:
        pad, side, steps = self.pad_index, self.side, self.steps
        if not feed.stepped:
            plain = (pad, side, steps) == (None, "right", None)
            return [] if plain else [f"pad_index, side or steps with input={self.input!r}"]
        problems = []
        if pad is not None and (type(pad) is not int or not 0 <= pad < MAX_SIZE):
            problems.append(f"pad_index={pad!r:.60}, expected a token id or None")
        if side not in ("right", "left"):
            problems.append(f"side={side!r:.60}, expected 'right' or 'left'")
        shape: Any = self.input_shape
        if isinstance(shape, tuple) and len(shape) == 2 and shape[1] != steps:
            problems.append(f"steps={steps!r:.60} with input_shape={shape!r:.60}")
        return problems

    def _problems_of_nodes(self) -> list[str]:
        problems = []
        known, used = set(self.inputs), {self.readout}
        for node in self.nodes:
            name = f"node {node.name!r:.60}"
            if not isinstance(node.name, str) or not _NAME.fullmatch(node.name):
                problems.append(f"{name}: expected a name of letters, '_' and a number")
            elif node.name in known:
                problems.append(f"{name} is there twice")
            missing = [given for given in node.inputs if given not in known]
            if missing:
                problems.append(f"{name} reads {missing!r:.100}, which no node before it is")
            known.add(node.name)
            used.update(node.inputs)
            if node.op not in OPERATIONS:
                problems.append(f"{name}: op={node.op!r:.60}, expected one of {list(OPERATIONS)}")
            else:
                found = node.operation.problems(node.settings, len(node.inputs))
                problems += [f"{name} ({node.op}) {text}" for text in found]
        if self.readout not in known - set(self.inputs):
            problems.append(f"readout={self.readout!r:.60}, expected the name of a node")
        unused = [node.name for node in self.nodes if node.name not in used]
        if unused:
            problems.append(f"nodes {unused!r:.200} lead nowhere")
        return problems

    @cached_property
    def structure(self) -> Structure:
        """Shapes and groups, which follow from the nodes."""
        return find_structure(
            self.nodes, self.inputs, self.readout, not self.plain, self.answer.stepwise
        )

    @property
    def inputs(self) -> dict[str, Shape]:
        """Shapes of all that goes in, by name."""
        return self.feed.shapes(self.input_shape)

    @property
    def feed(self) -> Feed:
        """How rows go in."""
        return FEEDS[self.input]

    @cached_property
    def input_size(self) -> Any:
        """How many numbers a row, or a step, has; for tokens how many there are."""
        counts = [
            node.settings["tokens" if node.op == "embedding" else "units"]
            for node in self.nodes
            if node.op in ("embedding", "one_hot") and INPUT in node.inputs
        ]
        return self.feed.size(self.input_shape, counts)

    @cached_property
    def least_steps(self) -> int:
        """So few steps that every kernel and window still fits."""
        if not self.feed.stepped or self.steps is not None:
            return 1
        for steps in range(1, 257):
            shapes = self.feed.shapes((self.input_shape[0], steps))
            try:
                find_structure(self.nodes, shapes, self.readout, True, self.answer.stepwise)
            except ValueError:
                continue
            return steps
        return 1

    @property
    def stepwise(self) -> bool:
        """Whether each step is answered."""
        return self.answer.stepwise

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of all weights, by name."""
        labels, size = len(self.labels), self.readout_size
        output = {"output.weight": (labels, size), "output.bias": (labels,)}
        return {**self.structure.weights, **output}

    @property
    def readout_size(self) -> int:
        """Length of the vector that the output layer reads."""
        return units_of(self.structure.shapes[self.readout])

    @property
    def answer(self) -> Answer:
        """What goes out, as an object."""
        return answer_of(self.output)

    @property
    def format(self) -> int:
        """The format version of files that it takes to say this structure."""
        return 2 if self.plain else 3

    def given(self, rows: Rows, dtype: torch.dtype) -> dict[str, Tensor]:
        """What goes in, ``(rows, units, *places)`` by name."""
        feed = self.feed
        if not isinstance(feed, Stepwise):
            return feed.given(rows, self.input_shape, dtype)
        if rows.values.ndim < 2 or rows.values.shape[1] == 0:
            raise ValueError(
                f"values has shape {tuple(rows.values.shape)}; expected at least one step."
            )
        if rows.values.shape[1] < self.least_steps:
            rows = prepared(self, rows)
        lengths = lengths_of(self, rows)
        valid = valid_of(self, lengths, rows.values.shape[1])
        return feed.over_steps(replace(rows, lengths=lengths), self.input_shape, dtype, valid)

    @property
    def numbers(self) -> int:
        """How many numbers all nodes put out together for one row; steps count as 16."""
        shapes = self.structure.shapes.values()
        return sum(math.prod(16 if size is None else size for size in shape) for shape in shapes)

    @property
    def widest(self) -> int:
        """The most numbers that are added up at once, or units of a node."""
        read = (math.prod(shape[1:]) for shape in self.structure.weights.values())
        return max(*(units_of(shape) for shape in self.structure.shapes.values()), *read)

    @property
    def depth(self) -> int:
        """How many nodes have weights."""
        return max(sum(bool(node.operation.parameters) for node in self.nodes), 1)

    @property
    def spatial(self) -> bool:
        """Whether units have places that are no steps."""
        if self.feed.stepped:
            return False
        return any(len(shape) > 1 for shape in self.structure.shapes.values())

    @property
    def plain(self) -> bool:
        """Whether it is a dense network over vectors, as the second format has them."""
        return self.input == "vectors" and all(node.op in _FIRST for node in self.nodes)

    @property
    def end_label(self) -> None:
        """No label ends an answer."""
        return None

    def to_dict(self) -> dict[str, Any]:
        """This structure as JSON types; :meth:`from_dict` reads it back."""
        nodes = [
            {**asdict(node), "inputs": list(node.inputs), "settings": dict(node.settings)}
            for node in self.nodes
        ]
        found = {**vars_of(self), "nodes": nodes, "labels": list(self.labels)}
        shape = found.pop("input_shape")
        if not self.feed.stepped:
            for name in _PADDING:
                del found[name]
        # Digests hold what was written before there were shapes.
        return {**found, **({"input_size": shape[0]} if self.plain else {"input_shape": [*shape]})}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> GraphConfig:
        """The structure that :meth:`to_dict` wrote."""
        try:
            data = dict(data)
            if "input_size" in data:
                data["input_shape"] = _count(data.pop("input_size"))
            nodes = _items(data["nodes"], MAX_NODES)
            labels = tuple(_items(data["labels"], MAX_SIZE))
            return cls(**{**data, "nodes": tuple(_node(node) for node in nodes), "labels": labels})
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"Not a network's structure: {error}; got {data!r:.200}.") from error


def vars_of(config: GraphConfig) -> dict[str, Any]:
    """The fields by name."""
    return {name: getattr(config, name) for name in config.__dataclass_fields__}


def _node(data: Mapping[str, Any]) -> Node:
    inputs = tuple(_items(data["inputs"], _MAX_INPUTS))
    if not all(isinstance(value, str) for value in (data["name"], data["op"], *inputs)):
        raise TypeError(f"node {data!r:.100}: expected texts for name, op and inputs")
    return Node(**{**data, "inputs": inputs, "settings": dict(data.get("settings", {}))})


def _count(value: Any) -> Any:
    """A vector's length as a shape; anything else is refused later."""
    return (value,) if type(value) is int else value


def _items(value: Any, most: int) -> Sequence[Any]:
    if not isinstance(value, list | tuple) or len(value) > most:
        raise TypeError(f"{value!r:.60} is no list of at most {most}")
    return value
