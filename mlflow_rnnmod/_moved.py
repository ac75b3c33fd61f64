"""Modules that have moved: imported by their old names they are the new ones, with a warning."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Sequence
from functools import partial
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_NETWORK = "mlflow_rnnmod.network"
_RECURRENT = (
    "config gates network packed stepwise unrolled projections candidates reading structure "
    "submodules trials weights"
)
_TRANSLATOR = {
    "translator": "network",
    "translating": "network",
    "decoder": "decoding",
    "translator_config": "config",
    "translator_spec": "spec",
    "translator_parts": "parts",
    "reading_translator": "reading",
    **{name: name for name in ("masked_decoder", "decoding")},
}
_TRACKING = (
    "flavor bulk registration record parents fetch sources memory documents download directory "
    "environment jobs evaluator pyfunc columns names planning"
)
_PAGES = "card page pictures report markdown dial wording"

MOVED = {
    _NETWORK: "mlflow_rnnmod.networks",
    f"{_NETWORK}.answers": "mlflow_rnnmod.networks.forms",
    f"{_NETWORK}.trimming": "mlflow_rnnmod.networks.recurrent.layers",
    f"{_NETWORK}.products": "mlflow_rnnmod.networks.recurrent.projections",
    **{
        f"{_NETWORK}.{name}": f"mlflow_rnnmod.networks.{name}"
        for name in ("trunk", "parent", "guard", "spec")
    },
    f"{_NETWORK}.digest": "mlflow_rnnmod._digest",
    f"{_NETWORK}.rows": "mlflow_rnnmod.inputs.rows",
    f"{_NETWORK}.text": "mlflow_rnnmod.inputs.text",
    f"{_NETWORK}.tolerance": "mlflow_rnnmod.networks.guard",
    **{f"{_NETWORK}.{n}": f"mlflow_rnnmod.networks.recurrent.{n}" for n in _RECURRENT.split()},
    f"{_NETWORK}.cells": "mlflow_rnnmod.networks.recurrent.config",
    f"{_NETWORK}.slicing": "mlflow_rnnmod.networks.recurrent.ways",
    **{f"{_NETWORK}.{a}": f"mlflow_rnnmod.networks.translator.{b}" for a, b in _TRANSLATOR.items()},
    **{f"mlflow_rnnmod.{name}": f"mlflow_rnnmod.tracking.{name}" for name in _TRACKING.split()},
    "mlflow_rnnmod.translated": "mlflow_rnnmod.tracking.pyfunc",
    "mlflow_rnnmod.decomposition.sample": "mlflow_rnnmod.answers",
    "mlflow_rnnmod.decomposition.metrics": "mlflow_rnnmod.answers",
    "mlflow_rnnmod.decomposition.bleu": "mlflow_rnnmod.answers.translation",
    "mlflow_rnnmod.decomposition.layers": "mlflow_rnnmod.networks.parts",
    "mlflow_rnnmod.decomposition.sizes": "mlflow_rnnmod.networks.trunk",
    "mlflow_rnnmod.decomposition.translation_watch": "mlflow_rnnmod.networks.translator.forcing",
    "mlflow_rnnmod.decomposition.gradients": "mlflow_rnnmod.networks.recurrent.watching",
    "mlflow_rnnmod.decomposition.tapes": "mlflow_rnnmod.networks.recurrent.tapes",
    **{
        f"mlflow_rnnmod.composition.{name}": f"mlflow_rnnmod.networks.recurrent.{name}"
        for name in ("cost", "ways")
    },
    "mlflow_rnnmod.composition.machine": "mlflow_rnnmod.networks.recurrent.cost",
    "mlflow_rnnmod.composition.workers": "mlflow_rnnmod.networks.many",
    "mlflow_rnnmod.composition.answers": "mlflow_rnnmod.answers.base",
    "mlflow_rnnmod.composition.kinds": "mlflow_rnnmod.answers.joining",
    **{f"mlflow_rnnmod.{name}": f"mlflow_rnnmod.pages.{name}" for name in _PAGES.split()},
}
"""New names of modules by their old ones, as of version 0.1."""


class MovedModules(MetaPathFinder, Loader):
    """Finds moved modules by their old names."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A spec where ``name`` is an old name."""
        if name not in MOVED:
            return None
        return importlib.util.spec_from_loader(name, self, is_package=name == _NETWORK)

    def exec_module(self, module: ModuleType) -> None:
        """Everything that is asked of the old module is had from the new one."""
        new = MOVED[module.__name__]
        warnings.warn(f"{module.__name__} is now {new}", DeprecationWarning, stacklevel=2)
        module.__dict__["__getattr__"] = partial(getattr, importlib.import_module(new))


def install() -> None:
    """Make old names importable."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.insert(0, MovedModules())  # before what is left of old folders
