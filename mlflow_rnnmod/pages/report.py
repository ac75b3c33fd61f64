"""Reports of a decomposition: an index with links, tables, a picture, and one page with it all."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_rnnmod.pages.dial import METRICS, sorted_settings, taken_of, write_settings
from mlflow_rnnmod.pages.markdown import escape, link, model_page, registered_page, table
from mlflow_rnnmod.pages.page import page
from mlflow_rnnmod.pages.pictures import grouped, write_overlap
from mlflow_rnnmod.pages.wording import bleu, figures_of, percent, points, removal_words, worst

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
# Figures of the label first, its parent's beside; sizes last.
_SHARES = (
    "f1",
    "parent_f1",
    "precision",
    "parent_precision",
    "recall",
    "parent_recall",
    "bleu",
    "parent_bleu",
    "chrf",
    "parent_chrf",
    "agreement",
    "units_kept",
    "weights_kept",
    "recurrent_weights_kept",
    "multiply_adds_kept",
    "jaccard",
)
_HEADER = {
    "f1": "F1",
    "parent_f1": "its parent",
    "bleu": "BLEU",
    "parent_bleu": "its parent",
    "points": "points",
    "precision": "precision",
    "recall": "recall",
    "chrf": "chrF",
    "agreement": "agrees",
    "units_kept": "units",
    "recurrent_weights_kept": "weights",
    "multiply_adds_kept": "multiply-adds",
    "jaccard": "overlap",
}
BLOCK = 10
"""Modules in a block of the index, where there are more than two blocks of them."""


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
    matrix, labels = grouped(decomposition.overlap.double().numpy(), labels)
    write_overlap(matrix, labels, directory / PICTURE)
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
    """Write ``modules.md``, ``modules.csv`` and ``modules_table.json`` into ``directory``."""
    index = index_markdown(decomposition, entries, experiment_id, parent_model_id)
    (directory / INDEX).write_text(index, encoding="utf-8")
    rows = [_row(entry, experiment_id) for entry in entries]
    columns = list(dict.fromkeys(name for row in rows for name in row)) or ["label"]
    rows = [{name: row.get(name) for name in columns} for row in rows]
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

    Worst first, as what went wrong is what one looks for; many modules in blocks of ten. MLflow's
    own lists stop at 50 models, or have no search (docs/mlflow.md).
    """
    registered = any(entry.registered_name for entry in entries)
    known = [figures_of(entry.module) for entry in entries]
    shown = [name for name in _HEADER if any(name in figures for figures in known)]
    header = ["label", *(_HEADER[n] for n in shown), "rows", *(["version"] if registered else [])]
    lines = []
    for entry in worst_first(entries):
        label = escape(entry.module.label, 80)
        if entry.model_id:
            label = link_raw(label, model_page(experiment_id, entry.model_id))
        figures = figures_of(entry.module)
        cells = [label, *(_cell(n, figures[n]) if n in figures else "" for n in shown)]
        cells.append(f"{figures['support']:.0f}" if "support" in figures else "")
        if registered:
            cells.append(_registered(entry))
        lines.append(cells)
    right = " " + "r" * (len(shown) + 1)
    measured = escape(decomposition.rows.get("figures", "rows that are not recorded"), 500)
    return "\n\n".join(
        [
            f"# {len(entries)} modules of one network",
            summary(decomposition, experiment_id, parent_model_id),
            *(f"> **Mind:** {escape(warning, 1000)}" for warning in decomposition.warnings),
            *_blocks(header, lines, right),
            "Worst first: the label's F1 as its module has it and as its parent has it, and the "
            "difference in points; precision and recall; how often the module agrees with its "
            "parent; units and recurrent weights kept; overlap with the other modules (Jaccard); "
            f"rows of the label. Measured on {measured}.\n",
        ]
    )


def worst_first(entries: Sequence[Entry]) -> list[Entry]:
    """By what a label lost against its parent, then by how good it is; unknown ones last."""
    return sorted(entries, key=lambda entry: worst(figures_of(entry.module)))


def _cell(name: str, value: float) -> str:
    if name == "points":
        return points(value) if value == value else ""
    return bleu(value) if name.endswith(("bleu", "chrf")) else percent(value)


def _blocks(header: Sequence[str], lines: Sequence[Sequence[str]], right: str) -> list[str]:
    if len(lines) <= 2 * BLOCK:
        return [table(header, lines, right)]
    found = []
    for first in range(0, len(lines), BLOCK):
        part = lines[first : first + BLOCK]
        found += [f"### {first + 1} to {first + len(part)}", table(header, part, right)]
    return found


def summary(
    decomposition: Decomposition, experiment_id: str, parent_model_id: str | None = None
) -> str:
    """A few sentences: what was taken apart, how, and what that cost."""
    figures = decomposition.figures
    parent = escape(decomposition.parent.digest[:12])
    promise = broken(decomposition)
    if parent_model_id:
        parent = link_raw(parent, model_page(experiment_id, parent_model_id))
    sentences = [
        f"Parent network {parent} was taken apart into one module for each of its "
        f"{len(decomposition.modules)} labels ({removal_words(removal_of(decomposition))})."
    ]
    if promise is not None:
        sentences.insert(0, f"**Mind: {promise}.**")
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


def broken(decomposition: Decomposition) -> str | None:
    """What to say first where removal cost more than it was chosen to cost at most."""
    net, config = decomposition.figures.get("net"), decomposition.config
    if config.removal != "auto" or net is None or -100 * net <= config.tolerance:
        return None
    return (
        f"what was removed costs {-100 * net:.1f} points on the rows of the report, more than the "
        f"{config.tolerance:g} that it was chosen to cost at most"
    )


def removal_of(decomposition: Decomposition) -> dict[str, Any]:
    """``rule`` and ``removal`` as they were in the end; ``"auto"`` where modules do not tell."""
    made = decomposition.modules[0].made if decomposition.modules else {}
    return {
        "rule": decomposition.config.rule,
        "removal": made.get("removal", decomposition.config.removal),
    }


def link_raw(markdown: str, target: str) -> str:
    """A link around Markdown that is escaped already."""
    return f"[{markdown}]({target})"


def _registered(entry: Entry) -> str:
    if not entry.registered_name:
        return ""
    return link(entry.version or "model", registered_page(entry.registered_name, entry.version))


def _row(entry: Entry, experiment_id: str) -> dict[str, Any]:
    """Plain values for the CSV file and MLflow's table view, which sorts: figures first."""
    figures, module = figures_of(entry.module), entry.module
    row: dict[str, Any] = {"label": module.label, "points": _rounded(figures.get("points"))}
    row.update({n: _rounded(figures.get(n)) for n in _SHARES if n in figures})
    row["support"] = int(figures["support"]) if "support" in figures else None
    row["link"] = model_page(experiment_id, entry.model_id) if entry.model_id else None
    row.update(
        {
            "kept_units": module.trunk.kept,
            "units": module.trunk.total,
            "name": entry.slug,
            "index": module.contract.index,
            "model_id": entry.model_id,
            "registered_name": entry.registered_name,
            "version": entry.version,
        }
    )
    return row


def _rounded(value: float | None) -> float | None:
    return None if value is None or value != value else round(value, 4)
