"""Recurrent networks in the suite."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from mlflow_rnnmod.inputs.rows import IGNORE
from mlflow_rnnmod.networks import HiddenLayer, Parent, RecurrentNetwork, Rows
from tests.builders import tiny_parent
from tests.contract.base import STEPS, Seen, Slowly, Suite, cached
from tests.networks.recurrent.reference import reference_readout
from tests.networks.recurrent.strategies import networks

OUTPUTS = ("label", "tags", "list", "multilabel")
REPEAT = {"feed": "repeat", "steps": STEPS, "output_steps": 3, "readout": "all_steps"}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "rnn_tanh, tokens": ("tokens", {"cell": "rnn_tanh", "recurrent": ((6,), (4,))}),
    "rnn_relu, features, left": (
        "features",
        {"cell": "rnn_relu", "side": "left", "readout": "mean_valid", "scale": 1.0},
    ),
    "lstm, text, packed, two directions": (
        "text",
        {"recurrent": ((4, 3), (3, 4)), "packed": True, "readout": "final_state"},
    ),
    "gru, features, max and dense": (
        "features",
        {
            "cell": "gru",
            "readout": "max_valid",
            "hidden": (HiddenLayer(5, "tanh"), HiddenLayer(4, "relu")),
        },
    ),
    "lstm, tokens, flat": ("tokens", {"feed": "flat", "steps": STEPS, "readout": "last_step"}),
    "lstm, tokens, multilabel": ("tokens", {"output": "multilabel", "readout": "mean_valid"}),
    "gru, text, tags": (
        "text",
        {"cell": "gru", "recurrent": ((4, 4),), "output": "tags", "readout": "all_steps"},
    ),
    "rnn_tanh, features, list": (
        "features",
        {"cell": "rnn_tanh", "output": "list", "end_label": "c", **REPEAT},
    ),
}


def with_end(network: RecurrentNetwork, ends: bool) -> RecurrentNetwork:
    """The network with a label that ends its lists, where it answers any."""
    if ends and network.config.answer.ends:
        network.config = replace(network.config, end_label="c")
    return network


class RecurrentSuite(Suite):
    """Masks for steps and gates, every cell, every way of reading steps and of padding."""

    name = "recurrent"
    strategy = st.builds(with_end, networks(outputs=OUTPUTS), st.booleans())

    def parents(self) -> Mapping[str, Callable[[], Parent]]:
        shared = {"labels": ("a", "b", "c"), "recurrent": ((6,),), "dtype": torch.float64}
        return {
            name: cached(tiny_parent, kind, **{**shared, "scale": 1.5, **settings})
            for name, (kind, settings) in KINDS.items()
        }

    def smooth(self, network: Any) -> bool:
        # Outputs of ReLU are often 0 at several steps: which is the largest is anybody's say.
        config = network.config
        return config.cell != "rnn_relu" or not config.readout.startswith("max")

    def slow(self, network: Any, row: Rows, added: Mapping[str, Tensor] | None = None) -> Slowly:
        config, (_, count) = network.config, network.spans(row)
        with torch.no_grad():
            layers = network.states(row).layers
        valid = _valid_steps(network, row, count)
        watched = [True] * len(valid)
        if config.answer.ends and row.targets is not None:  # nobody reads on behind a list's end
            watched = [int(row.targets[0, step]) != IGNORE for step in valid]
        groups, spread = {}, {}
        for name, output in layers.items():
            nothing = output.new_zeros(0, output.shape[-1])
            if output.ndim == 2:
                groups[name] = Seen(output, [None], [True], nothing)
            else:
                groups[name] = Seen(output[0, valid], valid, watched, nothing)
            if added is not None:
                whole = torch.zeros_like(output)
                places = slice(None) if output.ndim == 2 else (0, valid)
                spread[name] = whole.index_put(_index(places, len(whole)), added[name])
        readout = reference_readout(network, row, added=spread)
        return Slowly(groups, config.answer.all_margins(network.logits(readout))[0])


def _valid_steps(network: Any, row: Rows, count: int) -> list[int]:
    """Steps of the recurrent layers that are not padding."""
    config, steps = network.config, list(range(count))
    if config.feed != "steps":
        return steps
    length = max(int(network.lengths(row)[0]), 1)
    return steps[-length:] if config.side == "left" else steps[:length]


def _index(places: Any, rows: int) -> tuple[Tensor, ...]:
    if isinstance(places, slice):
        return (torch.arange(rows),)
    return torch.tensor(places[0]), torch.tensor(places[1])
