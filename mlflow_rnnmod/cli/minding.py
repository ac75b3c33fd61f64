"""``check``, ``drift``, ``watch``: whether what is there still does what it should."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from mlflow_rnnmod.cli import base
from mlflow_rnnmod.cli.base import FOUND, Failure, as_json, command, dry_run, reading
from mlflow_rnnmod.cli.tables import print_json, print_table

if TYPE_CHECKING:
    from mlflow_rnnmod.operating.watch import Stale


@click.command()
@click.argument("uris", nargs=-1)
@click.option("--kind", type=click.Choice(("module", "parent", "composite")), help="Only these.")
@click.option("--experiment", metavar="NAME", help="Only models of this experiment.")
@as_json
@reading
def check(uris: tuple[str, ...], kind: str | None, experiment: str | None, as_json: bool) -> None:
    """Load and ask the models under URIS, or all on the server; exit code 5 where one does not.

    Parents of modules are read from where they are logged, not from a cache.
    """
    import os

    from mlflow import MlflowClient

    from mlflow_rnnmod.tracking.parents import CACHE_VARIABLE
    from mlflow_rnnmod.tracking.searching import KINDS, logged_models

    os.environ[CACHE_VARIABLE] = ""
    wanted = list(uris)
    if not wanted:
        kinds = (kind,) if kind else KINDS
        models = logged_models(MlflowClient(), kinds=kinds, experiment=experiment)
        wanted = [f"models:/{model.model_id}" for model in models]
    found = []
    for uri in wanted:
        start = time.perf_counter()
        problem = _problem(uri)
        seconds = round(time.perf_counter() - start, 3)
        found.append({"uri": uri, "problem": problem, "seconds": seconds})
        if not as_json:
            click.echo(f"{uri}\t{problem or 'loads and answers'}")
    broken = [item for item in found if item["problem"]]
    if as_json:
        print_json(found)
    else:
        click.echo(f"{len(found) - len(broken)} of {len(found)} load and answer.", err=True)
    if broken:
        raise click.exceptions.Exit(FOUND)


def _problem(uri: str) -> str | None:
    from mlflow_rnnmod.tracking import fetch
    from mlflow_rnnmod.tracking.probe import made_up
    from mlflow_rnnmod.tracking.pyfunc import RnnmodModel

    try:
        thing = fetch.load(uri)
        RnnmodModel(thing).predict([made_up(thing)])
    except Exception as error:  # whatever a store, a file or a model raises is the finding
        return " ".join(str(error).split())[:500] or type(error).__name__
    return None


@click.command()
@click.argument("uri")
@click.option("--data", metavar="FILE", required=True, help="What was served, without answers.")
@click.option("--reference", metavar="FILE", help="Rows to compare with, if URI remembers none.")
@click.option("--picture", metavar="FILE", help="Draw it: .png or .svg.")
@as_json
@reading
def drift(uri: str, data: str, reference: str | None, picture: str | None, as_json: bool) -> None:
    """Say for each module of URI whether what is served still looks as expected.

    Exit code 5 where a module drifted.
    """
    from pathlib import Path

    from mlflow_rnnmod.tracking import drift as drifting

    if picture is not None and Path(picture).suffix.lower() not in (".png", ".svg"):
        raise click.UsageError(f"--picture {picture!r}, expected a file .png or .svg.")
    found = drifting.drift(uri, data, reference)
    if picture is not None:
        from mlflow_rnnmod.pages.pictures import write_drift

        panels = [
            (m.name, m.verdict, m.expected.counts, m.served.counts)
            for m in found.modules
            if m.expected is not None and m.served is not None
        ]
        title = f"{uri}: {found.rows} rows served, {found.expected_rows} expected"
        write_drift(panels, title, Path(picture))
    if as_json:
        print_json(found.to_dict())
    else:
        header, rows = found.cells()
        print_table(header, rows, right=header[3:])
        if picture is not None:
            click.echo(picture)
    if found.drifted:
        raise click.exceptions.Exit(FOUND)


@click.command()
@click.argument("targets", nargs=-1)
@click.option("--every", type=click.FloatRange(1), default=60, show_default=True, metavar="SECONDS")
@click.option("--once", is_flag=True, help="Look once; exit code 5 where something is stale.")
@click.option(
    "--module-alias", default="champion", show_default=True, help="Which version of a module is it."
)
@click.option("--webhook", metavar="URL", help="Where the server can tell of aliases that move.")
@click.option("--port", type=int, help="Listen here for it; by default on URL's port.")
@base.rows
@base.target
@base.max_drop(None)
@base.min_rows
@dry_run
@as_json
@command
def watch(
    targets: tuple[str, ...],
    every: float,
    once: bool,
    module_alias: str,
    webhook: str | None,
    port: int | None,
    data: str | None,
    target: str | None,
    max_drop: float | None,
    min_rows: int,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Flag composites (TARGETS, or all with an alias) whose modules' alias has moved.

    With --data and --max-drop the newer modules are put in behind the gate, and the composite's
    alias moves where no label lost more than that.
    """
    if (max_drop is None) != (data is None):
        raise click.UsageError("expected --data and --max-drop, or none of them.")
    from mlflow_rnnmod.operating import watch as watching

    tried: set[str] = set()
    last: list[str] | None = None

    def look() -> bool:
        nonlocal last
        found = watching.stale(targets, module_alias, flag=not dry_run)
        told = [str(one) for one in found]
        if as_json and (once or told != last):
            print_json([one.to_dict() for one in found])
        elif told != last:
            for line in told or ["Nothing is stale."]:
                click.echo(line)
        last = told
        if data is not None:
            for one in found:
                if str(one) not in tried:
                    tried.add(str(one))
                    _renew(one, data, target, max_drop, min_rows, dry_run)
        return bool(found)

    if once:
        if look():
            raise click.exceptions.Exit(FOUND)
        return

    def patient() -> None:
        try:
            look()
        except Exception as error:  # a server that is away for a while does not end the watch
            click.echo(f"Error: {error}", err=True)

    look()
    watching.watch(patient, every, webhook, port)


def _renew(
    one: Stale, data: str, target: str | None, max_drop: float | None, min_rows: int, dry_run: bool
) -> None:
    from mlflow_rnnmod.operating.promotion import PromotionRefused, promote
    from mlflow_rnnmod.tracking import fetch

    modules: dict[str, Any] = {}
    for name, (_, now) in one.modules.items():
        module: Any = fetch.load(f"models:/{name}/{now}")
        if not hasattr(module, "label"):
            raise Failure(f"models:/{name}/{now} is no module.")
        modules[module.label] = module
    try:
        found = promote(
            one.alias.uri,
            replace=modules,
            data=data,
            label_column=target,
            max_drop=max_drop,
            min_rows=min_rows,
            dry_run=dry_run,
        )
        click.echo(str(found))
    except PromotionRefused as error:
        click.echo(f"Refused: {error.message}")
