"""The tables of ``docs/results.md``: ours and the paper's figures, a line for each network."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from benchmarks.page.limits import REMOVAL, figures, parents
from benchmarks.page.rows import METRICS, Row, grouped, mean, name_of, network, place
from benchmarks.published import delta, reuse_delta

RULES = ("sensitivity", "paper", "reference")
CONTROLS = ("random", "none")


def markdown(header: Sequence[str], lines: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table, or nothing where it has no lines; the first ``left`` columns are words.

    Example:
        >>> print(markdown(("set", "net"), [("a", "-0.10")]))
        | set | net |
        | --- | ---: |
        | a | -0.10 |
    """
    if not lines:
        return ""
    rule = ["---" if i < left else "---:" for i in range(len(header))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *lines))


def signed(values: Sequence[float]) -> str:
    """Mean, and its spread where there are several; nothing where there is no value.

    Example:
        >>> signed([0.1]), signed([1.0, 2.0]), signed([])
        ('+0.10', '+1.50 ± 0.50', '')
    """
    if not values:
        return ""
    text = f"{mean(values):+.2f}"
    if len(values) < 2:
        return text
    return f"{text} ± {statistics.stdev(values) / len(values) ** 0.5:.2f}"


def limits_table(rows: Sequence[Row]) -> str:
    """Each limit beside its figure."""
    lines = [
        (f.what, f"{f.value:+.2f}", f"{f.limit:+g}", "yes" if f.met else "**no**", f.paper)
        for f in figures(rows)
    ]
    return markdown(("figure", "ours", "at least", "met", "paper"), lines)


def parents_table(rows: Sequence[Row]) -> str:
    """How good the parents are, beside what they should be."""
    lines = [
        (
            name_of(p.dataset),
            str(len(p.scores)),
            f"{mean(p.scores):.2f}",
            f"{min(p.scores):.2f}",
            f"{p.limit:.0f}",
            "yes" if p.met else "**no**",
        )
        for p in parents(sorted(rows, key=place))
    ]
    return markdown(("parents", "how many", "mean", "worst", "at least", "met"), lines)


def rq1_table(rows: Sequence[Row], repairs: str) -> str:
    """Networks taken apart: net for each rule, and the paper's difference to its parent."""
    rows = [r for r in rows if r["repairs"] == repairs]
    lines = []
    for part in grouped(sorted(rows, key=place), network).values():
        first = part[0]
        at = [r for r in part if r["removal"] == REMOVAL]
        by_rule = {rule: [r["net"] for r in at if r["rule"] == rule] for rule in RULES}
        random = [r["net"] for r in at if r["rule"] == "random" and r["matched"] == "sensitivity"]
        if not at:
            continue
        published = paper_delta(first)
        lines.append(
            (
                name_of(first["dataset"]),
                first["cell"],
                str(first["layers"]),
                _variant(first),
                str(len({r["seed"] for r in part})),
                f"{mean(r['parent_score'] for r in at):.2f}",
                signed([r["delta"] for r in at if r["rule"] == "sensitivity" and not r["matched"]]),
                *(signed(by_rule[rule]) for rule in RULES[:2]),
                signed(random),
                signed([r["delta"] for r in part if r["rule"] == "none"]),
                "" if published is None else f"{published:+.2f}",
            )
        )
    header = (
        *("network", "cell", "layers", "variant", "seeds", "parent", "delta"),
        *("net", "net, rule `paper`", "net, random", "delta, none removed", "paper's delta"),
    )
    return markdown(header, lines, left=4)


def sizes_table(rows: Sequence[Row]) -> str:
    """How much of the parents' recurrent layers the modules of each rule keep, and share."""
    lines = []
    chosen = [r for r in rows if r["repairs"] == "all" and r["rule"] in RULES]
    chosen = [r for r in chosen if "recurrent_weights_kept" in r]  # not in dense networks
    for (share, rule), part in sorted(grouped(chosen, lambda r: (r["removal"], r["rule"])).items()):
        shown = ("units_kept", "recurrent_weights_kept", "jaccard")
        kept = [mean(r[name] for r in part) for name in shown]
        nets = [mean(r["net"] for r in group) for group in grouped(part, network).values()]
        lines.append(
            (
                f"`{rule}`",
                f"{share:.0%}",
                str(len(nets)),
                f"{100 * kept[0]:.0f} %",
                f"{100 * kept[1]:.0f} %",
                f"{kept[2]:.2f}",
                f"{mean(nets):+.2f}",
                f"{min(nets):+.2f}",
            )
        )
    header = (
        *("rule", "removal", "networks", "units kept", "recurrent weights kept"),
        *("Jaccard index of units", "net, mean", "net, worst network"),
    )
    return markdown(header, lines)


