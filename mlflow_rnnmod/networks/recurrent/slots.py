"""Where the weights of a recurrent network's units are."""

from __future__ import annotations

import torch
from torch import Tensor

from mlflow_rnnmod.networks.groups import Gate, Group, Owner, Reader, by_name
from mlflow_rnnmod.networks.recurrent.config import DIRECTIONS, NetworkConfig

_SIGMOID, _TANH = "sigmoid", "tanh"
CELL_GATES: dict[str, tuple[Gate, ...]] = {
    "lstm": (Gate("i", _SIGMOID), Gate("f", _SIGMOID), Gate("g", _TANH), Gate("o", _SIGMOID)),
    "gru": (Gate("r", _SIGMOID), Gate("z", _SIGMOID), Gate("n", _TANH)),
    "rnn_tanh": (Gate("h", _TANH),),
    "rnn_relu": (Gate("h", "relu"),),
}
"""The gates of each cell, in PyTorch's order; a plain cell's output is its one gate."""


def tanh_factor(cell: str, like: Tensor) -> Tensor:
    """2 for each of the rows ``like`` whose gate passes a tanh, else 1, ``(gates x units,)``.

    ``tanh(x) = 2 sigmoid(2 x) - 1``: with doubled weights the sigmoid does for all gates.
    """
    gates = CELL_GATES[cell]
    factor = torch.tensor([2.0 if gate.function == _TANH else 1.0 for gate in gates])
    return factor.repeat_interleave(len(like) // len(gates)).to(like)


def cell_group(
    name: str, cell: str, prefix: str, units: int, readers: tuple[Reader, ...] = ()
) -> Group:
    """The units of one direction of a recurrent layer.

    Guesses that recurrent weights read go into ``weight_hh`` and ``bias_hh``: in a GRU they stay
    inside the reset gate's product. Constants of single gates go to ``bias_ih``.
    """
    gates = CELL_GATES[cell]
    kinds = ("bias_ih_l0", "weight_ih_l0", "weight_hh_l0", "bias_hh_l0")
    itself = Reader(f"{prefix}.weight_hh_l0", f"{prefix}.bias_hh_l0")
    relu = cell == "rnn_relu"
    return Group(
        name=name,
        units=units,
        owners=tuple(Owner(f"{prefix}.{kind}", len(gates)) for kind in kinds),
        readers=(itself, *readers),
        gates=gates,
        steps=True,
        bounded=not relu,
        idles=relu,
    )


def groups_of(config: NetworkConfig) -> dict[str, Group]:
    """The groups of a recurrent network: directions of its layers, then dense layers.

    Example:
        >>> config = NetworkConfig("features", 3, None, "gru", ((4, 4), (5,)), ("a", "b"))
        >>> [reader.tensor for reader in groups_of(config)["recurrent.0.bwd"].readers]
        ['recurrent.0.bwd.weight_hh_l0', 'recurrent.1.fwd.weight_ih_l0']
    """
    found = []
    for index, layer in enumerate(config.recurrent):
        offset = 0
        for d, units in enumerate(layer):
            behind = _behind(config, index, offset)
            name = f"recurrent.{index}.{DIRECTIONS[d]}"
            found.append(cell_group(name, config.cell, name, units, behind))
            offset += units
    for index, dense in enumerate(config.hidden):
        name, last = f"hidden.{index}", index == len(config.hidden) - 1
        behind = () if last else (_dense(index + 1),)
        owners = (Owner(f"{name}.weight"), Owner(f"{name}.bias"))
        found.append(Group(name, dense.units, owners, behind))
    return by_name(found)


def _behind(config: NetworkConfig, index: int, offset: int) -> tuple[Reader, ...]:
    """What reads a recurrent layer's outputs, from column ``offset`` on."""
    if index + 1 < len(config.recurrent):
        names = [
            f"recurrent.{index + 1}.{DIRECTIONS[d]}"
            for d in range(len(config.recurrent[index + 1]))
        ]
        return tuple(Reader(f"{n}.weight_ih_l0", f"{n}.bias_ih_l0", offset) for n in names)
    return (_dense(0, offset),) if config.hidden else ()


def _dense(index: int, offset: int = 0) -> Reader:
    return Reader(f"hidden.{index}.weight", f"hidden.{index}.bias", offset)
