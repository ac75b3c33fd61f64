"""The page of a composite: how good it is, beside its parents, and what it costs; then the rest.

Markdown for MLflow's descriptions, and a report as one HTML file with pictures.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlflow_rnnmod.composition.plan import entry_of, make_plan
from mlflow_rnnmod.pages import card
from mlflow_rnnmod.pages.assessed import Assessment
from mlflow_rnnmod.pages.dial import METRICS
from mlflow_rnnmod.pages.lineage import Source, lineage_svg
from mlflow_rnnmod.pages.markdown import (
    artifacts_page,
    escape,
    fit,
    inline,
    model_page,
    plain,
    registered_page,
    table,
)
from mlflow_rnnmod.pages.wording import Saved, figure, percent, plural, points, some

if TYPE_CHECKING:
    from mlflow_rnnmod.composition import Composite

BATCH = 64
"""Rows that the cost is told for, besides one."""
WORST = 10
"""Labels that are listed on the page, worst first, where there are many."""
MANY = 30


@dataclass(frozen=True)
class Places:
    """Where things are in MLflow, for links; whatever is not known has none.

    Args:
        uri: what the composite can be loaded by.
        model: the composite's own page: its experiment and model id.
        modules: experiment and model id of modules that have a page on this server, by label.
        parents: the same of parents, by digest.
        server: the server that the composite is logged to.
        saved: what making it emitted, where that was measured.
    """

    uri: str
    model: tuple[str, str] | None = None
    modules: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    parents: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    server: str | None = None
    saved: Saved | None = None


def composite_page(composite: Composite, places: Places, found: Assessment | None = None) -> str:
    """The description of a composite, in Markdown.

    ``found``: figures on given rows; ``None`` where none were measured; gives at most 8000
    characters; what does not fit is left out from the end.
    """
    count, parents = len(composite.modules), _parents(composite)
    named = some([escape(label, 40) for label in composite.labels], 5)
    sections = [
        f"# A model of {count} {plural('module', count)}: {named}",
        _three(composite, found),
        places.saved.words() if places.saved else "",
        _report_link(places),
        _labels(composite, places, found),
        f"## How it was made\n\nMade of modules of {len(parents)} "
        f"{plural('parent', len(parents))}, which are bundled with it; nothing was trained.\n\n"
        + "\n".join(f"{n}. {words}" for n, words in enumerate(story(composite), 1)),
        card.use(
            places.uri,
            composite.input_kind,
            composite.modules[0].contract.input_size,
            composite.answer,
            composite.labels,
        ),
        _technical(composite, places),
    ]
    return fit([section for section in sections if section], card.LONGEST)


def version_line(composite: Composite, found: Assessment | None = None) -> str:
    """One line for a registered version: what it is, how good on which data, what it costs."""
    count, parents = len(composite.modules), len(_parents(composite))
    words = f"{count} {plural('module', count)} of {parents} {plural('parent', parents)}"
    if found is not None:
        best = ", ".join(figure(found.metric, parent.value) for parent in found.parents)
        words += (
            f"; {figure(found.metric, found.composed)} {METRICS[found.metric]} on "
            f"{plain(found.data, 60)} ({found.rows} rows)"
        )
        if best:
            words += f", {'its parent' if len(found.parents) == 1 else 'its parents'} {best}"
    cost = passes(composite)
    return words + (f"; {cost[1]:.1f} passes of a parent" if cost else "")


def registered_page_of(composite: Composite, uri: str) -> str:
    """The description of a composite's registered model: what holds for all its versions."""
    labels = some([escape(label, 40) for label in composite.labels], MANY)
    opening = (
        f"Models put together from modules of trained networks, without training, for: {labels}. "
        "Each version says in a line what it is and how good it was on which rows; the "
        "page of its source model shows every label beside its parent, and where it came from."
    )
    contract = composite.modules[0].contract
    snippet = card.use(
        uri, composite.input_kind, contract.input_size, composite.answer, composite.labels
    )
    return fit([opening, snippet], card.LONGEST)


def passes(composite: Composite) -> tuple[float, float] | None:
    """What it costs for one row and for 64, in passes of a parent; ``None`` where unknown."""
    entries = [entry_of(module) for module in composite.modules]
    found = [make_plan(entries, rows).passes for rows in (1, BATCH)]
    return None if None in found else (float(found[0] or 0.0), float(found[1] or 0.0))


