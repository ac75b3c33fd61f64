"""Parents trained apart, put together without training: which score is fair to both?"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.data import TextData, load_clinc_out_of_scope
from benchmarks.parents import Training, train_parent
from benchmarks.results import RowFile, mean_and_error, shown
from benchmarks.rq2 import joined
from benchmarks.scoring import composite_points
from benchmarks.study import Study
from benchmarks.tasks import APART, TASKS
from benchmarks.timing import bytes_of, interleaved, ratio
from mlflow_rnnmod.answers import ANSWERS
from mlflow_rnnmod.composition import Composite, compose
from mlflow_rnnmod.composition.joint import calibrated
from mlflow_rnnmod.decomposition import Module
from mlflow_rnnmod.storage import write_module

ALL = {**TASKS, **APART}
SCORES = ("hybrid", "open", "likelihood", "bayes", "margin", "logit", "probability")
ALONE = ("margin", "bayes", "hybrid", "open", "likelihood", "logit", "probability")
JOINT = ("hybrid", "open")
JOINT_ROWS = 300
REFUSED = 0.05
# Inputs that likelihoods are timed on, and how often.
BATCH, REPEATS = 64, 15
SPLITS = ((5, 0), (5, 1), (8, 0), (8, 1))


@dataclass(frozen=True)
class Setting:
    """A data set whose labels are learned by two parents, each by one.

    Args:
        name: as the command has it.
        task: of the parents.
        splits: how many labels the first parent has, and the seed of the draw; nothing where the
            second parent has a data set of its own.
        second: that data set's task.
    """

    name: str
    task: str
    splits: tuple[tuple[int, int], ...] = ()
    second: str | None = None


SETTINGS = {
    each.name: each
    for each in (
        Setting("clinc_oos", "clinc_oos", SPLITS),
        Setting("clinc_oos/intent", "clinc_oos/intent", tuple((75, seed) for seed in range(4))),
        Setting("surnames", "surnames", ((11, 0), (10, 1), (9, 2), (8, 3))),
        Setting("brown_pos", "brown_pos", tuple((6, seed) for seed in range(4))),
        Setting(
            "wiki_toxicity/multilabel",
            "wiki_toxicity/multilabel",
            tuple((3, seed) for seed in range(4)),
        ),
        Setting("digits with letters", "mnist", second="emnist_letters"),
    )
}


def split_labels(names: tuple[str, ...], first: int, seed: int) -> tuple[list[str], list[str]]:
    """``first`` labels drawn at random, and the others."""
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed)).tolist()
    return [names[i] for i in order[:first]], [names[i] for i in order[first:]]


def modules_of(
    data: TextData, training: Training, cache: Path, removal: float
) -> tuple[tuple[Module, ...], float]:
    """Modules of one parent, with all repairs, and its own points on its own test rows."""
    parent, _ = train_parent(data, training, cache)
    splits = [data.rows(s, parent.tokenizer) for s in ("train", "validation", "test")]
    study = Study.start(parent, *splits, seed=training.seed)
    modules = study.modules(study.removed("sensitivity", removal))
    return modules, study.parent_scores[study.metric]


def refused(composite: Composite, data: TextData, strange: Sequence[str]) -> float | None:
    """Share of strange inputs less familiar than 5 % of the validation rows are."""
    if not strange:
        return None
    threshold = float(composite.familiarity(data.texts["validation"]).double().quantile(REFUSED))
    return 100 * float((composite.familiarity(strange) < threshold).double().mean())


def fits(score: str, output: str) -> bool:
    """Whether a score can compare modules that answer so."""
    answer = ANSWERS[output]
    if not answer.rivals:
        return score in ("margin", "logit", "probability")
    return True


def apart_rows(
    setting: Setting,
    data: TextData,
    parts: dict[str, list[tuple[TextData, int]]],
    training: Training,
    cache: Path,
    removal: float,
    strange: Sequence[str],
    done: set[str],
    told: Callable[[str], None] = lambda text: None,
) -> Iterator[dict[str, Any]]:
    """Rows of each score: of one parent for all labels, and of each split of them over two.

    Args:
        setting: which.
        data: all labels.
        parts: for each split its name, and what its parents learn, with what is added to the seed.
        training: of the parents.
        cache: of trained parents.
        removal: share of the units.
        strange: inputs with none of the labels.
        done: splits that are there already.
        told: is told of progress.
    """
    if not {"one parent", *parts} - done:
        return
    told("one parent for all labels")
    modules, whole = modules_of(data, training, cache, removal)
    both = data.output
    fixed: dict[str, Any] = {
        "question": "apart",
        "dataset": setting.name,
        "training": asdict(training),
        "seed": training.seed,
        "removal": removal,
        "whole": whole,
    }

    def row(split: str, score: str, composite: Composite) -> dict[str, Any]:
        return {
            **fixed,
            "split": split,
            "score": score,
            "accuracy": composite_points(composite, data),
            "refused": refused(composite, data, strange),
        }

    if "one parent" not in done:
        fixed |= costs(modules, data)
        for score in (s for s in ALONE if fits(s, both)):
            yield row("one parent", score, compose(modules, score=score))
    picked = torch.randperm(
        len(data.texts["validation"]), generator=torch.Generator().manual_seed(training.seed)
    )[:JOINT_ROWS].tolist()
    joint_rows = tuple(
        [found["validation"][i] for i in picked] for found in (data.texts, data.labels)
    )
    for name, learned in parts.items():
        if name in done:
            continue
        told(f"{name} labels")
        apart: list[Module] = []
        for part, seed in learned:
            own = replace(training, seed=training.seed + seed)
            known = {module.label for module in apart}
            found = modules_of(part, own, cache, removal)[0]
            apart += [module for module in found if module.label not in known]
        for score in (s for s in SCORES if fits(s, both)):
            yield row(name, score, compose(apart, score=score))
        for score in (s for s in JOINT if fits(s, both)):
            composite = calibrated(compose(apart, score=score), *joint_rows)
            yield row(name, f"joint of {score}", composite)


def costs(modules: Sequence[Module], data: TextData) -> dict[str, float]:
    """Bytes of the largest module on disk; what likelihoods take of a batch's time, a share."""
    with tempfile.TemporaryDirectory() as folder:
        sizes = []
        for number, module in enumerate(modules):
            written = Path(folder) / str(number)
            write_module(module, written)
            sizes.append(bytes_of(written))
    inputs = data.texts["test"][:BATCH]
    ways = {
        score: partial(compose(modules, score=score).scores, inputs)
        for score in ("hybrid", "open")
        if fits(score, data.output)
    }
    if len(ways) < 2:
        return {"bytes": max(sizes)}
    times = interleaved(ways, REPEATS)
    share = 1 - ratio("", times["open"], times["hybrid"], None).value
    return {"bytes": max(sizes), "likelihood_share": share}


