"""What serving a composite costs beside a parent of it: ``python -m benchmarks.serving``.

A composite of nine modules of two parents and the first parent are served by ``mlflow models
serve`` on this machine, and asked by eight clients, in turns: one row a request, and 64. It prints
requests a second of both and how many of the parent's there are for one of the composite's, for a
trunk for each label and for shared trunks, which is what the composite's page recommends. A text of
a megabyte is sent once. Composites of 106 modules are counted in files, and loaded over HTTP. With
``--spark`` (pyspark and Java) 100,000 rows go through ``mlflow.pyfunc.spark_udf``.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click
import mlflow
import torch
from rich.console import Console
from rich.table import Table

import mlflow_rnnmod
from benchmarks.logging import server
from mlflow_rnnmod.composition import Composite, compose
from mlflow_rnnmod.decomposition.module import Energy, Head, Module, make_contract
from mlflow_rnnmod.networks import NetworkConfig, Parent, RecurrentNetwork, TextEncoder, Trunk

CLIENTS = 8
LIMITS = {"one row": 2.2, "64 rows": 2.2, "megabyte": 1.0, "files": 20.0, "load": 4.0}
WORDS = [f"w{i}" for i in range(2000)]
STEPS = 15
_PATIENCE = 240.0
"""Seconds until a server must answer."""


def parent_of(labels: list[str], seed: int) -> Parent:
    """An LSTM of 100 units over words, with random weights."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokens = Tokenizer(
        models.WordLevel({"[PAD]": 0, "[UNK]": 1, **{w: i + 2 for i, w in enumerate(WORDS)}},
                         unk_token="[UNK]")
    )  # fmt: skip
    tokens.pre_tokenizer = pre_tokenizers.Whitespace()
    torch.manual_seed(seed)
    config = NetworkConfig(
        "tokens", len(WORDS) + 2, 100, "lstm", ((100,),), tuple(labels), pad_index=0
    )
    return Parent(RecurrentNetwork(config), TextEncoder(tokens))


def modules_of(parent: Parent, labels: list[str], trunks: int) -> list[Module]:
    """Modules at 20 % removal; ``trunks`` of them, shared in turn."""
    made = []
    for number in range(min(trunks, len(labels))):
        torch.manual_seed(100 + number)
        name = next(iter(parent.network.units))
        keep = torch.rand(100) > 0.2
        made.append(Trunk({name: keep}, {name: torch.randn(100)}))
    return [
        Module(
            parent=parent,
            trunk=made[i % len(made)],
            head=Head(torch.randn(100), 0.1),
            open_head=Head(torch.randn(100), 0.1),
            energy=Energy(),
            contract=make_contract(parent, label),
            made={"rule": "random", "removal": 0.2},
        )
        for i, label in enumerate(labels)
    ]


def composite_of(labels: int, trunks: int) -> tuple[Composite, Parent]:
    """Modules of two parents, about half of each, and the first parent."""
    half = (labels + 1) // 2
    names = [f"label {i}" for i in range(labels)]
    parts = (names[:half], names[half:])
    parents = [parent_of(part, seed) for seed, part in enumerate(parts)]
    modules = [
        m for p, part in zip(parents, parts, strict=True) for m in modules_of(p, part, trunks)
    ]
    return compose(modules), parents[0]


