"""Floor 1, the door for what comes in: text, token ids, features, vectors, images.

A new kind is a file with a class of :class:`Input`, and one more row of :data:`INPUTS`.
"""

from __future__ import annotations

from torch import Tensor

# Inputs make Rows of networks, and a parent there asks for its input: loaded first, networks find
# the files that they need here, whichever of the two packages was asked for.
import mlflow_rnnmod.networks.rows  # noqa: F401
from mlflow_rnnmod.inputs.base import ColumnType, Input
from mlflow_rnnmod.inputs.features import Features
from mlflow_rnnmod.inputs.images import Images
from mlflow_rnnmod.inputs.likelihood import Density, Likelihood
from mlflow_rnnmod.inputs.pixels import Pixels
from mlflow_rnnmod.inputs.preparation import ImagePreparation
from mlflow_rnnmod.inputs.spaces import DENSITIES, density_of
from mlflow_rnnmod.inputs.text import Text, TextEncoder
from mlflow_rnnmod.inputs.tokens import Tokens
from mlflow_rnnmod.inputs.vectors import Vectors

INPUTS: dict[str, Input] = {
    each.name: each for each in (Text(), Tokens(), Features(), Vectors(), Images(), Pixels())
}
"""Every kind of input, by its name."""

__all__ = [
    "DENSITIES",
    "INPUTS",
    "ColumnType",
    "Density",
    "ImagePreparation",
    "Input",
    "Likelihood",
    "TextEncoder",
    "density_of",
    "input_of",
    "inputs_of_batch",
]


def input_of(name: str) -> Input:
    """The input of this name, as contracts and configs have it.

    Raises:
        ValueError: if there is none.

    Example:
        >>> input_of("tokens").words(20)
        'token ids from 0 to 19'
    """
    if name not in INPUTS:
        raise ValueError(f"input={name!r}, expected one of {tuple(INPUTS)}.")
    return INPUTS[name]


def inputs_of_batch(values: Tensor) -> list[Input]:
    """The inputs that a batch's tensor, rows first, may be; the first is the one that most are.

    Each makes it its own by :meth:`Input.of_batch`. Floats of shape ``(rows, numbers)`` are steps
    of one number for a recurrent network, a vector for a dense one.

    Example:
        >>> import torch
        >>> inputs_of_batch(torch.zeros(2, 3)), inputs_of_batch(torch.zeros(2, 3).long())
        ([<input 'features'>, <input 'vectors'>], [<input 'tokens'>])
    """
    return [each for each in INPUTS.values() if each.of_batch(values) is not None]
