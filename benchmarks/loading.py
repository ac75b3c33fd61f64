"""What composing registered modules over HTTP costs, the first time and again.

``python -m benchmarks.loading`` registers 150 modules on an ``mlflow server`` that it starts on
this machine, composes them with nothing cached, and then twice more in the same process. It prints
seconds and requests of each, and exits with 1 if a second composition fetches a file.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import mlflow
import requests
from rich.console import Console
from rich.table import Table

import mlflow_rnnmod
import mlflow_rnnmod.tracking.names
from benchmarks.logging import decomposition, server
from mlflow_rnnmod.tracking.bulk import log_decomposition
from mlflow_rnnmod.tracking.parents import forget_parents


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Requests that this process makes: of ``files``, and of what MLflow keeps in its tables."""
    found: Counter[str] = Counter()
    lock, original = threading.Lock(), requests.Session.send

    def send(self: requests.Session, request: requests.PreparedRequest, **options: Any) -> Any:
        with lock:
            found["files" if "/mlflow-artifacts/" in str(request.url) else "tables"] += 1
        return original(self, request, **options)

    requests.Session.send = send  # type: ignore[method-assign, assignment]
    try:
        yield found
    finally:
        requests.Session.send = original  # type: ignore[method-assign]


def measure(uris: list[str], again: int = 2) -> list[dict[str, float]]:
    """Seconds and requests of composing, the first time and ``again``."""
    found = []
    forget_parents()
    for _ in range(1 + again):
        with counted() as asked:
            begun = time.perf_counter()
            mlflow_rnnmod.compose(uris)
            seconds = time.perf_counter() - begun
        found.append({"seconds": seconds, "files": asked["files"], "tables": asked["tables"]})
    return found


@click.command(help=__doc__)
@click.option("--modules", default=150, show_default=True, help="Labels of the network.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False), help="Write figures here.")
def main(modules: int, json_file: str | None) -> None:
    """Measure, print, and exit with 1 where a file is fetched twice."""
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    os.environ["RNNMOD_CACHE"] = ""
    what = decomposition(modules)
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as uri:
        mlflow.set_tracking_uri(uri)
        log_decomposition(what, tracking_uri=uri, registered_model_prefix="benchmark")
        names = mlflow_rnnmod.tracking.names.slugs(what.parent.labels)
        by_version = [f"models:/benchmark.{name}/1" for name in names.values()]
        by_alias = [f"models:/benchmark.{name}@champion" for name in names.values()]
        found = {"version": measure(by_version), "alias": measure(by_alias)}
    table = Table(title=f"Composing {modules} registered modules over HTTP")
    for name in ("named by", "time", "seconds", "files", "other requests"):
        table.add_column(name, justify="right" if name != "named by" else "left")
    for name, rows in found.items():
        for number, row in enumerate(rows, 1):
            shown = (f"{row['seconds']:.2f}", f"{row['files']:.0f}", f"{row['tables']:.0f}")
            table.add_row(name, str(number), *shown)
    Console().print(table)
    first, *again = found["version"]
    print(f"again / first: {min(row['seconds'] for row in again) / first['seconds']:.2f}")
    if json_file:
        Path(json_file).write_text(json.dumps(found, indent=2) + "\n")
    if any(row["files"] for rows in found.values() for row in rows[1:]):
        print("A file was fetched twice.", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
