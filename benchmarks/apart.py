"""Parents trained apart, put together without training: which score is fair to both?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.data import TextData, load_clinc_out_of_scope
from benchmarks.parents import Training, train_parent
from benchmarks.results import RowFile, mean_and_error
from mlflow_rnnmod.composition import Composite, compose
from mlflow_rnnmod.composition.joint import calibrated
from mlflow_rnnmod.decomposition import DecompositionConfig, Module, decompose

SPLITS = ((5, 0), (5, 1), (8, 0), (8, 1))
SCORES = ("open", "joint", "logit", "probability", "margin")
JOINT_ROWS = 300
REFUSED = 0.05
LIMITS = {"open": (-5.5, -7.0), "joint": (-4.0, None)}


def split_labels(names: tuple[str, ...], first: int, seed: int) -> tuple[list[str], list[str]]:
    """``first`` labels drawn at random, and the others."""
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed)).tolist()
    return [names[i] for i in order[:first]], [names[i] for i in order[first:]]


def modules_of(
    data: TextData, training: Training, cache: Path, removal: float
) -> tuple[tuple[Module, ...], float]:
    """Modules of one parent, with all repairs, and its own accuracy on its own test rows."""
    parent, _ = train_parent(data, training, cache)
    encoder = parent.tokenizer
    assert encoder is not None
    train, validation, test = (data.rows(s, encoder) for s in ("train", "validation", "test"))
    config = DecompositionConfig(removal=removal)
    found = decompose(parent, train, validation, test, config)
    return found.modules, 100 * found.figures["parent_accuracy"]


def accuracy(composite: Composite, data: TextData, split: str = "test") -> float:
    """Of the composite on raw text, in points."""
    answers = composite.predict(data.texts[split])
    return (
        100 * sum(a == b for a, b in zip(answers, data.labels[split], strict=True)) / len(answers)
    )


def refused(composite: Composite, data: TextData, strange: list[str]) -> float:
    """Share of out-of-scope queries below the score that 5 % of the validation rows are below."""
    known = composite.scores(data.texts["validation"]).amax(dim=1)
    threshold = float(known.double().quantile(REFUSED))
    return 100 * float((composite.scores(strange).amax(dim=1) < threshold).double().mean())


def apart_rows(
    data: TextData,
    data_dir: Path,
    training: Training,
    cache: Path,
    removal: float,
    told: Callable[[str], None] = lambda text: None,
) -> list[dict[str, Any]]:
    """One row for each split of the labels and each score."""
    strange = load_clinc_out_of_scope(data_dir)
    told("one parent for all labels")
    modules, whole = modules_of(data, training, cache, removal)
    fixed = {"dataset": data.name, "training": asdict(training), "removal": removal}
    rows = []
    for score in ("open", "margin", "logit", "probability"):
        composite = compose(modules, score=score)
        rows.append(
            {
                **fixed,
                "split": "one parent",
                "score": score,
                "accuracy": accuracy(composite, data),
                "whole": whole,
                "refused": refused(composite, data, strange),
            }
        )
    for first, seed in SPLITS:
        told(f"{first}+{len(data.names) - first} labels, split {seed}")
        parts = split_labels(data.names, first, seed)
        apart: list[Module] = []
        for number, names in enumerate(parts):
            mine = replace(training, seed=training.seed + 10 * seed + number)
            apart += modules_of(data.only(names), mine, cache, removal)[0]
        picked = torch.randperm(
            len(data.texts["validation"]), generator=torch.Generator().manual_seed(seed)
        )[:JOINT_ROWS].tolist()
        texts = [data.texts["validation"][i] for i in picked]
        labels = [data.labels["validation"][i] for i in picked]
        for score in SCORES:
            composite = compose(apart, score="open" if score == "joint" else score)
            if score == "joint":
                composite = calibrated(composite, texts, labels)
            rows.append(
                {
                    **fixed,
                    "split": f"{first}+{len(data.names) - first}/{seed}",
                    "score": score,
                    "accuracy": accuracy(composite, data),
                    "whole": whole,
                    "refused": refused(composite, data, strange),
                }
            )
    return rows


def print_apart(
    data: TextData,
    training: Training,
    data_dir: Path,
    cache: Path,
    json_file: Path | None,
    console: Console,
    removal: float = 0.2,
) -> None:
    """Train, decompose, compose and print; kept beside ``json_file`` as ``*-apart.json``."""
    path = json_file.with_name(f"{json_file.stem}-apart.json") if json_file else None
    file = RowFile(path)
    rows = file.where(dataset=data.name, training=asdict(training), removal=removal)
    if not rows:
        with console.status("parents trained apart") as status:
            rows = apart_rows(data, data_dir, training, cache, removal, status.update)
        for row in rows:
            file.add(row)
    table = Table(
        title=f"{data.name}: parents trained apart (word dropout {training.word_dropout:g}), "
        f"modules at {removal:.0%}, against one parent for all ({rows[0]['whole']:.2f} %), points"
    )
    for name in ("score", "mean", "worst", "at least", "by split", "out of scope refused %"):
        table.add_column(name, justify="left" if name in ("score", "by split") else "right")
    for score in SCORES:
        found = [r for r in rows if r["score"] == score and r["split"] != "one parent"]
        deltas = [r["accuracy"] - r["whole"] for r in found]
        mean_limit, worst_limit = LIMITS.get(score, (None, None))
        limits = "" if mean_limit is None else f"{mean_limit:g}"
        limits += "" if worst_limit is None else f", worst {worst_limit:g}"
        table.add_row(
            {"joint": f"joint ({JOINT_ROWS} rows)"}.get(score, score),
            f"{mean_and_error(deltas)[0]:+.2f}",
            f"{min(deltas):+.2f}",
            limits,
            ", ".join(f"{r['split']} {d:+.1f}" for r, d in zip(found, deltas, strict=True)),
            f"{mean_and_error([r['refused'] for r in found])[0]:.1f}",
        )
    console.print(table)
    for row in rows:
        if row["split"] == "one parent":
            console.print(
                f"one parent, score {row['score']}: {row['accuracy'] - row['whole']:+.2f}, "
                f"out of scope refused {row['refused']:.1f} %"
            )
