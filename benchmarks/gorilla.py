"""The scenario of Pan & Rajan (ICSE 2022): a network that takes people for gorillas is mended."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace as changed
from typing import Any

import torch
from rich.table import Table

from benchmarks.data import TextData
from benchmarks.options import console, progress_bar
from benchmarks.results import RowFile
from benchmarks.reuse import Workshop
from benchmarks.rq2 import joint_rows
from benchmarks.scoring import top_points
from benchmarks.tasks import TASKS
from mlflow_rnnmod.composition import Composite, compose, remove, replace

GORILLA = "tiny_imagenet32"
ANIMAL, PERSON = "gorilla", "groom"
# Top-1 and top-5 of the paper's ResNet-20, and of its four options.
PUBLISHED = {
    "the network": (26.6, 50.4),
    "gorilla replaced": (27.2, 54.6),
    "person and gorilla of a model of two": (25.0, 50.4),
    "gorilla removed": (24.0, 48.2),
    "person and gorilla verified by two modules": (25.3, 50.8),
}
RULE = "none"


def gorilla_rows(
    workshop: Workshop, data: TextData, cell: str, told: Any
) -> Iterator[dict[str, Any]]:
    """A row for the network and each option: top-1 and top-5, over all rows and on both labels.

    Modules are the whole network's, with all repairs. The model of two labels is trained as the
    network was, on the rows of these two alone. Removed, a label can't be answered: that option
    stands on the rows of the others, and so does the network beside it.
    """
    told("network")
    training = TASKS[GORILLA].training(cell)
    parent = compose(workshop.modules(data, training, RULE, 0.0).values())
    told("model of two labels")
    two = data.only((PERSON, ANIMAL))
    pair = workshop.modules(two, training, RULE, 0.0)
    other = compose(pair.values())
    told("options")
    joint = joint_rows(data)
    both = replace(replace(parent, ANIMAL, pair[ANIMAL]), PERSON, pair[PERSON])
    options: dict[str, Composite] = {
        "the network": parent,
        "gorilla replaced": replace(parent, ANIMAL, pair[ANIMAL]),
        "person and gorilla of a model of two": both,
    }
    for name, composite in options.items():
        yield _row(name, top_points(composite, data, "test"), data, composite)
        if composite is not parent:
            fitted = compose(composite.modules, calibrate_on=joint)
            found = top_points(fitted, data, "test")
            yield _row(f"{name}, with joint rows", found, data, fitted)
    others = data.only([name for name in data.names if name != ANIMAL])
    without = remove(parent, ANIMAL)
    found = top_points(without, others, "test")
    yield {
        **_row("gorilla removed", found, others, without),
        "parent_score": top_points(parent, others, "test")[0],
        "score_of_all_rows": top_points(without, data, "test")[0],
    }
    yield _row(
        "person and gorilla verified by two modules", verified(parent, other, data), data, parent
    )


def verified(parent: Composite, other: Composite, data: TextData) -> tuple[float, float]:
    """Where the network says person or gorilla, two other modules say which of both it is.

    They swap the scores of both labels where they disagree with the network.
    """
    texts = data.texts["test"]
    scores, said = parent.scores(texts).clone(), other.predict(texts)
    first, second = (parent.labels.index(name) for name in (PERSON, ANIMAL))
    best = scores.argmax(1)
    asked = (best == first) | (best == second)
    wanted = torch.tensor([first if name == PERSON else second for name in said])
    swap = asked & (wanted != best)
    scores[swap] = scores[swap].index_copy(
        1, torch.tensor([first, second]), scores[swap][:, [second, first]]
    )
    index = {label: number for number, label in enumerate(parent.labels)}
    right = torch.tensor([index[label] for label in data.labels["test"]])
    among = scores.topk(5).indices == right[:, None]
    return 100 * float(among[:, 0].double().mean()), 100 * float(among.any(1).double().mean())


def _row(
    name: str, found: tuple[float, float], data: TextData, composite: Composite
) -> dict[str, Any]:
    rows = [i for i, label in enumerate(data.labels["test"]) if label in (PERSON, ANIMAL)]
    part = {"test": [data.texts["test"][i] for i in rows]}
    own = changed(data, texts=part, labels={"test": [data.labels["test"][i] for i in rows]})
    return {
        "pair": name,
        "score": found[0],
        "top5": found[1],
        "label_score": top_points(composite, own, "test")[0],
        "score_strategy": composite.score,
        "paper": PUBLISHED.get(name),
    }


def run_gorilla(settings: dict[str, Any]) -> None:
    """Rows and their table."""
    file = RowFile(settings["json_file"])
    cell = TASKS[GORILLA].cell(settings["cell"])
    mine = {"question": "scenarios", "dataset": GORILLA, "cell": cell, "seed": 0, "rule": RULE}
    workshop = Workshop(settings["cache"])
    data = TASKS[GORILLA].data(settings["data_dir"])
    with progress_bar() as progress:
        bar = progress.add_task("", total=None)
        done = {row["pair"] for row in file.where(**mine)}
        for row in gorilla_rows(
            workshop, data, cell, lambda stage: progress.update(bar, description=stage)
        ):
            if row["pair"] not in done:
                file.add({**mine, "metric": "accuracy", **row})
    table = Table(title=f"{GORILLA}, {cell}: a network that takes people for gorillas")
    for name in ("option", "score", "top-1", "network", "delta", "top-5", "both labels", "paper"):
        table.add_column(name, justify="left" if name in ("option", "score") else "right")
    rows = file.where(**mine)
    whole = next(row["score"] for row in rows if row["pair"] == "the network")
    for row in rows:
        parent, paper = row.get("parent_score", whole), row["paper"]
        table.add_row(
            row["pair"],
            row["score_strategy"],
            f"{row['score']:.2f}",
            f"{parent:.2f}",
            f"{row['score'] - parent:+.2f}",
            f"{row['top5']:.2f}",
            f"{row['label_score']:.1f}",
            "" if paper is None else f"{paper[0]} / {paper[1]}",
        )
    console.print(table)
