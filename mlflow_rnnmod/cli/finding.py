"""``list``, ``search``, ``show``, ``open``, ``where-used``: what is there. Most need no torch."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from operator import eq, ge, gt, le, lt, ne
from typing import Any

import click

from mlflow_rnnmod.cli.base import Failure, as_json, reading, uncollected
from mlflow_rnnmod.cli.tables import cell, print_json, print_table, somebody_looks_on
from mlflow_rnnmod.pages import markdown
from mlflow_rnnmod.tracking.listing import KINDS, Listed, dead_modules, listed

_FIGURES = ("f1", "accuracy", "bleu")
_SIGNS = {">=": ge, "<=": le, "!=": ne, "=": eq, ">": gt, "<": lt}
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_CONDITION = re.compile(rf"\s*([\w/.-]+)\s*({'|'.join(_SIGNS)})\s*({_NUMBER})\s*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

_kind = click.option("--kind", type=click.Choice(KINDS), help="Only models of this kind.")
_label = click.option("--label", help="Only modules for this label.")
_experiment = click.option(
    "--experiment", metavar="NAME", help="Only models of the experiment with this name."
)


@click.command("list")
@_kind
@_label
@_experiment
@as_json
@uncollected
@reading
def list_models(kind: str | None, label: str | None, experiment: str | None, as_json: bool) -> None:
    """List the modules, parents and composites on the tracking server, newest first."""
    _print_items(_summaries(_found(kind, label, experiment)), as_json)


@click.command()
@click.argument("text", required=False)
@_kind
@_label
@click.option("--parent", metavar="DIGEST", help="Only modules of the parent with this digest.")
@click.option(
    "--figure", "figures", multiple=True, metavar="CONDITION", help="As 'f1>0.9'; repeatable."
)
@_experiment
@as_json
@uncollected
@reading
def search(
    text: str | None,
    kind: str | None,
    label: str | None,
    parent: str | None,
    figures: tuple[str, ...],
    experiment: str | None,
    as_json: bool,
) -> None:
    """Search models by TEXT in their names and labels, by label, parent or figure."""
    conditions = []
    for given in figures:
        found = _CONDITION.fullmatch(given)
        if found is None:
            raise click.UsageError(f"--figure {given!r}, expected NAME>NUMBER, as 'f1>0.9'.")
        key, sign, number = found.groups()
        conditions.append((key, _SIGNS[sign], float(number)))
    models = [
        model
        for model in _found(kind, label, experiment)
        if all(
            model.figures.get(k) is not None and is_so(model.figures[k], n)
            for k, is_so, n in conditions
        )
    ]
    if parent is not None:
        models = [m for m in models if m.tags.get("rnnmod.parent", "").startswith(parent.lower())]
    items = _summaries(models)
    if text is not None:
        wanted = text.casefold()
        fields = ("name", "label", "registered")
        items = [i for i in items if any(wanted in (i[f] or "").casefold() for f in fields)]
    _print_items(items, as_json)


def _found(kind: str | None, label: str | None, experiment: str | None) -> list[Listed]:
    found = listed((kind,) if kind else KINDS, experiment)
    return [m for m in found if label is None or m.tags.get("rnnmod.label") == label]


def _summaries(found: Sequence[Listed]) -> list[dict[str, Any]]:
    """What lists show of models; modules whose parent is gone are told to be dead."""
    dead = dead_modules(found, listed(("parent",))) if found else set()
    return [{**_summary(model), "dead": model.model_id in dead} for model in found]


def _print_items(items: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(items)
        return
    if not items:
        click.echo("There are none.")
        return
    if somebody_looks_on():
        _print_for_people(items)
        return
    columns = {"kind": "kind", "label": "label", "uri": "URI", "registered": "registered"}
    columns |= {"parent": "parent", "f1": "F1", "kept": "units kept"}
    items = [{**item, "kind": "dead" if item["dead"] else item["kind"]} for item in items]
    rows = [[cell(item[key]) for key in columns] for item in items]
    print_table(list(columns.values()), rows)


def _print_for_people(items: list[dict[str, Any]]) -> None:
    """One URI each, the registered one where there is one; it fits into 80 columns."""
    rows = []
    for item in items:
        known = [name.strip() for name in (item["registered"] or "").split(",") if name]
        uri = f"models:/{known[-1]}" if known else item["uri"]
        figure = next((item["figures"][f] for f in _FIGURES if f in item["figures"]), None)
        kept = "" if item["kept"] is None else f"{100 * float(item['kept']):.0f} %"
        shown = "" if figure is None else f"{100 * figure:.1f}"
        kind = "dead" if item["dead"] else item["kind"]
        rows.append([uri, kind, cell(item["label"]), shown, kept, (item["parent"] or "")[:8]])
    header = ["URI", "kind", "label", "figure", "kept", "parent"]
    print_table(header, rows, right=("figure", "kept"))


def _summary(model: Listed) -> dict[str, Any]:
    versions = json.loads(model.tags.get("mlflow.modelVersions", "[]"))
    kind = model.tags["rnnmod.kind"]
    return {
        "kind": kind,
        "label": model.tags.get("rnnmod.label") if kind == "module" else None,
        "name": model.name,
        "uri": f"models:/{model.model_id}",
        # A server and a client can both have written it down.
        "registered": ", ".join(dict.fromkeys(f"{v['name']}/{v['version']}" for v in versions))
        or None,
        "parent": model.tags.get("rnnmod.parent", "")[:12] or None,
        "f1": model.figures.get("f1"),
        "kept": model.params.get("kept_fraction"),
        "figures": model.figures,
    }


@click.command()
@click.argument("uri")
@as_json
@uncollected
@reading
def show(uri: str, as_json: bool) -> None:
    """Show what is logged under URI: its card."""
    from mlflow_rnnmod.tracking import cards

    text = cards.logged_card(uri)
    if as_json:
        print_json({"uri": uri, "card": text})
    elif somebody_looks_on():
        from rich.console import Console
        from rich.markdown import Markdown

        Console().print(Markdown(text))
    else:
        click.echo(markdown.as_text(text))


@click.command("open")
@click.argument("uri")
@uncollected
@reading
def open_page(uri: str) -> None:
    """Print the link to URI's page in MLflow's user interface."""
    import mlflow

    server = mlflow.get_tracking_uri()
    place = _place(uri)
    if not server.startswith(("http://", "https://")):
        click.echo(f"mlflow ui --backend-store-uri {server}", err=True)
        server = "http://127.0.0.1:5000"
    from mlflow_rnnmod.cli.base import shown

    click.echo(f"{shown(server)}/{place}")


def _place(uri: str) -> str:
    from mlflow import MlflowClient

    client = MlflowClient()
    if run := re.fullmatch(r"runs:/+([^/]+)(?:/(.*))?", uri):
        found = client.get_run(run[1]).info
        return markdown.run_page(found.experiment_id, found.run_id)
    if model := re.fullmatch(r"models:/+(m-[0-9a-f]{32})/?", uri):
        logged = client.get_logged_model(model[1])
        return markdown.model_page(logged.experiment_id, logged.model_id)
    if named := re.fullmatch(r"models:/+([^/@]+)(?:/([^/@]+)|@([^/@]+))?/?", uri):
        name, version, alias = named.groups()
        if alias:
            version = client.get_model_version_by_alias(name, alias).version
        if version:
            version = client.get_model_version(name, version).version
        else:
            client.get_registered_model(name)
        return markdown.registered_page(name, version)
    raise Failure(f"{uri!r} has no page; expected models:/..., models:/name or runs:/...")


@click.command("where-used")
@click.argument("uri")
@as_json
@uncollected
@reading
def where_used(uri: str, as_json: bool) -> None:
    """List the composites that hold the module under URI (models:/NAME: any version of it)."""
    from mlflow_rnnmod.tracking import uses

    found = uses.where_used(uri)
    if as_json:
        print_json([use.to_dict() for use in found])
        return
    if not found:
        click.echo("Nowhere.")
        return
    rows = [[use.uri, ", ".join(use.aliases), use.label, use.module] for use in found]
    print_table(["URI", "alias", "label", "module"], rows)
