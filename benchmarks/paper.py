"""The paper's questions on its own data: ``python -m benchmarks.paper rq1 --help`` and so on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.apart import print_apart
from benchmarks.options import CELLS, console, names, numbers, progress_bar, shared
from benchmarks.parents import train_parent
from benchmarks.published import delta
from benchmarks.results import RowFile, mean_and_error, print_rows
from benchmarks.rq1 import REPAIRS, rq1_rows
from benchmarks.study import MEANS_FOLDED, Study
from benchmarks.tasks import TASKS

QUICK_ROWS = 3000


@click.group(context_settings={"show_default": True})
def main() -> None:
    """Take the paper's networks apart, put them together again, and print our figures."""


def _rq1_options(command: Any) -> Any:
    for option in (
        click.option("--rule", "--rules", "rules", default="sensitivity,paper", callback=names),
        click.option("--removal", "--removals", "removals", default="0.05,0.2,0.35,0.5",
                     callback=numbers, help="Shares of the units."),
        click.option("--repairs", default=",".join(REPAIRS), callback=names,
                     help=f"Or {MEANS_FOLDED}: all, with means folded in the place of guesses "
                     "from kept units."),
    ):  # fmt: skip
        command = option(command)
    return command


@main.command("rq1")
@click.argument("datasets", nargs=-1, type=click.Choice(list(TASKS)))
@_rq1_options
@shared
def rq1(datasets: tuple[str, ...], **settings: Any) -> None:
    """Is a parent that is taken apart and composed again as good as it was?

    DATASETS are those of labels; all of them where none is named.
    """
    started = time.perf_counter()
    for dataset in datasets or tuple(TASKS):
        run_rq1(dataset, **settings)
    _took(started)


@main.command("clinc_oos")
@click.option("--label", type=click.Choice(["domain", "intent"]), default="domain")
@click.option("--cell", type=click.Choice(CELLS), default="lstm")
@click.option("--layers", type=int, default=1)
@click.option("--seeds", type=int, default=3, help="How many parents, each with its own seed.")
@_rq1_options
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
    if open_world is None:
        open_world = label == "domain" and cell == "lstm" and layers == 1
    if open_world:
        task = TASKS[dataset]
        training = task.training(cell, layers)
        data, cache = task.data(data_dir), settings["cache"]
        print_apart(data, training, data_dir, cache, settings["json_file"], console)
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
    seeds: int,
    quick: bool,
    data_dir: Path,
    cache: Path,
    json_file: Path | None,
) -> None:
    """Rows of one data set and kind of parent, for each seed, and their table."""
    task = TASKS[dataset]
    data = task.data(data_dir)
    data = data.first(QUICK_ROWS) if quick else data
    file = RowFile(json_file)
    mine = {
        "question": "rq1",
        "dataset": data.name,
        "io_type": task.io_type,
        "cell": cell,
        "layers": layers,
        "variant": variant,
        "gates": gates,
    }
    with progress_bar() as progress:
        for seed in range(seeds):
            bar = progress.add_task(f"{dataset}, seed {seed}: parent", total=None)
            parent, seconds = train_parent(data, task.training(cell, layers, seed), cache)
            encoder = parent.tokenizer
            assert encoder is not None
            done = {
                (r["rule"], r["removal"], r["repairs"], r["matched"])
                for r in file.where(**mine, seed=seed)
            }
            splits = [data.rows(s, encoder) for s in ("train", "validation", "test")]
            study = Study.start(parent, *splits, seed=seed, variant=variant, gates=gates)
            fixed = {
                **mine,
                "seed": seed,
                "training_seconds": seconds,
                "paper_delta": delta(data.name, variant, cell, layers),
            }

            def told(stage: str, step: int, of: int, bar: Any = bar, seed: int = seed) -> None:
                text = f"{dataset}, seed {seed}: {stage}"
                progress.update(bar, description=text, completed=step, total=of)

            for row in rq1_rows(study, fixed, rules, removals, repairs, done, told):
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
