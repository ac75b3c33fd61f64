"""Everything private that is taken from MLflow, so that a change there breaks this file alone.

MLflow has no public interface for flavors that live elsewhere; its own flavors and all third-party
ones are built on these helpers.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mlflow import MlflowClient
from mlflow.environment_variables import (
    MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR,
    MLFLOW_HTTP_REQUEST_MAX_RETRIES,
    MLFLOW_HTTP_REQUEST_TIMEOUT,
)
from mlflow.models.utils import _save_example as save_example
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.utils.models import get_model_name_and_version
from mlflow.tracking.context.registry import resolve_tags
from mlflow.tracking.fluent import _get_experiment_id as get_experiment_id
from mlflow.utils.environment import _CONDA_ENV_FILE_NAME as CONDA_ENV
from mlflow.utils.environment import _CONSTRAINTS_FILE_NAME as CONSTRAINTS
from mlflow.utils.environment import _PYTHON_ENV_FILE_NAME as PYTHON_ENV
from mlflow.utils.environment import _REQUIREMENTS_FILE_NAME as REQUIREMENTS
from mlflow.utils.environment import _mlflow_conda_env as mlflow_conda_env
from mlflow.utils.environment import _process_conda_env as process_conda_env
from mlflow.utils.environment import _process_pip_requirements as process_pip_requirements
from mlflow.utils.environment import _PythonEnv as PythonEnv
from mlflow.utils.environment import _validate_env_arguments as validate_env_arguments
from mlflow.utils.file_utils import get_total_file_size
from mlflow.utils.model_utils import _copy_extra_files as copy_extra_files
from mlflow.utils.model_utils import _get_flavor_configuration as get_flavor_configuration
from mlflow.utils.model_utils import _validate_and_copy_code_paths as copy_code_paths
from mlflow.utils.model_utils import (
    _validate_and_get_model_config_from_file as read_model_config,
)
from mlflow.utils.model_utils import (
    _validate_and_prepare_target_save_path as prepare_target_path,
)

__all__ = [
    "CONDA_ENV",
    "CONSTRAINTS",
    "PYTHON_ENV",
    "REQUIREMENTS",
    "PythonEnv",
    "brief_requests",
    "copy_code_paths",
    "copy_extra_files",
    "download_file",
    "get_artifact_repository",
    "get_experiment_id",
    "get_flavor_configuration",
    "get_model_name_and_version",
    "get_total_file_size",
    "mlflow_conda_env",
    "prepare_target_path",
    "process_conda_env",
    "process_pip_requirements",
    "read_model_config",
    "resolve_tags",
    "save_example",
    "validate_env_arguments",
]


def download_file(folder: str, name: str, path: Path) -> None:
    """One file of an artifact folder; the public way makes a request to list it first."""
    get_artifact_repository(folder)._download_file(name, str(path))


_BRIEF = {
    MLFLOW_HTTP_REQUEST_MAX_RETRIES.name: "1",
    MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR.name: "1",
    MLFLOW_HTTP_REQUEST_TIMEOUT.name: "10",
}
_brief: list[dict[str, str | None]] = []
_brief_lock = threading.Lock()


@contextmanager
def brief_requests() -> Iterator[None]:
    """One short try for each request: MLflow's own seven take minutes where nobody answers.

    MLflow reads these settings from the environment alone, for each request.
    """
    with _brief_lock:
        _brief.append({name: os.environ.get(name) for name in _BRIEF})
        os.environ.update(_BRIEF)
    try:
        yield
    finally:
        with _brief_lock:
            before = _brief.pop()
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def describe(
    client: MlflowClient, model_id: str, tags: dict[str, str], params: Mapping[str, str]
) -> None:
    """Tags and further params of a LoggedModel; the public way asks for the model before each."""
    client._tracking_client.set_logged_model_tags(model_id, tags)
    if params:
        client._tracking_client.log_model_params(model_id, dict(params))
