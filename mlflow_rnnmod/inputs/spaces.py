"""Every kind of density, by what the names of its spaces start with.

A new kind is a class of :class:`~mlflow_rnnmod.inputs.likelihood.Density`, a row here, and an input
that says that it is its own (:meth:`Input.density`).
"""

from __future__ import annotations

from mlflow_rnnmod.inputs.gaussian import ImageDensity, StepDensity, VectorDensity
from mlflow_rnnmod.inputs.likelihood import Density
from mlflow_rnnmod.inputs.wording import Characters, Ids, Words

DENSITIES: dict[str, type[Density]] = {
    each.kind: each for each in (Words, Characters, Ids, VectorDensity, ImageDensity, StepDensity)
}


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
