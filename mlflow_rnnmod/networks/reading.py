"""Reading a user's network into ours, whatever it is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.networks.graph.reading import GraphReading, read_graph
from mlflow_rnnmod.networks.protocol import Network
from mlflow_rnnmod.networks.recurrent.reading import read_network as read_recurrent
from mlflow_rnnmod.networks.spec import AmbiguousNetwork, NetworkSpec, Reading, UnreadableNetwork


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
