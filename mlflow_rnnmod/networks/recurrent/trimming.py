"""Leaving out steps that change no answer: padding that a whole batch has at its end."""

from __future__ import annotations

from mlflow_rnnmod.networks.recurrent.config import NetworkConfig
from mlflow_rnnmod.networks.recurrent.network import RecurrentNetwork
from mlflow_rnnmod.networks.rows import Rows


def ignores_padding(config: NetworkConfig) -> bool:
    """Whether steps behind a row's last valid one can be cut without changing its answers."""
    if config.side == "left" or config.steps or config.feed != "steps":
        return False
    if config.packed:
        # Outputs at padding are zeros, which a readout of fixed places or of all steps sees.
        return config.readout not in ("last_step", "mean_steps", "max_steps")
    one_way = all(len(layer) == 1 for layer in config.recurrent)
    return one_way and (config.stepwise or config.readout.endswith("_valid"))


def trimmed(network: RecurrentNetwork, rows: Rows) -> Rows:
    """The rows without steps that are padding in all of them, where those change no answer.

    Example:
        >>> import torch
        >>> config = NetworkConfig("tokens", 9, 4, "gru", ((3,),), ("a", "b"), pad_index=0)
        >>> rows = Rows(torch.tensor([[3, 4, 0, 0], [5, 0, 0, 0]]))
        >>> trimmed(RecurrentNetwork(config), rows).values.shape
        torch.Size([2, 2])
    """
    if not ignores_padding(network.config) or len(rows) == 0:
        return rows
    steps = int(network.lengths(rows).max())
    if steps == rows.values.shape[1]:
        return rows
    targets = rows.targets
    if targets is not None and network.config.stepwise:
        targets = targets[:, :steps]
    return Rows(rows.values[:, :steps], rows.lengths, targets)
