"""Which machine figures come from, and how long it took."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.page.rows import Row, translates


def machine() -> str:
    """Its processor, the cores that this process may use, and its threads."""
    info, model = Path("/proc/cpuinfo"), platform.machine()
    for line in info.read_text().splitlines() if info.exists() else ():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            model = value.strip()
            break
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = torch.get_num_threads()
    return f"{model}, {_count(cores or 1, 'core')}, {_count(threads, 'thread')} a run"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"


def hours(rows: Sequence[Row]) -> float:
    """Of training and measuring, as far as rows say, each counted once."""
    found: dict[tuple, float] = {}
    for row in rows:
        for name, key in _counted_by(row).items():
            if name in row:
                found[name, *key] = row[name]
    return sum(found.values()) / 3600


def _counted_by(row: Row) -> dict[str, tuple]:
    """What tells one stretch of time from another."""
    translator = row["question"] == "rq1" and translates(row)
    # Languages share a parent, and are measured together, for each of the repairs by themselves.
    dataset = row["dataset"].rsplit("/", 1)[0] if translator else row["dataset"]
    parent = (dataset, *(row[name] for name in ("cell", "layers", "seed")))
    setting = tuple(row.get(name) for name in ("variant", "gates", "rule", "removal", "matched"))
    pair = row.get("pair")
    return {
        "training_seconds": parent,
        "base_seconds": parent,
        "scratch_seconds": parent if row["question"] == "scenarios" else (*parent, pair),
        "new_seconds": (*parent, pair),
        "decomposition_seconds": (*parent, pair),
        "seconds": (*parent, *setting, row["repairs"] if translator else None),
    }
