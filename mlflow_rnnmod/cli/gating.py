"""``replace``, ``promote``, ``rollback``, ``evaluate``, ``diff``: which one is better."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from mlflow_rnnmod.cli import base
from mlflow_rnnmod.cli.base import Failure, as_json, command, dry_run, reading
from mlflow_rnnmod.cli.making import _given, _keeper, _keeping, loaded_composite
from mlflow_rnnmod.cli.tables import cell, print_json, print_table, somebody_looks_on

if TYPE_CHECKING:
    from mlflow_rnnmod.operating.promotion import Promotion
    from mlflow_rnnmod.tracking.gate import Comparison

_NAMED = re.compile(r"models:/+([^/@]+)(?:/[^/@]+|@[^/@]+)/?")


@click.command()
@click.argument("composite")
@click.argument("label", required=False)
@click.argument("module", required=False)
@click.option("--label", "labels", multiple=True, metavar="LABEL", help="To replace; repeatable.")
@click.option(
    "--with", "modules", multiple=True, metavar="URI", help="The new module of the label before it."
)
@base.rows
@base.target
@base.max_drop(None)
@base.min_rows
@click.option(
    "--promote",
    "alias",
    metavar="ALIAS",
    help="Register it as a new version and move ALIAS to it, if no label lost more than allowed "
    "(0.5 points without --max-drop).",
)
@_keeping
@command
def replace(
    composite: str,
    label: str | None,
    module: str | None,
    labels: tuple[str, ...],
    modules: tuple[str, ...],
    data: str | None,
    target: str | None,
    max_drop: float | None,
    min_rows: int,
    alias: str | None,
    **options: Any,
) -> None:
    """Log COMPOSITE with MODULE in the place of LABEL's; the old one stays as it is.

    With --data both answer the same rows, and each label's figures are printed; with --max-drop
    nothing is logged where a label lost more than that; with --promote the alias moves last, after
    the new version has been loaded and asked in a process of its own. Exit code 3: refused.
    """
    swaps = _swaps(label, module, labels, modules)
    if alias is not None:
        if options["register"] or options["save"]:
            raise click.UsageError("--promote makes a version of COMPOSITE's registered model; "
                                   "--register and --save exclude it.")  # fmt: skip
        _promote_replaced(composite, swaps, data, target, max_drop, min_rows, alias, options)
        return
    if max_drop is not None and data is None:
        raise click.UsageError("--max-drop needs --data.")
    keeper = _keeper(options)
    from mlflow_rnnmod import verbs

    old = new = loaded_composite(composite, list(swaps))
    for name, uri in swaps.items():
        new = verbs.replace(new, name, uri)
    told, rows = {}, _given(data, new, target)
    if rows is not None:
        from mlflow_rnnmod.operating.promotion import compared

        comparison = compared(old, new, rows)
        told["comparison"] = comparison.to_dict()
        if not options["as_json"]:
            print_comparison(comparison)
        reason = None if max_drop is None else comparison.refusal(max_drop, min_rows)
        if reason is not None:
            raise Failure(f"Nothing was logged: {reason}.", base.REFUSED)
    keeper.keep(new, told, rows)


def _swaps(
    label: str | None, module: str | None, labels: tuple[str, ...], modules: tuple[str, ...]
) -> dict[str, str]:
    if label is not None:
        if module is None or labels or modules:
            raise click.UsageError("expected LABEL and MODULE, or --label and --with.")
        return {label: module}
    if not labels or len(labels) != len(modules):
        raise click.UsageError(
            f"{len(labels)} times --label and {len(modules)} times --with; expected as many of "
            "both, at least one."
        )
    if len(set(labels)) < len(labels):
        raise click.UsageError("--label names one label twice.")
    return dict(zip(labels, modules, strict=True))


def _promote_replaced(
    composite: str,
    swaps: dict[str, str],
    data: str | None,
    target: str | None,
    max_drop: float | None,
    min_rows: int,
    alias: str,
    options: dict[str, Any],
) -> None:
    named = _NAMED.fullmatch(composite)
    if named is None:
        raise click.UsageError(
            f"--promote needs a registered COMPOSITE, models:/<name>@<alias>; got {composite!r}."
        )
    if data is None:
        raise click.UsageError("--promote needs --data: rows on which old and new are compared.")
    from mlflow_rnnmod import verbs
    from mlflow_rnnmod.operating import promotion

    where = f"models:/{named[1]}@{alias}"
    new = loaded_composite(composite, list(swaps))
    for name, uri in swaps.items():
        new = verbs.replace(new, name, uri)
    if not options["dry_run"]:
        base.use_experiment(options["experiment"])
    limit = 0.5 if max_drop is None else max_drop
    _promoted(
        promotion.promote,
        where,
        new,
        data=data,
        label_column=target,
        max_drop=limit,
        min_rows=min_rows,
        dry_run=options["dry_run"],
        as_json=options["as_json"],
    )


def _promoted(promote: Any, *arguments: Any, as_json: bool, **named: Any) -> None:
    from mlflow_rnnmod.operating.promotion import PromotionRefused

    try:
        found: Promotion = promote(*arguments, **named)
    except PromotionRefused as error:
        if as_json:
            print_json({"refused": error.message, "comparison": error.comparison.to_dict()})
        else:
            print_comparison(error.comparison)
        raise
    if as_json:
        print_json(found.to_dict())
        return
    if found.comparison is not None:
        print_comparison(found.comparison)
    click.echo(str(found))


@click.command()
@click.argument("candidate")
@click.option(
    "--to",
    "where",
    required=True,
    metavar="ALIAS",
    help="An alias of CANDIDATE's registered model, or models:/<name>@<alias>.",
)
@base.rows
@base.target
@base.max_drop(0.5)
@base.min_rows
@click.option("--unmeasured", is_flag=True, help="Without comparing anything; needs no --data.")
@base.in_experiment
@dry_run
@as_json
@command
def promote(
    candidate: str,
    where: str,
    data: str | None,
    target: str | None,
    max_drop: float,
    min_rows: int,
    unmeasured: bool,
    experiment: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Move an alias to CANDIDATE, if no label loses more than allowed by it.

    A version of the alias's registered model is taken as it is, all else becomes a new version. It
    is loaded and asked in a process of its own before the alias moves. Exit code 3: refused.
    """
    if "@" not in where:
        named = _NAMED.fullmatch(candidate)
        if named is None:
            raise click.UsageError(f"--to {where!r}, expected models:/<name>@<alias>.")
        where = f"models:/{named[1]}@{where}"
    if data is None and not unmeasured:
        raise click.UsageError("expected --data, or --unmeasured.")
    from mlflow_rnnmod.operating import promotion

    if not dry_run:
        base.use_experiment(experiment)
    _promoted(
        promotion.promote,
        where,
        candidate,
        data=data,
        label_column=target,
        max_drop=None if unmeasured else max_drop,
        min_rows=min_rows,
        dry_run=dry_run,
        as_json=as_json,
    )


