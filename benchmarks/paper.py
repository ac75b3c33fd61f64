"""The paper's questions on its own data: ``python -m benchmarks.paper rq1 --help`` and so on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks import rq2, rq3
from benchmarks.apart import SETTINGS, print_apart, rows_of
from benchmarks.data import NotInstalled, TextData
from benchmarks.gorilla import GORILLA, run_gorilla
from benchmarks.options import console, progress_bar, reuse_options, rq1_options, shared
from benchmarks.page.apart import page as page_of_apart
from benchmarks.page.page import write
from benchmarks.page.rows import read_rows
from benchmarks.parents import train_parent
from benchmarks.published import delta, reuse_delta
from benchmarks.results import RowFile, mean_and_error, print_reuse, print_rows
from benchmarks.reuse import Workshop
from benchmarks.rq1 import rq1_rows
from benchmarks.study import Study
from benchmarks.tasks import CELLS, TASKS
from benchmarks.translation.run import run_reuse, run_scenarios
from benchmarks.translation.run import run_rq1 as run_translation_rq1
from benchmarks.translation.scenarios import SCENARIOS

QUICK_ROWS = 3000
TRANSLATION = "tatoeba"
DATASETS = (*TASKS, TRANSLATION)


@click.group(context_settings={"show_default": True})
def main() -> None:
    """Take the paper's networks apart, put them together again, and print our figures."""


@main.command("rq1")
@click.argument("datasets", nargs=-1, type=click.Choice(DATASETS))
@rq1_options
@shared
def rq1(datasets: tuple[str, ...], **settings: Any) -> None:
    """Is a parent that is taken apart and composed again as good as it was?

    All of DATASETS where none is named. A row's net is the composite with units removed minus the
    one with nothing removed and the same repairs; random masks of the same size stand beside.
    """
    started = time.perf_counter()
    for dataset in datasets or DATASETS:
        if dataset == TRANSLATION:
            run_translation_rq1(settings)
        else:
            run_rq1(dataset, **settings)
    _took(started)


