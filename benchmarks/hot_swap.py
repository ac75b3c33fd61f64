"""Whether a served composite changes its version without a failed or a mixed answer.

``python -m benchmarks.hot_swap`` registers two versions of a composite that answer differently,
serves ``rnnmod:/?follow=models:/names@champion`` by ``mlflow models serve``, and lets clients ask
for some rows at a time while the alias goes from one version to the other and back. Every answer
must be that of one version for all of its rows. The same in this process, by
``mlflow_rnnmod.follow``. It prints how many failed, how many were mixed, and how often each version
answered, and exits with 1 if there is a failed or a mixed one.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import mlflow
from mlflow import MlflowClient

import mlflow_rnnmod
from benchmarks.logging import decomposition
from benchmarks.serving import served
from mlflow_rnnmod import composition

TARGET = "models:/names@champion"
FOLLOWED = f"rnnmod:/?follow={TARGET}&every=0.2"
_ROOT = Path(__file__).resolve().parent.parent


def fill(count: int = 16) -> tuple[list[list[int]], dict[str, list[str]]]:
    """Two versions; rows to ask, and what each version answers to them."""
    found = {}
    rows = [[1 + (7 * i * j) % 4999 for j in range(1, 9)] for i in range(1, count + 1)]
    modules = decomposition(10).modules
    for version, chosen in (("1", modules[:5]), ("2", modules[5:])):
        composite = composition.compose(chosen)
        mlflow_rnnmod.log_model(composite, registered_model_name="names")
        found[version] = composite.predict(rows)
    move("1")
    return rows, found


def move(version: str) -> None:
    """Point the alias at a version."""
    MlflowClient().set_registered_model_alias("names", "champion", version)


@contextmanager
def entry_points(folder: Path) -> Iterator[None]:
    """This working copy's entry points, for other processes: another copy may be installed."""
    about = folder / "mlflow_rnnmod_here-0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: mlflow-rnnmod-here\nVersion: 0\n")
    (about / "entry_points.txt").write_text(
        "[mlflow.artifact_repository]\n"
        "rnnmod = mlflow_rnnmod.operating.repository:ComposingRepository\n"
    )
    before = os.environ.get("PYTHONPATH")
    parts = [str(folder), str(_ROOT), *([before] if before else [])]
    os.environ["PYTHONPATH"] = os.pathsep.join(parts)
    yield
    os.environ.pop("PYTHONPATH")
    if before is not None:
        os.environ["PYTHONPATH"] = before


@contextmanager
def following(folder: Path) -> Iterator[str]:
    """A server of the model that follows; the address to ask."""
    with entry_points(folder):
        environment = {**os.environ, "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri()}
        with served(FOLLOWED, folder / "serve.log", environment) as address:
            yield address


def over_http(address: str) -> Callable[[list[list[int]]], list[str]]:
    """Asks a server."""

    def ask(rows: list[list[int]]) -> list[str]:
        body = json.dumps({"dataframe_split": {"columns": ["tokens"], "data": [[r] for r in rows]}})
        request = urllib.request.Request(
            address, body.encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return list(json.loads(answer.read())["predictions"])

    return ask


def swap(
    ask: Callable[[list[list[int]]], list[str]],
    rows: list[list[int]],
    right: dict[str, list[str]],
    clients: int,
    requests: int,
    seconds: float,
) -> Counter[str]:
    """What came back, while the alias moves every few seconds."""
    seen: Counter[str] = Counter()
    lock, left, done = threading.Lock(), iter(range(requests)), threading.Event()
    errors: list[Any] = []

    def client() -> None:
        while True:
            with lock:
                if next(left, None) is None:
                    return
            try:
                answers = ask(rows)
                what = next((f"version {v}" for v, y in right.items() if answers == y), "mixed")
            except Exception as error:
                what = "failed"
                errors.append(error)
            with lock:
                seen[what] += 1

    threads = [threading.Thread(target=client) for _ in range(clients)]

    def mover() -> None:
        version = "1"
        while not done.wait(seconds):
            version = "2" if version == "1" else "1"
            move(version)
            with lock:
                seen["times the alias moved"] += 1

    moving = threading.Thread(target=mover)
    for thread in (*threads, moving):
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    moving.join()
    for error in errors[:3]:
        click.echo(f"    {error!r}")
    return seen


@click.command()
@click.option("--clients", default=8, show_default=True)
@click.option("--requests", default=10_000, show_default=True, help="In all, of each way.")
@click.option("--seconds", default=1.0, show_default=True, help="Between two moves of the alias.")
@click.option("--rows", "count", default=16, show_default=True, help="Asked for at once.")
@click.option("--ways", default="process,server", show_default=True)
def main(clients: int, requests: int, seconds: float, count: int, ways: str) -> None:
    """Print what clients got while a composite was swapped."""
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        rows, right = fill(count)
        assert all(a != b for a, b in zip(right["1"], right["2"], strict=True))

        def tell(way: str, ask: Callable[[list[list[int]]], list[str]]) -> None:
            nonlocal bad
            start = time.perf_counter()
            seen = swap(ask, rows, right, clients, requests, seconds)
            wrong = seen["failed"] + seen["mixed"]
            bad += wrong
            told = ", ".join(f"{what} {count}" for what, count in sorted(seen.items()))
            took = time.perf_counter() - start
            click.echo(f"{way}: {wrong} of {requests} failed or mixed ({told}; {took:.0f} s)")

        if "process" in ways:
            model = mlflow_rnnmod.follow(TARGET, 0.2)
            tell(f"in a process, {clients} threads", lambda asked: model.predict(asked).tolist())
            model.stop()
        if "server" in ways:
            move("1")
            with following(Path(folder)) as address:
                tell(f"mlflow models serve, {clients} clients", over_http(address))
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
