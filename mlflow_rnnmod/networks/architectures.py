"""The table of architectures: what a stored structure is a structure of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from mlflow_rnnmod.networks.graph import many
from mlflow_rnnmod.networks.graph.config import GraphConfig
from mlflow_rnnmod.networks.graph.network import GraphNetwork
from mlflow_rnnmod.networks.protocol import Load, Network
from mlflow_rnnmod.networks.recurrent.config import NetworkConfig
from mlflow_rnnmod.networks.recurrent.cost import estimate
from mlflow_rnnmod.networks.recurrent.network import RecurrentNetwork
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
        """A network of this structure, on the meta device: its weights are still to come.

        Raises:
            ValueError: if it is no such structure.
        """
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
    """The architecture with this name.

    Raises:
        ValueError: if there is none.
    """
    if name not in ARCHITECTURES:
        known = " or ".join(map(repr, ARCHITECTURES))
        raise ValueError(f"architecture {name!r}; expected {known}.")
    return ARCHITECTURES[name]
