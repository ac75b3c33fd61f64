"""Floor 4: the files of parents, modules and composites."""

from __future__ import annotations

from pathlib import Path

from mlflow_rnnmod.storage import composites, modules, parents
from mlflow_rnnmod.storage.composites import read_composite, write_composite
from mlflow_rnnmod.storage.files import FORMAT, without_credentials
from mlflow_rnnmod.storage.modules import read_contract, read_module, write_module
from mlflow_rnnmod.storage.parents import read_parent, write_parent

__all__ = [
    "FORMAT",
    "kind_of",
    "read_composite",
    "read_contract",
    "read_module",
    "read_parent",
    "without_credentials",
    "write_composite",
    "write_module",
    "write_parent",
]

_DOCUMENTS = {
    "composite": composites.DOCUMENT,
    "module": modules.DOCUMENT,
    "parent": parents.DOCUMENT,
}


def kind_of(directory: Path) -> str:
    """What a folder holds: ``"parent"``, ``"module"`` or ``"composite"``.

    Raises:
        ValueError: if it holds none of them.
    """
    for kind, document in _DOCUMENTS.items():
        if (Path(directory) / document).is_file():
            return kind
    raise ValueError(
        f"{directory} holds neither a parent, nor a module, nor a composite; expected one of the "
        f"files {sorted(_DOCUMENTS.values())}."
    )
