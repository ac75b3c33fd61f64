"""A model's figures on rows, label by label, for the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.exceptions import MlflowException

from mlflow_rnnmod.tracking import fetch
from mlflow_rnnmod.tracking.directory import answer_in, labels_of
from mlflow_rnnmod.tracking.figures import figures, set_figures
from mlflow_rnnmod.tracking.given import TARGETS, Given
from mlflow_rnnmod.tracking.probe import answers_in
from mlflow_rnnmod.tracking.pyfunc import RnnmodModel

if TYPE_CHECKING:
    import pandas as pd

    from mlflow_rnnmod.tracking.directory import Thing


def measure(
    uri: str, thing: Thing, rows: Given, log: bool = True
) -> tuple[dict[str, float], pd.DataFrame]:
    """Figures over all rows and a table of each label's; logged to the model, too.

    Args:
        uri: of the model, by which MLflow's evaluation finds it.
        thing: the model.
        rows: with what is right.
        log: whether ``mlflow.models.evaluate`` logs them, in a run of its own.

    Raises:
        MlflowException: if answers and what is right do not fit.
    """
    answer = answer_in(thing)
    if not answer.scored:
        raise MlflowException.invalid_parameter_value(
            f"{uri} translates; expected a model that answers labels. Two translating models are "
            "compared by diff OLD NEW --data."
        )
    answers = answers_in(RnnmodModel(thing).predict(rows.inputs))
    labels = list(labels_of(thing))
    try:
        if answer.each_step:
            pairs = [
                (str(right), said)
                for rights, saids in zip(rows.targets, answers, strict=True)
                for right, said in zip(rights, saids, strict=True)
                if right is not None
            ]
            found = figures([r for r, _ in pairs], [s for _, s in pairs], labels)
        elif answer.metric == "accuracy":
            found = figures(rows.targets, answers, labels)
        else:
            found = set_figures(rows.targets, answers, labels, getattr(thing, "end_label", None))
    except ValueError as error:
        raise MlflowException.invalid_parameter_value(str(error)) from error
    if log:
        _log(uri, rows)
    return found


def _log(uri: str, rows: Given) -> None:
    table: Any = rows.table.copy()
    target = "_right"
    table[target] = rows.targets
    table = table[[c for c in table.columns if c not in TARGETS or c == target]]
    # By its id: figures of a version belong to the model that it is a version of.
    model_id = fetch.model_id_of(fetch.origin_of(uri))
    known = {} if model_id is None else {"model_id": model_id}
    uri = f"models:/{model_id}" if model_id else uri
    with mlflow.start_run(run_name="evaluation"):
        mlflow.models.evaluate(uri, table, targets=target, model_type="rnnmod", **known)
