"""The paper's tables on its own data: ``python -m benchmarks.paper clinc_oos --help``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.apart import print_apart
from benchmarks.data import load_clinc
from benchmarks.parents import Training, train_parent
from benchmarks.results import RowFile, mean_and_error, print_rows
from benchmarks.rq1 import MEANS_FOLDED, PAPER_DELTA, REPAIRS, Study, rq1_rows

console = Console(width=160)


@click.group(context_settings={"show_default": True})
def main() -> None:
    """Take the paper's networks apart, put them together again, and print our figures."""


def _numbers(_: Any, __: Any, value: str) -> tuple[float, ...]:
    return tuple(float(part) for part in value.split(",") if part)


def _names(_: Any, __: Any, value: str) -> tuple[str, ...]:
    return tuple(part for part in value.split(",") if part)


@main.command("clinc_oos")
@click.option("--label", type=click.Choice(["domain", "intent"]), default="domain")
@click.option("--cell", type=click.Choice(["lstm", "gru", "rnn"]), default="lstm")
@click.option("--layers", type=int, default=1)
@click.option("--seeds", type=int, default=3, help="How many parents, each with its own seed.")
@click.option("--rules", default="sensitivity,paper", callback=_names)
@click.option("--removals", default="0.05,0.2,0.35,0.5", callback=_numbers)
@click.option(
    "--repairs",
    default=",".join(REPAIRS),
    callback=_names,
    help=f"Or {MEANS_FOLDED}: all, with means folded in the place of guesses from kept units.",
)
@click.option("--data-dir", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--cache", type=click.Path(path_type=Path), default=Path(".cache/benchmarks"))
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Rows; goes on with it.")
@click.option("--open-world/--no-open-world", default=None, help="Parents trained apart, too.")
def clinc_oos(
    label: str,
    cell: str,
    layers: int,
    seeds: int,
    rules: tuple[str, ...],
    removals: tuple[float, ...],
    repairs: tuple[str, ...],
    data_dir: Path,
    cache: Path,
    json_file: Path | None,
    open_world: bool | None,
) -> None:
    """CLINC OOS: one label for a query, 10 domains or 150 intents.

    The parent is the paper's network: an embedding of 50, one recurrent layer of 100 units or more
    of them, the state at the last word, an output layer; a tenth of the words are replaced by the
    unknown one in training, and there is no other dropout.
    """
    started = time.perf_counter()
    data = load_clinc(data_dir, label)
    file = RowFile(json_file)
    progress = Progress(
        TextColumn("{task.description:<32}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    mine = {"dataset": data.name, "io_type": "many-to-one", "cell": cell, "layers": layers}
    with progress:
        for seed in range(seeds):
            task = progress.add_task(f"seed {seed}: parent", total=None)
            parent, seconds = train_parent(data, Training(cell, layers, seed=seed), cache)
            encoder = parent.tokenizer
            assert encoder is not None
            splits = [data.rows(s, encoder) for s in ("train", "validation", "test")]
            study = Study.start(parent, *splits, seed=seed)
            fixed = {
                **mine,
                "seed": seed,
                "training_seconds": seconds,
                "paper_delta": PAPER_DELTA[cell] if label == "intent" and layers == 1 else None,
            }
            done = {
                (r["rule"], r["removal"], r["repairs"], r["matched"])
                for r in file.where(**mine, seed=seed)
            }

            def told(stage: str, step: int, of: int, task=task, seed=seed) -> None:
                text = f"seed {seed}: {stage}"
                progress.update(task, description=text, completed=step, total=of)

            for row in rq1_rows(study, fixed, rules, removals, repairs, done, told):
                file.add(row)
            progress.remove_task(task)
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
    title = f"{data.name}, {cell}, {layers} layer(s): composite minus parent, in points of accuracy"
    print_rows(rows, ("repairs", "removal", "rule", "matched"), title)
    if open_world is None:
        open_world = label == "domain" and cell == "lstm" and layers == 1
    if open_world:
        print_apart(data, Training(cell, layers), data_dir, cache, json_file, console)
    console.print(f"{time.perf_counter() - started:.0f} seconds, {torch.get_num_threads()} threads")


def _print_parents(rows: list[dict[str, Any]]) -> None:
    accuracies = {r["seed"]: r["parent_accuracy"] for r in rows}
    mean, error = mean_and_error(list(accuracies.values()))
    console.print(
        f"parents: {mean:.2f} ± {error:.2f} % on the test split "
        f"({', '.join(f'{a:.2f}' for a in accuracies.values())})"
    )


if __name__ == "__main__":
    main()
