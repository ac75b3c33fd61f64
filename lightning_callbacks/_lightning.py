"""The one place that knows Lightning's two names: ``lightning.pytorch`` and ``pytorch_lightning``.

Both hold the same classes twice. A callback of either works in both trainers, so one class is
enough; but nothing here may ask ``isinstance`` against one of them.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any

NAMESPACES = ("lightning.pytorch", "pytorch_lightning")


def find_namespace() -> str:
    """The namespace to build on: the one the program already uses, else one that is installed.

    Raises:
        ImportError: if neither is there.
    """
    for name in NAMESPACES:
        if name in sys.modules:
            return name
    for name in NAMESPACES:
        if importlib.util.find_spec(name.partition(".")[0]) is not None:
            return name
    raise ImportError(
        "lightning_callbacks needs Lightning, and neither `lightning` nor `pytorch_lightning` is "
        "installed. Install one of them: pip install pytorch-lightning"
    )


NAMESPACE = find_namespace()
Callback: Any = importlib.import_module(f"{NAMESPACE}.callbacks").Callback

_rank_zero = importlib.import_module(f"{NAMESPACE}.utilities.rank_zero")
rank_zero_info = _rank_zero.rank_zero_info
rank_zero_warn = _rank_zero.rank_zero_warn


def misconfiguration(message: str, owner: Any = None) -> Exception:
    """A ``MisconfigurationException`` of the namespace that a trainer or model belongs to.

    The two namespaces may have one of their own each, and a user catches theirs.
    """
    roots = {kind.__module__.partition(".")[0] for kind in type(owner).__mro__}
    name = next((n for n in NAMESPACES if n.partition(".")[0] in roots), NAMESPACE)
    exceptions = importlib.import_module(f"{name}.utilities.exceptions")
    error: Exception = exceptions.MisconfigurationException(message)
    return error


def is_overridden(hook: str, owner: Any) -> bool:
    """Whether ``owner`` (a module or datamodule of either namespace) has a ``hook`` of its own."""
    method = getattr(owner, hook, None)
    if method is None:
        return False
    home = getattr(getattr(method, "__func__", method), "__module__", None) or ""
    return home.partition(".")[0] not in ("lightning", "pytorch_lightning")
