"""The old name of :mod:`mlflow_rnnmod.networks`."""

import warnings

from mlflow_rnnmod.networks import *  # noqa: F403

warnings.warn(f"{__name__} is now mlflow_rnnmod.networks", DeprecationWarning, stacklevel=2)
