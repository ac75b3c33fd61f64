"""A network that was trained comes apart into modules, in MLflow: by a callback or by hand.

:class:`ModuleDecomposition` is the callback, and needs Lightning; :class:`Decomposer` does its work
for any ``nn.Module`` and any dataloaders, without it. Names are imported when first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_callbacks.decomposer import Decomposed, Decomposer, Destination
    from lightning_callbacks.module_decomposition import ModuleDecomposition
    from lightning_callbacks.sources import Sources

_HOMES = {
    "Decomposed": "decomposer",
    "Destination": "decomposer",
    "ModuleDecomposition": "module_decomposition",
}
__all__ = ["Decomposed", "Decomposer", "Destination", "ModuleDecomposition", "Sources"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOMES.get(name, name.lower())
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
