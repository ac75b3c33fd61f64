"""What a logged model needs around it: pinned packages, and our own code where it must go along.

Requirements are computed from what is installed. MLflow's inference would load the model in another
process, take seconds, and still not find this package (docs/mlflow.md).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from mlflow_rnnmod.tracking import _mlflow
from mlflow_rnnmod.tracking.code import DISTRIBUTION, PACKAGE

_TORCH_CPU = "https://download.pytorch.org/whl/cpu"

# What loading and answering import; training and reports need more.
_PACKAGES = ("numpy", "pandas", "safetensors", "tokenizers", "torch")


def default_requirements() -> list[str]:
    """Pinned requirements of every model of this flavor, from the installed packages."""
    # A local version (2.13.0+cpu) is in no index.
    pins = [f"{name}=={metadata.version(name).partition('+')[0]}" for name in _PACKAGES]
    own = own_requirement()
    return pins if own is None else [*pins, own]


def torch_index() -> list[str]:
    """Where pip finds the CPU build of torch, as an option, where that is what is installed.

    From pip's own index a container would get the build for GPUs, with gigabytes of libraries; the
    build for CPUs has a local version, which pip takes before the plain one. Where that place can't
    be reached, the plain one is taken.
    """
    local = metadata.version("torch").partition("+")[2]
    return [f"--extra-index-url {_TORCH_CPU}"] if local == "cpu" else []


def own_requirement() -> str | None:
    """How pip can get this package; ``None`` where it can't, so that the code must go along.

    That is the case for a working copy, an editable or local installation, and for code that was
    itself loaded from an artifact.
    """
    try:
        distribution = metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return None
    if Path(str(distribution.locate_file(PACKAGE.name))).resolve() != PACKAGE.resolve():
        return None  # another copy is installed than the one that runs
    if distribution.read_text("RECORD") is None:
        return None  # the egg-info of a working copy, which nothing was installed from
    direct = distribution.read_text("direct_url.json")
    if direct is None:
        return f"{DISTRIBUTION}=={distribution.version}"
    return _from_direct_url(json.loads(direct))


def _from_direct_url(direct: Mapping[str, Any]) -> str | None:
    """The requirement that a PEP 610 ``direct_url.json`` stands for.

    Example:
        >>> vcs = {"vcs": "git", "commit_id": "0a1b"}
        >>> _from_direct_url({"url": "https://host.example/rnnmod.git", "vcs_info": vcs})
        'mlflow-rnnmod @ git+https://host.example/rnnmod.git@0a1b'
        >>> _from_direct_url({"url": "file:///here", "dir_info": {"editable": True}})
    """
    url = direct.get("url", "")
    if not url.startswith(("https://", "http://", "ssh://")):
        return None
    if info := direct.get("vcs_info"):
        return f"{DISTRIBUTION} @ {info['vcs']}+{url}@{info['commit_id']}"
    return f"{DISTRIBUTION} @ {url}"


@dataclass(frozen=True)
class EnvironmentFiles:
    """The files that say what a model needs: made once, written beside any number of models.

    Args:
        files: content by name: ``conda.yaml``, ``python_env.yaml``, ``requirements.txt`` and,
            where there are constraints, ``constraints.txt``.
    """

    files: Mapping[str, str]

    def write(self, path: Path) -> None:
        """Write them into the folder ``path``."""
        for name, content in self.files.items():
            (path / name).write_text(content, encoding="utf-8")


def environment_files(
    conda_env: Any = None, pip_requirements: Any = None, extra_pip_requirements: Any = None
) -> EnvironmentFiles:
    """The environment of a model, from the arguments that every MLflow flavor takes."""
    _mlflow.validate_env_arguments(conda_env, pip_requirements, extra_pip_requirements)
    if conda_env is None:
        own = [*torch_index(), *default_requirements()]
        defaults = own if pip_requirements is None else None
        conda_env, requirements, constraints = _mlflow.process_pip_requirements(
            defaults, pip_requirements, extra_pip_requirements
        )
    else:
        conda_env, requirements, constraints = _mlflow.process_conda_env(conda_env)
    python_env = {k: v for k, v in _mlflow.PythonEnv.current().to_dict().items() if v}
    files = {
        _mlflow.CONDA_ENV: yaml.safe_dump(conda_env, default_flow_style=False),
        _mlflow.PYTHON_ENV: yaml.safe_dump(python_env, sort_keys=False, default_flow_style=False),
        _mlflow.REQUIREMENTS: "\n".join(requirements),
    }
    if constraints:
        files[_mlflow.CONSTRAINTS] = "\n".join(constraints)
    return EnvironmentFiles(files)
