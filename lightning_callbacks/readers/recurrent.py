"""Models over steps, which answer with labels: plain recurrent ones, and what can be followed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from lightning_callbacks.collecting import conform
from lightning_callbacks.readers.base import Given, Prepared, Reader, Settings
from lightning_callbacks.readers.graph import PreparedGraph
from mlflow_rnnmod.networks import Parent, Rows
from mlflow_rnnmod.networks.architectures import read_network
from mlflow_rnnmod.networks.graph.reading import SAID
from mlflow_rnnmod.networks.recurrent.reading import check_parity, read_weights
from mlflow_rnnmod.networks.recurrent.structure import find_parts
from mlflow_rnnmod.networks.spec import NetworkSpec, Reading


@dataclass(frozen=True, eq=False)
class PreparedRecurrent(Prepared):
    """A recurrent model that can be read."""

    def network_of(self, module: nn.Module) -> Any:
        """The network, which answers the batch as ``module`` does."""
        network = read_weights(module, self.reading)
        rows = self.given.batch.rows
        check_parity(module, network, rows, lambda: self.call(module), self.reading)
        return network

    def with_room(self, parent: Parent, rows: Rows) -> Parent:
        """A network that answers at each step has room for the longest of some rows.

        Where it reads its padding, the batch that it was read with said how far rows are padded;
        what is longer would be cut, and have no answers there. The user's word goes first.
        """
        config, longest = parent.network.config, rows.values.shape[1]
        spec = self.given.settings.spec or NetworkSpec()
        open_ended = config.stepwise and config.feed == "steps" and config.steps is not None
        if open_ended and spec.steps is None and longest > (config.steps or 0):
            parent.network.config = replace(config, steps=longest)
            return replace(parent)  # what it knew of itself by its old structure is forgotten
        return parent


class PreparedSteps(PreparedGraph):
    """A model over steps that was followed."""

    def with_room(self, parent: Parent, rows: Rows) -> Parent:
        """As of a recurrent model: room for the longest row, where each step is answered."""
        config, longest = parent.network.config, rows.values.shape[1]
        spec = self.given.settings.spec or NetworkSpec()
        told = spec.steps is not None or not config.stepwise or config.steps is None
        if told or longest <= config.steps:
            return parent
        try:
            room = replace(config, steps=longest, input_shape=(config.input_shape[0], longest))
        except ValueError:  # what it knows of each step was learned for so many
            return parent
        parent.network.config = room
        return replace(parent)


class RecurrentReader(Reader):
    """Reads ``nn.RNN``, ``nn.LSTM`` and ``nn.GRU`` with dense layers behind them.

    What else there is around them is followed, as all other models over token ids are.
    """

    spec = NetworkSpec

    def claims(self, module: nn.Module, spec: Any) -> bool:
        """All that nobody else reads: this reader says best what is missing."""
        return spec is None or isinstance(spec, self.spec)

    def problems(self, module: nn.Module, settings: Settings) -> list[str]:
        """Why no reading of the model's submodules fits; empty where one does.

        Without a batch it is not known whether the inputs are token ids or features, nor, without
        labels, how many there are; one combination that fits is enough.
        """
        spec = settings.spec or NetworkSpec()
        if may_be_followed(module, spec):
            return []
        recurrent = next((part for part in module.modules() if isinstance(part, nn.RNNBase)), None)
        size = recurrent.input_size if recurrent is not None else 1
        tokens, features = torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1, 1, size)
        has_embedding = any(isinstance(part, nn.Embedding) for part in module.modules())
        kinds = [tokens, features] if has_embedding else [features, tokens]
        dense = [part for part in module.modules() if isinstance(part, nn.Linear)]
        counts = sorted({max(part.out_features, 2) for part in dense}) or [2]
        labels, first = settings.labels, ""
        names = [list(map(str, range(count))) for count in counts]
        for given in names if labels is None else [list(labels)]:
            for values in kinds:
                try:
                    find_parts(module, values, given, spec, steps_known=False)
                except ValueError as error:
                    first = first or str(error)
                else:
                    return []
        return [first]

    def look(self, given: Given) -> Prepared:
        """Read the network by trying what is not said of it, or by following it."""
        copy, rows, (call, names) = given.copy, given.batch.rows, given.answered()
        _, reading = read_network(copy, rows, lambda: call(copy), names, given.settings.spec)
        conform(rows, reading.config, "training dataloader")
        kind = PreparedRecurrent if isinstance(reading, Reading) else PreparedSteps
        return kind(given, call, reading)


def may_be_followed(module: nn.Module, spec: NetworkSpec) -> bool:
    """Whether only a batch can tell: something answers, and nothing is said of submodules."""
    said = {name for name, value in spec.to_dict().items() if value is not None}
    dense = any(isinstance(part, nn.Linear | nn.LazyLinear) for part in module.modules())
    return dense and said <= SAID
