"""Rows of all questions: read, told apart, put into groups and averaged."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
# What tells two rows of a question apart.
IDENTITY = (
    *("question", "dataset", "cell", "layers", "variant", "gates", "seed", "pair"),
    *("rule", "removal", "repairs", "matched", "score_strategy"),
)
NETWORK = ("dataset", "cell", "layers", "variant", "gates")
NAMES = {
    "math_qa": "MathQA",
    "clinc_oos/domain": "CLINC, 10 domains",
    "clinc_oos/intent": "CLINC, 150 intents",
    "wiki_toxicity/list": "toxicity, `list`",
    "wiki_toxicity/multilabel": "toxicity, `multilabel`",
    "brown_pos": "Brown, tags",
    "tatoeba": "Tatoeba",
    "tatoeba/de": "Tatoeba, en > de",
    "tatoeba/fr": "Tatoeba, en > fr",
    "tatoeba/it": "Tatoeba, en > it",
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "mnist with emnist_letters": "MNIST with EMNIST, pairs",
    "mnist and emnist_letters": "MNIST and EMNIST, all 20 labels",
    "mnist by emnist_letters": "MNIST by EMNIST",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "tiny_imagenet32": "Tiny ImageNet, 32 x 32",
    "cifar10 with cifar100": "CIFAR-10 with CIFAR-100, pairs",
    "cifar10 by cifar100": "CIFAR-10 by CIFAR-100",
    "tatoeba_uk": "Ukrainian added",
    "tatoeba_et": "Estonian to English replaced",
}
METRICS = {"accuracy": "accuracy", "f1": "micro-F1", "bleu": "BLEU"}


def read_rows(files: Iterable[Path]) -> list[Row]:
    """Rows of some files; of those that are the same but for their figures, the last one.

    Rows of ``--quick`` runs are left out.
    """
    found: dict[tuple, Row] = {}
    for file in files:
        for row in json.loads(file.read_text())["rows"]:
            if "question" in row and not quick(row):
                found[tuple(row.get(name) for name in IDENTITY)] = row
    return list(found.values())


def quick(row: Row) -> bool:
    """Whether a row is of reduced data.

    Example:
        >>> quick({"dataset": "math_qa/3000"}), quick({"dataset": "tatoeba/de"})
        (True, False)
    """
    return re.search(r"/\d+(/|$| )", row["dataset"]) is not None


def name_of(dataset: str) -> str:
    """A data set as readers know it."""
    return NAMES.get(dataset, dataset)


def translates(row: Row) -> bool:
    """Whether a row is of a translator."""
    return row["metric"] == "bleu"


def across(row: Row) -> bool:
    """Whether modules of two types, or of two data sets, are together."""
    return re.search(" (with|by|and) ", row["dataset"]) is not None


def dense(row: Row) -> bool:
    """Whether a row is of dense networks."""
    return row["cell"] == "fcnn"


def grouped(rows: Iterable[Row], by: Callable[[Row], Hashable]) -> dict[Any, list[Row]]:
    """Rows by a key, in the order in which keys come."""
    found: dict[Any, list[Row]] = {}
    for row in rows:
        found.setdefault(by(row), []).append(row)
    return found


def network(row: Row) -> tuple:
    """What kind of parent a row is of, whatever its seed."""
    return tuple(row[name] for name in NETWORK)


def mean(values: Iterable[float]) -> float:
    """Of at least one value."""
    found = list(values)
    return sum(found) / len(found)


def mean_by(rows: Sequence[Row], field: str, *by: Callable[[Row], Hashable]) -> float:
    """A mean of means: over the rows of the last key, over its groups, and so on to the first.

    Example:
        >>> rows = [{"set": "a", "net": 1.0}, {"set": "a", "net": 3.0}, {"set": "b", "net": 0.0}]
        >>> mean_by(rows, "net", lambda row: row["set"])
        1.0
    """
    if not by:
        return mean(row[field] for row in rows)
    return mean(mean_by(part, field, *by[1:]) for part in grouped(rows, by[0]).values())


def place(row: Row) -> tuple[Any, ...]:
    """Where a network stands among others: by data set, variant, layers and cell."""
    order = ("math_qa", "clinc_oos", "wiki_toxicity", "brown_pos", "tatoeba", "mnist", "fashion")
    cells = ("lstm", "gru", "rnn", "rnn_relu", "fcnn")
    first = next((i for i, name in enumerate(order) if row["dataset"].startswith(name)), 9)
    cell = cells.index(row["cell"]) if row["cell"] in cells else 9
    return first, row["dataset"], row["variant"], row["gates"], row["layers"], cell
