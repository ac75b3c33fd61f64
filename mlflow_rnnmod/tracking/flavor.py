"""The flavor: parents, modules and composites as MLflow models.

Reached as ``mlflow_rnnmod.save_model`` and so on: the package itself is what MLflow calls a flavor.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import LoggedModelStatus
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.models.model import ModelInfo
from mlflow.tracking._model_registry import DEFAULT_AWAIT_MAX_SLEEP_SECONDS

from mlflow_rnnmod.composition import Composite
from mlflow_rnnmod.decomposition.module import Module
from mlflow_rnnmod.networks import Parent
from mlflow_rnnmod.pages.wording import Saved
from mlflow_rnnmod.tracking import _mlflow, code, download, fetch, parents, record
from mlflow_rnnmod.tracking.assessment import Assessment
from mlflow_rnnmod.tracking.code import FLAVOR_NAME, PACKAGE
from mlflow_rnnmod.tracking.directory import (
    Thing,
    hidden_tags,
    input_kind,
    kind,
    model_directory,
    model_tags,
    signature_for,
    type_of_model,
)
from mlflow_rnnmod.tracking.download import check_stored, digests_in
from mlflow_rnnmod.tracking.emissions import Measurement, saved_of
from mlflow_rnnmod.tracking.environment import (
    EnvironmentFiles,
    default_requirements,
    environment_files,
    own_requirement,
    torch_index,
)
from mlflow_rnnmod.tracking.logged import own_run
from mlflow_rnnmod.tracking.names import slug
from mlflow_rnnmod.tracking.pyfunc import RnnmodModel
from mlflow_rnnmod.tracking.servers import asks
from mlflow_rnnmod.tracking.shelf import assessed, card_of, present, write_card

__all__ = [
    "FLAVOR_NAME",
    "EnvironmentFiles",
    "environment_files",
    "get_default_conda_env",
    "get_default_pip_requirements",
    "input_kind",
    "load_model",
    "log_model",
    "model_directory",
    "model_tags",
    "save_model",
    "signature_for",
    "type_of_model",
]


def save_model(
    model: Thing,
    path: str | Path,
    conda_env: Any = None,
    code_paths: list[str] | None = None,
    mlflow_model: Model | None = None,
    signature: ModelSignature | None = None,
    input_example: Any = None,
    pip_requirements: Any = None,
    extra_pip_requirements: Any = None,
    metadata: dict[str, Any] | None = None,
    extra_files: list[str] | None = None,
    standalone: bool | None = None,
    model_config: dict[str, Any] | str | Path | None = None,
    validate_serving_input: bool = True,
    borrows: bool = False,
    assessment: Assessment | None = None,
    saved: Saved | None = None,
) -> None:
    """Save a parent, a module or a composite as an MLflow model.

    Args:
        model: what to save.
        path: the folder; made where it is missing, and empty.
        conda_env: a conda environment, as a dict or as the path of a YAML file.
        code_paths: code of your own that should go along.
        mlflow_model: the ``mlflow.models.Model`` that the flavor is added to.
        signature: instead of the one that fits the kind of input.
        input_example: stored as an example of the model's input; a composite has a made-up one.
        pip_requirements: instead of :func:`get_default_pip_requirements`; a list or a file.
        extra_pip_requirements: besides them.
        metadata: stored in ``MLmodel``.
        extra_files: files to copy to ``extra_files``.
        standalone: for a module, whether its parent goes along. By default it is left out where it
            was logged in MLflow, and the module refers to it by digest and model id.
        model_config: ``device`` (``None``: the CPU) and ``batch_size`` (256) of the loaded model;
            ``max_tokens`` (10,000; ``None`` for any number) that one input may have, and whether
            longer ones are refused or cut: ``too_long`` (``"refuse"``, ``"cut"``); whether missing
            and blank inputs get no label: ``blank`` (``"reject"``, ``"answer"``).
        validate_serving_input: of no use here; MLflow hands it on from :func:`log_model`.
        borrows: for a module: whether its parent's model is known to carry this package's code.
        assessment: of a composite: its figures, for its page.
        saved: of a composite: what making it emitted, for its page.

    Raises:
        MlflowException: if ``path`` is not empty, or ``model`` is something else.
    """
    environment = environment_files(conda_env, pip_requirements, extra_pip_requirements)
    if standalone is None:
        standalone = isinstance(model, Module) and model.parent.model_id is None
    settings = (
        _mlflow.read_model_config(str(model_config))
        if isinstance(model_config, str | Path)
        else model_config
    )
    there = Path(path).exists()
    mine = not there or (Path(path).is_dir() and not any(Path(path).iterdir()))
    try:
        model_directory(
            model,
            path,
            environment,
            mlflow_model,
            standalone=standalone,
            code_paths=code_paths,
            model_signature=signature,
            input_example=input_example,
            metadata=metadata,
            extra_files=extra_files,
            model_config=settings,
            borrows=borrows,
        )
    except BaseException as error:
        if mine:  # half a model would be in the way of the next attempt
            shutil.rmtree(path, ignore_errors=True)
            if there:
                Path(path).mkdir(exist_ok=True)
        if not isinstance(error, ValueError):
            raise
        raise MlflowException.invalid_parameter_value(str(error)) from error
    write_card(model, Path(path), mlflow_model, standalone, assessment, saved)


def _in_a_run(log: Callable[..., ModelInfo]) -> Callable[..., ModelInfo]:
    """Figures, and the modules as inputs, need a run: a composite gets one where there is none."""

    @functools.wraps(log)
    def logging_to(model: Thing, *arguments: Any, **named: Any) -> ModelInfo:
        if not isinstance(model, Composite) or named.get("run_id") or mlflow.active_run():
            return log(model, *arguments, **named)
        with own_run(MlflowClient(), named.get("name") or "composite") as run_id:
            return log(model, *arguments, **{**named, "run_id": run_id})

    return logging_to


@_in_a_run
def log_model(
    model: Thing,
    artifact_path: str | None = None,
    conda_env: Any = None,
    code_paths: list[str] | None = None,
    registered_model_name: str | None = None,
    signature: ModelSignature | None = None,
    input_example: Any = None,
    await_registration_for: int | None = DEFAULT_AWAIT_MAX_SLEEP_SECONDS,
    pip_requirements: Any = None,
    extra_pip_requirements: Any = None,
    metadata: dict[str, Any] | None = None,
    extra_files: list[str] | None = None,
    name: str | None = None,
    params: dict[str, Any] | None = None,
    tags: dict[str, Any] | None = None,
    model_type: str | None = None,
    step: int = 0,
    model_id: str | None = None,
    standalone: bool = False,
    evaluate_on: Any = None,
    evaluated_on: str = "given rows",
    first_alias: bool = True,
    emissions: Measurement | None = None,
    instead_of: Measurement | None = None,
    **kwargs: Any,
) -> ModelInfo:
    """Log a parent, a module or a composite as an MLflow model.

    A module is logged without its parent, which it names by digest and model id. A parent that is
    not on the tracking server yet is logged first, once, in the same run. A composite is logged in
    a run of its own where none is active.

    Args:
        model: what to log.
        artifact_path: deprecated by MLflow; use ``name``.
        conda_env: as for :func:`save_model`.
        code_paths: as for :func:`save_model`.
        registered_model_name: register it under this name, as a new version.
        signature: as for :func:`save_model`.
        input_example: as for :func:`save_model`.
        await_registration_for: seconds to wait for the version to be ready.
        pip_requirements: as for :func:`save_model`.
        extra_pip_requirements: as for :func:`save_model`.
        metadata: as for :func:`save_model`.
        extra_files: as for :func:`save_model`.
        name: of the LoggedModel; by default made from the label, or ``parent``, ``composite``.
        params: of the LoggedModel.
        tags: of the LoggedModel and the version, besides ``rnnmod.kind``, ``rnnmod.label`` and
            ``rnnmod.parent``.
        model_type: instead of ``rnnmod-parent``, ``rnnmod-module`` or ``rnnmod-composed``.
        step: of the run, at which it is logged.
        model_id: of a LoggedModel that was made before, to be filled in.
        standalone: for a module, whether its parent goes along.
        evaluate_on: for a composite: inputs and what is right for them. Its page then begins with
            how good it is, beside its parents, and shows each label's figures.
        evaluated_on: what these rows are, in words.
        first_alias: for a composite that is registered: whether its version gets the alias
            ``champion`` where the registered model has no alias yet.
        emissions: for a composite: what making it emitted (:func:`mlflow_rnnmod.measured`). Its
            page and its params then say so.
        instead_of: what training in its place emitted: page and params say what reuse saved.
        kwargs: ``model_config`` for :func:`save_model`, ``run_id`` and what else
            ``mlflow.models.Model.log`` takes.

    Returns:
        MLflow's ``ModelInfo``.
    """
    if isinstance(model, Module) and not standalone:
        model = _with_logged_parent(model, kwargs.get("run_id"))
        kwargs = {**kwargs, "borrows": carries_this_code(MlflowClient(), model.parent)}
    if name is None and artifact_path is None and model_id is None:
        name = slug(model.label) if isinstance(model, Module) else kind(model)
    found = assessed(model, evaluate_on, evaluated_on)
    saved_by_reuse = saved_of(model, emissions, instead_of)
    if isinstance(model, Composite):
        kwargs = {**kwargs, "assessment": found, "saved": saved_by_reuse}
        params = {**(saved_by_reuse.params() if saved_by_reuse else {}), **(params or {})}
        if input_example is None:  # ours need not be tried
            kwargs.setdefault("validate_serving_input", False)
    saved = _Saved()
    own_tags = {**model_tags(model), **(tags or {})}
    info = Model.log(
        artifact_path=artifact_path,
        name=name,
        flavor=saved,
        metadata=metadata,
        params={**_params(model), **(params or {})},
        tags=own_tags,
        model_type=model_type or type_of_model(model),
        step=step,
        model_id=model_id,
        model=model,
        conda_env=conda_env,
        code_paths=code_paths,
        signature=signature,
        input_example=input_example,
        pip_requirements=pip_requirements,
        extra_pip_requirements=extra_pip_requirements,
        extra_files=extra_files,
        standalone=standalone,
        **kwargs,
    )
    saved.check(info)
    if registered_model_name is not None:
        version = mlflow.register_model(
            f"models:/{info.model_id}",
            registered_model_name,
            await_registration_for=await_registration_for,
            tags=own_tags,
        )
        info.registered_model_version = version.version
    uri = f"models:/{info.model_id}"
    note = card_of(model, uri, info.model_id, standalone, found, saved_by_reuse)
    MlflowClient().set_logged_model_tags(info.model_id, {record.NOTE: note, **hidden_tags(model)})
    if isinstance(model, Composite):
        present(model, info, found, registered_model_name, first_alias)
    if isinstance(model, Parent):
        parents.remember(model.known_as(info.model_id, download.server()))
    return info


class _Saved:
    """This flavor, as ``Model.log`` asks for it, and what it has saved."""

    __name__ = PACKAGE.name

    def __init__(self) -> None:
        self._digests: dict[str, str] = {}

    def save_model(self, path: str, **arguments: Any) -> None:
        """As the flavor does."""
        save_model(path=path, **arguments)
        self._digests = digests_in(Path(path, download.DATA))

    def check(self, info: ModelInfo) -> None:
        """Whether what MLflow has sent is there; it says that a model is ready before."""
        try:
            location = f"{info.artifact_path}/{download.DATA}"
            check_stored(location, self._digests, f"Model {info.model_id}")
        except MlflowException:
            client = MlflowClient()
            client.finalize_logged_model(info.model_id, LoggedModelStatus.FAILED)
            client.delete_logged_model(info.model_id)
            raise


def _params(thing: Thing) -> dict[str, str]:
    """What MLflow's list of models shows of a model: its params are columns there."""
    if isinstance(thing, Parent):
        return record.parent_params(thing)
    if isinstance(thing, Module):
        return record.module_params(thing, thing.parent.model_id or "bundled", None)
    parents = {module.parent.digest for module in thing.modules}
    return {
        "labels": str(len(thing.labels)),
        "output": thing.output,
        "score": thing.score,
        "parents": str(len(parents)),
    }


