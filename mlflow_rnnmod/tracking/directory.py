"""The folder of one MLflow model: what it holds, and what MLflow is told about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from mlflow import pyfunc
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.models.model import MLMODEL_FILE_NAME
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Array, TensorSpec

from mlflow_rnnmod.answers import NONE_OF_THESE, Answer, answer_of
from mlflow_rnnmod.composition import Composite
from mlflow_rnnmod.decomposition.module import Module
from mlflow_rnnmod.inputs import input_of
from mlflow_rnnmod.networks import Parent
from mlflow_rnnmod.storage import FORMAT, write_composite, write_module, write_parent
from mlflow_rnnmod.tracking import _mlflow, code, download, recipes
from mlflow_rnnmod.tracking.code import FLAVOR_NAME, PACKAGE
from mlflow_rnnmod.tracking.columns import WORDS, column_type
from mlflow_rnnmod.tracking.environment import (
    EnvironmentFiles,
    environment_files,
    own_requirement,
)
from mlflow_rnnmod.tracking.pyfunc import DEFAULTS
from mlflow_rnnmod.tracking.uses import uses_tags

Thing: TypeAlias = Parent | Module | Composite

_CELLS: dict[str, Any] = {
    "text": DataType.string,
    "texts": Array(DataType.string),
    "ids": Array(DataType.long),
}
# What can be asked for where answers have scores, and where they are routed by language.
_SCORED = ParamSchema(
    [
        ParamSpec("scores", "boolean", False),
        ParamSpec("reject_below", "double", None),
        ParamSpec("reject_label", "string", NONE_OF_THESE),
    ]
)
_ROUTED = ParamSchema(
    [ParamSpec("target", DataType.string, None), ParamSpec("beams", DataType.long, 1)]
)


def kind(thing: Thing) -> str:
    """``"parent"``, ``"module"`` or ``"composite"``.

    Raises:
        MlflowException: if it is something else.
    """
    for name, found in (("parent", Parent), ("module", Module), ("composite", Composite)):
        if isinstance(thing, found):
            return name
    raise MlflowException.invalid_parameter_value(
        f"The model is a {type(thing).__name__}; expected a Parent, a Module or a Composite of "
        "mlflow_rnnmod. A trained network becomes modules by mlflow_rnnmod.decompose or the "
        "callback lightning_callbacks.ModuleDecomposition."
    )


def input_kind(thing: Thing) -> str:
    """Name of the input: ``"text"``, ``"tokens"``, ``"features"`` or ``"vectors"``."""
    return thing.contract.input if isinstance(thing, Module) else thing.input_kind


def type_of_model(thing: Thing) -> str:
    """The type of its LoggedModel, by which it can be searched."""
    return {"composite": "rnnmod-composed"}.get(kind(thing), f"rnnmod-{kind(thing)}")


def model_tags(thing: Thing) -> dict[str, str]:
    """Tags of its LoggedModel: ``rnnmod.kind``, and ``rnnmod.label`` and ``rnnmod.parent``.

    The parent's tag is its digest; a parent that is no longer under its id is searched for by it.
    """
    tags = {"rnnmod.kind": kind(thing)}
    if isinstance(thing, Module):
        # Tags are limited; the whole label is in module.json.
        tags.update({"rnnmod.label": thing.label[:1000], "rnnmod.parent": thing.parent.digest})
    elif isinstance(thing, Parent):
        tags["rnnmod.parent"] = thing.digest
    else:
        tags.update({"rnnmod.score": thing.score, **uses_tags(thing)})
    return tags


def hidden_tags(thing: Thing) -> dict[str, str]:
    """More tags of its LoggedModel, which no list of versions should show: long digests."""
    if isinstance(thing, Parent) and own_requirement() is None:
        return {code.TAG: code.archive_digest()}
    return {}


def size_of(thing: Thing) -> Any:
    """Size of its vocabulary, of one vector, or of images."""
    return thing.contract.input_size if isinstance(thing, Module) else thing.input_size


def answer_in(thing: Thing) -> Answer:
    """What goes out."""
    if isinstance(thing, Parent):
        return thing.network.config.answer
    return thing.contract.answer if isinstance(thing, Module) else thing.answer


def labels_of(thing: Thing) -> tuple[str, ...]:
    """What it answers for."""
    return (thing.label,) if isinstance(thing, Module) else thing.labels


def signature_for(
    kind_of_input: str,
    output: str = "label",
    labels: Sequence[str] = (),
    words: bool = False,
    size: Any = None,
) -> ModelSignature:
    """The signature of every model that reads this kind of input, and gives this kind of answer.

    Text comes in a column ``text``, token ids as lists of integers in a column ``tokens``, features
    as a list of vectors, one a step, in a column ``features``, single vectors as a list of numbers
    in a column of that name, files of images (PNG or JPEG) in a column ``image`` of bytes, images
    that are prepared already as one array ``(rows, channels, height, width)``. Labels come out as a
    1-D array, lists of labels as a column ``prediction`` of lists (for Spark,
    ``mlflow.pyfunc.spark_udf`` has to be told by ``result_type="prediction array<string>"``).

    Args:
        kind_of_input: ``"text"``, ``"tokens"``, ``"features"``, ``"vectors"``, ``"images"`` or
            ``"pixels"``.
        output: ``"label"``, ``"multilabel"``, ``"tags"``, ``"list"`` or ``"translation"``.
        labels: of translations, the languages that there is a column for, if several.
        words: for texts whose steps have a label each: they come as lists of words, in a column
            ``words``. Give it as ``signature=`` to :func:`~mlflow_rnnmod.log_model`.
        size: of prepared images: channels, height, width.
    """
    reads = input_of(kind_of_input)
    column: Any = ColSpec(column_type(reads.column_type), reads.column)
    if reads.tensor and size is not None:
        column = TensorSpec(np.dtype("float32"), (-1, *size))
    if words:
        column = ColSpec(Array(DataType.string), WORDS)
    answer = answer_of(output)
    form = answer.form(labels, kind_of_input)
    # Columns have names, for Spark: MLflow makes text of lists that are no field of a struct.
    names: Sequence[str | None] = form.columns or (None,)
    return ModelSignature(
        inputs=Schema([column]),
        outputs=Schema([ColSpec(_CELLS[form.cell], name) for name in names]),
        params=_SCORED if answer.scored else _ROUTED,
    )


def model_directory(
    thing: Thing,
    path: str | Path,
    environment: EnvironmentFiles | None = None,
    mlflow_model: Model | None = None,
    *,
    standalone: bool = False,
    code_paths: list[str] | None = None,
    model_signature: ModelSignature | None = None,
    input_example: Any = None,
    metadata: dict[str, Any] | None = None,
    extra_files: list[str] | None = None,
    model_config: Mapping[str, Any] | None = None,
    borrows: bool = False,
) -> Model:
    """Write a whole MLflow model into a folder, without asking a tracking server anything.

    For one module it takes milliseconds, where ``environment`` was made once before.

    Args:
        thing: parent, module or composite.
        path: the folder; made where it is missing, and empty.
        environment: what :func:`environment_files` gave; made here where it is missing.
        mlflow_model: what to fill in; for a LoggedModel ``Model(artifact_path=, model_uuid=,
            run_id=, model_id=)`` with its ids, as MLflow does.
        standalone: for a module: with its parent.
        code_paths: code of the user's own, put beside this package's.
        model_signature: instead of the one that :func:`signature_for` makes.
        input_example: stored as an example of the model's input; a composite has a made-up one.
        metadata: stored in ``MLmodel``.
        extra_files: copied to ``extra_files``.
        model_config: instead of :data:`DEFAULTS`.
        borrows: for a module: whether its parent's model carries the package's code, as it is now.

    Returns:
        ``mlflow_model``, as it was saved in ``MLmodel``.
    """
    path = Path(path).absolute()
    what = kind(thing)
    _mlflow.prepare_target_path(str(path))
    model = Model() if mlflow_model is None else mlflow_model
    model.signature = model_signature or signature_for(
        input_kind(thing), answer_in(thing).name, labels_of(thing), size=size_of(thing)
    )
    if metadata is not None:
        model.metadata = metadata
    if input_example is None and model_signature is None:
        input_example = _example(thing)
    _mlflow.save_example(model, input_example, str(path))
    _write(thing, path / download.DATA, standalone)
    if isinstance(thing, Composite):
        (path / recipes.FILE).write_text(recipes.recipe_text(thing), encoding="utf-8")
    carried = _write_code(thing, path, standalone, code_paths, borrows)
    extra = _mlflow.copy_extra_files(extra_files, str(path))
    # "code: null" in MLmodel breaks readers that only ask whether the key is there.
    named = {} if carried is None else {"code": carried}
    model.add_flavor(FLAVOR_NAME, kind=what, format=FORMAT, data=download.DATA, **named, **extra)
    pyfunc.add_to_model(
        model,
        loader_module=PACKAGE.name,
        data=download.DATA,
        code=carried,
        conda_env=_mlflow.CONDA_ENV,
        python_env=_mlflow.PYTHON_ENV,
        model_config={**DEFAULTS, **(model_config or {})},
    )
    if size := _mlflow.get_total_file_size(str(path)):
        model.model_size_bytes = size
    model.save(str(path / MLMODEL_FILE_NAME))
    (environment or environment_files()).write(path)
    return model


def _example(thing: Thing) -> Any:
    """A made-up row for a composite; none of arrays of images, which would be the largest file."""
    reads = input_of(input_kind(thing))
    if not isinstance(thing, Composite) or reads.tensor:
        return None
    made_up = [reads.made_up(thing.input_size)]
    return pd.DataFrame({reads.column: pd.Series(made_up, dtype=object)})


def _write(thing: Thing, data: Path, standalone: bool) -> None:
    if isinstance(thing, Parent):
        write_parent(thing, data)
    elif isinstance(thing, Module):
        write_module(thing, data, standalone)
    else:
        write_composite(thing, data)


def _write_code(
    thing: Thing, path: Path, standalone: bool, code_paths: list[str] | None, borrows: bool
) -> str | None:
    """The code that goes along, below ``path``; ``None`` without any."""
    given = _mlflow.copy_code_paths(code_paths, str(path))
    if own_requirement() is not None:
        return given
    if isinstance(thing, Module) and borrows and not standalone and thing.parent.model_id:
        return code.borrow(path, thing.parent.model_id, thing.parent.tracking_uri)
    return code.carry(path)
