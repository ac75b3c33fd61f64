"""The old name of what :mod:`mlflow_rnnmod` itself has: it is the flavor."""

import warnings

from mlflow_rnnmod.tracking.directory import signature_for
from mlflow_rnnmod.tracking.flavor import (
    get_default_conda_env,
    get_default_pip_requirements,
    load_model,
    log_model,
    save_model,
)

__all__ = [
    "get_default_conda_env",
    "get_default_pip_requirements",
    "load_model",
    "log_model",
    "save_model",
    "signature_for",
]

warnings.warn(f"{__name__} is now mlflow_rnnmod", DeprecationWarning, stacklevel=2)