def parts_of(
    setting: Setting, data_dir: Path
) -> tuple[TextData, dict[str, list[tuple[TextData, int]]]]:
    """All labels of a setting, and its splits."""
    data = ALL[setting.task].data(data_dir)
    if setting.second is not None:
        second = ALL[setting.second].data(data_dir)
        name = f"{len(data.names)}+{len(second.names)}"
        return joined(data, second), {name: [(data, 0), (second, 0)]}
    found = {}
    for first, seed in setting.splits:
        mine, other = split_labels(data.names, first, seed)
        # A parent tells at least two labels apart: one of the first's stands beside a single one.
        beside = other if len(other) > 1 else [*other, mine[0]]
        learned = [(data.only(mine), 10 * seed), (data.only(beside), 10 * seed + 1)]
        found[f"{first}+{len(other)}/{seed}"] = learned
    return data, found


def rows_of(json_file: Path | None) -> RowFile:
    """The rows beside those of other commands."""
    return RowFile(json_file.with_name(f"{json_file.stem}-apart.json") if json_file else None)


def print_apart(
    name: str,
    seeds: int,
    data_dir: Path,
    cache: Path,
    json_file: Path | None,
    console: Console,
    removal: float = 0.2,
    cell: str = "lstm",
    layers: int = 1,
    splits: int | None = None,
) -> None:
    """Train, decompose, compose and print; kept beside ``json_file`` as ``*-apart.json``."""
    setting = SETTINGS[name]
    file = rows_of(json_file)
    data, parts = parts_of(setting, data_dir)
    parts = dict(list(parts.items())[:splits])
    strange = load_clinc_out_of_scope(data_dir) if setting.task.startswith("clinc_oos") else []
    rows: list[dict[str, Any]] = []
    for seed in range(seeds):
        training = ALL[setting.task].training(cell, layers, seed)
        mine = {"dataset": name, "training": asdict(training), "removal": removal}
        done = {row["split"] for row in file.where(**mine)}
        with console.status("parents trained apart") as status:
            given = (setting, data, parts, training, cache, removal, strange, done)
            for row in apart_rows(*given, status.update):
                file.add(row)
        rows += [r for r in file.where(**mine) if r["split"] in {"one parent", *parts}]
    _print(name, rows, removal, console)


def _print(name: str, rows: list[dict[str, Any]], removal: float, console: Console) -> None:
    """Two tables: parents trained apart, and one parent."""
    whole = [r["whole"] for r in rows if r["split"] == "one parent"]
    title = (
        f"modules at {removal:.0%}, against one parent for all ({shown(whole, False)} %), points"
    )
    for one in (False, True):
        mine = [r for r in rows if (r["split"] == "one parent") == one]
        table = Table(title=f"{name}: {'one parent' if one else 'parents trained apart'}, {title}")
        for column in ("score", "mean", "worst", "parents", "by split", "strange refused %"):
            left = column in ("score", "by split")
            table.add_column(column, justify="left" if left else "right")
        for score in dict.fromkeys(r["score"] for r in mine):
            found = [r for r in mine if r["score"] == score]
            deltas = [r["accuracy"] - r["whole"] for r in found]
            strange = [r["refused"] for r in found if r["refused"] is not None]
            table.add_row(
                f"{score} ({JOINT_ROWS} rows)" if score.startswith("joint") else score,
                shown(deltas),
                f"{min(deltas):+.2f}",
                str(len({(r["split"], r["seed"]) for r in found})),
                ", ".join(f"{r['split']} {d:+.1f}" for r, d in zip(found, deltas, strict=True)),
                f"{mean_and_error(strange)[0]:.1f}" if strange else "",
            )
        console.print(table)
        if one and mine and "bytes" in mine[0]:
            share = mine[0].get("likelihood_share")
            took = "" if share is None else f"; likelihoods take {share:.0%} of a batch of {BATCH}"
            console.print(f"largest module {mine[0]['bytes'] / 1000:.1f} kB on disk{took}")
