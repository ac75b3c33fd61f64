"""What logging a decomposition costs, beside the least that as many models in MLflow can cost.

``python -m benchmarks.logging`` logs 150 modules to SQLite and, over HTTP, to an ``mlflow server``
that it starts on this machine. Side by side it creates as many empty LoggedModels with two small
files each and finalizes them, from as many threads. It exits with 1 if a module costs more than
three times as much. Registering is timed by itself.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import torch
from mlflow import MlflowClient
from rich.console import Console
from rich.table import Table

from mlflow_rnnmod.decomposition import Decomposition, DecompositionConfig
from mlflow_rnnmod.decomposition.module import Energy, Head, Module, make_contract
from mlflow_rnnmod.networks import NetworkConfig, Parent, RecurrentNetwork, Trunk, jaccard
from mlflow_rnnmod.tracking.bulk import log_decomposition

LIMIT = 3.0
_FIGURES = ("precision", "recall", "f1", "agreement", "units_kept", "recurrent_weights_kept")


def decomposition(labels: int) -> Decomposition:
    """One of an LSTM of 100 units over words, with random weights, masks and figures."""
    torch.manual_seed(0)
    names = tuple(f"intent_{i}" for i in range(labels))
    config = NetworkConfig("tokens", 5000, 100, "lstm", ((100,),), names, pad_index=0)
    parent = Parent(RecurrentNetwork(config))
    modules = tuple(_module(parent, label) for label in names)
    overlap = [[jaccard(a.trunk, b.trunk) for b in modules] for a in modules]
    return Decomposition(
        parent=parent,
        modules=modules,
        config=DecompositionConfig(),
        figures={"parent_accuracy": 0.9, "composed_accuracy": 0.89, "delta_accuracy": -0.01},
        sizing=(),
        rows={"figures": "no rows: made up for a benchmark"},
        overlap=torch.tensor(overlap),
        warnings=(),
        seconds=0.0,
    )


def _module(parent: Parent, label: str) -> Module:
    keep, fold = torch.rand(100) > 0.2, torch.randn(100)
    return Module(
        parent=parent,
        trunk=Trunk({"recurrent.0.fwd": keep}, {"recurrent.0.fwd": fold}),
        head=Head(torch.randn(100), 0.1),
        open_head=Head(torch.randn(100), 0.1),
        energy=Energy(),
        contract=make_contract(parent, label),
        figures=dict(zip(_FIGURES, torch.rand(len(_FIGURES)).tolist(), strict=True)),
        made={"rule": "random", "removal": 0.2, "repairs": ["fold", "refit"], "rows": "none"},
    )


def log_empty(uri: str, models: int, threads: int) -> None:
    """The least: create, two small files, finalize."""
    client = MlflowClient(tracking_uri=uri)

    def one(number: int) -> None:
        model = client.create_logged_model("0", f"empty-{number}")
        client.log_model_artifacts(model.model_id, files)
        client.finalize_logged_model(model.model_id, "READY")

    with tempfile.TemporaryDirectory() as files, ThreadPoolExecutor(threads) as pool:
        for name in ("one.txt", "two.txt"):
            Path(files, name).write_text("small\n")
        list(pool.map(one, range(models)))


def measure(uri: str, what: Decomposition, rounds: int, threads: int) -> dict[str, Any]:
    """Milliseconds a model, empty and whole, taken in turns; and what registering adds."""
    models = len(what.modules)
    log_empty(uri, 5, threads)  # connections, caches
    taken: dict[str, list[float]] = {"empty": [], "module": [], "registered": []}
    for number in range(rounds):
        jobs = {
            "empty": lambda: log_empty(uri, models, threads),
            "module": lambda: log_decomposition(what, tracking_uri=uri),
        }
        for name in sorted(jobs, reverse=number % 2 == 1):
            begun = time.perf_counter()
            jobs[name]()
            taken[name].append(1000 * (time.perf_counter() - begun) / models)
    begun = time.perf_counter()
    log_decomposition(what, tracking_uri=uri, registered_model_prefix="benchmark")
    taken["registered"].append(1000 * (time.perf_counter() - begun) / models)
    mean = {name: sum(values) / len(values) for name, values in taken.items()}
    return {
        "modules": models,
        "empty_ms": mean["empty"],
        "module_ms": mean["module"],
        "ratio": mean["module"] / mean["empty"],
        "registering_ms": mean["registered"] - mean["module"],
        "rounds": taken,
    }


def free_port() -> int:
    """A port of the loopback address that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def server(
    folder: Path, workers: int = 4, backend: str | None = None, artifacts: Sequence[str] = ()
) -> Iterator[str]:
    """An ``mlflow server`` of its own on the loopback address; its URI.

    Args:
        folder: for its log, and for what it stores where nothing else is said.
        workers: processes of it.
        backend: URI of its database.
        artifacts: its options for artifacts.
    """
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", str(workers)]
    command += ["--backend-store-uri", backend or f"sqlite:///{folder / 'server.db'}"]
    command += artifacts or ["--artifacts-destination", str(folder / "server-artifacts")]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env=environment, cwd=folder, start_new_session=True
        )
        try:
            uri = f"http://127.0.0.1:{port}"
            _wait_for(uri, process, folder / "server.log")
            yield uri
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=30)


def _wait_for(uri: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 600  # on a machine that others use
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            urllib.request.urlopen(f"{uri}/health", timeout=1)
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise click.ClickException(f"mlflow server did not start:\n{log.read_text()[-2000:]}")


@click.command(help=__doc__)
@click.option("--modules", default=150, show_default=True, help="Labels of the network.")
@click.option("--rounds", default=2, show_default=True, help="Times that both are measured.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False), help="Write figures here.")
def main(modules: int, rounds: int, json_file: str | None) -> None:
    """Measure both, print, and exit with 1 if one is over the limit."""
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    what = decomposition(modules)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # SQLite stores put artifacts below the working directory
        found["sqlite"] = measure(f"sqlite:///{folder}/direct.db", what, rounds, threads=1)
        with server(Path(folder)) as uri:
            found["http"] = measure(uri, what, rounds, threads=8)
        os.chdir("/")
    table = Table(title=f"Logging {modules} modules, milliseconds each")
    for name in ("store", "empty model", "module", "ratio", "limit", "registering, besides"):
        table.add_column(name, justify="left" if name == "store" else "right")
    for name, row in found.items():
        table.add_row(
            name,
            f"{row['empty_ms']:.1f}",
            f"{row['module_ms']:.1f}",
            f"{row['ratio']:.2f}",
            f"{LIMIT:.1f}",
            f"{row['registering_ms']:.1f}",
        )
    Console().print(table)
    if json_file:
        Path(json_file).write_text(json.dumps({"limit": LIMIT, **found}, indent=2) + "\n")
    missed = [name for name, row in found.items() if row["ratio"] > LIMIT]
    if missed:
        print(f"Over the limit: {', '.join(missed)}.", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
