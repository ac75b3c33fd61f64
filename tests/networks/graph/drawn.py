"""Random graphs and trunks, and what they give, the slow and obvious way."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from mlflow_rnnmod.networks import Rows, Trunk
from mlflow_rnnmod.networks.graph.config import GraphConfig
from mlflow_rnnmod.networks.graph.network import GraphNetwork
from mlflow_rnnmod.networks.graph.operations import OPERATIONS, Activation, Node

ACTIVATIONS = {
    name: dict(row.defaults) for name, row in OPERATIONS.items() if isinstance(row, Activation)
}


@st.composite
def networks(draw: Any, output: str | None = None) -> GraphNetwork:
    """A float64 network of up to a dozen nodes: chains, branches, sums, concatenations."""
    size = draw(st.integers(1, 4))
    sizes = {"input": size}
    nodes: list[Node] = []

    def add(op: str, inputs: tuple[str, ...], size: int, **settings: Any) -> str:
        name = f"{op}_{len(nodes)}"
        nodes.append(Node(name, op, inputs, settings))
        sizes[name] = size
        return name

    def linear(given: str, units: int | None = None) -> str:
        units = units or draw(st.integers(1, 5))
        return add("linear", (given,), units, units=units)

    last = linear("input")
    for _ in range(draw(st.integers(0, 9))):
        op = draw(st.sampled_from(["linear", "act", "act", "add", "concat", "affine"]))
        given = draw(st.sampled_from([node.name for node in nodes]))
        if op == "linear":
            linear(given)
        elif op == "act":
            kind = draw(st.sampled_from(sorted(ACTIVATIONS)))
            add(kind, (given,), sizes[given], **ACTIVATIONS[kind])
        elif op == "affine":
            add("affine", (given,), sizes[given])
        elif op == "add":
            fitting = [name for name in sizes if sizes[name] == sizes[given] and name != "input"]
            other = draw(st.sampled_from(fitting))
            add("add", (given, other), sizes[given])
        else:
            other = draw(st.sampled_from(list(sizes)))
            add("concat", (given, other), sizes[given] + sizes[other])
    used = {name for node in nodes for name in node.inputs}
    ends = [node.name for node in nodes if node.name not in used]
    last = ends[0] if len(ends) == 1 else add("concat", tuple(ends), sum(sizes[e] for e in ends))
    last = add("tanh", (linear(last),), sizes[f"linear_{len(nodes) - 1}"])
    output = output or draw(st.sampled_from(["label", "multilabel"]))
    network = GraphNetwork(GraphConfig(tuple(nodes), ("a", "b", "c"), size, last, output)).double()
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return network.requires_grad_(False)


def random_rows(network: GraphNetwork, count: int, seed: int = 0) -> Rows:
    generator = torch.Generator().manual_seed(seed)
    size = network.config.input_size
    return Rows(torch.randn(count, size, generator=generator, dtype=torch.float64))


def random_trunk(network: GraphNetwork, seed: int, kept: float = 0.6, mix: bool = True) -> Trunk:
    """Some units kept of each group, with constants, and weights of guesses where ``mix``."""
    generator = torch.Generator().manual_seed(seed)
    keep = {
        name: torch.rand(size, generator=generator) < kept for name, size in network.units.items()
    }
    for mask in keep.values():
        mask[int(torch.randint(len(mask), (), generator=generator))] = True
    fold = {name: torch.randn(len(mask), generator=generator) for name, mask in keep.items()}
    mixes = {
        name: torch.randn(len(mask), len(mask), generator=generator) for name, mask in keep.items()
    }
    return Trunk(keep, fold, mixes if mix else {})


def by_hand(
    network: GraphNetwork,
    rows: Rows,
    trunk: Trunk | None = None,
    added: dict[tuple[str, str], Tensor] | None = None,
) -> Tensor:
    """The readout, node by node.

    Whoever reads units reads guesses in the place of those that ``trunk`` removes, and ``added`` on
    top, by group and by the node that put the units out.
    """
    config, values = network.config, {"input": rows.values}
    state = network.state_dict()
    nodes = {node.name: node for node in config.nodes}

    def read(name: str) -> Tensor:
        if name != "input" and nodes[name].op == "concat":
            return torch.cat([read(given) for given in nodes[name].inputs], dim=1)
        found = []
        for part in config.structure.parts[name]:
            value = values[name][:, part.offset : part.offset + part.size]
            if part.group is not None and trunk is not None:
                keep = trunk.keep[part.group].double()
                guessed = trunk.fold[part.group].double().expand_as(value)
                if part.group in trunk.mix:
                    guessed = guessed + (value * keep) @ trunk.mix[part.group].double().T
                value = value * keep + guessed * (1 - keep)
            if added is not None and part.group is not None:
                value = value + added[part.group, f"{name}:{part.offset}"]
            found.append(value)
        return torch.cat(found, dim=1)

    for node in config.nodes:
        if node.op == "linear":
            weight, bias = state[f"{node.name}.weight"], state[f"{node.name}.bias"]
            values[node.name] = read(node.inputs[0]) @ weight.T + bias
        elif node.op == "affine":
            scale, shift = state[f"{node.name}.scale"], state[f"{node.name}.shift"]
            values[node.name] = values[node.inputs[0]] * scale + shift
        elif node.op == "add":
            values[node.name] = values[node.inputs[0]] + values[node.inputs[1]]
        elif node.op == "concat":
            values[node.name] = torch.cat([values[given] for given in node.inputs], dim=1)
        else:
            given = values[node.inputs[0]]
            row = OPERATIONS[node.op]
            assert isinstance(row, Activation)
            values[node.name] = row.function(given, **node.settings)
    return read(config.readout)


def owned_numbers(network: Any, tensors: dict[str, Tensor]) -> int:
    """How many numbers in weights, cut down or not, stand in rows of some group's units."""
    state, total = network.state_dict(), 0
    owners: dict[str, int] = {}
    for group in network.groups.values():
        for owner in group.owners:
            rows = owner.blocks * owner.width * group.units
            owners[owner.tensor] = owners.get(owner.tensor, 0) + rows
    for name, rows in owners.items():
        each = tensors[name][0].numel()
        total += tensors[name].numel() - (len(state[name]) - rows) * each
    return total
