"""Translations as MLflow hands them over: params, columns and their types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Array

from mlflow_rnnmod.composition.translation import TranslatingComposite

PREDICTION = "prediction"

PARAMS = ParamSchema(
    [ParamSpec("target", DataType.string, None), ParamSpec("beams", DataType.long, 1)]
)
"""What can be asked for: the language (all, where nothing is said), and how carefully."""


def outputs_of(kind_of_input: str, labels: Sequence[str]) -> Schema:
    """What comes out where no target is asked for: translations, or a column for each language.

    Args:
        kind_of_input: ``"text"``, or ``"tokens"``: ids come out then, too.
        labels: the languages.
    """
    one = DataType.string if kind_of_input == "text" else Array(DataType.long)
    if len(labels) > 1:
        return Schema([ColSpec(one, label) for label in labels])
    return Schema([ColSpec(one) if kind_of_input == "text" else ColSpec(one, PREDICTION)])


def translate(
    composite: TranslatingComposite,
    inputs: list[Any],
    params: Mapping[str, Any],
    batch_size: int,
) -> np.ndarray | pd.DataFrame:
    """Translations of some inputs.

    Args:
        composite: what is asked.
        inputs: as :func:`~mlflow_rnnmod.tracking.columns.read_inputs` gives them.
        params: ``target`` (None: all languages) and ``beams`` (1).
        batch_size: sources read at once.

    Returns:
        A 1-D array of texts, or where several languages are asked for a DataFrame with a column for
        each. Lists of token ids come in a column ``prediction``.

    Raises:
        MlflowException: if a param does not fit.
    """
    target, beams = params.get("target"), params.get("beams")
    beams = 1 if beams is None else beams
    beams = beams.item() if isinstance(beams, np.generic) else beams
    try:
        found = composite.predict(inputs, target or None, beams, batch_size)
    except (ValueError, TypeError) as error:
        raise MlflowException.invalid_parameter_value(str(error)) from error
    several = len(composite.labels) > 1 and not target
    if several:
        columns = {label: [row[label] for row in found] for label in composite.labels}
        return pd.DataFrame({name: pd.Series(c, dtype=object) for name, c in columns.items()})
    if composite.input_kind == "text":
        return np.array(found, dtype=object)
    return pd.DataFrame({PREDICTION: pd.Series(found, dtype=object)})