def _with_logged_parent(module: Module, run_id: str | None) -> Module:
    """The module with a parent that the current tracking server has."""
    model_id = parents.logged_id(module.parent)
    if model_id is None:
        run: dict[str, Any] = {} if run_id is None else {"run_id": run_id}
        model_id = log_model(module.parent, **run).model_id
    return replace(module, parent=module.parent.known_as(model_id, download.server()))


def carries_this_code(client: MlflowClient, parent: Parent) -> bool:
    """Whether a parent's model brings the package, as it is now, for modules to find there."""
    if own_requirement() is not None or parent.model_id is None:
        return False
    try:
        tags = client.get_logged_model(parent.model_id).tags
    except MlflowException:
        return False
    return bool(tags.get(code.TAG) == code.archive_digest())


@asks(always=False)
def load_model(model_uri: str | Path, dst_path: str | None = None) -> Thing:
    """Load a parent, a module or a composite.

    No code from the model is run, and nothing is unpickled.

    Args:
        model_uri: ``models:/name/version``, ``models:/name@alias``, ``models:/m-...``,
            ``runs:/run/name``, or the folder of a saved model.
        dst_path: where to download to; by default the files are gone after reading.

    Returns:
        What was logged. A module's ``origin`` says from where: ``uri``, ``name`` and ``version``,
        ``model_id``, ``run_id``, ``tracking_uri``.

    Raises:
        MlflowException: if there is no such model, it is of another flavor, a file is not what was
            written, or a module's parent can't be found.
    """
    return fetch.load(model_uri, dst_path)


def _load_pyfunc(path: str, model_config: dict[str, Any] | None = None) -> Any:
    """What ``mlflow.pyfunc.load_model`` calls, with the model's data folder."""
    code.leave_path()
    config = dict(model_config or {})
    if target := config.pop("follow", None):
        from mlflow_rnnmod.tracking.follow import SECONDS, FollowingModel

        every = config.pop("every", None)
        return FollowingModel(target, SECONDS if every is None else float(every), config)
    return RnnmodModel(fetch.read(path), model_config)


def get_default_pip_requirements() -> list[str]:
    """Requirements that every model of this flavor has, pinned to what is installed."""
    return default_requirements()


def get_default_conda_env() -> dict[str, Any]:
    """The conda environment that every model of this flavor has."""
    return _mlflow.mlflow_conda_env(
        additional_pip_deps=[*torch_index(), *get_default_pip_requirements()]
    )
