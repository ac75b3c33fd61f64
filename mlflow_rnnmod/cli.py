"""``rnnmod``: modules and composites from the command line.

Heavy imports are inside the commands, so that ``rnnmod --help`` answers at once.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel

    from mlflow_rnnmod.composition import Composite

_KINDS = ("module", "parent", "composite")


@contextmanager
def _said_plainly() -> Iterator[None]:
    """What users can do something about is said in a sentence, without a traceback."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, ValueError, TypeError, OSError) as error:
        raise click.ClickException(str(error)) from error


def _command(function: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        with _said_plainly():
            from mlflow_rnnmod.tracking.download import quiet_downloads

            with quiet_downloads():
                function(*args, **kwargs)

    return wrapped


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--tracking-uri",
    metavar="URI",
    help="MLflow's tracking server or database; by default $MLFLOW_TRACKING_URI.",
)
@click.version_option(package_name="mlflow-rnnmod")
def main(tracking_uri: str | None) -> None:
    """Recurrent networks as modules: list, look at, compose, replace, export, ask them."""
    if tracking_uri is not None:
        import mlflow

        mlflow.set_tracking_uri(tracking_uri)


@main.command("list")
@click.option("--kind", type=click.Choice(_KINDS), help="Only models of this kind.")
@click.option("--label", help="Only modules for this label.")
@click.option("--experiment", help="Only models of the experiment with this name.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, one list of objects.")
@_command
def list_models(kind: str | None, label: str | None, experiment: str | None, as_json: bool) -> None:
    """List the modules, parents and composites on the tracking server, newest first."""
    found = [_summary(model) for model in _models(kind, label, experiment)]
    if as_json:
        click.echo(json.dumps(found, indent=1, ensure_ascii=False))
        return
    if not found:
        click.echo("There are none.")
        return
    columns = {
        "kind": "kind",
        "label": "label",
        "uri": "URI",
        "registered": "registered",
        "parent": "parent",
        "f1": "F1",
        "kept": "units kept",
    }
    rows = [[_shown(item[name]) for name in columns] for item in found]
    _print_table(list(columns.values()), rows, right=("F1", "units kept"))


@main.command()
@click.argument("uri")
@_command
def show(uri: str) -> None:
    """Show what is logged under URI: its card."""
    from rich.console import Console
    from rich.markdown import Markdown

    from mlflow_rnnmod.tracking import fetch, flavor

    text = flavor.card_of(fetch.load(uri), uri)
    if _somebody_looks_on():
        Console().print(Markdown(text))
    else:
        click.echo(text)


_register = click.option("--register", metavar="NAME", help="Register the new model as NAME.")
_name = click.option("--name", help="Name of the new model in its list.", default="composite")
_save = click.option(
    "--save", metavar="FOLDER", help="Save the new model in FOLDER, instead of logging it."
)


@main.command()
@click.argument("uris", nargs=-1, required=True)
@click.option("--score", help="How modules are compared; by default as fits their parents.")
@click.option(
    "--threshold",
    "thresholds",
    multiple=True,
    metavar="LABEL=NUMBER",
    help="What LABEL's score has to reach where labels have no rivals, instead of 0; repeatable.",
)
@_register
@_name
@_save
@_command
def compose(
    uris: tuple[str, ...],
    score: str | None,
    thresholds: tuple[str, ...],
    register: str | None,
    name: str,
    save: str | None,
) -> None:
    """Make a model of the modules under URIS and log it.

    Each is a models:/ or runs:/ URI or a folder, of a module or of a composite, for all its
    modules; runs:/RUN alone stands for all modules of that run.
    """
    from mlflow_rnnmod import verbs

    limits = dict(_threshold(given) for given in thresholds)
    _keep(verbs.compose(list(uris), score, thresholds=limits or None), register, name, save)


def _threshold(given: str) -> tuple[str, float]:
    label, sign, number = given.rpartition("=")
    try:
        return label, float(number if sign else "")
    except ValueError:
        raise click.UsageError(f"--threshold {given!r}, expected LABEL=NUMBER.") from None


@main.command()
@click.argument("composite")
@click.argument("label")
@click.argument("module")
@_register
@_name
@_save
@_command
def replace(
    composite: str, label: str, module: str, register: str | None, name: str, save: str | None
) -> None:
    """Log COMPOSITE with MODULE in the place of LABEL's; the old one stays as it is."""
    from mlflow_rnnmod import verbs

    _keep(verbs.replace(composite, label, module), register, name, save)


@main.command()
@click.argument("uri")
@click.argument("folder")
@_command
def export(uri: str, folder: str) -> None:
    """Write what is under URI into FOLDER, so that it needs no other files."""
    from mlflow_rnnmod import verbs

    verbs.export(uri, folder)
    click.echo(folder)