def story(composite: Composite) -> list[str]:
    """How it came about, a sentence a step; Markdown."""
    return [_step(dict(step)) for step in composite.recipe]


def lineage(composite: Composite, found: Assessment | None = None) -> str:
    """The picture of its parents, modules and itself, as SVG."""
    values = {} if found is None else {p.digest: p.value for p in found.parents}
    sources = []
    for digest, (parent, labels) in _parents(composite).items():
        own = f", {figure(found.metric, values[digest])}" if found and digest in values else ""
        sources.append(Source(parent.network.words(), labels, digest[:12] + own))
    words = f"{len(composite.modules)} {plural('label', len(composite.modules))}"
    note = "" if found is None else f"{figure(found.metric, found.composed)} {found.metric}"
    return lineage_svg(sources, words, note)


def _parents(composite: Composite) -> dict[str, tuple[Any, tuple[str, ...]]]:
    """Parents with the labels of their modules, by digest."""
    found: dict[str, tuple[Any, tuple[str, ...]]] = {}
    for module in composite.modules:
        parent, labels = found.get(module.parent.digest, (module.parent, ()))
        found[module.parent.digest] = parent, (*labels, module.label)
    return found


def _three(composite: Composite, found: Assessment | None) -> str:
    """The three figures that count: composed, parents, cost."""
    cost = passes(composite)
    costs = "not known" if cost is None else f"**{cost[1]:.1f} passes** of a parent"
    if found is None:
        told = "not measured", "not measured"
    else:
        parents = ", ".join(f"**{figure(found.metric, p.value)}**" for p in found.parents)
        composed = f"**{figure(found.metric, found.composed)}** {METRICS[found.metric]}"
        told = composed, parents or "no row is of their labels"
    each = "" if found is None or len(found.parents) < 2 else " (each on its own labels)"
    spaced = "&nbsp;&nbsp;&emsp;"
    shown = table(
        [f"composed{spaced}", f"its {plural('parent', len(_parents(composite)))}{each}{spaced}",
         "cost"],
        [(f"{told[0]}{spaced}", f"{told[1]}{spaced}", costs)],
    )  # fmt: skip
    under = []
    if found is None:
        under.append("Log it with `evaluate_on=(inputs, labels)`, and its figures stand here.")
    else:
        under.append(f"Measured on {escape(found.data, 200)}, {found.rows} rows.")
        if found.agreement is not None:
            under.append(f"It answers as the parent does for {percent(found.agreement)} of them.")
        if found.reliability is not None:
            under.append(f"Expected calibration error {percent(found.reliability.error)}.")
    if cost is not None:
        under.append(
            f"A batch of {BATCH} rows takes {cost[1]:.1f} times what a pass of a parent takes, one "
            f"row {cost[0]:.1f} times (estimated; {_advice(composite)})."
        )
    return shown + "\n\n" + " ".join(under)


def _advice(composite: Composite) -> str:
    trunks = len({(m.parent.digest, m.trunk.digest) for m in composite.modules})
    if trunks > 2 * len(_parents(composite)):
        return 'modules that share trunks cost less: take their parents apart with `trunks="auto"`'
    return "modules of one parent share what they run"


def _report_link(places: Places) -> str:
    if places.model is None:
        return ""
    target = artifacts_page(*places.model)
    return f"[Report, picture and all labels]({target}): `card/report.html`, `card/lineage.svg`"


