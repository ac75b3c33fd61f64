"""How much of a translator's decoder a trunk keeps."""

from __future__ import annotations

from mlflow_rnnmod.networks.recurrent.config import GATES
from mlflow_rnnmod.networks.translator.config import TranslatorConfig
from mlflow_rnnmod.networks.trunk import Trunk


def decoder_weights(config: TranslatorConfig, trunk: Trunk) -> tuple[float, float]:
    """Weights and biases of the decoder's layers through a trunk, and the recurrent ones alone.

    Encoder, bridge, embeddings and output layer are left out: every module of a parent shares them.
    Where steps are told apart, it is the mean over steps; of a unit that leaves single gates the
    rows of these gates are gone, and nothing that others read.
    """
    gates, total, recurrent = GATES[config.cell], 0.0, 0.0
    below = float(config.target_embedding)
    for keep in trunk.keep.values():
        masks = keep[None] if trunk.variant == "rolled" else keep
        if trunk.gates == "separate":
            rows = float(masks.double().sum((1, 2)).mean())
            read = float(keep.shape[-1])
        else:
            rows = gates * float(masks.double().sum(1).mean())
            read = rows / gates
        recurrent += rows * read
        total += rows * (below + read + 2)
        below = read
    return total, recurrent


def decoder_shares(config: TranslatorConfig, trunk: Trunk) -> dict[str, float]:
    """Shares of the decoder's units, weights and recurrent weights kept, from 0 to 1.

    Example:
        >>> import torch
        >>> config = TranslatorConfig("gru", 30, 8, 30, 8, ((6, 6),), (4,), ("de",), (2,), end=3)
        >>> half = Trunk({"decoder.0.fwd": torch.tensor([True, False, True, False])})
        >>> decoder_shares(config, half)["recurrent_weights_kept"]
        0.25
    """
    weights, recurrent = decoder_weights(config, trunk)
    of, of_recurrent = decoder_weights(config, Trunk.whole(config.units))
    return {
        "units_kept": trunk.kept / trunk.total,
        "weights_kept": weights / of,
        "recurrent_weights_kept": recurrent / of_recurrent,
    }
