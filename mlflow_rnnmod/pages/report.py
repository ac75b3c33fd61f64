"""Reports of a decomposition: an index with links, tables, a picture, and one page with it all."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from mlflow_rnnmod.pages.dial import METRICS, sorted_settings, taken_of, write_settings
from mlflow_rnnmod.pages.markdown import escape, link, table
from mlflow_rnnmod.pages.page import page
from mlflow_rnnmod.pages.pictures import write_overlap
from mlflow_rnnmod.pages.wording import percent, points, removal_words

if TYPE_CHECKING:
    from mlflow_rnnmod.decomposition import Decomposition
    from mlflow_rnnmod.decomposition.module import Module

INDEX, TABLE, CSV, PICTURE, SETTINGS, PAGE = (
    "modules.md",
    "modules_table.json",
    "modules.csv",
    "overlap.png",
    "settings.png",
    "report.html",
)
_SHARES = (
    "units_kept",
    "weights_kept",
    "recurrent_weights_kept",
    "multiply_adds_kept",
    "precision",
    "recall",
    "f1",
    "agreement",
    "jaccard",
)
_HEADER = {
    "units_kept": "units",
    "recurrent_weights_kept": "weights",
    "multiply_adds_kept": "multiply-adds",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "agreement": "agrees",
    "jaccard": "overlap",
}


@dataclass(frozen=True)
class Entry:
    """One module's line in the reports: the module, and where it was logged.

    Args:
        module: the module.
        slug: its name in MLflow.
        model_id: its LoggedModel.
        registered_name: its registered model, where there is one.
        version: its version there.
    """

    module: Module
    slug: str
    model_id: str | None = None
    registered_name: str | None = None
    version: str | None = None


def write_pictures(decomposition: Decomposition, directory: Path) -> None:
    """Write what needs no model ids into ``directory``.

    That is ``overlap.png``, ``report.html`` and, where settings were tried, ``settings.png``.
    """
    labels = [module.label for module in decomposition.modules]
    write_overlap(decomposition.overlap.double().numpy(), labels, directory / PICTURE)
    if decomposition.sizing:
        tried = sorted_settings(decomposition.sizing)
        removal, trunks = removal_of(decomposition)["removal"], decomposition.figures.get("trunks")
        taken = taken_of(tried, removal, trunks)
        write_settings(tried, taken, decomposition.metric, directory / SETTINGS)
    (directory / PAGE).write_text(page(decomposition), encoding="utf-8")


def write_index(
    decomposition: Decomposition,
    entries: Sequence[Entry],
    directory: Path,
    experiment_id: str,
    parent_model_id: str | None = None,
) -> None:
    """Write ``modules.md``, ``modules.csv`` and ``modules_table.json`` into ``directory``.

    Args:
        decomposition: what the modules come from.
        entries: a line for each module, in order.
        directory: exists.
        experiment_id: for links to the models' pages.
        parent_model_id: the parent's LoggedModel.
    """
    index = index_markdown(decomposition, entries, experiment_id, parent_model_id)
    (directory / INDEX).write_text(index, encoding="utf-8")
    rows = [_row(entry) for entry in entries]
    columns = list(rows[0]) if rows else ["label"]
    with (directory / CSV).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    data = [[row[column] for column in columns] for row in rows]
    text = json.dumps({"columns": columns, "data": data}, ensure_ascii=False)
    (directory / TABLE).write_text(text, encoding="utf-8")


def index_markdown(
    decomposition: Decomposition,
    entries: Sequence[Entry],
    experiment_id: str,
    parent_model_id: str | None = None,
) -> str:
    """The index: every module with a link to its page in MLflow, however many there are.

    MLflow's own lists stop at 50 models, or have no search (docs/mlflow.md).
    """
    registered = any(entry.registered_name for entry in entries)
    shown = [name for name in _HEADER if any(name in e.module.figures for e in entries)]
    rows = []
    for entry in entries:
        label = escape(entry.module.label, 80)
        if entry.model_id:
            label = link_raw(label, model_page(experiment_id, entry.model_id))
        figures = entry.module.figures
        cells = [label, *(percent(figures[n]) if n in figures else "" for n in shown)]
        cells.append(f"{figures['support']:.0f}" if "support" in figures else "")
        if registered:
            cells.append(_registered(entry))
        rows.append(cells)
    header = [
        "label",
        *(_HEADER[n] for n in shown),
        "rows",
        *(["version"] if registered else []),
    ]
    measured = escape(decomposition.rows.get("figures", "rows that are not recorded"), 500)
    return "\n\n".join(
        [
            f"# {len(entries)} modules of one network",
            summary(decomposition, experiment_id, parent_model_id),
            *(f"> **Mind:** {escape(warning, 1000)}" for warning in decomposition.warnings),
            table(header, rows, " " + "r" * (len(shown) + 1)),
            "Units and recurrent weights kept; precision, recall and F1 of the label; how often "
            "the module agrees with its parent; overlap with the other modules (Jaccard); rows "
            f"of the label. Measured on {measured}.\n",
        ]
    )


def summary(
    decomposition: Decomposition, experiment_id: str, parent_model_id: str | None = None
) -> str:
    """A few sentences: what was taken apart, how, and what that cost."""
    figures = decomposition.figures
    parent = escape(decomposition.parent.digest[:12])
    if parent_model_id:
        parent = link_raw(parent, model_page(experiment_id, parent_model_id))
    sentences = [
        f"Parent network {parent} was taken apart into one module for each of its "
        f"{len(decomposition.modules)} labels ({removal_words(removal_of(decomposition))})."
    ]
    metric = decomposition.metric
    composed, whole = figures.get(f"composed_{metric}"), figures.get(f"parent_{metric}")
    if composed is not None and whole is not None:
        delta = figures.get(f"delta_{metric}", composed - whole)
        of = "" if metric == "accuracy" else f" {METRICS[metric]}"
        sentences.append(
            f"Composed again, the modules reach **{percent(composed)}**{of}; the parent has "
            f"{percent(whole)}{of} ({points(delta)} points)."
        )
    if "net" in figures:
        sentences.append(
            "Against nothing removed, with the same repairs, that is "
            f"{points(figures['net'])} points."
        )
    if "recurrent_weights_kept" in figures:
        kept = percent(figures["recurrent_weights_kept"])
        sentences.append(f"A module keeps {kept} of the recurrent weights on average.")
    if "multiply_adds_kept" in figures:
        kept = percent(figures["multiply_adds_kept"])
        sentences.append(f"A module takes {kept} of the multiply-adds on average.")
    if "trunks" in figures and "cost" in figures:
        count = round(figures["trunks"])
        trunks = "one trunk" if count == 1 else f"{count} trunks"
        sentences.append(
            f"The modules have {trunks} between them; all of them together take about "
            f"{figures['cost']:.2f} passes of the parent."
        )
        if "isolated_cost" in figures:
            sentences.append(
                f"With a trunk each they would take about {figures['isolated_cost']:.0f}: that is "
                '`trunks="label"`.'
            )
    return " ".join(sentences)


def removal_of(decomposition: Decomposition) -> dict[str, Any]:
    """``rule`` and ``removal`` as they were in the end; ``"auto"`` where modules do not tell."""
    made = decomposition.modules[0].made if decomposition.modules else {}
    return {
        "rule": decomposition.config.rule,
        "removal": made.get("removal", decomposition.config.removal),
    }


def model_page(experiment_id: str, model_id: str) -> str:
    """Where MLflow's pages show a LoggedModel, as a link from Markdown."""
    return f"#/experiments/{experiment_id}/models/{model_id}"


def link_raw(markdown: str, target: str) -> str:
    """A link around Markdown that is escaped already."""
    return f"[{markdown}]({target})"


def _registered(entry: Entry) -> str:
    if not entry.registered_name:
        return ""
    target = f"#/models/{quote(entry.registered_name, safe='')}"
    return link(
        entry.version or "model", f"{target}/versions/{entry.version}" if entry.version else target
    )


def _row(entry: Entry) -> dict[str, Any]:
    """Plain values for the CSV file and MLflow's table view."""
    figures, module = entry.module.figures, entry.module
    row: dict[str, Any] = {
        "label": module.label,
        "name": entry.slug,
        "index": module.contract.index,
        "kept_units": module.trunk.kept,
        "units": module.trunk.total,
    }
    row.update({name: _rounded(figures.get(name)) for name in _SHARES})
    row["support"] = int(figures["support"]) if "support" in figures else None
    row["model_id"] = entry.model_id
    row["registered_name"], row["version"] = entry.registered_name, entry.version
    return row


def _rounded(value: float | None) -> float | None:
    return None if value is None or value != value else round(value, 4)
