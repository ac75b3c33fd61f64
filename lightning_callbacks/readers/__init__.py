"""Readers of models, one for each architecture, which are asked what differs between these.

A new one is a file with a :class:`Reader` and its :class:`Prepared`, and a row of :data:`READERS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from lightning_callbacks.readers.base import Prepared, Reader, Settings
from lightning_callbacks.readers.graph import GraphReader
from lightning_callbacks.readers.recurrent import RecurrentReader
from lightning_callbacks.readers.translator import TranslatorReader
from mlflow_rnnmod.networks.spec import NetworkSpec
from mlflow_rnnmod.networks.translator.spec import TranslatorSpec

Spec = NetworkSpec | TranslatorSpec
"""What a user may say of a network."""

READERS: tuple[Reader, ...] = (TranslatorReader(), GraphReader(), RecurrentReader())
"""In the order in which they are asked; the last one takes what is left."""

ROWS = tuple({reader.rows: None for reader in READERS})
"""What rows may be."""


def reader_of(module: nn.Module, spec: Any) -> Reader:
    """The reader for a model, and for what is said of it."""
    return next(reader for reader in READERS if reader.claims(module, spec))


def reader_of_spec(spec: Any) -> Reader:
    """A reader for what is said of a model, before there is one."""
    return next((r for r in READERS if isinstance(spec, r.spec)), READERS[-1])


def read_spec(given: Any) -> Any:
    """What a user says of a network: ``None``, a spec, or a mapping of its arguments."""
    if given is None or any(isinstance(given, reader.spec) for reader in READERS):
        return given
    if not isinstance(given, Mapping):
        raise TypeError(f"it is a {type(given).__name__}")
    found = (reader.spec_of(given) for reader in READERS)
    return next(spec for spec in found if spec is not None)


__all__ = ["Prepared", "Reader", "Settings"]
