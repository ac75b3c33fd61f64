"""``plan``, ``compose``, ``add``, ``remove``, ``select``, ``replace``, ``export``: new models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from mlflow_rnnmod.cli import base
from mlflow_rnnmod.cli.base import Failure, as_json, command, dry_run, reading
from mlflow_rnnmod.cli.tables import cell, print_json, print_table, somebody_looks_on

if TYPE_CHECKING:
    from mlflow_rnnmod.composition import Composite
    from mlflow_rnnmod.tracking.given import Given

_RECIPES = (".yml", ".yaml")


@dataclass(frozen=True)
class Keeping:
    """Where a new model goes.

    Args:
        name: of its LoggedModel.
        register: name of the registered model, if any.
        save: folder instead of logging it.
        experiment: to log to.
        dry_run: whether only to say so.
        as_json: print JSON.
    """

    name: str = "composite"
    register: str | None = None
    save: str | None = None
    experiment: str | None = None
    dry_run: bool = False
    as_json: bool = False

    def check(self) -> None:
        """Whether names can be names, before anything is loaded or logged."""
        from mlflow_rnnmod.tracking.names import check_logged_name, check_registered_name

        if self.save is not None and self.register is not None:
            raise click.UsageError("--save and --register exclude each other.")
        if self.save is None:
            check_logged_name(self.name, "--name")
        if self.register is not None:
            check_registered_name(self.register, "--register")
        if self.save is not None:
            from pathlib import Path

            folder = Path(self.save)
            if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                raise Failure(
                    f"--save {self.save!r} is there and not empty; expected a new folder."
                )

    def keep(
        self, composite: Composite, told: dict[str, Any] | None = None, rows: Given | None = None
    ) -> None:
        """Log or save a new composite, with figures on some rows, and say what it is."""
        if rows is not None:
            from mlflow_rnnmod.tracking.drift import with_expected

            composite = with_expected(composite, rows.inputs)
        place, version = self._kept(composite, rows)
        if self.as_json:
            print_json(
                {
                    "uri": place,
                    "registered": version,
                    "labels": list(composite.labels),
                    "score": composite.score,
                    "modules": composite.sources,
                    "dry_run": self.dry_run,
                    **(told or {}),
                }
            )
            return
        lines = [
            [cell(s["label"]), cell(s["uri"]), cell(s["version"]), s["parent"][:12]]
            for s in composite.sources
        ]
        print_table(["label", "from", "version", "parent"], lines)
        click.echo(f"score: {composite.score}")
        if self.dry_run:
            click.echo("Nothing was logged (--dry-run).")
        else:
            click.echo(place + (f" ({version})" if version else ""))

    def _kept(self, composite: Composite, rows: Given | None) -> tuple[str, str | None]:
        from mlflow_rnnmod.tracking import all_or_nothing, flavor

        if self.dry_run:
            return "", None
        if self.save is not None:
            flavor.save_model(composite, self.save)
            return self.save, None
        base.use_experiment(self.experiment)
        info = all_or_nothing.log_or_leave_nothing(composite, self.name, self.register, rows=rows)
        if self.register is None:
            return info.model_uri, None
        return info.model_uri, f"models:/{self.register}/{info.registered_model_version}"


def _keeping(function: Any) -> Any:
    """The options of a command that makes a model."""
    options = (base.register, base.name, base.save, base.in_experiment, dry_run, as_json)
    for option in reversed(options):
        function = option(function)
    return function


def _keeper(options: dict[str, Any]) -> Keeping:
    names = ("name", "register", "save", "experiment", "dry_run", "as_json")
    found = Keeping(**{name: options[name] for name in names})
    found.check()
    return found


def is_recipe(uris: Sequence[str]) -> bool:
    """Whether a recipe is given instead of URIs.

    Raises:
        UsageError: if one is given beside something else.
    """
    files = [uri for uri in uris if uri.lower().endswith(_RECIPES) and ":/" not in uri]
    if files and len(uris) > 1:
        raise click.UsageError(f"{files[0]!r} is a recipe; expected nothing else beside it.")
    return bool(files)


@click.command()
@click.argument("uris", nargs=-1, required=True)
@click.option("--batch-size", type=click.IntRange(1), default=64, show_default=True)
@as_json
@reading
def plan(uris: tuple[str, ...], batch_size: int, as_json: bool) -> None:
    """Say what composing URIS, or a recipe (FILE.yml), would give; no weight is loaded."""
    from mlflow_rnnmod.tracking import planning, recipes

    if is_recipe(uris):
        found = planning.plan_recipe(recipes.read_recipe(uris[0]), batch_size)
    else:
        found = planning.plan(list(uris), batch_size)
    if as_json:
        click.echo(found.to_json())
    elif somebody_looks_on():
        from rich.console import Console

        Console().print(found)
    else:
        print_table(["plan", ""], [list(row) for row in found.rows()])
    if not found.fits:
        raise click.exceptions.Exit(base.WRONG)


@click.command()
@click.argument("uris", nargs=-1, required=True)
@click.option("--score", help="How modules are compared; by default as fits their parents.")
@click.option(
    "--threshold",
    "thresholds",
    multiple=True,
    metavar="LABEL=NUMBER",
    help="What LABEL's score has to reach where labels have no rivals, instead of 0; repeatable.",
)
@click.option("--reject-below", type=float, metavar="SCORE", help="Lower is 'none of these'.")
@click.option(
    "--reject-at",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="Instead of it the share of --data that may be rejected, as 0.05.",
)
@base.rows
@base.target
@_keeping
@command
def compose(
    uris: tuple[str, ...],
    score: str | None,
    thresholds: tuple[str, ...],
    reject_below: float | None,
    reject_at: float | None,
    data: str | None,
    target: str | None,
    **options: Any,
) -> None:
    """Make a model of the modules under URIS, or of a recipe (FILE.yml), and log it.

    Each is a models:/ or runs:/ URI or a folder, of a module or of a composite, for all its
    modules; runs:/RUN alone stands for all modules of that run. With --data its page begins with
    how good it is there, and it remembers how its scores were spread (see drift).
    """
    if reject_at is not None and data is None:
        raise click.UsageError("--reject-at needs --data.")
    from mlflow_rnnmod import verbs
    from mlflow_rnnmod.operating.recipes import compose_recipe
    from mlflow_rnnmod.tracking import recipes

    limits = dict(_threshold(given) for given in thresholds)
    if is_recipe(uris):
        if score or limits or reject_below is not None or reject_at is not None:
            raise click.UsageError("score, thresholds and limits stand in the recipe.")
        found = recipes.read_recipe(uris[0])
        # What is said on the command line goes before what the recipe says.
        if options["name"] == "composite" and found.name:
            options["name"] = found.name
        if options["save"] is None:
            options["register"] = options["register"] or found.register
        keeper = _keeper(options)
        made = compose_recipe(found)
        keeper.keep(made, rows=_given(data, made, target))
        return
    keeper = _keeper(options)
    made = verbs.compose(list(uris), score, thresholds=limits or None, reject_below=reject_below)
    rows = _given(data, made, target)
    if reject_at is not None and rows is not None:
        made = verbs.compose(
            made.modules,
            score,
            thresholds=limits or None,
            reject_at=reject_at,
            reject_on=rows.inputs,
        )
    keeper.keep(made, rows=rows)


def _given(data: str | None, thing: Any, target: str | None) -> Given | None:
    from mlflow_rnnmod.tracking.given import read_given

    return None if data is None else read_given(data, thing, target)


def _threshold(given: str) -> tuple[str, float]:
    label, sign, number = given.rpartition("=")
    try:
        return label, float(number if sign else "")
    except ValueError:
        raise click.UsageError(f"--threshold {given!r}, expected LABEL=NUMBER.") from None


@click.command()
@click.argument("composite")
@click.argument("modules", nargs=-1, required=True)
@_keeping
@command
def add(composite: str, modules: tuple[str, ...], **options: Any) -> None:
    """Log COMPOSITE with more MODULES (URIs) behind its own."""
    from mlflow_rnnmod import verbs

    keeper = _keeper(options)
    keeper.keep(verbs.add(composite, *modules))


@click.command()
@click.argument("composite")
@click.argument("labels", nargs=-1, required=True)
@_keeping
@command
def remove(composite: str, labels: tuple[str, ...], **options: Any) -> None:
    """Log COMPOSITE without the modules of some LABELS."""
    from mlflow_rnnmod import verbs

    keeper = _keeper(options)
    known = loaded_composite(composite, labels)
    keeper.keep(verbs.remove(known, *labels))


@click.command()
@click.argument("composite")
@click.argument("labels", nargs=-1, required=True)
@_keeping
@command
def select(composite: str, labels: tuple[str, ...], **options: Any) -> None:
    """Log COMPOSITE with the modules of LABELS only, in this order."""
    from mlflow_rnnmod import verbs

    keeper = _keeper(options)
    known = loaded_composite(composite, labels)
    keeper.keep(verbs.select(known, *labels))


def loaded_composite(uri: str, labels: Sequence[str] = ()) -> Composite:
    """The composite under a URI, if it has some labels.

    Raises:
        Failure: if it is something else, or lacks a label; a similar one is named.
    """
    from mlflow_rnnmod.composition import Composite
    from mlflow_rnnmod.tracking import fetch
    from mlflow_rnnmod.tracking.directory import kind
    from mlflow_rnnmod.tracking.searching import suggestion

    found = fetch.load(uri)
    if not isinstance(found, Composite):
        raise Failure(f"{uri} is a {kind(found)}; expected a composite.")
    for label in labels:
        if label not in found.labels:
            raise Failure(
                f"label {label!r} is none of the composite's labels {list(found.labels)}."
                + suggestion(label, found.labels)
            )
    return found


@click.command()
@click.argument("uri")
@click.argument("folder")
@dry_run
@reading
def export(uri: str, folder: str, dry_run: bool) -> None:
    """Write what is under URI into FOLDER, so that it needs no other files."""
    from mlflow_rnnmod import verbs
    from mlflow_rnnmod.tracking import fetch

    thing = fetch.load(uri)
    if not dry_run:
        verbs.export(thing, folder)
    click.echo(folder)
