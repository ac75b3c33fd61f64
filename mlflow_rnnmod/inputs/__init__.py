"""Floor 1, the door for what comes in: text, token ids, features, vectors, images.

A new kind is a file with a class of :class:`Input`, and one more row of :data:`INPUTS`; a new kind
of density one of :class:`~mlflow_rnnmod.inputs.likelihood.Density`, a row of :data:`DENSITIES`, and
an input that says that it is its own (:meth:`Input.density`).
"""

from __future__ import annotations

from torch import Tensor

from mlflow_rnnmod.inputs.base import ColumnType, Input
from mlflow_rnnmod.inputs.features import Features
from mlflow_rnnmod.inputs.gaussian import ImageDensity, StepDensity, VectorDensity
from mlflow_rnnmod.inputs.images import Images
from mlflow_rnnmod.inputs.likelihood import Density, Likelihood
from mlflow_rnnmod.inputs.pixels import Pixels
from mlflow_rnnmod.inputs.preparation import ImagePreparation
from mlflow_rnnmod.inputs.text import Text, TextEncoder
from mlflow_rnnmod.inputs.tokens import Tokens
from mlflow_rnnmod.inputs.vectors import Vectors
from mlflow_rnnmod.inputs.wording import Characters, Ids, Words

INPUTS: dict[str, Input] = {
    each.name: each for each in (Text(), Tokens(), Features(), Vectors(), Images(), Pixels())
}
"""Every kind of input, by its name."""

DENSITIES: dict[str, type[Density]] = {
    each.kind: each for each in (Words, Characters, Ids, VectorDensity, ImageDensity, StepDensity)
}
"""Every kind of density, by what the names of its spaces start with."""

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


def density_of(space: str) -> Density:
    """The density whose likelihoods name this space.

    Raises:
        ValueError: if there is none, or it is of a version that this package does not read.

    Example:
        >>> density_of("images-1:1x28x28").numbers
        64
    """
    name, _, rest = space.partition(":")
    kind, _, version = name.rpartition("-")
    if kind not in DENSITIES:
        raise ValueError(f"likelihood of the space {space!r}; expected one of {tuple(DENSITIES)}.")
    density = DENSITIES[kind]
    if version != str(density.version):
        raise ValueError(
            f"likelihood of the space {space!r}, and this version of mlflow_rnnmod reads version "
            f"{density.version} of {kind!r}. Upgrade it: pip install --upgrade mlflow-rnnmod; or "
            "decompose the parent again."
        )
    return density.parsed(rest)