@click.command()
@click.argument("alias")
@click.option("--to", "version", metavar="VERSION", help="Instead of the one it named before.")
@dry_run
@as_json
@command
def rollback(alias: str, version: str | None, dry_run: bool, as_json: bool) -> None:
    """Point ALIAS (models:/<name>@<alias>) at the version that it named before."""
    from mlflow_rnnmod.operating import rollback as rolling

    found = rolling.rollback(alias, version, dry_run=dry_run)
    if as_json:
        print_json(found.to_dict())
    else:
        click.echo(str(found))


@click.command()
@click.argument("uri")
@click.option("--data", metavar="FILE", required=True, help="Rows with what is right.")
@base.target
@base.in_experiment
@dry_run
@as_json
@command
def evaluate(
    uri: str, data: str, target: str | None, experiment: str | None, dry_run: bool, as_json: bool
) -> None:
    """Measure the model under URI on rows, label by label, and log the figures to it."""
    from mlflow_rnnmod.tracking import fetch
    from mlflow_rnnmod.tracking.given import read_given
    from mlflow_rnnmod.tracking.probe import measure

    thing = fetch.load(uri)
    rows = read_given(data, thing, target)
    if not dry_run:
        base.use_experiment(experiment)
    overall, table = measure(uri, thing, rows, log=not dry_run)
    found = table.to_dict(orient="records")
    if as_json:
        print_json({"uri": uri, "data": rows.name, "figures": overall, "labels": found})
        return
    columns = list(table.columns)
    for name, value in overall.items():
        click.echo(f"{name}: {cell(int(value) if name == 'rows' else value)}")
    shown = [[cell(row[c]) for c in columns] for row in found]
    print_table(columns, shown, right=columns[1:])


@click.command()
@click.argument("old")
@click.argument("new")
@base.rows
@base.target
@as_json
@reading
def diff(old: str, new: str, data: str | None, target: str | None, as_json: bool) -> None:
    """Say how the composites OLD and NEW differ; with --data also on the same rows."""
    first, second = loaded_composite(old), loaded_composite(new)
    from mlflow_rnnmod.tracking.recipes import differences

    found = differences(first, second)
    comparison = None if data is None else _compared(first, second, data, target)
    if as_json:
        told = None if comparison is None else comparison.to_dict()
        print_json({"differences": found, "comparison": told})
        return
    if not found:
        click.echo("They are made of the same modules, compared in the same way.")
    else:
        columns = ["what", "old", "new"]
        print_table(columns, [[cell(row[c]) for c in columns] for row in found])
    if comparison is not None:
        print_comparison(comparison)


def _compared(old: Any, new: Any, data: str, target: str | None) -> Comparison:
    from mlflow_rnnmod.operating.promotion import compared
    from mlflow_rnnmod.tracking.given import read_given

    return compared(old, new, read_given(data, new, target))


def print_comparison(comparison: Comparison) -> None:
    """Figures of each label, those that lost most first."""
    header, rows = comparison.cells()
    if somebody_looks_on():
        click.echo(f"{comparison.figure} of each label in points, {comparison.rows} rows")
    print_table(header, rows, right=header[1:])
