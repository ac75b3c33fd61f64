"""What MLflow is told about a decomposition besides files: params, tags, metrics, data."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, RunTag
from mlflow.exceptions import MlflowException

import mlflow_rnnmod
from mlflow_rnnmod.networks.digest import digest_tensors
from mlflow_rnnmod.pages.wording import figure_rows, percent, removal_words

if TYPE_CHECKING:
    from mlflow_rnnmod.decomposition import Decomposition
    from mlflow_rnnmod.decomposition.module import Module
    from mlflow_rnnmod.networks import Parent

NOTE = "mlflow.note.content"
_NOTE_TITLE = "## Modules of this run's network"
_TABLES = "mlflow.loggedArtifacts"
_LONGEST_PARAM = 6000
_LONGEST_NOTE = 8000
_VERSION = {"precision": "precision", "recall": "recall", "bleu": "BLEU"}


def fingerprint(parent: Parent) -> str:
    """SHA-256 over how a parent reads its input: tokenizer, embedding and shape, not its knowledge.

    Modules whose parents share it were made of networks that could have been one another's start.
    """
    tensors, shape = parent.network.reading()
    tokenizers: dict[str, Any] = {"tokenizer": parent.encoder}
    if not parent.network.config.answer.scored:
        tokenizers["writer"] = parent.writer
    digests = {name: t.digest if t else None for name, t in tokenizers.items()}
    return digest_tensors(tensors, {**shape, **digests})


def shared_tags(parent: Parent) -> dict[str, str]:
    """Tags that all models of one decomposition have."""
    return {"rnnmod.fingerprint": fingerprint(parent), "rnnmod.version": mlflow_rnnmod.__version__}


def parent_params(parent: Parent) -> dict[str, str]:
    """Params of the parent's LoggedModel: columns in MLflow's list of models."""
    known = {"digest": parent.digest, "labels": len(parent.labels)}
    return _params({**known, **parent.network.params()})


def module_params(module: Module, parent_model_id: str, dataset: Dataset | None) -> dict[str, str]:
    """Params of a module's LoggedModel."""
    return _params(
        {
            "label": module.label,
            "index": module.contract.index,
            "output": module.contract.output,
            **module.parent.network.params(),
            "kept_units": module.trunk.kept,
            "kept_fraction": round(module.trunk.kept / module.trunk.total, 4),
            "parent_model_id": parent_model_id,
            "dataset": dataset.name if dataset else figure_rows(module.made) or "unknown",
            "technique": removal_words(module.made).replace("`", ""),
            "repairs": _words(module.made.get("repairs")),
        }
    )


def model_metrics(
    decomposition: Decomposition,
    parent_model_id: str | None,
    model_ids: Mapping[str, str],
    run_id: str,
    start: int,
    dataset: Dataset | None,
) -> list[Metric]:
    """Figures of all models, each beside its model and the data set.

    MLflow puts them on the run too, under the same names. So that they do not stand in for a metric
    of the user's own there, they are dated at the run's start; and a millisecond apart, because of
    equal values at one moment it keeps one.

    Args:
        decomposition: where the figures are.
        parent_model_id: the parent's LoggedModel; ``None`` where it has its figures already, which
            MLflow would refuse a second time.
        model_ids: the modules', by label.
        run_id: the run.
        start: when it began, in milliseconds.
        dataset: which rows the figures come from.
    """
    figures = [(parent_model_id, parent_figures(decomposition))] if parent_model_id else []
    figures += [(model_ids[m.label], dict(m.figures)) for m in decomposition.modules]
    extra = {"dataset_name": dataset.name, "dataset_digest": dataset.digest} if dataset else {}
    return [
        Metric(name, float(value), start + moment, 0, model_id=model_id, run_id=run_id, **extra)
        for moment, (model_id, found) in enumerate(figures)
        for name, value in found.items()
        if _is_figure(value)
    ]


def run_metrics(decomposition: Decomposition, now: int) -> list[Metric]:
    """Figures of the whole decomposition, for the run."""
    figures = {**decomposition.figures, "seconds": decomposition.seconds}
    return [
        Metric(f"rnnmod/{name}", float(value), now, 0)
        for name, value in figures.items()
        if _is_figure(value)
    ]


def run_tags(
    decomposition: Decomposition, present: Mapping[str, str], summary: str, table: str
) -> list[RunTag]:
    """Tags of the run; what others wrote into its description or list of tables stays.

    Args:
        decomposition: what was logged.
        present: the run's tags as they are.
        summary: Markdown for the description.
        table: path of the table that MLflow is to show as one.
    """
    own = present.get(NOTE, "").partition(_NOTE_TITLE)[0].rstrip()
    note = f"{own}\n\n{_NOTE_TITLE}\n\n{summary}".lstrip()
    tables = json.loads(present.get(_TABLES) or "[]")
    entry = {"path": table, "type": "table"}
    tags = {
        "rnnmod.role": "decomposition",
        "rnnmod.parent": decomposition.parent.digest,
        "rnnmod.version": mlflow_rnnmod.__version__,
        _TABLES: json.dumps(tables if entry in tables else [*tables, entry]),
        NOTE: note if len(note) <= _LONGEST_NOTE else present.get(NOTE, ""),
    }
    return [RunTag(key, value) for key, value in tags.items()]


def dataset_entity(dataset: Any) -> Dataset | None:
    """A data set as MLflow's servers know it.

    Raises:
        MlflowException: if it is not one of ``mlflow.data``.
    """
    if dataset is None or isinstance(dataset, Dataset):
        return dataset
    try:
        found = dataset.to_dict()
        return Dataset(
            name=found["name"],
            digest=found["digest"],
            source_type=found["source_type"],
            source=found["source"],
            schema=found.get("schema"),
            profile=found.get("profile"),
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise MlflowException.invalid_parameter_value(
            f"dataset is a {type(dataset).__name__}; expected a dataset of mlflow.data, as "
            "mlflow.data.from_pandas or mlflow.data.from_numpy make."
        ) from error


def dataset_input(dataset: Dataset) -> DatasetInput:
    """The data set as an input that something was tested on."""
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "test")])


def version_words(module: Module) -> str:
    """One line for a registered version: what a reader of the list of versions looks for."""
    figures = module.figures
    words = [f"{module.trunk.kept} of {module.trunk.total} units kept"]
    words += [
        f"{said} {percent(figures[name])}" for name, said in _VERSION.items() if name in figures
    ]
    rows = figure_rows(module.made)
    return ", ".join(words) + (f"; measured on {rows}" if rows else "")


def parent_figures(decomposition: Decomposition) -> dict[str, float]:
    """The parent's own figures, by the name of what they measure."""
    figures = decomposition.figures
    known = {name: figures.get(f"parent_{name}") for name in (decomposition.metric, "exact")}
    return {name: value for name, value in known.items() if value is not None}


def _params(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value)[:_LONGEST_PARAM] for name, value in values.items()}


def _words(repairs: Iterable[str] | str | None) -> str:
    return repairs if isinstance(repairs, str) else ", ".join(repairs or ()) or "none"


def _is_figure(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
