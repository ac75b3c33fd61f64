"""The table of architectures, and reading a user's network into whichever fits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.networks.graph import many
from mlflow_rnnmod.networks.graph.config import GraphConfig
from mlflow_rnnmod.networks.graph.network import GraphNetwork
from mlflow_rnnmod.networks.graph.reading import GraphReading, read_graph
from mlflow_rnnmod.networks.protocol import Load, Network
from mlflow_rnnmod.networks.recurrent.config import NetworkConfig
from mlflow_rnnmod.networks.recurrent.cost import estimate
from mlflow_rnnmod.networks.recurrent.network import RecurrentNetwork
from mlflow_rnnmod.networks.recurrent.reading import read_network as read_recurrent
from mlflow_rnnmod.networks.spec import AmbiguousNetwork, NetworkSpec, Reading, UnreadableNetwork
from mlflow_rnnmod.networks.translator.config import TranslatorConfig
from mlflow_rnnmod.networks.translator.network import Translator


@dataclass(frozen=True)
class Architecture:
    """One kind of network.

    Args:
        network: its class; the class's ``architecture`` is the name.
        config: class of its structure, with ``from_dict``.
        seconds: what each way of running trunks should take here, and ``"parent"``, one pass of the
            parent; ``None`` where that can't be told beforehand.
    """

    network: type[Network]
    config: Any
    seconds: Callable[[Any, Load], Mapping[str, float]] | None = None

    def build(self, structure: Mapping[str, Any]) -> Network:
        """A network of this structure, on the meta device: its weights are still to come."""
        return network_of(self.config.from_dict(dict(structure)))


ARCHITECTURES: dict[str, Architecture] = {
    row.network.architecture: row
    for row in (
        Architecture(RecurrentNetwork, NetworkConfig, estimate),
        Architecture(Translator, TranslatorConfig),
        Architecture(GraphNetwork, GraphConfig, many.estimate),
    )
}
"""Architectures by name."""

FIRST = RecurrentNetwork.architecture
"""The architecture of files that name none."""


def network_of(config: Any) -> Network:
    """A network with this config, on the meta device: without weights."""
    with torch.device("meta"):
        return next(r.network(config) for r in ARCHITECTURES.values() if type(config) is r.config)


def architecture_of(name: str) -> Architecture:
    """The architecture with this name."""
    if name not in ARCHITECTURES:
        known = " or ".join(map(repr, ARCHITECTURES))
        raise ValueError(f"architecture {name!r}; expected {known}.")
    return ARCHITECTURES[name]


def read_network(
    module: nn.Module,
    rows: Rows,
    forward: Callable[[], Any],
    labels: Sequence[str],
    spec: NetworkSpec | None = None,
) -> tuple[Network, Reading | GraphReading]:
    """Read a user's network, and check that it was read right.

    One recurrent stack between an embedding and dense layers is read by name and trial (see
    :func:`~mlflow_rnnmod.networks.recurrent.reading.read_network`); where that does not fit, and
    for all others, ``forward`` is followed (see
    :func:`~mlflow_rnnmod.networks.graph.reading.read_graph`).

    Args:
        module: the user's network. It is left as it was, random states too.
        rows: a batch, best with rows of different lengths.
        forward: runs ``module`` on that batch as the user does. It is called several times.
        labels: names of the labels, in the order of the outputs.
        spec: what is known of the network.

    Returns:
        Our network, on the device of ``module``, with copies of its weights; and what was found.

    Raises:
        UnreadableNetwork: a ``ValueError``, saying why neither way reads it, with the line of the
            user's code that is not covered.

    Example:
        >>> import torch
        >>> class Classifier(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.embedding, self.lstm = nn.Embedding(30, 8), nn.LSTM(8, 16)
        ...         self.score, self.fc = nn.Linear(16, 1), nn.Linear(16, 3)
        ...     def forward(self, x):
        ...         states, _ = self.lstm(self.embedding(x.t()))
        ...         weights = self.score(states).softmax(dim=0)
        ...         return self.fc((weights * states).sum(dim=0))
        >>> model, x = Classifier(), torch.tensor([[4, 5, 6, 7], [8, 9, 0, 0]])
        >>> network, reading = read_network(model, Rows(x), lambda: model(x), ("a", "b", "c"))
        >>> network.architecture, network.units["hidden.0"], reading.config.steps
        ('graph', 16, 4)
    """
    if not any(isinstance(part, nn.RNNBase) for part in module.modules()):
        return read_graph(module, rows, forward, labels, spec)
    try:
        return read_recurrent(module, rows, forward, labels, spec)
    except AmbiguousNetwork:
        raise
    except UnreadableNetwork as plain:
        try:
            return read_graph(module, rows, forward, labels, spec)
        except UnreadableNetwork as graph:
            raise UnreadableNetwork(f"{graph}\n\nNor is it a plain one: {plain}") from graph
        except Exception as error:  # noqa: BLE001  the user's own forward may fail
            raise plain from error