@main.command()
@click.argument("uri")
@click.argument("inputs", nargs=-1)
@click.option("--scores", is_flag=True, help="Each label's score too, as JSON lines.")
@click.option("--reject-below", type=float, help="Answer 'none of these' below this score.")
@_command
def predict(uri: str, inputs: tuple[str, ...], scores: bool, reject_below: float | None) -> None:
    """Ask the model under URI; without INPUTS, each line of the standard input.

    Models that read tokens or features take each input as JSON. Answers that are lists of labels
    are JSON, too.
    """
    from mlflow_rnnmod.inputs import input_of
    from mlflow_rnnmod.tracking import fetch, flavor
    from mlflow_rnnmod.tracking.pyfunc import PREDICTION, RnnmodModel

    thing = fetch.load(uri)
    given: list[Any] = list(inputs) or [line.rstrip("\r\n") for line in sys.stdin]
    given = [input_of(flavor.input_kind(thing)).parsed(item) for item in given]
    found = RnnmodModel(thing).predict(given, {"scores": scores, "reject_below": reject_below})
    if hasattr(found, "columns"):
        lists = list(found.columns) == [PREDICTION]
        rows = found[PREDICTION] if lists else found.to_dict(orient="records")
        for row in rows:
            click.echo(json.dumps(row, ensure_ascii=False))
    else:
        for label in found:
            click.echo(label)


def _keep(composite: Composite, register: str | None, name: str, save: str | None) -> None:
    """Log or save a new composite, and say what it is."""
    from mlflow_rnnmod.tracking import flavor

    if save is not None:
        if register is not None:
            raise click.UsageError("--save and --register exclude each other.")
        flavor.save_model(composite, save)
        place = save
    else:
        info = flavor.log_model(composite, name=name, registered_model_name=register)
        place = info.model_uri
        if register is not None:
            place += f" (models:/{register}/{info.registered_model_version})"
    rows = [
        [_shown(s["label"]), _shown(s["uri"]), _shown(s["version"]), s["parent"][:12]]
        for s in composite.sources
    ]
    _print_table(["label", "from", "version", "parent"], rows)
    click.echo(f"score: {composite.score}")
    click.echo(place)


def _models(kind: str | None, label: str | None, experiment: str | None) -> Iterator[LoggedModel]:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModelStatus
    from mlflow.exceptions import MlflowException

    from mlflow_rnnmod.tracking import download

    client = MlflowClient()
    experiments = download.experiments(client)
    if experiment is not None:
        experiments = [found for found in experiments if found.name == experiment]
        if not experiments:
            raise MlflowException.invalid_parameter_value(
                f"experiment={experiment!r} is not on this tracking server."
            )
    # A label can hold quotes, which a filter can't; those are compared here.
    kinds = (kind,) if kind else _KINDS
    chosen = ", ".join(f"'{name}'" for name in kinds)
    token = None
    while True:
        page = client.search_logged_models(
            experiment_ids=[found.experiment_id for found in experiments],
            filter_string=f"tags.`rnnmod.kind` IN ({chosen})",
            page_token=token,
        )
        for model in page:
            wanted = label is None or model.tags.get("rnnmod.label") == label
            if wanted and model.status == LoggedModelStatus.READY:
                yield model
        token = page.token
        if not token:
            return


def _summary(model: LoggedModel) -> dict[str, Any]:
    versions = json.loads(model.tags.get("mlflow.modelVersions", "[]"))
    figures = {metric.key: metric.value for metric in model.metrics or ()}
    kind = model.tags["rnnmod.kind"]
    return {
        "kind": kind,
        "label": model.tags.get("rnnmod.label") if kind == "module" else None,
        "name": model.name,
        "uri": f"models:/{model.model_id}",
        "registered": ", ".join(f"{v['name']}/{v['version']}" for v in versions) or None,
        "parent": model.tags.get("rnnmod.parent", "")[:12] or None,
        "f1": figures.get("f1"),
        "kept": model.params.get("kept_fraction"),
    }


def _somebody_looks_on() -> bool:
    return sys.stdout.isatty()


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    return "" if value is None else str(value)


def _print_table(header: list[str], rows: list[list[str]], right: tuple[str, ...] = ()) -> None:
    """A table; where nobody looks on, tab-separated for other programs."""
    if not _somebody_looks_on():
        for row in [header, *rows]:
            click.echo("\t".join(cell.replace("\t", " ").replace("\n", " ") for cell in row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for name in header:
        table.add_column(
            name,
            justify="right" if name in right else "left",
            overflow="fold" if name in ("URI", "from") else "ellipsis",
        )
    for row in rows:
        table.add_row(*[Text(cell) for cell in row])
    Console().print(table)


if __name__ == "__main__":
    main()
