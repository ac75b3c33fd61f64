"""Altered files, each read in a process of its own, and what came of it.

``python -m tests.faults.fuzz --count 5000 --seed 0 --json FILE``. What is counted: clear errors
that name file and URI, the same answer as before, other answers where all digests were put right
(then it is another model, and says so), and what must not be: aborts, hangs, too much memory or
time, code run, files written or read elsewhere, connections, other answers though a digest was
wrong.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import mlflow  # noqa: E402
import torch  # noqa: E402

import mlflow_rnnmod  # noqa: E402
from mlflow_rnnmod.composition import Composite, compose, whole_parent  # noqa: E402
from mlflow_rnnmod.decomposition.module import Module  # noqa: E402
from mlflow_rnnmod.tracking.parents import forget_parents  # noqa: E402
from tests.builders import tiny_modules, tiny_parent  # noqa: E402
from tests.contract.subjects import subject  # noqa: E402
from tests.faults import children  # noqa: E402
from tests.faults.altering import believe, changes_for  # noqa: E402

BAD = (
    "abort", "hang", "memory", "time", "code or connection", "writes or reads elsewhere",
    "another answer, unnoticed", "error without file or URI", "raw error",
)  # fmt: skip
FILES = (
    "module.json", "module.safetensors", "modules.json", "modules.safetensors", "network.json",
    "weights.safetensors", "tokenizer.json", "target_tokenizer.json", "composition.json", "MLmodel",
    "parents",
)  # fmt: skip

_SAVED = Path(__file__).parents[1] / "saved"


def make_subjects(folder: Path) -> dict[str, Path]:
    """Saved models of many kinds, by name."""
    from tests.contract.test_files import modules_of

    made: dict[str, Any] = {
        "parent": tiny_parent("text"),
        "module": tiny_modules(tiny_parent("text"))[0],
        "composite": compose(tiny_modules(tiny_parent("text"))),
        "features": tiny_modules(tiny_parent("features"))[1],
    }
    for name in ("translator: gru, text", "graph: several layers, multilabel"):
        made[name.partition(":")[0]] = compose(modules_of(subject(name)))
    made["tags"] = compose(modules_of(subject("recurrent: gru, text, tags")))
    for name in ("label", "module"):  # whose kernels are fitted to what is kept
        made[f"windows, {name}"] = mlflow_rnnmod.load_model(_SAVED / f"{name}_format5" / "model")
    found = {}
    for name, thing in made.items():
        found[name] = folder / name
        more = {"standalone": True} if isinstance(thing, Module) else {}
        mlflow_rnnmod.save_model(thing, found[name], **more)
    return found


def answers(folder: str) -> dict[str, Any]:
    """What a saved model answers, or at which stage it says why not."""
    thing = mlflow_rnnmod.load_model(folder)
    plan = None
    if not hasattr(thing, "network"):
        plan = len(mlflow_rnnmod.plan(folder).problems)
    composite = thing if isinstance(thing, Composite) else None
    if isinstance(thing, Module):
        composite = compose([thing])
    composite = whole_parent(thing) if composite is None else composite
    try:
        return {"plan": plan, "answer": repr(composite.predict(_inputs(composite)))}
    except (ValueError, TypeError) as error:  # said where it is asked
        return {"plan": plan, "said": f"{type(error).__name__}: {error}"[:500]}


def _inputs(composite: Composite) -> list[Any]:
    size = composite.modules[0].contract.input_size
    kind = composite.input_kind
    if kind == "text":
        return ["ab ba xyz", "", "the quick brown fox"]
    if kind == "tokens":
        return [[1 % size, 2 % size], [0]]
    if kind == "features":
        return [[[0.5] * size] * 3]
    if kind == "pixels":
        return [torch.full(size, 0.5).tolist(), torch.full(size, -1.0).tolist()]
    return [[0.5] * size, [-1.0] * size]


def classify(
    outcome: children.Outcome, folder: str, before: Any, believed: bool
) -> tuple[str, str]:
    """One word for what came of it, and the details."""
    if outcome.kind in ("abort", "hang"):
        return outcome.kind, str(outcome.error)
    code = [e for e in outcome.events if not e.startswith(("write", "read", "os.re", "os.mk"))]
    if code:
        return "code or connection", str(code)
    if outcome.events:
        return "writes or reads elsewhere", str(outcome.events)
    if outcome.megabytes > children.MEGABYTES:
        return "memory", f"{outcome.megabytes:.0f} MB"
    if outcome.seconds > children.SECONDS:
        return "time", f"{outcome.seconds:.1f} s"
    if outcome.kind == "answered":
        if outcome.answer == before:
            return "answered as before", ""
        if "said" in outcome.answer:
            return "said when asked", outcome.answer["said"]
        kind = "another model, believed" if believed else "another answer, unnoticed"
        return kind, str(outcome.answer)
    assert outcome.error is not None
    kind, message = outcome.error
    if kind not in ("MlflowException", "ValueError"):
        return "raw error", f"{kind}: {message}"
    if folder not in message or not any(name in message for name in FILES):
        return "error without file or URI", f"{kind}: {message}"
    return "clear error", message


def fuzz(
    count: int, seed: int, told: Callable[[dict[str, Any]], None] | None = None
) -> dict[str, Any]:
    """So many altered files: how many came to what, and all that must not be.

    Args:
        count: of files.
        seed: of what is done to them.
        told: what was found so far, now and then.
    """
    torch.set_num_threads(1)
    os.environ["RNNMOD_CACHE"] = ""

    def found_so_far(files: int) -> dict[str, Any]:
        return {
            "files": files,
            "seed": seed,
            "counts": dict(counts),
            "believed": dict(believed_counts),
            "bad": bad,
        }

    counts: Counter[str] = Counter()
    believed_counts: Counter[str] = Counter()
    bad: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="fuzz-") as top:
        mlflow.set_tracking_uri(f"sqlite:///{top}/none.db")
        subjects = make_subjects(Path(top))
        before = {}
        for name, folder in subjects.items():
            before[name] = answers(str(folder))  # imports, and warms up
            forget_parents()
        for number in range(count):
            random_ = random.Random(f"{seed}/{number}")
            name = random_.choice(list(subjects))
            with tempfile.TemporaryDirectory(prefix="case-", dir=top) as case:
                folder = Path(case, "model")
                shutil.copytree(subjects[name], folder, ignore=shutil.ignore_patterns("code"))
                files = [p for p in sorted(folder.rglob("*")) if _is_read(p, folder)]
                path = random_.choice(files)
                change = random_.choice(changes_for(path))
                how = change(random_, path)
                believed = random_.random() < 0.6
                if believed:
                    believe(folder)
                where = str(folder)
                outcome = children.run(lambda where=where: answers(where), where)
                what, details = classify(outcome, where, before[name], believed)
            counts[what] += 1
            if believed:
                believed_counts[what] += 1
            if what in BAD:
                found = {"number": number, "model": name, "file": path.name, "change": how}
                bad.append({**found, "believed": believed, "what": what, "details": details[:600]})
            if told is not None and number % 20 == 19:
                told(found_so_far(number + 1))
    return found_so_far(count)


def _is_read(path: Path, folder: Path) -> bool:
    """Whether it is a file that loading reads."""
    if not path.is_file():
        return False
    return path.relative_to(folder).parts[0] == "data" or path.name == "MLmodel"


@click.command(help=__doc__)
@click.option("--count", default=500, show_default=True, help="Altered files.")
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "json_file", type=click.Path(dir_okay=False), help="Write counts here.")
def main(count: int, seed: int, json_file: str | None) -> None:
    """Alter files, print what came of them, and exit with 1 where something must not be."""

    def write(found: dict[str, Any]) -> None:
        if json_file:
            Path(json_file).write_text(json.dumps(found, indent=1))

    found = fuzz(count, seed, write)
    write(found)
    for what, number in sorted(found["counts"].items()):
        print(f"{number:6} {what}")
    for case in found["bad"][:40]:
        print(case)
    sys.exit(bool(found["bad"]))


if __name__ == "__main__":
    main()
