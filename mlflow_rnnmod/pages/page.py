"""The report of a decomposition as one self-contained HTML page.

MLflow shows HTML artifacts in a frame where links lead nowhere, so there are none, nor anything
loaded from elsewhere; one small script sorts and filters the table of modules.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from mlflow_rnnmod.decomposition.sizing import SHARED_COST
from mlflow_rnnmod.pages.dial import METRICS, settings_svg, sorted_settings, taken_of
from mlflow_rnnmod.pages.markdown import plain
from mlflow_rnnmod.pages.pictures import grouped, is_taken, overlap_svg, sizing_svg
from mlflow_rnnmod.pages.sortable import SCRIPT, Cell, sortable
from mlflow_rnnmod.pages.sortable import STYLE as SORTING
from mlflow_rnnmod.pages.wording import figures_of, percent, points, worst

if TYPE_CHECKING:
    from mlflow_rnnmod.decomposition import Decomposition
    from mlflow_rnnmod.decomposition.module import Module

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2933; background: #fff; margin: 0 auto;
  max-width: 1120px; padding: 24px 32px 64px; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 19px; margin: 40px 0 8px; }
p, li { max-width: 76ch; } .soft { color: #616e7c; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(200px, 1fr)); gap: 12px;
  margin: 20px 0; }
.tile { border: 1px solid #d9dfe6; border-radius: 8px; padding: 12px 16px; }
.tile b { display: block; font-size: 24px; font-variant-numeric: tabular-nums; }
.tile span { color: #616e7c; font-size: 13px; line-height: 1.35; display: block; }
.mind { border-left: 4px solid #c2571a; background: #fdf3ec; padding: 8px 14px; margin: 8px 0;
  overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px; }
th, td { padding: 5px 9px; border-bottom: 1px solid #e7ebf0; text-align: right;
  white-space: nowrap; }
th { font-weight: 600; vertical-align: bottom; white-space: normal; line-height: 1.25; }
th:first-child, td:first-child { text-align: left; white-space: normal; overflow-wrap: anywhere;
  max-width: 300px; min-width: 130px; }
td.words { text-align: left; white-space: normal; overflow-wrap: anywhere; }
tr.taken td { background: #e8f2fa; font-weight: 600; }
img.row { width: 56px; margin-right: 6px; image-rendering: pixelated; vertical-align: middle; }
td.bar { min-width: 62px; background-repeat: no-repeat; }
"""
_COLUMNS = {
    "f1": "F1",
    "parent_f1": "F1 of the parent",
    "points": "points",
    "precision": "precision",
    "parent_precision": "precision of the parent",
    "recall": "recall",
    "parent_recall": "recall of the parent",
    "bleu": "BLEU",
    "parent_bleu": "BLEU of the parent",
    "chrf": "chrF",
    "parent_chrf": "chrF of the parent",
    "agreement": "agrees with the parent",
    "units_kept": "units kept",
    "recurrent_weights_kept": "recurrent weights kept",
    "multiply_adds_kept": "multiply-adds kept",
    "jaccard": "overlap with the others",
}
_TILES = {
    "composed_{metric}": "{Metric} of all modules composed again",
    "parent_{metric}": "{Metric} of the parent",
    "delta_{metric}": "points between the two",
    "control_{metric}": "{Metric} with nothing removed and the same repairs",
    "net": "points between composed and nothing removed: what removal did",
    "random_{metric}": "{Metric} with as many units removed at random",
    "bayes_{metric}": '{Metric} with the likelihoods of the labels\' inputs added (score="bayes")',
    "likelihood_{metric}": "{Metric} by these likelihoods alone, without any network",
    "composed_exact": "of the rows have all labels right, composed again",
    "parent_exact": "of the rows have all labels right, by the parent",
    "mean_jaccard": "overlap of two modules on average (Jaccard)",
    "units_kept": "units that a module keeps on average",
    "recurrent_weights_kept": "recurrent weights that a module keeps on average",
    "trunks": "trunks that the modules have between them",
    "cost": "passes of the parent that all modules together take, estimated",
    "isolated_cost": 'passes that they would take with a trunk each (trunks="label")',
}
_TRIED = {
    "removal": "removed",
    "trunks": "trunks",
    "{metric}": "{Metric}",
    "control_{metric}": "nothing removed",
    "points": "points",
    "weights_kept": "weights kept",
    "cost": "passes",
}
_NUMBERS = {"trunks": "{:.0f}", "cost": "{:.2f}", "isolated_cost": "{:.0f}"}
_POINTS = ("delta_accuracy", "delta_f1", "delta_bleu", "net")


