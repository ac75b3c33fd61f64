"""What MLflow is told about a decomposition besides files: params, tags, metrics, data."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, RunTag
from mlflow.exceptions import MlflowException

from mlflow_rnnmod._digest import digest_tensors
from mlflow_rnnmod.pages.wording import figure_rows, percent, removal_words
from mlflow_rnnmod.tracking.code import version

if TYPE_CHECKING:
    from mlflow_rnnmod.decomposition import Decomposition
    from mlflow_rnnmod.decomposition.module import Module
    from mlflow_rnnmod.networks import Parent

NOTE = "mlflow.note.content"
LINKS = "**Modules:** "
"""How the line of links in a run's description begins."""
_NOTE_TITLE = "## Modules of this run's network"
_TABLES = "mlflow.loggedArtifacts"
_LONGEST_PARAM = 6000
_LONGEST_NOTE = 8000
_SHOWN = ("f1", "precision", "recall", "bleu", "chrf", "agreement", "exact")
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
    return {"rnnmod.fingerprint": fingerprint(parent), "rnnmod.version": version()}


def parent_params(parent: Parent) -> dict[str, str]:
    """Params of the parent's LoggedModel: columns in MLflow's list of models."""
    known = {"digest": parent.digest, "labels": len(parent.labels)}
    return _params({**known, **parent.network.params()})


def module_params(
    module: Module, parent_model_id: str | None, dataset: Dataset | None
) -> dict[str, str]:
    """Params of a module's LoggedModel; ``parent_model_id`` where it is known already."""
    shares = {name: module.figures.get(name) for name in ("weights_kept", "jaccard", "support")}
    parent = {} if parent_model_id is None else {"parent_model_id": parent_model_id}
    return _params(
        {
            "label": module.label,
            "index": module.contract.index,
            "output": module.contract.output,
            **module.parent.network.params(),
            "kept_units": module.trunk.kept,
            "kept_fraction": round(module.trunk.kept / module.trunk.total, 4),
            **parent,
            "parent": module.parent.digest[:12],
            **{name: f"{value:.4g}" for name, value in shares.items() if value is not None},
            "dataset": dataset.name if dataset else figure_rows(module.made) or "unknown",
            "technique": removal_words(module.made).replace("`", ""),
            "repairs": _words(module.made.get("repairs")),
        }
    )


def parent_metrics(
    decomposition: Decomposition,
    model_id: str,
    run_id: str,
    start: int,
    dataset: Dataset | None,
) -> list[Metric]:
    """The parent's own figures, beside the data set.

    MLflow puts them on the run too, under the same names: it is the run's network that they are of.
    So that they do not stand in for a metric of the user's own there, they are dated at its start.
    """
    about = {"model_id": model_id, "run_id": run_id, **_data(dataset)}
    figures = parent_figures(decomposition)
    return [Metric(k, float(v), start, 0, **about) for k, v in figures.items() if _is_figure(v)]


def module_metrics(
    decomposition: Decomposition, model_ids: Mapping[str, str], run_id: str, dataset: Dataset | None
) -> list[Metric]:
    """Figures of all modules, at most four each, and their means for the run.

    MLflow puts a model's figures on their run too, where the last module's would stand for all: so
    they get a run of their own, and the means come last there. All others are in the tables: every
    search for models returns all metrics of each.
    """
    found: list[Metric] = []
    names: dict[str, list[float]] = {}
    for moment, module in enumerate(decomposition.modules):
        # A millisecond apart: of equal values at one moment MLflow keeps one.
        about = {"model_id": model_ids[module.label], "run_id": run_id, **_data(dataset)}
        for name in shown_figures(module):
            value = float(module.figures[name])
            names.setdefault(name, []).append(value)
            found.append(Metric(name, value, moment, 0, **about))
    later = len(decomposition.modules)
    return found + [
        Metric(name, sum(values) / len(values), later, 0) for name, values in names.items()
    ]


def shown_figures(module: Module) -> list[str]:
    """The few figures that MLflow's lists show of a module."""
    return [n for n in _SHOWN if n in module.figures and _is_figure(module.figures[n])][:4]


def _data(dataset: Dataset | None) -> dict[str, Any]:
    if dataset is None:
        return {}
    return {"dataset_name": dataset.name, "dataset_digest": dataset.digest}


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

    ``summary``: Markdown for the description: a paragraph of links, then the rest; ``table``: path
    of the table that MLflow is to show as one.
    """
    # Links come first, as MLflow folds a description after three lines: those, and then the rest.
    links, _, rest = summary.partition("\n\n")
    kept = present.get(NOTE, "")
    own = _without_links(kept).partition(_NOTE_TITLE)[0].strip()
    note = f"{links}\n\n{own}\n\n{_NOTE_TITLE}\n\n{rest}".replace("\n\n\n\n", "\n\n")
    tables = json.loads(present.get(_TABLES) or "[]")
    entry = {"path": table, "type": "table"}
    tags = {
        "rnnmod.role": "decomposition",
        "rnnmod.parent": decomposition.parent.digest[:12],
        "rnnmod.version": version(),
        _TABLES: json.dumps(tables if entry in tables else [*tables, entry]),
        NOTE: note if len(note) <= _LONGEST_NOTE else present.get(NOTE, ""),
    }
    return [RunTag(key, value) for key, value in tags.items()]


def _without_links(note: str) -> str:
    """A description without the line of links that an earlier decomposition began it with."""
    first, _, rest = note.partition("\n\n")
    return rest if first.startswith(LINKS) else note


def dataset_entity(dataset: Any) -> Dataset | None:
    """A data set as MLflow's servers know it."""
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


def dataset_input(dataset: Dataset, rows: str = "") -> DatasetInput:
    """The data set as an input, with what it was: rows for validation are no test."""
    known = ("validation", "training")
    context = next((name for name in known if f"{name} " in f"{rows} "), "test")
    return DatasetInput(dataset, [InputTag("mlflow.data.context", context)])


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


def log_metrics(client: MlflowClient, run_id: str, metrics: Sequence[Metric]) -> None:
    """Metrics, as many at once as MLflow takes."""
    for first in range(0, len(metrics), 1000):
        client.log_batch(run_id, metrics=metrics[first : first + 1000])
