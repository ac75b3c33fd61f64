"""Recurrent networks taken apart into one MLflow model for each label, and put together again.

The names below are imported when they are first used: MLflow loads the entry points of a package
while it is itself being imported, so that ``import mlflow_rnnmod`` must need neither it nor torch.
The package is also the flavor: ``mlflow_rnnmod.save_model``, ``log_model``, ``load_model``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mlflow_rnnmod.tracking.code import FLAVOR_NAME, version

if TYPE_CHECKING:
    from mlflow_rnnmod.composition import Composite, IncompatibleModules
    from mlflow_rnnmod.decomposition import (  # type: ignore[no-redef]
        Decomposition,
        DecompositionConfig,
        Module,
        Pairs,
        decompose,
    )
    from mlflow_rnnmod.inputs import ImagePreparation
    from mlflow_rnnmod.networks import (
        NetworkConfig,
        NetworkSpec,
        Parent,
        RecurrentNetwork,
        Rows,
        TextEncoder,
        TranslatorSpec,
        read_network,
    )
    from mlflow_rnnmod.operating.promotion import Promotion, PromotionRefused, promote
    from mlflow_rnnmod.operating.push import push
    from mlflow_rnnmod.operating.recipes import compose_recipe
    from mlflow_rnnmod.operating.rollback import rollback
    from mlflow_rnnmod.operating.watch import stale
    from mlflow_rnnmod.tracking.bulk import LoggedDecomposition, log_decomposition
    from mlflow_rnnmod.tracking.directory import signature_for
    from mlflow_rnnmod.tracking.drift import Drift, drift, with_expected
    from mlflow_rnnmod.tracking.emissions import Measurement, measured
    from mlflow_rnnmod.tracking.flavor import (
        get_default_conda_env,
        get_default_pip_requirements,
        load_model,
        log_model,
        save_model,
    )
    from mlflow_rnnmod.tracking.follow import FollowingModel, follow
    from mlflow_rnnmod.tracking.planning import plan
    from mlflow_rnnmod.tracking.uses import Use, where_used
    from mlflow_rnnmod.verbs import add, compose, export, remove, replace, select

    __version__: str

_HOMES = {
    "mlflow_rnnmod.networks": (
        "NetworkConfig",
        "NetworkSpec",
        "Parent",
        "RecurrentNetwork",
        "Rows",
        "TextEncoder",
        "TranslatorSpec",
        "read_network",
    ),
    "mlflow_rnnmod.decomposition": (
        "Decomposition",
        "DecompositionConfig",
        "Module",
        "Pairs",
        "decompose",
    ),
    "mlflow_rnnmod.inputs": ("ImagePreparation",),
    "mlflow_rnnmod.composition": ("Composite", "IncompatibleModules"),
    "mlflow_rnnmod.tracking.flavor": (
        "_load_pyfunc",
        "get_default_conda_env",
        "get_default_pip_requirements",
        "load_model",
        "log_model",
        "save_model",
    ),
    "mlflow_rnnmod.tracking.directory": ("signature_for",),
    "mlflow_rnnmod.tracking.drift": ("Drift", "drift", "with_expected"),
    "mlflow_rnnmod.tracking.emissions": ("Measurement", "measured"),
    "mlflow_rnnmod.tracking.follow": ("FollowingModel", "follow"),
    "mlflow_rnnmod.tracking.planning": ("plan",),
    "mlflow_rnnmod.operating.promotion": ("Promotion", "PromotionRefused", "promote"),
    "mlflow_rnnmod.operating.push": ("push",),
    "mlflow_rnnmod.operating.watch": ("stale",),
    "mlflow_rnnmod.operating.recipes": ("compose_recipe",),
    "mlflow_rnnmod.operating.rollback": ("rollback",),
    "mlflow_rnnmod.tracking.uses": ("Use", "where_used"),
    "mlflow_rnnmod.verbs": ("add", "compose", "export", "remove", "replace", "select"),
    "mlflow_rnnmod.tracking.bulk": ("LoggedDecomposition", "log_decomposition"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "FLAVOR_NAME",
    "Composite",
    "Decomposition",
    "DecompositionConfig",
    "Drift",
    "FollowingModel",
    "ImagePreparation",
    "IncompatibleModules",
    "LoggedDecomposition",
    "Measurement",
    "Module",
    "NetworkConfig",
    "NetworkSpec",
    "Pairs",
    "Parent",
    "Promotion",
    "PromotionRefused",
    "RecurrentNetwork",
    "Rows",
    "TextEncoder",
    "TranslatorSpec",
    "Use",
    "add",
    "compose",
    "compose_recipe",
    "decompose",
    "drift",
    "export",
    "follow",
    "get_default_conda_env",
    "get_default_pip_requirements",
    "load_model",
    "log_decomposition",
    "log_model",
    "measured",
    "plan",
    "promote",
    "push",
    "read_network",
    "remove",
    "replace",
    "rollback",
    "save_model",
    "select",
    "signature_for",
    "stale",
    "where_used",
    "with_expected",
]


if not TYPE_CHECKING:  # to a type checker every name would be there

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            return version()
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(_HOME_OF[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})
