"""Recurrent structures in words, for cards and reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlflow_rnnmod.networks.recurrent.config import NetworkConfig

CELL_WORDS = {"lstm": "LSTM", "gru": "GRU", "rnn_tanh": "RNN (tanh)", "rnn_relu": "RNN (ReLU)"}


def layer_words(recurrent: Sequence[Sequence[int]]) -> str:
    """Units of recurrent layers.

    Example:
        >>> layer_words([(64, 64), (32,)])
        '64/64 both ways + 32'
    """
    return " + ".join(
        "/".join(map(str, layer)) + (" both ways" if len(layer) == 2 else "") for layer in recurrent
    )


def network_words(config: NetworkConfig) -> str:
    """The structure of a recurrent network.

    Example:
        >>> network_words(NetworkConfig("features", 3, None, "gru", ((4,),), ("a", "b")))
        'GRU of 4 units'
    """
    dense = "".join(f" + {layer.units} {layer.activation}" for layer in config.hidden)
    fed = {
        "flat": ", which reads the whole input as one step",
        "repeat": f", which reads the whole input at each of {config.output_steps} steps",
    }.get(config.feed, "")
    return f"{CELL_WORDS[config.cell]} of {layer_words(config.recurrent)} units{dense}{fed}"


def cell_params(config: Any, layers: Sequence[Sequence[int]]) -> Mapping[str, Any]:
    """What is logged of recurrent layers that are masked, as columns of a table of models."""
    return {
        "cell": config.cell,
        "layers": len(layers),
        "hidden": "+".join("/".join(map(str, layer)) for layer in layers),
        "vocab": config.input_size if config.input == "tokens" else 0,
    }