def exact_table(rows: Sequence[Row]) -> str:
    """Exact match of answers of several labels, beside the micro-F1."""
    at = [
        r
        for r in rows
        if "exact" in r
        and (r["repairs"], r["removal"], r["rule"]) == ("all", REMOVAL, "sensitivity")
    ]
    lines = [
        (
            name_of(part[0]["dataset"]),
            part[0]["cell"],
            str(part[0]["layers"]),
            _variant(part[0]),
            f"{mean(r['parent_exact'] for r in part):.2f}",
            signed([r["exact"] - r["parent_exact"] for r in part]),
        )
        for part in grouped(sorted(at, key=place), network).values()
    ]
    header = ("network", "cell", "layers", "variant", "parent's exact match", "delta")
    return markdown(header, lines, left=4)


def reuse_table(rows: Sequence[Row], question: str) -> str:
    """Modules against models trained from scratch (rq2, rq3)."""
    lines = []
    found = [r for r in rows if r["question"] == question]
    for (dataset, cell, layers), part in grouped(
        found, lambda r: (r["dataset"], r["cell"], r["layers"])
    ).items():
        by_rule = grouped(part, lambda r: r["rule"])
        if "sensitivity" not in by_rule:
            continue
        mine = by_rule["sensitivity"]
        paper = reuse_delta(question, dataset.removesuffix("/list").removesuffix("/domain"), cell)
        other = [f"{r['worst']} / {r['best']}" for r in mine if "worst" in r]
        lines.append(
            (
                name_of(dataset),
                f"{other[0]}" if other else f"{cell}, {layers}",
                METRICS[mine[0]["metric"]],
                str(len(mine)),
                f"{mean(r['score'] for r in mine):.2f}",
                f"{mean(r['scratch_score'] for r in mine):.2f}",
                signed([r["delta"] for r in mine]),
                f"{min(r['delta'] for r in mine):+.2f}",
                *(signed([r["delta"] for r in by_rule.get(rule, ())]) for rule in CONTROLS),
                signed([r["joint_score"] - r["scratch_score"] for r in mine if "joint_score" in r]),
                "" if paper is None else f"{paper:+.2f}",
                _minutes([r["scratch_seconds"] for r in mine if "scratch_seconds" in r]),
            )
        )
    header = (
        *("network", "cell, layers" if question == "rq2" else "worst / best", "metric"),
        *("pairs" if question == "rq2" else "modules", "composite", "from scratch", "delta"),
        *("worst", "delta, random", "delta, none removed", "delta, with 300 joint rows"),
        *("paper's delta", "training, min"),
    )
    return markdown(header, lines, left=3)


def scenarios_table(rows: Sequence[Row]) -> str:
    """Modules put together against a model that is trained again."""
    lines = []
    found = [r for r in rows if r["question"] == "scenarios"]
    for (dataset, pair, cell), part in grouped(
        found, lambda r: (r["dataset"], r["pair"], r["cell"])
    ).items():
        by_rule = grouped(part, lambda r: r["rule"])
        mine = by_rule.get("sensitivity", [])
        if not mine:
            continue
        lines.append(
            (
                name_of(dataset),
                pair,
                cell,
                f"{mean(r['score'] for r in mine):.2f}",
                f"{mean(r['scratch_score'] for r in mine):.2f}",
                signed([r["delta"] for r in mine]),
                *(signed([r["delta"] for r in by_rule.get(rule, ())]) for rule in CONTROLS),
                " / ".join(f"{d:+.2f}" for d in mine[0]["paper_deltas"]),
                _minutes([r["new_seconds"] for r in mine]),
                _minutes([r["decomposition_seconds"] for r in mine]),
                _minutes([r["scratch_seconds"] for r in mine]),
            )
        )
    header = (
        *("scenario", "module", "cell", "composite", "trained again", "delta"),
        *("delta, random", "delta, none removed", "paper's deltas"),
        *("training of the module's parent, min", "taking apart, min", "training again, min"),
    )
    return markdown(header, lines, left=3)


def languages_table(rows: Sequence[Row]) -> str:
    """BLEU of each language in the scenarios."""
    lines: list[tuple[str, ...]] = []
    found = [r for r in rows if r["question"] == "scenarios" and r["rule"] == "sensitivity"]
    for row in found:
        for code, score in row["languages"].items():
            base = row["base_languages"].get(code)
            lines.append(
                (
                    name_of(row["dataset"]),
                    row["pair"],
                    code,
                    "" if base is None else f"{base:.2f}",
                    f"{score:.2f}",
                    f"{row['scratch_languages'][code]:.2f}",
                )
            )
    header = ("scenario", "module", "language", "before", "composite", "trained again")
    return markdown(header, lines, left=3)


def paper_delta(row: Row) -> float | None:
    """The paper's figure for a network like a row's; its CLINC parents answer 150 intents."""
    dataset = row["dataset"].removesuffix("/domain")
    return delta(dataset, row["variant"], row["cell"], row["layers"])


def _variant(row: Row) -> str:
    return row["variant"] + (", separate gates" if row["gates"] == "separate" else "")


def _minutes(seconds: Sequence[float]) -> str:
    return f"{mean(seconds) / 60:.1f}" if seconds else ""