def _labels(composite: Composite, places: Places, found: Assessment | None) -> str:
    sources = {str(s["label"]): s for s in composite.sources}
    if found is None:
        rows = [
            (_label_cell(y, sources[y], places), _parent_cell(sources[y], places))
            for y in composite.labels[:MANY]
        ]
        more = len(composite.labels) - len(rows)
        told = table(("label&emsp;", "parent"), rows)
        return "## Labels\n\n" + told + (f"\n\n... and {more} more." if more > 0 else "")
    first = found.labels[0].module
    names = [n for n in ("precision", "recall", "f1", "bleu", "chrf") if n in first]
    main = "bleu" if "bleu" in names else "f1"
    shown = found.labels if len(found.labels) <= MANY else found.labels[:WORST]
    lines: list[tuple[str, ...]] = []
    for row in shown:
        beside = row.parent.get(main)
        lines.append(
            (
                _label_cell(row.label, sources[row.label], places),
                f"&emsp;{figure(main, row.module[main])}",
                "" if beside is None else f"&emsp;{figure(main, beside)}",
                "" if row.difference != row.difference else f"&emsp;{points(row.difference)}",
                *(f"&emsp;{figure(n, row.module[n])}" for n in names if n != main),
                f"&emsp;{row.support}",
                _parent_cell(sources[row.label], places),
            )
        )
    words = METRICS.get(main, main)
    header = [
        "label&emsp;", f"&emsp;{words}", "&emsp;its parent", "&emsp;points",
        *(f"&emsp;{n}" for n in names if n != main), "&emsp;rows", "&emsp;parent",
    ]  # fmt: skip
    opening = "## Labels, worst first\n\n" + table(header, lines, " " + "r" * (len(header) - 2))
    if len(shown) < len(found.labels):
        opening += f"\n\nThe ten worst of {len(found.labels)}; the report has all."
    return opening


def _label_cell(label: str, source: Mapping[str, Any], places: Places) -> str:
    shown = escape(label, 60)
    if source.get("name") and source.get("version") and _here(source, places):
        return f"[{shown}]({registered_page(source['name'], source['version'])})&emsp;"
    if label in places.modules:
        return f"[{shown}]({model_page(*places.modules[label])})&emsp;"
    return f"{shown}&emsp;"


def _parent_cell(source: Mapping[str, Any], places: Places) -> str:
    digest = str(source.get("parent", ""))
    shown = inline(digest[:12])
    if digest in places.parents:
        return f"&emsp;[{digest[:12]}]({model_page(*places.parents[digest])})"
    return f"&emsp;{shown}"


def _here(source: Mapping[str, Any], places: Places) -> bool:
    """Whether a module's name and version are those of the server that the page is on."""
    return source.get("tracking_uri") in (None, places.server)


def _technical(composite: Composite, places: Places) -> str:
    elsewhere = {
        str(s["tracking_uri"])
        for s in composite.sources
        if s.get("model_id") and not _here(s, places)
    }
    facts = [("compared by", card.joined(composite))]
    for name, value in composite.parameters.items():
        if name != "thresholds":
            told = escape(json.dumps(value, ensure_ascii=False, default=str), 200)
            facts.append((escape(name.replace("_", " "), 40), told))
    facts += [
        (f"parent {number}", f"{escape(parent.network.words(), 200)}, {inline(digest)}")
        for number, (digest, (parent, _)) in enumerate(_parents(composite).items(), 1)
    ]
    if elsewhere:
        servers = ", ".join(map(inline, sorted(elsewhere)))
        facts.append(("ids of modules", f"are those of the server {servers}"))
    came = [
        f"{escape(s['label'], 40)} from {inline(s['uri'])}" for s in composite.sources if s["uri"]
    ]
    if came:
        facts.append(("modules", "; ".join(came[:MANY])))
    return "## Technical\n\n" + card.fact_table(facts)


def _step(step: Mapping[str, Any]) -> str:
    """A step of the recipe, in words."""
    verb, note = step.get("verb"), step.get("note")
    end = f" ({escape(note, 300)})" if note else ""
    uri = step.get("uri")
    source = f" by {inline(uri)}" if uri else ""
    if verb == "compose":
        return f"Put together from the modules for {_list(step.get('labels', ()))}{end}."
    if verb == "replace":
        return f"**{escape(step.get('label', ''), 60)}** was replaced{source}{end}."
    if verb == "add":
        modules = [dict(m) for m in step.get("modules", ())]
        named = _list([m.get("label", "") for m in modules])
        uris = ", ".join(inline(m["uri"]) for m in modules[:5] if m.get("uri"))
        return f"Added {named}{f' ({uris})' if uris else ''}{end}."
    if verb in ("remove", "select"):
        what = "Removed" if verb == "remove" else "Left only"
        return f"{what} {_list(step.get('labels', ()))}{end}."
    return escape(json.dumps(dict(step), ensure_ascii=False, default=str), 300)


def _list(labels: Sequence[Any]) -> str:
    return some([escape(label, 40) for label in labels], 12)