@contextmanager
def served(
    model: str | Path,
    log: Path,
    environment: Mapping[str, str] | None = None,
    workers: int = 1,
) -> Iterator[str]:
    """``mlflow models serve``; the address to ask.

    Args:
        model: a saved model's folder, or a URI.
        log: the file that the server writes to, which is shown where it ends by itself.
        environment: of the server, by default this process's with this working copy.
        workers: processes that answer.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    command += ["--workers", str(workers), "-m", str(model), "-p", str(port)]
    found = {"PYTHONPATH": str(Path(mlflow_rnnmod.__file__).parent.parent)}
    found = {**os.environ, **found} if environment is None else dict(environment)
    found["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{found['PATH']}"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=file, cwd=log.parent, start_new_session=True, env=found
        )
        try:
            end = time.monotonic() + _PATIENCE
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5).read()
                    break
                except OSError:
                    if process.poll() is not None or time.monotonic() > end:
                        raise RuntimeError(f"not served:\n{log.read_text()[-2000:]}") from None
                    time.sleep(0.2)
            yield f"http://127.0.0.1:{port}/invocations"
        finally:
            # The command starts others; all of them are in its own session.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)


def ask(address: str, texts: list[str]) -> int:
    """The status of one request."""
    body = json.dumps({"dataframe_split": {"columns": ["text"], "data": [[t] for t in texts]}})
    request = urllib.request.Request(address, body.encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            answer.read()
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.read()
        return error.code


def texts(rows: int, seed: int = 0) -> list[str]:
    """Made-up texts of 15 words."""
    draw = torch.Generator().manual_seed(seed)
    words = torch.randint(len(WORDS), (rows, STEPS), generator=draw).tolist()
    return [" ".join(WORDS[i] for i in row) for row in words]


def rate(address: str, rows: int, seconds: float) -> float:
    """Requests a second that eight clients get answered."""
    asked, stop = [0] * CLIENTS, threading.Event()
    sent = texts(rows)

    def client(number: int) -> None:
        while not stop.is_set():
            assert ask(address, sent) == 200
            asked[number] += 1

    with ThreadPoolExecutor(CLIENTS) as pool:
        begun = time.perf_counter()
        jobs = [pool.submit(client, number) for number in range(CLIENTS)]
        time.sleep(seconds)
        stop.set()
        for job in jobs:
            job.result()
        return sum(asked) / (time.perf_counter() - begun)


def measure_serving(folder: Path, rounds: int, seconds: float) -> dict[str, Any]:
    """Requests a second of parent and composite, taken in turns, and their ratio."""
    found: dict[str, Any] = {}
    for name, trunks in (("a trunk for each", 9), ("one trunk a parent (recommended)", 1)):
        composite, parent = composite_of(9, trunks)
        paths = folder / f"composite-{trunks}", folder / f"parent-{trunks}"
        mlflow_rnnmod.save_model(composite, paths[0])
        mlflow_rnnmod.save_model(parent, paths[1])
        with (
            served(paths[0], Path(folder, "first.log")) as first,
            served(paths[1], Path(folder, "second.log")) as second,
        ):
            for words, rows in (("one row", 1), ("64 rows", 64)):
                rates: dict[str, list[float]] = {"composite": [], "parent": []}
                for address in (first, second):
                    rate(address, rows, seconds / 2)  # warm
                for _ in range(rounds):
                    rates["composite"].append(rate(first, rows, seconds))
                    rates["parent"].append(rate(second, rows, seconds))
                means = {k: statistics.median(v) for k, v in rates.items()}
                ratio = means["parent"] / means["composite"]
                found[f"{name}, {words}"] = {**means, "ratio": ratio}
            if trunks == 1:
                begun = time.perf_counter()
                status = ask(first, ["word " * 200_000])
                found["megabyte"] = {"seconds": time.perf_counter() - begun, "status": status}
    return found


def measure_loading(folder: Path, labels: int = 106) -> dict[str, Any]:
    """Files of a large composite, and how long it takes to load it over HTTP."""
    composite, _ = composite_of(labels, labels)
    with server(folder, workers=2) as uri:
        before = mlflow.get_tracking_uri()
        mlflow.set_tracking_uri(uri)
        os.environ["RNNMOD_CACHE"] = ""
        with mlflow.start_run():
            info = mlflow_rnnmod.log_model(composite, name="large")
        path = Path(mlflow.artifacts.download_artifacts(info.model_uri, dst_path=str(folder / "d")))
        files = sum(p.is_file() for p in path.rglob("*")) - 1  # MLflow adds one on its way down
        native, pyfunc = [], []
        for _ in range(3):
            begun = time.perf_counter()
            mlflow_rnnmod.load_model(info.model_uri)
            native.append(time.perf_counter() - begun)
            begun = time.perf_counter()
            mlflow.pyfunc.load_model(info.model_uri)
            pyfunc.append(time.perf_counter() - begun)
        mlflow.set_tracking_uri(before)
    return {"files": files, "load": statistics.median(native), "pyfunc": statistics.median(pyfunc)}


def measure_spark(folder: Path, rows: int) -> dict[str, Any]:
    """Rows a second through a Spark UDF: labels, and scores as a struct."""
    from pyspark.sql import SparkSession

    composite, _ = composite_of(9, 1)
    mlflow_rnnmod.save_model(composite, folder / "spark")
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["PYTHONPATH"] = str(Path(mlflow_rnnmod.__file__).parent.parent)
    spark = (
        SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    )
    try:
        frame = spark.createDataFrame([(t,) for t in texts(1000)], ["text"])
        many = frame.crossJoin(spark.range(rows // 1000)).select("text").repartition(2)
        found = {}
        struct = "prediction string, " + ", ".join(f"`{y}` double" for y in composite.labels)
        for name, options in (
            ("labels", {"result_type": "string"}),
            ("scores", {"result_type": struct, "params": {"scores": True}}),
        ):
            udf = mlflow.pyfunc.spark_udf(
                spark, str(folder / "spark"), env_manager="local", **options
            )
            begun = time.perf_counter()
            # A count would let Spark leave out what nobody looks at.
            many.select(udf("text")).write.format("noop").mode("overwrite").save()
            seconds = time.perf_counter() - begun
            found[name] = {"rows": rows, "seconds": seconds, "rows a second": rows / seconds}
        return found
    finally:
        spark.stop()


@click.command(help=__doc__)
@click.option("--rounds", default=3, show_default=True, help="Times that both are asked.")
@click.option("--seconds", default=5.0, show_default=True, help="Of asking, each time.")
@click.option("--only", type=click.Choice(["serving", "loading", "spark"]), multiple=True)
@click.option("--spark", is_flag=True, help="Also through Spark.")
@click.option("--rows", default=100_000, show_default=True, help="Through Spark.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False), help="Write figures here.")
def main(
    rounds: int,
    seconds: float,
    only: tuple[str, ...],
    spark: bool,
    rows: int,
    json_file: str | None,
) -> None:
    """Measure, print, and exit with 1 if one is over its limit."""
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    folder = Path(tempfile.mkdtemp(prefix="rnnmod-serving-"))
    found: dict[str, Any] = {}
    before = Path.cwd()
    try:
        os.chdir(folder)
        if not only or "serving" in only:
            found["serving"] = measure_serving(folder, rounds, seconds)
        if not only or "loading" in only:
            found["loading"] = measure_loading(folder)
        if spark or "spark" in only:
            found["spark"] = measure_spark(folder, rows)
    finally:
        os.chdir(before)
        shutil.rmtree(folder, ignore_errors=True)
    missed = show(found)
    if json_file:
        Path(json_file).write_text(json.dumps({"limits": LIMITS, **found}, indent=2) + "\n")
    if missed:
        print(f"Over the limit: {', '.join(missed)}.", file=sys.stderr)
        sys.exit(1)


def show(found: dict[str, Any]) -> list[str]:
    """Print it; what is over its limit."""
    missed = []
    table = Table(title=f"{CLIENTS} clients; requests a second")
    for name in ("", "composite", "parent", "parent's per composite's", "limit"):
        table.add_column(name, justify="left" if not name else "right")
    for name, row in found.get("serving", {}).items():
        if name == "megabyte":
            continue
        limit = next((v for k, v in LIMITS.items() if name.endswith(k)), None)
        counts = limit is not None and "recommended" in name
        figures = (f"{row['composite']:.0f}", f"{row['parent']:.0f}", f"{row['ratio']:.2f}")
        table.add_row(name, *figures, f"{limit:.1f}" if counts else "")
        if counts and row["ratio"] > (limit or 0):
            missed.append(name)
    console = Console()
    if "serving" in found:
        console.print(table)
        large = found["serving"]["megabyte"]
        console.print(f"a text of 1 MB: answered {large['status']} in {large['seconds']:.2f} s")
        if large["seconds"] > LIMITS["megabyte"]:
            missed.append("megabyte")
    if "loading" in found:
        row = found["loading"]
        console.print(
            f"106 modules of 2 parents: {row['files']} files; loaded over HTTP in "
            f"{row['load']:.2f} s, by mlflow.pyfunc in {row['pyfunc']:.2f} s"
        )
        missed += [name for name in ("files", "load") if row[name] > LIMITS[name]]
    for name, row in found.get("spark", {}).items():
        console.print(f"Spark, {name}: {row['rows']} rows in {row['seconds']:.1f} s")
    return missed


if __name__ == "__main__":
    main()
