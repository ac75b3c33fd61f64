"""``mlflow.models.evaluate`` for parents, modules and composites: figures of every label.

MLflow loads this module while it is itself being imported, so that nothing but the base classes is
imported up here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mlflow.models.evaluation.base import EvaluationResult, ModelEvaluator

if TYPE_CHECKING:
    import pandas as pd

MODEL_TYPES = ("rnnmod", "rnnmod-parent", "rnnmod-module", "rnnmod-composed")
_MANY = 30


class RnnmodEvaluator(ModelEvaluator):
    """Accuracy over all labels, and precision, recall and F1 of each.

    Rows whose true label the model does not have count as "none of these", the answer that a model
    gives where nothing scores high enough; so a single module is judged by whether it says yes to
    its own label and no to all others.

    Logged to the run and, with the dataset's name and digest, to the LoggedModel: ``accuracy``,
    ``precision_macro``, ``recall_macro``, ``f1_macro``, ``rows``; for up to 30 labels also
    ``precision/<label>``, ``recall/<label>`` and ``f1/<label>``, with labels as in names of models.
    The table ``per_label.csv`` always has all of them.

    ``evaluator_config``: ``per_label`` (bool) says whether the labels' metrics are logged,
    ``metric_prefix`` goes before every name, ``params`` go to the model's ``predict``.

    Example::

        mlflow.models.evaluate(
            "models:/european/1", frame, targets="language", model_type="rnnmod"
        )
    """

    name = "rnnmod"

    @classmethod
    def can_evaluate(cls, *, model_type: str, evaluator_config: Any, **_: Any) -> bool:
        """Whether ``model_type`` is one of this flavor's; MLflow asks every evaluator there is."""
        return model_type in MODEL_TYPES

    def evaluate(
        self,
        *,
        model_type: str,
        dataset: Any,
        run_id: str,
        evaluator_config: dict[str, Any] | None,
        model: Any = None,
        extra_metrics: Any = None,
        custom_artifacts: Any = None,
        predictions: str | None = None,
        model_id: str | None = None,
        **_: Any,
    ) -> EvaluationResult:
        """Called by ``mlflow.models.evaluate``.

        Raises:
            MlflowException: if there are no true labels, or nothing to compare them with.
        """
        from mlflow.exceptions import MlflowException

        config = evaluator_config or {}
        if dataset.labels_data is None:
            raise MlflowException.invalid_parameter_value(
                "The data have no true labels; expected targets= to name their column."
            )
        if extra_metrics or custom_artifacts:
            raise MlflowException.invalid_parameter_value(
                "extra_metrics and custom_artifacts are not computed by the evaluator 'rnnmod'; "
                "give evaluators=['default', 'rnnmod'] and model_type='classifier' for them."
            )
        truth = [str(label) for label in dataset.labels_data]
        if model is None:
            found, labels = dataset.predictions_data, None
        else:
            params = config.get("params")
            found = model.predict(dataset.features_data, **({"params": params} if params else {}))
            labels = _labels_of(model)
        if found is None:
            raise MlflowException.invalid_parameter_value(
                "There is no model and there are no predictions; expected one of them."
            )
        answers = _labels(found, predictions)
        overall, table = figures(truth, answers, labels or sorted({*truth, *answers}))
        metrics = dict(overall)
        if config.get("per_label", len(table) <= _MANY):
            metrics.update(_by_label(table))
        prefix = config.get("metric_prefix", "")
        metrics = {f"{prefix}{name}": value for name, value in metrics.items()}
        artifact = _log(run_id, metrics, table, dataset, model_id, f"{prefix}per_label")
        return EvaluationResult(metrics=metrics, artifacts={f"{prefix}per_label": artifact})


