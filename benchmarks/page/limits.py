"""What the figures have to be at least, and what they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.page.rows import Row, across, dense, grouped, mean_by, name_of, network, translates

REMOVAL = 0.2
# Outputs at every step: the paper's rolled variant fails on these.
EVERY_STEP = ("brown_pos", "wiki_toxicity/list")

# What a parent should reach for its modules to mean something.
PARENTS = {
    "math_qa": 75.0,
    "clinc_oos/domain": 91.0,
    "wiki_toxicity/list": 75.0,
    "wiki_toxicity/multilabel": 75.0,
    "brown_pos": 92.0,
    "tatoeba": 15.0,
}


@dataclass(frozen=True)
class Figure:
    """A mean of rows, and its limit.

    Args:
        what: in words.
        value: in points.
        limit: the least it should be.
        paper: the paper's figure, in words.
        rows: how many rows it is the mean of.
    """

    what: str
    value: float
    limit: float
    paper: str
    rows: int

    @property
    def met(self) -> bool:
        """Whether it is as much as it should be."""
        return self.value >= self.limit


def figures(rows: Sequence[Row]) -> Iterator[Figure]:
    """All that the rows are enough for: rule ``sensitivity``, 20 % of the units, all repairs."""
    every = [r for r in rows if counts(r)]
    rows = [r for r in every if not dense(r)]
    first = [r for r in rows if r["question"] == "rq1"]
    labelled = [r for r in first if not translates(r)]
    for (dataset, variant), part in grouped(labelled, _set_and_variant).items():
        what = f"rq1 net, {name_of(dataset)}, {variant}"
        if dataset not in EVERY_STEP:
            limit, paper = -0.5, "-0.6 at about 5 %"
        elif variant == "rolled":
            limit, paper = -0.7, "-50.87"
        else:
            limit, paper = -0.5, "-1.02"
        yield Figure(what, mean_by(part, "net", network), limit, paper, len(part))
    if labelled:
        value = mean_by(labelled, "delta", lambda r: r["dataset"], network)
        what = "rq1 delta, mean over classification sets"
        yield Figure(what, value, 0.0, "-0.6", len(labelled))
    for dataset, part in grouped(filter(translates, first), lambda r: r["dataset"]).items():
        what, paper = f"rq1 BLEU, {name_of(dataset)}", "+0.10 on average at about 5 %"
        yield Figure(what, mean_by(part, "net", network), -0.3, paper, len(part))
    yield from _means(rows, "rq2", "within a type", _within, -0.4, "-0.58")
    yield from _means(rows, "rq2", "across types", across, -2.5, "-6.22, -3.25")
    yield from _means(rows, "rq3", "within a type", _within, 0.0, "-1.15")
    yield from _means(rows, "rq3", "across types", across, -4.0, "-8.47")
    yield from _means(rows, "rq2", "BLEU, two languages", translates, 0.0, "+4.40")
    scenarios = [r for r in rows if r["question"] == "scenarios"]
    for (dataset, pair), part in grouped(scenarios, lambda r: (r["dataset"], r["pair"])).items():
        paper = " / ".join(f"{delta:+.1f}" for delta in part[0]["paper_deltas"])
        what = f"{name_of(dataset)}: {pair}"
        yield Figure(what, mean_by(part, "delta"), -0.2, paper, len(part))
    yield from _dense_figures([r for r in every if dense(r) and not across(r)])


def _dense_figures(rows: Sequence[Row]) -> Iterator[Figure]:
    """Of dense networks, within a data set."""
    asked = grouped(rows, lambda r: r["question"])
    for dataset, part in grouped(asked.get("rq1", ()), lambda r: r["dataset"]).items():
        what, paper = f"rq1 net, {name_of(dataset)}, dense", "-0.01"
        yield Figure(what, mean_by(part, "net", network), -0.1, paper, len(part))
    for question, field, words, limit, paper in (
        ("rq1", "delta", "delta", 0.0, "-0.01"),
        ("rq2", "delta", "within a set", 0.03, "+0.03"),
        ("rq3", "delta", "a weak label", 0.5, ""),
        ("rq3", "label_delta", "a weak label, on its rows", 5.0, ""),
    ):
        if found := asked.get(question):
            value = mean_by(found, field, lambda r: r["dataset"])
            what = f"{question} {words}, dense, mean over sets"
            yield Figure(what, value, limit, paper, len(found))


def counts(row: Row) -> bool:
    """Whether a row's figure has a limit."""
    return (row["rule"], row["removal"], row["repairs"], row["gates"]) == (
        "sensitivity",
        REMOVAL,
        "all",
        "joint",
    )


@dataclass(frozen=True)
class Parents:
    """How good the parents of a data set are by themselves.

    Args:
        dataset: its name.
        scores: of each parent, in points; of a translator the mean over its languages.
        limit: the least that each should have.
    """

    dataset: str
    scores: tuple[float, ...]
    limit: float

    @property
    def met(self) -> bool:
        """Whether all of them are as good as they should be."""
        return min(self.scores) >= self.limit


def parents(rows: Sequence[Row]) -> Iterator[Parents]:
    """Those of the first question."""
    first = [r for r in rows if r["question"] == "rq1"]
    for dataset, part in grouped(first, _parents_set).items():
        if dataset not in PARENTS:
            continue
        alike = grouped(part, lambda r: (r["cell"], r["layers"], r["seed"])).values()
        scores = tuple(mean_by(rows, "parent_score", lambda r: r["dataset"]) for rows in alike)
        yield Parents(dataset, scores, PARENTS[dataset])


def _parents_set(row: Row) -> str:
    return row["dataset"].rsplit("/", 1)[0] if translates(row) else row["dataset"]


def _means(
    rows: Sequence[Row],
    question: str,
    words: str,
    of: Callable[[Row], bool],
    limit: float,
    paper: str,
) -> Iterator[Figure]:
    found = [r for r in rows if r["question"] == question and of(r)]
    if found:
        value = mean_by(found, "delta", lambda r: r["dataset"])
        yield Figure(f"{question} {words}, mean over sets", value, limit, paper, len(found))


def _within(row: Row) -> bool:
    return not across(row) and not translates(row)


def _set_and_variant(row: Row) -> tuple[str, str]:
    return row["dataset"], row["variant"]