@main.command("clinc_oos")
@click.option("--label", type=click.Choice(["domain", "intent"]), default="domain")
@click.option("--cell", type=click.Choice(CELLS), default="lstm")
@click.option("--layers", type=int, default=1)
@click.option("--seeds", type=int, default=3, help="How many parents, each with its own seed.")
@rq1_options
@click.option("--data-dir", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--cache", type=click.Path(path_type=Path), default=Path(".cache/benchmarks"))
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Rows; goes on with it.")
@click.option("--open-world/--no-open-world", default=None, help="Parents trained apart, too.")
def clinc_oos(label: str, open_world: bool | None, **settings: Any) -> None:
    """CLINC OOS: one label for a query, 10 domains or 150 intents; the short form of rq1.

    The parent is the paper's network: an embedding of 50, one recurrent layer of 100 units or more
    of them, the state at the last word, an output layer; a tenth of the words are replaced by the
    unknown one in training, and there is no other dropout.
    """
    started = time.perf_counter()
    dataset = "clinc_oos" if label == "domain" else "clinc_oos/intent"
    run_rq1(dataset, variant="rolled", gates="joint", quick=False, **settings)
    cell, layers, data_dir = settings["cell"], settings["layers"], settings["data_dir"]
    seeds = settings["seeds"]
    if open_world is None:
        open_world = label == "domain" and cell == "lstm" and layers == 1
    if open_world:
        where = data_dir, settings["cache"], settings["json_file"], console
        print_apart(dataset, min(seeds, 2), *where, cell=cell, layers=layers)
    _took(started)


@main.command("apart")
@click.argument("names", nargs=-1, required=True, type=click.Choice(list(SETTINGS)))
@click.option("--removal", type=float, default=0.2, help="Share of the units.")
@click.option("--splits", type=int, help="Only so many of the splits of the labels.")
@click.option("--seeds", type=int, default=2, help="How many times, each with other parents.")
@click.option("--cell", type=click.Choice(CELLS), default="lstm")
@click.option("--data-dir", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--cache", type=click.Path(path_type=Path), default=Path(".cache/benchmarks"))
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Rows; goes on with it.")
@click.option("--page", type=click.Path(path_type=Path), help="Markdown of all rows of --json.")
def apart(names: tuple[str, ...], page: Path | None, **settings: Any) -> None:
    """Modules of two parents that learned different labels, against one parent that learned all.

    Beside the default score: the same modules without likelihoods (open), the likelihoods alone,
    scales fitted on 300 rows of all labels, and the one parent's own modules without likelihoods
    (margin) and with (bayes).
    """
    started = time.perf_counter()
    for name in names:
        print_apart(name, console=console, **settings)
    if page is not None:
        page.write_text(page_of_apart(rows_of(settings["json_file"]).rows), encoding="utf-8")
    _took(started)


def run_rq1(
    dataset: str,
    cell: str,
    layers: int,
    variant: str,
    gates: str,
    rules: tuple[str, ...],
    removals: tuple[float, ...],
    repairs: tuple[str, ...],
    draws: int,
    share_of: str,
    trunks: int | None,
    seeds: int,
    quick: bool,
    data_dir: Path,
    cache: Path,
    json_file: Path | None,
) -> None:
    """Rows of one data set and kind of parent, for each seed, and their table."""
    task = TASKS[dataset]
    data = _data(dataset, data_dir, quick)
    if data is None:
        return
    cell, file = task.cell(cell), RowFile(json_file)
    mine = {
        "question": "rq1",
        "dataset": data.name,
        "io_type": task.io_type,
        "cell": cell,
        "layers": layers,
        "variant": variant,
        "gates": gates,
        "share_of": None if share_of == "units" else share_of,  # which older rows don't say
        "trunks": trunks,
    }
    with progress_bar() as progress:
        for seed in range(seeds):
            bar = progress.add_task(f"{dataset}, seed {seed}: parent", total=None)
            parent, seconds = train_parent(data, task.training(cell, layers, seed), cache)
            done = {
                (r["rule"], r["removal"], r["repairs"], r["matched"])
                for r in file.where(**mine, seed=seed)
            }
            splits = [data.rows(s, parent.encoder) for s in ("train", "validation", "test")]
            study = Study.start(parent, *splits, seed, variant, gates, share_of, trunks)
            fixed = {
                **mine,
                "seed": seed,
                "training_seconds": seconds,
                "paper_delta": delta(data.name, variant, cell, layers),
            }

            def told(stage: str, step: int, of: int, bar: Any = bar, seed: int = seed) -> None:
                text = f"{dataset}, seed {seed}: {stage}"
                progress.update(bar, description=text, completed=step, total=of)

            for row in rq1_rows(study, fixed, rules, removals, repairs, done, told, draws):
                file.add(row)
            progress.remove_task(bar)
    rows = file.where(**mine)
    _print_parents(rows)
    order = {"none": 0, **{rule: 2 * i + 1 for i, rule in enumerate(rules)}}
    rows.sort(
        key=lambda r: (
            r["repairs"],
            r["removal"],
            order.get(r["matched"] or r["rule"], 99) + (r["rule"] == "random"),
        )
    )
    title = (
        f"{data.name}, {cell}, {layers} layer(s), {variant}, {gates} gates: composite minus "
        f"parent, in points of {rows[0]['metric']}"
    )
    print_rows(rows, ("repairs", "removal", "rule", "matched"), title)


# Kinds of network whose modules are put together: the papers' pairs of types, or of data sets.
ACROSS = {
    "many-to-one with many-to-many": ("clinc_oos", "brown_pos"),
    "one-to-one with one-to-many": ("math_qa", "wiki_toxicity/list"),
    "mnist with emnist_letters": ("mnist", "emnist_letters"),
    "cifar10 with cifar100": ("cifar10", "cifar100"),
}


@main.command("rq2")
@click.argument("datasets", nargs=-1, type=click.Choice(DATASETS))
@reuse_options
@shared
def reuse_modules(datasets: tuple[str, ...], **settings: Any) -> None:
    """Are two modules as good as a model trained from scratch for their two labels?"""
    started = time.perf_counter()
    _reuse("rq2", datasets, rq2.within, rq2.across, settings)
    if _translates(datasets, settings):
        run_reuse("rq2", settings)
    _took(started)


@main.command("rq3")
@click.argument("datasets", nargs=-1, type=click.Choice(DATASETS))
@reuse_options
@shared
def replace_modules(datasets: tuple[str, ...], **settings: Any) -> None:
    """What does a model gain or lose when one of its modules gives way to another model's?

    Within a type the worst of the parents of all cells and seeds gets modules of the best; a dense
    network that saw few rows of one label gets the module of one that saw them all.
    """
    started = time.perf_counter()
    _reuse("rq3", datasets, rq3.within, rq3.across, settings)
    if _translates(datasets, settings):
        run_reuse("rq3", settings)
    _took(started)


@main.command("scenarios")
@click.argument("datasets", nargs=-1, type=click.Choice([*SCENARIOS, GORILLA]))
@click.option("--removal", type=float, default=0.2, help="Share of the decoders' units.")
@shared
def scenarios(datasets: tuple[str, ...], **settings: Any) -> None:
    """A language added to a translator, a weak one replaced: against one trained again on all.

    Ukrainian joins German, French and Italian (tatoeba_uk), from a translator of two languages and
    from one of Ukrainian alone. Estonian to English is replaced by a translator of more sentences
    (tatoeba_et). A network of images that takes people for gorillas is mended in four ways
    (tiny_imagenet32).
    """
    started = time.perf_counter()
    translators = tuple(name for name in datasets if name != GORILLA)
    if translators or not datasets:
        run_scenarios(translators, settings)
    if GORILLA in (datasets or (GORILLA,)):
        run_gorilla(settings)
    _took(started)


@main.command("results")
@click.option(
    "--json",
    "json_files",
    type=click.Path(path_type=Path, exists=True),
    multiple=True,
    required=True,
    help="Rows of the other commands; several times for several files.",
)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("docs"))
def results(json_files: tuple[Path, ...], out: Path) -> None:
    """Write results.md and its picture from the rows that the other commands wrote."""
    try:
        console.print(str(write(read_rows(json_files), out)))
    except ValueError as error:
        raise click.ClickException(str(error)) from error


def _translates(datasets: tuple[str, ...], settings: dict[str, Any]) -> bool:
    """Whether translators are asked for; their modules do not go with those of other types."""
    return not settings["crossing"] and (not datasets or TRANSLATION in datasets)


def _reuse(
    question: str,
    datasets: tuple[str, ...],
    within: Callable[..., Iterator[dict[str, Any]]],
    across: Callable[..., Iterator[dict[str, Any]]],
    settings: dict[str, Any],
) -> None:
    """Rows of a question, within data sets and across types, and their table."""
    if datasets and not (datasets := tuple(d for d in datasets if d in TASKS)):
        return
    cell, layers, crossing = settings["cell"], settings["layers"], settings["crossing"]
    file = RowFile(settings["json_file"])
    how = {name: settings[name] for name in ("variant", "gates", "share_of", "trunks")}
    workshop, older = Workshop(settings["cache"], **how), {"units": None}
    mine = {"question": question, "layers": layers, **how}
    mine["share_of"] = older.get(how["share_of"], how["share_of"])  # which older rows don't say
    cells: list[str] = []

    with progress_bar() as progress:
        bar = progress.add_task("", total=None)

        def keep(name: str, rows: Iterator[dict[str, Any]], seed: int, own: str) -> None:
            cells.append(own)
            for row in rows:
                row["delta"] = row["score"] - row["scratch_score"]
                paper = reuse_delta(question, name.removesuffix("/list"), own)
                extra = {"cell": own, "dataset": name, "seed": seed, "paper_delta": paper}
                file.add({**mine, **extra, **row})

        for seed in range(settings["seeds"]):

            def told(stage: str, seed: int = seed) -> None:
                progress.update(bar, description=f"seed {seed}, {stage}"[:40])

            def done(name: str, own: str, seed: int = seed) -> set[tuple]:
                found = file.where(**mine, cell=own, dataset=name, seed=seed)
                return {(r["pair"], r["rule"]) for r in found}

            for dataset in () if crossing else datasets or tuple(TASKS):
                task, data = TASKS[dataset], _data(dataset, settings["data_dir"], settings["quick"])
                if data is None:
                    continue
                own, training = task.cell(cell), task.training(cell, layers, seed)
                rest = settings["removal"], done(data.name, own), told
                if question == "rq2":
                    rows = rq2.within(workshop, data, training, *rest)
                elif task.few is not None:
                    rows = rq3.few(workshop, data, training, task.few, *rest)
                else:
                    rows = rq3.within(workshop, data, task.several(layers), *rest)
                keep(data.name, rows, seed, own)
            for name, sets in {} if crossing is False else ACROSS.items():
                if datasets and not set(sets) & set(datasets):
                    continue
                told_name = name.replace("with", "by") if question == "rq3" else name
                named = {told_name: across}
                if question == "rq2" and TASKS[sets[0]].few is not None:
                    named[name.replace("with", "and")] = rq2.together
                data_of = partial(_data, data_dir=settings["data_dir"], quick=settings["quick"])
                first, second = ((data_of(d), TASKS[d].training(cell, layers, seed)) for d in sets)
                own = first[1].cell
                for told_name, ask in named.items():
                    told_name += f"/{QUICK_ROWS}" if settings["quick"] else ""
                    rest = settings["removal"], done(told_name, own), told
                    keep(told_name, ask(workshop, first, second, *rest), seed, own)
    shown = [row for row in file.where(**mine) if row["cell"] in cells]
    title = f"{question}, {', '.join(dict.fromkeys(cells))}, {layers} layer(s)"
    print_reuse(shown, f"{title}: modules against a model trained from scratch")


def _data(dataset: str, data_dir: Path, quick: bool) -> TextData | None:
    """A data set, or part of it; ``None``, and why, where it is not installed."""
    try:
        data = TASKS[dataset].data(data_dir)
    except NotInstalled as error:
        console.print(f"{dataset} is skipped: {error}")
        return None
    return data.first(QUICK_ROWS) if quick else data


def _print_parents(rows: list[dict[str, Any]]) -> None:
    scores = {r["seed"]: r["parent_score"] for r in rows}
    mean, error = mean_and_error(list(scores.values()))
    console.print(
        f"parents: {mean:.2f} ± {error:.2f} % on the test split "
        f"({', '.join(f'{a:.2f}' for a in scores.values())})"
    )


def _took(started: float) -> None:
    console.print(f"{time.perf_counter() - started:.0f} seconds, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