def page(decomposition: Decomposition) -> str:
    """The whole report: figures, modules, sizing, overlap, rows behind the figures, warnings.

    Gives HTML that needs no other file and no script.
    """
    parent, modules = decomposition.parent, decomposition.modules
    title = f"{len(modules)} modules of one network"
    measured = decomposition.rows.get("figures", "rows that are not recorded")
    parts = [
        f"<h1>{title}</h1>",
        f'<p class="soft">Parent {escape(parent.digest[:12])}, '
        f"{escape(parent.network.words())}{_in_all(parent.network.units)}, taken apart in "
        f"{decomposition.seconds:.1f} seconds.</p>",
        *(
            f'<p class="mind"><b>Mind:</b> {escape(plain(w, 2000))}</p>'
            for w in decomposition.warnings
        ),
        _tiles(decomposition.figures, decomposition.metric),
        f'<p class="soft">Measured on {escape(plain(measured, 500))}.</p>',
        "<h2>Modules</h2>",
        _modules(modules),
    ]
    chosen = modules[0].made.get("removal") if modules else None
    if decomposition.sizing:
        parts += ["<h2>How much to remove</h2>", _sizing(decomposition, chosen)]
    if modules:
        matrix, labels = grouped(decomposition.overlap.double().numpy(), [m.label for m in modules])
        parts += [
            "<h2>Overlap</h2>",
            "<p>Of the units that either of two modules keeps, the share that both keep; modules "
            "that are alike stand together.</p>",
            f'<div class="wide">{overlap_svg(matrix, labels)}</div>',
        ]
    if any(decomposition.pictures.values()):
        parts += ["<h2>Examples</h2>", _pictures(decomposition.pictures)]
    parts += ["<h2>Rows</h2>", _pairs(decomposition.rows)]
    parts += ["<h2>Settings</h2>", _pairs(_settings(decomposition, chosen))]
    return document(title, parts)


def document(title: str, parts: Sequence[str]) -> str:
    """A whole file of HTML, with the script that sorts its tables."""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}{SORTING}</style></head>\n<body>\n"
        + "\n".join(parts)
        + f"\n<script>{SCRIPT}</script></body></html>\n"
    )


def tiles(shown: Iterable[tuple[str, str]]) -> str:
    """Figures with what they are, HTML both, beside one another."""
    each = (f'<div class="tile"><b>{b}</b><span>{words}</span></div>' for b, words in shown)
    return f'<div class="tiles">{"".join(each)}</div>'


def _in_all(units: Mapping[str, int]) -> str:
    """Units of many groups; those of one are told already."""
    return f", {sum(units.values())} units in all" if len(units) > 1 else ""


def _pictures(pictures: Mapping[str, Sequence[bytes]]) -> str:
    """A row of pictures for each label, in the page itself."""
    rows = []
    for label, shown in pictures.items():
        name = escape(plain(label))
        sources = (f"data:image/png;base64,{b64encode(each).decode()}" for each in shown)
        images = "".join(f'<img class="row" src="{s}" alt="{name}">' for s in sources)
        rows.append(f'<tr><td>{name}</td><td class="words">{images}</td></tr>')
    return f"<table><tbody>{''.join(rows)}</tbody></table>"


def _named(words: Mapping[str, str], metric: str) -> dict[str, str]:
    """Names of figures and what they say, with the metric's name in them."""
    given = {"metric": metric, "Metric": METRICS[metric]}
    return {name.format(**given): said.format(**given) for name, said in words.items()}


