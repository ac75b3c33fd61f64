"""``mlflow.models.evaluate`` for parents, modules and composites: figures of every label.

MLflow loads this module while it is itself being imported, so that nothing but the base classes is
imported up here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlflow.models.evaluation.base import EvaluationResult, ModelEvaluator

from mlflow_rnnmod.tracking.figures import TOP, answers_by_step, figures, set_figures, top_accuracy

if TYPE_CHECKING:
    import pandas as pd

    from mlflow_rnnmod.answers import Answer

MODEL_TYPES = ("rnnmod", "rnnmod-parent", "rnnmod-module", "rnnmod-composed")
BESIDE = "classifier"
"""A model type that MLflow has an evaluator of its own for; ours adds to it, for our models."""
_MANY = 30


class RnnmodEvaluator(ModelEvaluator):
    """Accuracy over all labels, and precision, recall and F1 of each.

    Rows whose true label the model does not have count as "none of these", the answer that a model
    gives where nothing scores high enough; so a single module is judged by whether it says yes to
    its own label and no to all others. Models of more than five labels, of which one is answered,
    have ``top5_accuracy``, too: how often the right one is among the five that score highest.

    Logged to the run and, with the dataset's name and digest, to the LoggedModel: ``accuracy``,
    ``precision_macro``, ``recall_macro``, ``f1_macro``, ``rows``; for up to 30 labels also
    ``precision/<label>``, ``recall/<label>`` and ``f1/<label>``, with labels as in names of models.
    The table ``per_label.csv`` always has all of them. With ``model_type="classifier"`` MLflow's
    own figures stand beside these. The LoggedModel gets one set, whichever way it was named.

    Where each answer is a list of labels, true labels are lists, too. A label for each step: every
    step counts as a row does above, and ``steps`` are logged beside ``rows``; steps whose true
    label is ``None`` are left out. Several labels, and lists: ``f1``, ``precision`` and ``recall``
    over all rows and labels alike (micro-average), ``exact``, the share of rows whose labels are
    all right, and the same figures of each label; the label that ends a list counts as none.

    ``evaluator_config``: ``per_label`` (bool) says whether the labels' metrics are logged,
    ``metric_prefix`` goes before every name, ``params`` go to the model's ``predict``, ``output``
    says what kind predictions without a model are, where they are lists (``"tags"``, or
    ``"multilabel"``, the default).

    Example::

        mlflow.models.evaluate(
            "models:/european/1", frame, targets="language", model_type="rnnmod"
        )
    """

    name = "rnnmod"

    @classmethod
    def can_evaluate(cls, *, model_type: str, evaluator_config: Any, **_: Any) -> bool:
        """Whether ``model_type`` is one of this flavor's; MLflow asks every evaluator there is.

        Models are not known here, so that classifiers of other flavors are left alone later.
        """
        return model_type in (*MODEL_TYPES, BESIDE)

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
    ) -> EvaluationResult | None:
        """Called by ``mlflow.models.evaluate``; ``None`` for other flavors' classifiers."""
        from mlflow.exceptions import MlflowException

        config = evaluator_config or {}
        beside = model_type == BESIDE
        if beside and _labels_of(model) is None:
            return None
        if dataset.labels_data is None:
            raise MlflowException.invalid_parameter_value(
                "The data have no true labels; expected targets= to name their column."
            )
        if (extra_metrics or custom_artifacts) and not beside:
            raise MlflowException.invalid_parameter_value(
                "extra_metrics and custom_artifacts are computed by MLflow's own evaluator, not by "
                "'rnnmod'; give model_type='classifier' and name no evaluator for both: its "
                "figures and ours then stand beside each other."
            )
        if model is None:
            found, labels, ending = dataset.predictions_data, None, None
        else:
            labels, ending = _labels_of(model), _ending_of(model)
            params = dict(config.get("params") or {})
            if labels is not None and len(labels) > TOP and _says_one(model):
                params["scores"] = True
            found = model.predict(dataset.features_data, **({"params": params} if params else {}))
        if found is None:
            raise MlflowException.invalid_parameter_value(
                "There is no model and there are no predictions; expected one of them."
            )
        answers = _answers(found, predictions)
        truth = _answers(dataset.labels_data, None)
        answer = _answer_of(model, config.get("output"))
        try:
            if answer is not None and answer.each_step:
                wanted, given = answers_by_step(truth, answers)
                overall, table = figures(wanted, given, labels or sorted({*wanted, *given}))
                overall = {**overall, "rows": float(len(truth)), "steps": overall["rows"]}
            elif any(isinstance(row, list) for row in [*truth, *answers]):
                overall, table = set_figures(truth, answers, labels, ending)
            else:
                names = labels or sorted({*truth, *answers})
                overall, table = figures(truth, answers, names)
                if labels is not None and hasattr(found, "columns") and len(labels) > TOP:
                    overall[f"top{TOP}_accuracy"] = top_accuracy(truth, found[list(labels)])
        except ValueError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        metrics = dict(overall)
        if config.get("per_label", len(table) <= _MANY):
            metrics.update(_by_label(table))
        prefix = config.get("metric_prefix", "")
        metrics = {f"{prefix}{name}": value for name, value in metrics.items()}
        # Where MLflow was told the model's id it logs all results to the model by itself; a model
        # that was named by an alias, a run or a folder has to be told apart here.
        told = None if model_id else _Told(_id_of(model))
        artifact = _log(run_id, metrics, table, dataset, told, f"{prefix}per_label")
        return EvaluationResult(metrics=metrics, artifacts={f"{prefix}per_label": artifact})