def figures(
    truth: Sequence[str], answers: Sequence[str], labels: Sequence[str]
) -> tuple[dict[str, float], pd.DataFrame]:
    """Figures over all rows, and a table of each label's.

    Args:
        truth: the true label of each row; any that is none of ``labels`` counts as "none of these".
        answers: the model's label of each row, likewise.
        labels: the model's labels.

    Returns:
        ``accuracy``, the means over ``labels`` ``precision_macro``, ``recall_macro``, ``f1_macro``,
        and ``rows``; and a table with the columns ``label``, ``precision``, ``recall``, ``f1``,
        ``support``. Without rows, all shares are NaN.

    Example:
        >>> overall, table = figures(["a", "b", "x"], ["a", "a", "none of these"], ["a", "b"])
        >>> round(overall["accuracy"], 3), table["recall"].tolist()
        (0.667, [1.0, 0.0])
    """
    import pandas as pd
    import torch
    from torchmetrics.functional.classification import (
        multiclass_f1_score,
        multiclass_precision,
        multiclass_recall,
    )

    # "none of these" comes last; it is answered, but is nobody's label.
    index = {label: number for number, label in enumerate(labels)}
    wanted = torch.tensor([index.get(label, len(labels)) for label in truth], dtype=torch.int64)
    given = torch.tensor([index.get(label, len(labels)) for label in answers], dtype=torch.int64)
    table = pd.DataFrame({"label": list(labels)})
    measures = {
        "precision": multiclass_precision,
        "recall": multiclass_recall,
        "f1": multiclass_f1_score,
    }
    for name, measure in measures.items():
        # torchmetrics refuses to count nothing.
        nothing = torch.full((len(labels) + 1,), torch.nan)
        values = (
            measure(given, wanted, num_classes=len(labels) + 1, average=None) if truth else nothing
        )
        table[name] = values[:-1].double().tolist()
    table["support"] = torch.bincount(wanted, minlength=len(labels) + 1)[:-1].tolist()
    overall = {"accuracy": float((wanted == given).double().mean())}
    overall.update({f"{name}_macro": float(table[name].mean()) for name in measures})
    overall["rows"] = float(len(truth))
    return overall, table


def _labels_of(model: Any) -> tuple[str, ...] | None:
    """The labels of one of our models; ``None`` for any other."""
    raw: Any = model.get_raw_model() if hasattr(model, "get_raw_model") else None
    if hasattr(raw, "contract"):
        return (raw.label,)
    return tuple(raw.labels) if hasattr(raw, "labels") else None


def _labels(found: Any, column: str | None) -> list[str]:
    """A model's answers as a list; of a table, one column."""
    import pandas as pd

    if isinstance(found, pd.DataFrame):
        found = found[column or found.columns[0]]
    return [str(label) for label in found]


def _by_label(table: pd.DataFrame) -> dict[str, float]:
    from mlflow_rnnmod.names import slugs

    names = slugs(table["label"])
    return {
        f"{figure}/{names[row.label]}": float(getattr(row, figure))
        for row in table.itertuples()
        for figure in ("precision", "recall", "f1")
    }


def _log(
    run_id: str,
    metrics: dict[str, float],
    table: pd.DataFrame,
    dataset: Any,
    model_id: str | None,
    name: str,
) -> Any:
    import tempfile
    import time
    from pathlib import Path

    from mlflow import MlflowClient
    from mlflow.entities import Metric
    from mlflow.models.evaluation.artifacts import CsvEvaluationArtifact

    client, now = MlflowClient(), int(time.time() * 1000)
    where = {
        "model_id": model_id,
        "dataset_name": dataset.name,
        "dataset_digest": dataset.digest,
        "run_id": run_id,
    }
    entities = [Metric(key, value, now, 0, **where) for key, value in metrics.items()]
    for start in range(0, len(entities), 1000):
        client.log_batch(run_id, metrics=entities[start : start + 1000])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{name}.csv")
        table.to_csv(path, index=False)
        client.log_artifact(run_id, str(path))
    uri = f"{client.get_run(run_id).info.artifact_uri}/{path.name}"
    return CsvEvaluationArtifact(uri=uri, content=table)
