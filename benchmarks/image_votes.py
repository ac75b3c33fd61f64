"""Modules of two networks of images trained apart: how are they compared best?

``python -m benchmarks.image_votes --data-dir DIR`` takes a label of CIFAR-10 and one of CIFAR-100,
as many times as the paper, and asks which of both an image shows, with nothing removed.
"""

from __future__ import annotations

from pathlib import Path

import click
from rich.table import Table

from benchmarks.data import TextData
from benchmarks.options import console
from benchmarks.parents import train_parent
from benchmarks.resnet import BLOCKS
from benchmarks.rq2 import IMAGE_PAIRS, cross_pairs, joint_rows, mix
from benchmarks.scoring import composite_points
from benchmarks.tasks import TASKS
from mlflow_rnnmod.composition import compose
from mlflow_rnnmod.decomposition import DecompositionConfig, Module, decompose

SETS = ("cifar10", "cifar100")
SCORES = (None, "open", "likelihood")
JOINT = "with 300 joint rows"


def whole_modules_of(
    name: str, cell: str, data_dir: Path, cache: Path
) -> tuple[TextData, dict[str, Module]]:
    """A set, and modules of its network with nothing removed, by label."""
    task = TASKS[name]
    data = task.data(data_dir)
    parent, _ = train_parent(data, task.training(cell), cache)
    splits = [data.rows(split, parent.encoder) for split in ("train", "validation", "test")]
    config = DecompositionConfig(rule="none", removal=0.0)
    return data, {m.label: m for m in decompose(parent, *splits, config=config).modules}


@click.command(help=__doc__)
@click.option("--pairs", type=int, default=IMAGE_PAIRS, show_default=True)
@click.option("--cell", type=click.Choice(tuple(BLOCKS)), default="resnet20", show_default=True)
@click.option("--cache", type=click.Path(path_type=Path), default=Path(".cache/benchmarks"))
@click.option("--data-dir", type=click.Path(path_type=Path, exists=True), required=True)
def main(pairs: int, cell: str, cache: Path, data_dir: Path) -> None:
    """Print the table."""
    (first, mine), (second, theirs) = (whole_modules_of(s, cell, data_dir, cache) for s in SETS)
    found: dict[str, list[float]] = {}
    rows = 0
    for a, b in cross_pairs(first, second, pairs):
        mixed = mix(first, [a], second, b)
        modules = [mine[a], theirs[b]]
        for score in SCORES:
            composite = compose(modules, score=score)
            points = composite_points(composite, mixed)
            found.setdefault(score or f"{composite.score} (default)", []).append(points)
        joint = compose(modules, calibrate_on=joint_rows(mixed))
        found.setdefault(JOINT, []).append(composite_points(joint, mixed))
        rows += len(mixed.texts["test"])
        shown = ", ".join(f"{name} {values[-1]:.1f}" for name, values in found.items())
        console.print(f"{a}, {b}: {shown}")
    table = Table(title=f"{' with '.join(SETS)}, {cell}, {pairs} pairs, {rows} rows")
    for name in ("score", "mean", "worst"):
        table.add_column(name, justify="left" if name == "score" else "right")
    for score, values in found.items():
        table.add_row(score, f"{sum(values) / len(values):.2f}", f"{min(values):.2f}")
    console.print(table)


if __name__ == "__main__":
    main()