@dataclass(frozen=True)
class _Told:
    """Whom metrics are still to be told of: the run, and the model where it was logged."""

    model_id: str | None


def _id_of(model: Any) -> str | None:
    """Id of the LoggedModel that was loaded; ``None`` where it is none, or not there any more."""
    from mlflow import MlflowClient

    found = getattr(getattr(model, "metadata", None), "model_id", None)
    try:
        return MlflowClient().get_logged_model(found).model_id if found else None
    except Exception:  # of another server, or deleted: the run has the figures all the same
        return None


def _raw(model: Any) -> Any:
    return model.get_raw_model() if hasattr(model, "get_raw_model") else None


def _labels_of(model: Any) -> tuple[str, ...] | None:
    """The labels of one of our models; ``None`` for any other."""
    raw = _raw(model)
    if hasattr(raw, "contract"):
        return (raw.label,)
    return tuple(raw.labels) if hasattr(raw, "labels") else None


def _answer_of(model: Any, output: str | None) -> Answer | None:
    """What one of our models answers; for any other, what was said of it."""
    from mlflow_rnnmod.answers import ANSWERS
    from mlflow_rnnmod.tracking.directory import answer_in

    if _labels_of(model) is None:
        return ANSWERS.get(output or "")
    return answer_in(_raw(model))


def _says_one(model: Any) -> bool:
    """Whether one of our models answers one label a row."""
    answer = _answer_of(model, None)
    return answer is not None and answer.rivals and answer.scored and not answer.stepwise


def _ending_of(model: Any) -> str | None:
    """The label that ends the lists of one of our models."""
    raw = _raw(model)
    owner = getattr(raw, "contract", getattr(getattr(raw, "network", None), "config", raw))
    return getattr(owner, "end_label", None)


def _answers(found: Any, column: str | None) -> list[Any]:
    """Answers, or true labels, as a list of texts or of lists of them; of a table, one column."""
    import pandas as pd

    if isinstance(found, pd.DataFrame):
        found = found[column or found.columns[0]]
    return [_cell(cell) for cell in found]


def _cell(cell: Any) -> Any:
    cell = cell.tolist() if hasattr(cell, "tolist") and not isinstance(cell, str) else cell
    if isinstance(cell, list | tuple | set | frozenset):
        return [None if y is None else str(y) for y in cell]
    return str(cell)


def _by_label(table: pd.DataFrame) -> dict[str, float]:
    from mlflow_rnnmod.tracking.names import slugs

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
    told: _Told | None,
    name: str,
) -> Any:
    import tempfile
    import time
    from pathlib import Path

    from mlflow import MlflowClient
    from mlflow.entities import Metric
    from mlflow.models.evaluation.artifacts import CsvEvaluationArtifact

    from mlflow_rnnmod.tracking.record import log_metrics

    client, now = MlflowClient(), int(time.time() * 1000)
    entities = []
    if told is not None:
        where = {
            "model_id": told.model_id,
            "dataset_name": dataset.name,
            "dataset_digest": dataset.digest,
            "run_id": run_id,
        }
        entities = [Metric(key, value, now, 0, **where) for key, value in metrics.items()]
    log_metrics(client, run_id, entities)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{name}.csv")
        table.to_csv(path, index=False)
        client.log_artifact(run_id, str(path))
    uri = f"{client.get_run(run_id).info.artifact_uri}/{path.name}"
    return CsvEvaluationArtifact(uri=uri, content=table)
