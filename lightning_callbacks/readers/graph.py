"""Models without recurrent layers, whose ``forward`` is followed: dense networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from lightning_callbacks.batches import Whole
from lightning_callbacks.collecting import conform
from lightning_callbacks.readers.base import Given, Prepared, Reader, Settings
from mlflow_rnnmod.networks.graph.reading import (
    check_graph_parity,
    read_graph,
    read_graph_weights,
)
from mlflow_rnnmod.networks.spec import NetworkSpec


@dataclass(frozen=True, eq=False)
class PreparedGraph(Prepared):
    """A model that was followed."""

    def network_of(self, module: nn.Module) -> Any:
        """The network, which answers the batch as ``module`` does."""
        network, rows = read_graph_weights(module, self.reading), self.given.batch.rows
        check_graph_parity(module, network, rows, lambda: self.call(module), self.reading)
        return network


class GraphReader(Reader):
    """Reads what is made of dense layers, by following its ``forward``."""

    spec = NetworkSpec
    layout = Whole()

    def claims(self, module: nn.Module, spec: Any) -> bool:
        """Models that read no sequence: without recurrent layers and embeddings."""
        sequences = (nn.RNNBase, nn.Embedding)
        reads_whole = not any(isinstance(part, sequences) for part in module.modules())
        return reads_whole and (spec is None or isinstance(spec, self.spec))

    def problems(self, module: nn.Module, settings: Settings) -> list[str]:
        """Nothing can be told before a batch was seen, but that there must be something to mask."""
        if any(isinstance(part, nn.Linear | nn.LazyLinear) for part in module.modules()):
            return []
        return [f"{type(module).__name__} has neither recurrent nor dense layers; expected some"]

    def look(self, given: Given) -> PreparedGraph:
        """Follow the model with one batch."""
        copy, rows, (call, names) = given.copy, given.batch.rows, given.answered()
        _, reading = read_graph(copy, rows, lambda: call(copy), names, given.settings.spec)
        conform(rows, reading.config, "training dataloader")
        return PreparedGraph(given, call, reading)
