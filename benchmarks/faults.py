"""What the promises of the README are worth: faults, kills, hostile files, and servers under fire.

``python -m benchmarks.faults --json FILE`` runs a campaign and prints its table; parts run by
themselves (``files``, ``requests``, ``kills``, ``network``, ``serving``), and what several runs
have written is added up by ``--add``. With ``--stores`` the faults at requests, on the network, and
the kills are tried on an ``mlflow server`` over PostgreSQL and an S3 stand-in of its own
(:mod:`benchmarks.stores`). It exits with 1 where anything must not be.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from benchmarks import stores

PARTS = ("files", "requests", "kills", "network", "serving")
NUMBERS = {"files": 5000, "requests": 600, "kills": 150, "network": 250, "serving": 60}
"""How many of each; of serving, seconds."""
AT_STORES = {"requests": 60, "kills": 30, "network": 36}
"""How many of each, of those that can be tried on PostgreSQL and S3."""
_ROOT = Path(__file__).parents[1]


def run_part(part: str, number: int, seed: int, at_stores: bool = False) -> dict[str, Any]:
    """One part of the campaign: how many, what they came to, and what must not be."""
    found = _run_part(part, number, seed, at_stores)
    where = stores.described() if at_stores else f"MLflow {version('mlflow')}"
    return {**found, "ran": [f"{date.today()}, {_commit()}, {where}"]}


def _commit() -> str:
    """The commit that is tried."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        told = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "no commit"
    return told.stdout.strip() or "no commit"


def _run_part(part: str, number: int, seed: int, at_stores: bool) -> dict[str, Any]:
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    if part == "files":
        return _files(number, seed)
    from tests.faults import attempts, network, serving

    # Through the proxy go the files, too; else clients write to the bucket themselves.
    served = partial(stores.served, direct=part != "network") if at_stores else None
    if part == "requests":
        return attempts.in_process(number, seed, served)
    if part == "kills":
        return attempts.kills(number, seed, served)
    if part == "network":
        return network.over_network(number, seed, served)
    clients, workers = serving.served(8, number), serving.forked_server(max(number // 3, 2), 5)
    counts = {f"clients: {k}": v for k, v in clients.items()}
    counts.update({f"workers: {k}": v for k, v in workers.items()})
    bad = [k for k in counts if not k.endswith("as before")]
    return {"faults": sum(counts.values()), "counts": counts, "bad": bad}


def _files(number: int, seed: int) -> dict[str, Any]:
    """In a process without threads, as each file's is forked from it."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "found.json")
        command = [sys.executable, "-m", "tests.faults.fuzz", "--count", str(number)]
        command += ["--seed", str(seed), "--json", str(file)]
        subprocess.run(command, cwd=_ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
        found: dict[str, Any] = json.loads(file.read_text())
        if found["files"] != number:
            raise RuntimeError(f"the fuzzer stopped after {found['files']} of {number} files.")
    return {"faults": found["files"], "counts": found["counts"], "bad": found["bad"]}


def added(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What several runs of one part came to together."""
    counts: Counter[str] = Counter()
    for part in parts:
        counts.update(part["counts"])
    bad = [case for part in parts for case in part["bad"]]
    number = sum(part.get("faults") or part["files"] for part in parts)
    ran = list(dict.fromkeys(words for part in parts for words in part.get("ran", ())))
    return {"faults": number, "counts": dict(counts), "bad": bad, "ran": ran}


def table_of(found: dict[str, dict[str, Any]]) -> Table:
    """The table: each part, how many, what came of them, what must not be, when and on what."""
    table = Table("part", "number", "what came of them", "must not be", "ran")
    for part, result in found.items():
        words = [f"{number} {what}" for what, number in sorted(result["counts"].items())]
        numbers = str(result["faults"]), ", ".join(words), str(len(result["bad"]))
        table.add_row(part, *numbers, "\n".join(result.get("ran", ())))
    return table


@click.command(help=__doc__)
@click.argument("parts", nargs=-1, type=click.Choice(PARTS))
@click.option("--number", type=int, help="How many, of each part; by default what is asked of it.")
@click.option("--seed", default=0, show_default=True)
@click.option("--stores", "at_stores", is_flag=True, help="Over PostgreSQL and S3.")
@click.option("--add", multiple=True, type=click.Path(exists=True), help="Earlier runs to add up.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False), help="Write figures here.")
def main(
    parts: Sequence[str],
    number: int | None,
    seed: int,
    at_stores: bool,
    add: Sequence[str],
    json_file: str | None,
) -> None:
    """Run parts of the campaign, or add up what was run, and print the table."""
    numbers = AT_STORES if at_stores else NUMBERS
    if others := set(parts) - set(numbers):
        raise click.UsageError(f"--stores is for {', '.join(numbers)}; not for {min(others)}.")
    if at_stores and (missing := stores.missing()):
        raise click.UsageError(f"--stores needs what is not here: {missing}.")
    found: dict[str, dict[str, Any]] = {}
    for file in add:
        body = json.loads(Path(file).read_text())
        if "seed" in body:  # what the fuzzer itself has written
            body = {"files": body}
        for part, result in body.items():
            found[part] = added([found[part], result] if part in found else [result])
    for part in parts or (() if add else numbers):
        found[part] = run_part(part, number or numbers[part], seed, at_stores)
    Console(width=160).print(table_of(found))
    for result in found.values():
        for case in result["bad"][:20]:
            print(case)
    if json_file:
        Path(json_file).write_text(json.dumps(found, indent=1))
    sys.exit(any(result["bad"] for result in found.values()))


if __name__ == "__main__":
    main()
