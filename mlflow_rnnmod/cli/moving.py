"""``push`` and ``decompose``: models that come from, or go, elsewhere."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import click

from mlflow_rnnmod.cli import base
from mlflow_rnnmod.cli.base import Failure, as_json, command, dry_run
from mlflow_rnnmod.cli.tables import cell, print_json, print_table


@click.command()
@click.argument("uri")
@click.option("--to", "server", required=True, metavar="SERVER", help="The other tracking server.")
@click.option("--register", metavar="NAME", help="Register it as NAME there.")
@click.option("--experiment", metavar="NAME", help="Log to this experiment there.")
@dry_run
@as_json
@command
def push(
    uri: str,
    server: str,
    register: str | None,
    experiment: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Copy the model under URI to another SERVER, with figures, tags, parents and modules.

    What was pushed before is not pushed again.
    """
    import os

    from mlflow_rnnmod.operating import push as pushing

    base.check_server(server)
    if experiment is not None:
        os.environ["MLFLOW_EXPERIMENT_NAME"] = experiment
    found = pushing.push(uri, server, register, dry_run)
    if as_json:
        print_json([one.to_dict() for one in found])
        return
    done = "would be pushed" if dry_run else "pushed"
    rows = [
        [cell(one.uri), one.kind, one.source, done if one.new else "was there"] for one in found
    ]
    print_table(["URI", "kind", "from", ""], rows)


@click.command()
@click.argument("checkpoint", type=click.Path(exists=True, dir_okay=False))
@click.option(
    "--model", required=True, metavar="MODULE:NAME", help="Class of the model, or what makes it."
)
@click.option(
    "--data",
    required=True,
    metavar="MODULE:NAME",
    help="A LightningDataModule, or what returns loaders for training and validation.",
)
@click.option("--labels", metavar="A,B,...", help="Or @FILE, one a line; by default data.labels.")
@click.option("--tokenizer", metavar="FILE", help="A tokenizer of the package tokenizers.")
@click.option("--prefix", metavar="NAME", help="Register modules as NAME.<label>.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="As removal=0.2; repeatable."
)
@base.in_experiment
@dry_run
@as_json
@command
def decompose(
    checkpoint: str,
    model: str,
    data: str,
    labels: str | None,
    tokenizer: str | None,
    prefix: str | None,
    settings: tuple[str, ...],
    experiment: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Take the network in a Lightning CHECKPOINT apart and log its modules.

    MODULE is imported from the working directory or the installed packages. A class is made with
    the hyperparameters that the checkpoint has. With --dry-run nothing is logged.
    """
    from mlflow_rnnmod.tracking.names import registered_name

    if prefix is not None:
        registered_name(prefix)
    given = dict(_setting(text) for text in settings)
    sys.path.insert(0, str(Path.cwd()))
    network = _made(_named(model, "--model"), checkpoint)
    source = _named(data, "--data")
    source = source() if callable(source) else source
    names = _labels(labels, source)
    callback = _callback(names, _tokenizer(tokenizer), prefix, given, logs=not dry_run)
    where: dict[str, Any] = {"datamodule": source}
    if not hasattr(source, "train_dataloader"):
        loaders = source if isinstance(source, tuple | list) else (source,)
        where = dict(zip(("train_dataloaders", "val_dataloaders"), loaders, strict=False))
    if not dry_run:
        base.use_experiment(experiment)
    found = callback.decompose_checkpoint(checkpoint, network, **where)
    uris = {} if callback.logged is None else dict(callback.logged.uris)
    if as_json:
        print_json({"figures": dict(found.figures), "uris": uris})
        return
    rows = []
    for m in found.modules:
        kept = f"{m.trunk.kept}/{m.trunk.total}"
        rows.append([uris.get(m.label, ""), m.label, cell(m.figures.get("f1")), kept])
    print_table(["URI", "label", "F1", "units kept"], rows, right=("F1", "units kept"))
    for name, value in found.figures.items():
        click.echo(f"{name}: {cell(value)}")
    if dry_run:
        click.echo("Nothing was logged (--dry-run).")


def _callback(
    labels: Any, tokenizer: Any, prefix: str | None, settings: dict[str, Any], logs: bool
) -> Any:
    from lightning_callbacks import ModuleDecomposition

    class Dry(ModuleDecomposition):  # type: ignore[misc]
        def modules_to_log(self, decomposition: Any) -> Any:
            return ()

    kind = ModuleDecomposition if logs else Dry
    return kind(labels, tokenizer, registered_model_prefix=prefix, strict=True, **settings)


def _setting(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise click.UsageError(f"--set {text!r}, expected KEY=VALUE.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _named(given: str, option: str) -> Any:
    module, colon, name = given.partition(":")
    if not colon or not module or not name:
        raise click.UsageError(f"{option} {given!r}, expected MODULE:NAME, as training:Model.")
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise Failure(f"{option} {given!r}: {error}") from error
    if not hasattr(found, name):
        from mlflow_rnnmod.tracking.searching import suggestion

        near = suggestion(name, [n for n in vars(found) if not n.startswith("_")])
        raise Failure(f"{option} {given!r}: {module} has no {name!r}.{near}")
    return getattr(found, name)


def _made(maker: Any, checkpoint: str) -> Any:
    """A model of a class, with the hyperparameters of the checkpoint where it has some."""
    import torch

    if isinstance(maker, torch.nn.Module):
        return maker
    try:
        found = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:
        raise Failure(
            f"{checkpoint} can't be read without running code from it: {error}"
        ) from error
    given = dict(found.get("hyper_parameters") or {}) if isinstance(found, dict) else {}
    if not isinstance(maker, type):
        given = {}
    try:
        return maker(**given)
    except TypeError as error:
        raise Failure(f"{maker.__name__}({', '.join(given)}): {error}") from error


def _labels(given: str | None, data: Any) -> list[str] | None:
    if given is None:
        found = getattr(data, "labels", None)
        return None if found is None else list(found)
    if given.startswith("@"):
        return Path(given[1:]).read_text("utf-8").splitlines()
    return given.split(",")


def _tokenizer(path: str | None) -> Any:
    if path is None:
        return None
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(path)
    except Exception as error:  # what the package raises for a file that is none
        raise Failure(
            f"--tokenizer {path!r}: {error}; expected the path of a tokenizer.json, as the package "
            "tokenizers writes it. Nothing is downloaded."
        ) from error
