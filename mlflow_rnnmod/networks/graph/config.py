"""What a graph network is made of, as plain data that fits in a JSON file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mlflow_rnnmod._locks import cached_property
from mlflow_rnnmod.answers import ANSWERS, Answer, answer_of
from mlflow_rnnmod.networks.graph.operations import MAX_SIZE, OPERATIONS, Node, is_count
from mlflow_rnnmod.networks.graph.structure import INPUT, Structure, find_structure

OUTPUTS = tuple(name for name, kind in ANSWERS.items() if kind.scored and not kind.stepwise)
MAX_NODES = 10_000
_MAX_INPUTS = 100_000
_MAX_SHOWN = 20
_NAME = re.compile(r"[a-z_]{1,40}_[0-9]{1,9}")


@dataclass(frozen=True)
class GraphConfig:
    """The structure of a :class:`~mlflow_rnnmod.networks.graph.network.GraphNetwork`.

    Args:
        nodes: each behind those that it reads.
        labels: names of the output labels, in the order of the output layer's rows.
        input_size: how many numbers a row has.
        readout: name of the node that the output layer reads.
        output: kind of answer: ``"label"``, or ``"multilabel"`` (a sigmoid each).
        input: kind of input: ``"vectors"``.

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
    input_size: int
    readout: str
    output: str = "label"
    input: str = "vectors"

    def __post_init__(self) -> None:
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
        if self.input != "vectors":
            problems.append(f"input={self.input!r:.100}, expected 'vectors'")
        if self.output not in OUTPUTS:
            problems.append(f"output={self.output!r:.100}, expected one of {OUTPUTS}")
        if not isinstance(self.readout, str):
            problems.append(f"readout={self.readout!r:.60}, expected the name of a node")
        if not is_count(self.input_size):
            problems.append(f"input_size={self.input_size!r:.100}, expected 1 to {MAX_SIZE}")
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

    def _problems_of_nodes(self) -> list[str]:
        problems = []
        known, used = {INPUT}, {self.readout}
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
        if self.readout not in known - {INPUT}:
            problems.append(f"readout={self.readout!r:.60}, expected the name of a node")
        unused = [node.name for node in self.nodes if node.name not in used]
        if unused:
            problems.append(f"nodes {unused!r:.200} lead nowhere")
        return problems

    @cached_property
    def structure(self) -> Structure:
        """Shapes and groups, which follow from the nodes."""
        return find_structure(self.nodes, self.input_size, self.readout)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of all weights, by name."""
        labels, size = len(self.labels), self.readout_size
        output = {"output.weight": (labels, size), "output.bias": (labels,)}
        return {**self.structure.weights, **output}

    @property
    def readout_size(self) -> int:
        """Length of the vector that the output layer reads."""
        return self.structure.shapes[self.readout][0]

    @property
    def answer(self) -> Answer:
        """What goes out, as an object."""
        return answer_of(self.output)

    @property
    def format(self) -> int:
        """The format version of files that it takes to say this structure."""
        return 2

    @property
    def end_label(self) -> None:
        """No label ends an answer."""
        return None

    @property
    def steps(self) -> None:
        """There are no steps."""
        return None

    def to_dict(self) -> dict[str, Any]:
        """This structure as JSON types; :meth:`from_dict` reads it back."""
        nodes = [
            {**asdict(node), "inputs": list(node.inputs), "settings": dict(node.settings)}
            for node in self.nodes
        ]
        return {**vars_of(self), "nodes": nodes, "labels": list(self.labels)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> GraphConfig:
        """The structure that :meth:`to_dict` wrote.

        Raises:
            ValueError: if a field is missing, unknown or does not fit.
        """
        try:
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


def _items(value: Any, most: int) -> Sequence[Any]:
    if not isinstance(value, list | tuple) or len(value) > most:
        raise TypeError(f"{value!r:.60} is no list of at most {most}")
    return value
