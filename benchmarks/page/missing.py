"""What should be measured at least, and what of it there are no rows of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.page.limits import EVERY_STEP, REMOVAL
from benchmarks.page.rows import Row, grouped, name_of, translates

SETS = ("math_qa", "clinc_oos/domain", "wiki_toxicity/list", "brown_pos")
SCENARIOS = {"tatoeba_uk": 2, "tatoeba_et": 1}
# Cell, layers and seeds of the parents of each classification set.
PARENTS = (("lstm", 1, 2), ("gru", 1, 2), ("rnn", 1, 2), ("lstm", 2, 1), ("lstm", 4, 1))
TRANSLATORS = (("lstm", 1, 1), ("gru", 1, 1))
DENSE = ("mnist", "fashion_mnist")
DENSE_PARENTS = tuple(("fcnn", layers, 2) for layers in (1, 2, 3, 4))
ACROSS = {
    "rq2": ("one-to-one with one-to-many", "many-to-one with many-to-many"),
    "rq3": ("one-to-one by one-to-many", "many-to-one by many-to-many"),
}


def missing(rows: Sequence[Row]) -> Iterator[str]:
    """In words; rows of rule ``sensitivity`` at 20 % count.

    A page of dense networks alone lacks nothing of recurrent ones, and the other way round.
    """
    cells = {row["cell"] for row in rows}
    rows = [r for r in rows if (r["rule"], r["removal"]) == ("sensitivity", REMOVAL)]
    seeds = grouped(rows, _what)

    def lacks(question: str, dataset: str, variant: str, cell: str, layers: int, least: int) -> str:
        found = {r["seed"] for r in seeds.get((question, dataset, variant, cell, layers), ())}
        if len(found) >= least:
            return ""
        what = f"{question} {name_of(dataset)}, {variant}, {cell}, {layers} layer(s)"
        return what if not found else f"{what}: {least - len(found)} more seed"

    for dataset in DENSE if "fcnn" in cells else ():
        for cell, layers, least in DENSE_PARENTS:
            yield from filter(None, [lacks("rq1", dataset, "rolled", cell, layers, least)])
    if cells <= {"fcnn"}:
        return
    for dataset in SETS:
        for cell, layers, least in PARENTS:
            yield from filter(None, [lacks("rq1", dataset, "rolled", cell, layers, least)])
        if dataset in EVERY_STEP:
            yield from filter(None, [lacks("rq1", dataset, "unrolled", "lstm", 1, 1)])
    for cell, layers, least in TRANSLATORS:
        yield from filter(None, [lacks("rq1", "tatoeba", "rolled", cell, layers, least)])
    for question, pairs in ACROSS.items():
        have = {r["dataset"] for r in rows if r["question"] == question}
        for dataset in (*SETS, "tatoeba", *pairs):
            if dataset not in have:
                yield f"{question} {name_of(dataset)}"
    for dataset, least in SCENARIOS.items():
        pairs_found = {r["pair"] for r in rows if r["dataset"] == dataset}
        if len(pairs_found) < least:
            yield f"scenario: {name_of(dataset)}, {least - len(pairs_found)} of {least} modules"


def _what(row: Row) -> tuple:
    translator = row["question"] == "rq1" and translates(row)
    dataset = row["dataset"].rsplit("/", 1)[0] if translator else row["dataset"]
    return row["question"], dataset, row["variant"], row["cell"], row["layers"]
