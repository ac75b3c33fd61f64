"""What modules of networks of images cost: multiply-adds, time, and CO2e against training.

``python -m benchmarks.image_costs speed|two|carbon --cell resnet20 --data-dir DIR`` prints them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch
from rich.table import Table

from benchmarks.data import ImageData
from benchmarks.options import console
from benchmarks.parents import train_parent
from benchmarks.resnet import BLOCKS, ImageTraining, train_resnet
from benchmarks.reuse import seeded_pairs, whole_modules
from benchmarks.scoring import composite_points
from benchmarks.study import Study
from benchmarks.tasks import TASKS
from benchmarks.timing import interleaved, ratio, show
from mlflow_rnnmod.composition import compose
from mlflow_rnnmod.decomposition import DecompositionConfig, decompose
from mlflow_rnnmod.decomposition.rules import RULES
from mlflow_rnnmod.decomposition.sharing import units_worth
from mlflow_rnnmod.networks import Parent, Rows

# Epochs that the paper trains its networks for; the power that a core is taken to draw where
# nothing measures it, W, and grams of CO2e a kWh (the world's mean, IEA 2023).
EPOCHS, WATTS, GRAMS = 200, 10.0, 460.0


@click.group(context_settings={"show_default": True})
def main() -> None:
    """Networks of images: what modules cost."""


def _shared(command: Callable) -> Callable:
    for option in (
        click.option("--cache", type=click.Path(path_type=Path), default=Path(".cache/benchmarks")),
        click.option("--data-dir", type=click.Path(path_type=Path, exists=True), required=True),
        click.option("--cell", type=click.Choice(tuple(BLOCKS)), default="resnet20"),
        click.option("--dataset", type=click.Choice(("cifar10", "cifar100")), default="cifar10"),
    ):
        command = option(command)
    return command


def _given(dataset: str, cell: str, data_dir: Path, cache: Path) -> tuple[ImageData, Parent]:
    task = TASKS[dataset]
    data = task.data(data_dir)
    assert isinstance(data, ImageData)
    return data, train_parent(data, task.training(cell), cache)[0]


def _splits(data: ImageData, parent: Parent) -> list[Rows]:
    return [data.rows(split, parent.encoder) for split in ("train", "validation", "test")]


@main.command()
@_shared
@click.option("--removal", type=float, default=0.2)
@click.option("--batch", type=int, default=64)
@click.option("--repeats", type=int, default=9)
def speed(
    dataset: str,
    cell: str,
    data_dir: Path,
    cache: Path,
    removal: float,
    batch: int,
    repeats: int,
) -> None:
    """Ten labels isolated against a plain loop over as many networks; one trunk against one."""
    data, parent = _given(dataset, cell, data_dir, cache)
    isolated, shared = (
        compose(decompose(parent, *_splits(data, parent), config=config).modules)
        for config in (
            DecompositionConfig(removal=removal),
            DecompositionConfig(removal=removal, trunks=1),
        )
    )
    rows = Rows(data.rows("test", parent.encoder).values[:batch])
    inputs = data.texts["test"][:batch]
    plain = parent.network

    def loop() -> None:
        """As the published modules run: a whole network each."""
        for _ in parent.labels:
            plain.logits(plain.readout(rows))

    def once() -> None:
        plain.logits(plain.readout(parent.rows(inputs)))

    with torch.inference_mode():
        times = interleaved(
            {
                "loop": loop,
                "isolated": lambda: isolated.scores(inputs),
                "parent": once,
                "one trunk": lambda: shared.scores(inputs),
            },
            repeats,
        )
    count = len(parent.labels)
    show(
        [
            ratio(f"{count} isolated / plain loop", times["isolated"], times["loop"], 0.7),
            ratio("one trunk / parent", times["one trunk"], times["parent"], 1.1),
            ratio(f"{count} isolated, passes of the parent", times["isolated"], times["parent"],
                  None),
        ]
    )  # fmt: skip


@main.command()
@_shared
@click.option("--removals", default="0.25,0.35", help="Shares of the multiply-adds.")
@click.option("--pairs", type=int, default=6)
def two(dataset: str, cell: str, data_dir: Path, cache: Path, removals: str, pairs: int) -> None:
    """Composites of two labels with one trunk, against the parent asked for the same two."""
    data, parent = _given(dataset, cell, data_dir, cache)
    study = Study.start(parent, *_splits(data, parent), seed=0)
    whole = {module.label: module for module in whole_modules(parent)}
    table = Table(title=f"{dataset}, {cell}: two labels of it")
    for name in ("removed", "pairs", "multiply-adds, %", "modules", "parent", "delta", "worst"):
        table.add_column(name, justify="right")
    for removal in map(float, removals.split(",")):
        scores, costs = [], []
        for pair in seeded_pairs(data.names, pairs):
            numbers = [data.names.index(label) for label in pair]
            given = parent.network, RULES["sensitivity"], study.statistics, numbers
            units = units_worth(*given, removal, "multiply_adds")
            everyone = study.modules([units] * len(data.names))  # one trunk, which is run once
            modules = [everyone[number] for number in numbers]
            costs.append(100 * parent.network.work_kept(modules[0].trunk))
            part = data.only(pair)
            scores.append(
                [
                    composite_points(compose(them), part)
                    for them in (modules, [whole[label] for label in pair])
                ]
            )
        deltas = [mine - theirs for mine, theirs in scores]
        mine, theirs = (sum(column) / len(scores) for column in zip(*scores, strict=True))
        cells = [f"{removal:.0%}", str(len(scores)), f"{sum(costs) / len(costs):.0f}"]
        cells += [f"{mine:.2f}", f"{theirs:.2f}"]
        table.add_row(*cells, f"{mine - theirs:+.2f}", f"{min(deltas):+.2f}")
        console.print(f"{removal:.0%} of the multiply-adds:", *cells)
    console.print(table)


@main.command()
@_shared
@click.option("--epochs", type=int, default=2, help="Measured; the rest is as many times more.")
def carbon(dataset: str, cell: str, data_dir: Path, cache: Path, epochs: int) -> None:
    """CO2e of training a model of two labels for the paper's 200 epochs, and of reusing modules.

    Reusing takes the whole parent apart into one trunk, with all modules, and composes two.
    codecarbon measures both without a connection; where it can't, time times a stated power.
    Training runs in float32, Lightning's default, and in bfloat16, as our own benchmarks train.
    """
    data, parent = _given(dataset, cell, data_dir, cache)
    pair = seeded_pairs(data.names, 1)[0]
    part = data.only(pair)
    assert isinstance(part, ImageData)
    images, targets = part.images("train"), part.targets("train", 0)
    training = ImageTraining(cell, epochs=epochs, least_steps=1)
    scaled = parent.image.scaled if parent.image else None
    assert scaled is not None
    trained = {}
    for precision in (torch.float32, torch.bfloat16):
        grams, seconds, how = emissions(
            partial(train_resnet, images, targets, 2, scaled, training, precision=precision)
        )
        trained[precision] = grams * EPOCHS / epochs, seconds * EPOCHS / epochs
    splits = _splits(data, parent)
    config = DecompositionConfig(removal=0.2, trunks=1)

    def reuse() -> None:
        modules = {m.label: m for m in decompose(parent, *splits, config=config).modules}
        compose([modules[label] for label in pair]).predict(part.texts["test"][:1])

    reused, others, _ = emissions(reuse)
    table = Table(title=f"{dataset}, {cell}, {'+'.join(pair)}: CO2e by {how}")
    for name in ("what", "seconds", "grams CO2e"):
        table.add_column(name, justify="left" if name == "what" else "right")
    table.add_row("taking apart and composing", f"{others:.1f}", f"{reused:.4f}")
    for precision, (grams, seconds) in trained.items():
        name = f"training, {EPOCHS} epochs ({epochs} measured), {precision}"
        table.add_row(name, f"{seconds:.0f}", f"{grams:.4f}")
        table.add_row("ratio", f"{seconds / others:.0f}", f"{grams / reused:.0f}")
    console.print(table)


def emissions(run: Callable[[], Any]) -> tuple[float, float, str]:
    """Grams of CO2e, seconds, and how they were measured."""
    try:
        from codecarbon import OfflineEmissionsTracker
    except ImportError:
        started = time.perf_counter()
        run()
        seconds = time.perf_counter() - started
        power = WATTS * torch.get_num_threads()
        words = f"time x {power:.0f} W x {GRAMS:.0f} g/kWh"
        return seconds * power / 3.6e6 * GRAMS, seconds, words
    tracker = OfflineEmissionsTracker(
        country_iso_code="DEU",
        measure_power_secs=1,
        save_to_file=False,
        log_level=logging.ERROR,
        allow_multiple_runs=True,
    )
    tracker.start()
    started = time.perf_counter()
    try:
        run()
    finally:
        seconds = time.perf_counter() - started
        found = tracker.stop()
    return 1000 * float(found or 0.0), seconds, "codecarbon, offline"


if __name__ == "__main__":
    main()
