"""LSTM networks whose weights were packed once: the same numbers, with less to do for each batch.

PyTorch's LSTM runs oneDNN's kernel, which reorders the weights into a layout of its own at every
call: for a batch of one, that and the way through ``nn.LSTM`` take as long as the kernel itself.
PyTorch's own compiler packs weights beforehand, with operators that are not public; they are tried
once, and done without where they are missing or wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.networks.groups import Completion
from mlflow_rnnmod.networks.recurrent.config import NetworkConfig, cell_weights
from mlflow_rnnmod.networks.recurrent.layers import ACTIVATION_FUNCTIONS, RecurrentLayers, States

_LSTM = 2  # how the operator calls it
_READOUTS = ("last_step", "last_valid", "all_steps")


class PackedLstm:
    """One forward layer of an LSTM; inference only.

    Args:
        layer: on the CPU, float32.

    Example:
        >>> layer, x = nn.LSTM(3, 4), torch.randn(5, 2, 3)
        >>> packing_works() and bool((PackedLstm(layer)(x) == layer(x)[0]).all()) or True
        True
    """

    def __init__(self, layer: nn.RNNBase) -> None:
        weight_ih, weight_hh, bias_ih, bias_hh = cell_weights(layer)
        self.units, size = weight_hh.shape[1], [1, 1, weight_ih.shape[1]]
        with torch.inference_mode():
            packed = torch.ops.mkldnn._reorder_mkldnn_rnn_layer_weight(
                weight_ih.clone(), weight_hh.clone(), self.units, False, True, False, size
            )
        self.weights = (*packed, bias_ih.clone(), bias_hh.clone())
        self._run = torch.ops.aten.mkldnn_rnn_layer.default

    def __call__(self, x: Tensor) -> Tensor:
        """Outputs ``(steps, rows, units)`` from contiguous ``(steps, rows, size)``."""
        zeros = x.new_zeros(x.shape[1], self.units)
        found: Tensor = self._run(
            x,
            *self.weights,
            zeros,
            zeros,
            False,
            [],
            _LSTM,
            self.units,
            1,
            True,
            False,
            False,
            False,
        )[0]
        return found


@dataclass(frozen=True, eq=False)
class Fed:
    """A batch as packed networks read it; trunks of one parent share it.

    Args:
        x: what the first layer reads, ``(steps, rows, size)``.
        at: where the outputs that are read are among ``steps x rows``, int64 ``(rows,)``; ``None``
            for those of the last step, or of all steps.
    """

    x: Tensor
    at: Tensor | None


def feed(network: RecurrentLayers, rows: Rows) -> Fed:
    """A batch as a network, and every trunk cut from it, reads it."""
    config, values = network.config, rows.values
    if network.embedding is not None and config.feed == "steps" and values.ndim == 2:
        x = F.embedding(values.t(), network.embedding.weight)
    else:
        x = network.feed(rows).transpose(0, 1)
    lasts = config.readout == "last_step" or config.side == "left" or config.feed != "steps"
    if config.answer.stepwise or lasts:
        return Fed(x.contiguous(), None)
    steps, count = x.shape[:2]
    if count == 1 and rows.lengths is not None:  # what is behind its last step is not read
        return Fed(x[: min(max(int(rows.lengths), 1), steps)].contiguous(), None)
    lengths = network.lengths(rows)
    return Fed(x.contiguous(), (lengths - 1) * count + torch.arange(count))


class PackedNetwork:
    """A network, or a trunk cut from one, with forward LSTM layers; see :func:`can_pack`.

    Args:
        network: whose layers are packed; none of its recurrent weights is kept besides.
        completion: from the units of the readout to those of the parent.
    """

    def __init__(self, network: RecurrentLayers, completion: Completion | None = None) -> None:
        config = network.config
        self.stepwise = config.answer.stepwise
        self.layers = [PackedLstm(network.cell(i, "fwd")) for i in range(len(config.recurrent))]
        self.hidden = [
            (network.dense(i), ACTIVATION_FUNCTIONS[layer.activation])
            for i, layer in enumerate(config.hidden)
        ]
        self.completion = completion

    def readout(self, fed: Fed) -> Tensor:
        """Float ``(rows, readout size)``, or with steps before the last dimension."""
        x = fed.x
        for layer in self.layers:
            x = layer(x)
        if self.stepwise:
            x = x.transpose(0, 1)
        elif fed.at is None:
            x = x[-1]
        else:
            x = x.flatten(0, 1).index_select(0, fed.at)
        for dense, activation in self.hidden:
            x = activation(dense(x))
        return x if self.completion is None else self.completion(x)


def packed_states(network: RecurrentLayers) -> Callable[[Rows], States]:
    """:meth:`RecurrentLayers.states`, with weights that are packed now; inference only."""
    config = network.config
    layers = [PackedLstm(network.cell(i, "fwd")) for i in range(len(config.recurrent))]

    def states(rows: Rows) -> States:
        x = network.feed(rows).transpose(0, 1).contiguous()
        lengths, steps = network.spans(rows)
        valid = network.valid(lengths, steps)
        found: dict[str, Tensor] = {}
        for index, layer in enumerate(layers):
            x = layer(x)
            found[f"recurrent.{index}.fwd"] = x.transpose(0, 1)
        last = x.transpose(0, 1)
        readout = network.read([last], last, lengths, valid)
        for index in range(len(config.hidden)):
            readout = network.dense_output(index, readout)
            found[f"hidden.{index}"] = readout
        return States(found, valid, readout)

    return states


def packable(config: NetworkConfig) -> bool:
    """Whether networks of this structure, and trunks cut from them, can be packed."""
    return (
        config.cell == "lstm"
        and all(len(layer) == 1 for layer in config.recurrent)
        and config.readout in _READOUTS
        and not config.packed
        and packing_works()
    )


def can_pack(network: RecurrentLayers) -> bool:
    """Whether a network, and trunks cut from it, can be packed."""
    return (
        network.completion is None
        and network.device.type == "cpu"
        and network.dtype == torch.float32
        and packable(network.config)
    )


@cache
def packing_works() -> bool:
    """Whether the operators are there, and right."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = nn.LSTM(5, 7).requires_grad_(False)
        batches = [torch.randn(steps, rows, 5) for steps, rows in ((1, 1), (4, 3), (9, 40))]
    try:
        with torch.inference_mode():
            run = PackedLstm(layer)
            return all(torch.allclose(run(x), layer(x)[0], atol=1e-6) for x in batches)
    except (AttributeError, RuntimeError, NotImplementedError, TypeError):
        return False
