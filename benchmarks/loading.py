"""What composing registered modules over HTTP costs, first and again; and loading a composite.

``python -m benchmarks.loading`` registers 150 modules on an ``mlflow server`` that it starts on
this machine, composes them with nothing cached, and then twice more in the same process. The
composite is logged, and loaded in a process of its own. It prints seconds, requests and files, and
exits with 1 if a second composition fetches a file. With ``--stores`` the server is over PostgreSQL
and an S3 stand-in (:mod:`benchmarks.stores`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click
import mlflow
import requests
from rich.console import Console
from rich.table import Table

import mlflow_rnnmod
import mlflow_rnnmod.tracking.names
from benchmarks import stores
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


_LOAD = """
import json, sys, time
import mlflow, torch, mlflow_rnnmod

seconds = []
for load in (mlflow_rnnmod.load_model, mlflow_rnnmod.load_model, mlflow.pyfunc.load_model):
    begun = time.perf_counter()
    load(sys.argv[1])
    seconds.append(time.perf_counter() - begun)
print(json.dumps(dict(zip(("first", "again", "pyfunc"), seconds))))
"""


def measure_composite(uris: list[str]) -> dict[str, float]:
    """Files of the composite, seconds that logging it takes, and loading it in a new process."""
    composite = mlflow_rnnmod.compose(uris)
    begun = time.perf_counter()
    with mlflow.start_run():
        mlflow_rnnmod.log_model(composite, name="all", registered_model_name="all")
    logged = time.perf_counter() - begun
    with tempfile.TemporaryDirectory() as folder:
        mlflow.artifacts.download_artifacts("models:/all/1", dst_path=folder)
        files = sum(path.is_file() for path in Path(folder).rglob("*"))
    command = [sys.executable, "-c", _LOAD, "models:/all@champion"]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri()}
    told = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    return {"files": files, "log": logged, **json.loads(told.stdout.splitlines()[-1])}


@click.command(help=__doc__)
@click.option("--modules", default=150, show_default=True, help="Labels of the network.")
@click.option("--stores", "at_stores", is_flag=True, help="Over PostgreSQL and S3.")
@click.option("--direct", is_flag=True, help="With --stores: ask S3 itself, not the server.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False), help="Write figures here.")
def main(modules: int, at_stores: bool, direct: bool, json_file: str | None) -> None:
    """Measure, print, and exit with 1 where a file is fetched twice."""
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    os.environ["RNNMOD_CACHE"] = ""
    if at_stores and (missing := stores.missing()):
        raise click.UsageError(f"--stores needs what is not here: {missing}.")
    start = partial(stores.served, workers=4, direct=direct) if at_stores else server
    what = decomposition(modules)
    with tempfile.TemporaryDirectory() as folder, start(Path(folder)) as uri:
        mlflow.set_tracking_uri(uri)
        log_decomposition(what, tracking_uri=uri, registered_model_prefix="benchmark")
        names = mlflow_rnnmod.tracking.names.slugs(what.parent.labels)
        by_version = [f"models:/benchmark.{name}/1" for name in names.values()]
        by_alias = [f"models:/benchmark.{name}@champion" for name in names.values()]
        found = {"version": measure(by_version), "alias": measure(by_alias)}
        whole = measure_composite(by_version)
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
    print(
        f"The composite: {whole['files']} files, logged in {whole['log']:.2f} s, loaded in "
        f"{whole['first']:.2f} s, again in {whole['again']:.2f}, by pyfunc in {whole['pyfunc']:.2f}"
    )
    if json_file:
        Path(json_file).write_text(json.dumps({**found, "composite": whole}, indent=2) + "\n")
    if any(row["files"] for rows in found.values() for row in rows[1:]):
        print("A file was fetched twice.", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