def _tiles(figures: Mapping[str, float], metric: str) -> str:
    return tiles(
        (_figure(name, figures[name]), words)
        for name, words in _named(_TILES, metric).items()
        if name in figures
    )


def _figure(name: str, value: float) -> str:
    if name in _POINTS:
        return points(value)
    return _NUMBERS[name].format(value) if name in _NUMBERS else percent(value)


def _modules(modules: Sequence[Module]) -> str:
    """The table of modules, worst first; it sorts by the column that is clicked on."""
    known = [(module, figures_of(module)) for module in modules]
    shown = [name for name in _COLUMNS if any(name in figures for _, figures in known)]
    header = ["label", *(_COLUMNS[name] for name in shown), "rows of the label"]
    rows = []
    for module, figures in sorted(known, key=lambda item: worst(item[1])):
        cells = [Cell.text(module.label)]
        for name in shown:
            value = figures.get(name)
            if name == "points" and value is not None and value == value:
                cells.append(Cell(points(value), value))
            else:
                cells.append(Cell.share(value))
        rows.append([*cells, Cell.number(figures.get("support"))])
    return sortable(header, rows)


def _sizing(decomposition: Decomposition, chosen: Any) -> str:
    taken, metric = (chosen, decomposition.figures.get("trunks")), decomposition.metric
    tried = sorted_settings(decomposition.sizing)
    control = f"control_{metric}"
    shown = {
        name: words
        for name, words in _named(_TRIED, metric).items()
        if any((name if name != "points" else control) in row for row in tried)
    }
    rows = []
    for row in tried:
        cells = "".join(f"<td>{_tried(row, name, metric)}</td>" for name in shown)
        rows.append(f"{'<tr class=taken>' if is_taken(row, *taken) else '<tr>'}{cells}</tr>")
    cost = (
        " Passes are what a composite of all modules takes, in passes of the parent, estimated."
        if "cost" in shown
        else ""
    )
    header = "".join(f"<th>{words}</th>" for words in shown.values())
    return (
        f"<p>{_sought(decomposition)}, on "
        f"{escape(plain(decomposition.rows.get('calibrated', 'rows not recorded'), 500))}.{cost}"
        f'</p><div class="wide">{sizing_svg(tried, *taken, metric)}</div>'
        f'<div class="wide">{settings_svg(tried, taken_of(tried, *taken), metric)}</div>'
        f'<div class="wide"><table><thead><tr>{header}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _sought(decomposition: Decomposition) -> str:
    """What the setting that was taken is the best of."""
    config = decomposition.config
    words = (
        f"The largest share that costs at most {config.tolerance:g} points against nothing removed "
        "with the same repairs"
    )
    shared = decomposition.figures.get("trunks", 0) < len(decomposition.modules)
    if config.trunks == "auto" and (shared or config.max_cost is not None):
        most = SHARED_COST if config.max_cost is None else config.max_cost
        words += f", with as many trunks as {most:g} passes of the parent allow"
    return words


def _tried(row: Mapping[str, float], name: str, metric: str) -> str:
    """A cell of the table of settings that were tried."""
    if name == "points":
        control = row.get(f"control_{metric}")
        return "" if control is None else points(row[metric] - control)
    value = row.get(name)
    if value is None:
        return ""
    return _figure(name, value)


def _settings(decomposition: Decomposition, chosen: Any) -> dict[str, Any]:
    settings: dict[str, Any] = dict(decomposition.config.to_dict())
    settings["repairs"] = ", ".join(settings["repairs"]) or "none"
    if settings["removal"] == "auto" and isinstance(chosen, int | float):
        settings["removal"] = f"auto: {percent(chosen)}"
    return {**settings, "parent": decomposition.parent.digest}


def _pairs(pairs: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{escape(plain(name.replace('_', ' ')))}</td>"
        f'<td class="words">{escape(plain(value, 2000))}</td></tr>'
        for name, value in pairs.items()
    )
    return f"<table><tbody>{rows}</tbody></table>"
