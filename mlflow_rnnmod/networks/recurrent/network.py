"""The recurrent network that modules come from, as floors above see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from mlflow_rnnmod._locks import cached_property
from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.networks.protocol import Told, View
from mlflow_rnnmod.networks.recurrent.config import cell_params, network_words
from mlflow_rnnmod.networks.recurrent.layers import RecurrentLayers, States
from mlflow_rnnmod.networks.recurrent.packed import PackedNetwork, can_pack, feed, packed_states
from mlflow_rnnmod.networks.recurrent.watching import RecurrentWatch
from mlflow_rnnmod.networks.recurrent.ways import RecurrentTrunks, masked, sliced
from mlflow_rnnmod.networks.trunk import Trunk


class RecurrentNetwork(RecurrentLayers):
    """Embedding, recurrent layers, readout, hidden dense layers and an output layer.

    Args:
        config: the structure. Weights start as PyTorch initialises them.

    Example:
        >>> import torch
        >>> from mlflow_rnnmod.networks.recurrent.config import NetworkConfig
        >>> config = NetworkConfig("tokens", 30, 8, "gru", ((16,),), ("yes", "no"), pad_index=0)
        >>> network = RecurrentNetwork(config)
        >>> network(Rows(torch.tensor([[4, 7, 0], [5, 0, 0]]))).shape
        torch.Size([2, 2])
    """

    architecture = "recurrent"

    def told(
        self, rows: Rows, variant: str, gates: str, unrolled_steps: int, last: bool = False
    ) -> Told:
        """Steps and gates that masks of this kind tell apart.

        The last step alone can be told, as a direction takes it last, only where one label answers
        for the row and steps are not told apart.
        """
        steps = min(self.spans(rows[:1])[1], unrolled_steps) if variant == "unrolled" else None
        alone = last and steps is None and not self.config.answer.stepwise
        return Told(steps, gates == "separate", alone)

    def watch(self, rows: Rows, told: Told, gradients: bool) -> RecurrentWatch:
        """Run a batch, and keep what is needed to be asked about it."""
        return RecurrentWatch(self, rows, told, None if gradients else self._fast_states)

    @cached_property
    def _fast_states(self) -> Callable[[Rows], States]:
        return packed_states(self) if can_pack(self) else self.states

    def fastest(self) -> Callable[[Rows], Tensor]:
        """The readout, with weights that are packed now where they can be."""
        if not can_pack(self):
            return self.readout
        packed = PackedNetwork(self)
        return lambda rows: packed.readout(feed(self, rows))

    def view(self, trunk: Trunk, cut: bool = True) -> View:
        """The network through a trunk, cut down to its units where they can be cut out."""
        return sliced(self, trunk) if cut else masked(self, trunk)

    def through(self, trunks: Sequence[Trunk]) -> RecurrentTrunks:
        """Several trunks at once."""
        return RecurrentTrunks(self, trunks)

    def params(self) -> Mapping[str, Any]:
        """The cell, layers and their units, and the size of the vocabulary."""
        return cell_params(self.config, self.config.recurrent)

    def reading(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        """The embedding, and the shape of all layers but the output's."""
        config = self.config
        names = ("input", "input_size", "cell", "readout")
        shape: dict[str, Any] = {name: getattr(config, name) for name in names}
        shape["recurrent"] = [list(layer) for layer in config.recurrent]
        shape["hidden"] = [[layer.units, layer.activation] for layer in config.hidden]
        if config.feed != "steps":
            shape["feed"] = [config.feed, config.steps, config.output_steps]
        return {} if self.embedding is None else {"embedding": self.embedding.weight}, shape

    def words(self) -> str:
        """The structure in words."""
        return network_words(self.config)
