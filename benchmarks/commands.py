"""What the command line costs, and how soon it says that a server is dead.

``python -m benchmarks.commands`` fills a database, and an ``mlflow server`` on this machine, with a
parent, its modules and a composite. It prints the CPU seconds of ``rnnmod list`` over both (the
median of some runs), after how many seconds a server is reported that refuses connections, takes
them and says nothing, or can't be found by its name; and runs a gated replace, a rollback and
where-used, a line of Python each. It exits with 1 where a figure is above its limit.
"""

from __future__ import annotations

import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import mlflow
from mlflow import MlflowClient

import mlflow_rnnmod
from benchmarks.logging import decomposition, server
from mlflow_rnnmod import composition
from mlflow_rnnmod.tracking.bulk import log_decomposition

CPU, SECONDS = 2.0, 5.0
LINES = {
    "a gated replace": (
        'mlflow_rnnmod.promote("models:/names@champion", data=data, min_rows=0, '
        'replace={"intent_1": "models:/intents.intent_1/2"})'
    ),
    "a rollback": 'mlflow_rnnmod.rollback("models:/names@champion")',
    "where-used": 'mlflow_rnnmod.where_used("models:/intents.intent_1/2")',
}


def command(*arguments: str, uri: str) -> tuple[float, float, subprocess.CompletedProcess[str]]:
    """CPU and wall seconds of a command, and what it said."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
    environment["MLFLOW_TRACKING_URI"] = uri
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "mlflow_rnnmod.cli", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, wall, done


def fill() -> list[dict[str, object]]:
    """A registry to list, and rows that the replacement below is right on."""
    made = decomposition(12)
    for _ in range(2):
        log_decomposition(made, registered_model_prefix="intents")
    old = mlflow_rnnmod.compose([f"models:/intents.{m.label}/1" for m in made.modules])
    mlflow_rnnmod.log_model(old, registered_model_name="names")
    MlflowClient().set_registered_model_alias("names", "champion", "1")
    draw = range(1, 3000)
    inputs = [[1 + (7 * i * j) % 4999 for j in range(1, 9)] for i in draw]
    answers = composition.compose(made.modules).predict(inputs)
    return [{"tokens": x, "label": y} for x, y in zip(inputs, answers, strict=True)]


@click.command()
@click.option("--runs", default=5, show_default=True, help="Of list; the median is shown.")
def main(runs: int) -> None:
    """Print what the command line costs."""
    missed = False

    def tell(what: str, value: float, limit: float, unit: str) -> None:
        nonlocal missed
        missed |= value > limit
        click.echo(f"{what}: {value:.2f} {unit} (at most {limit:g})")

    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        database = f"sqlite:///{folder}/mlflow.db"
        mlflow.set_tracking_uri(database)
        data = fill()
        with server(Path(folder), workers=1) as address:
            for name, uri in (("a database", database), ("a server", address)):
                if uri == address:
                    mlflow.set_tracking_uri(address)
                    fill()
                cpu = statistics.median(command("list", uri=uri)[0] for _ in range(runs))
                tell(f"rnnmod list over {name}", cpu, CPU, "s of CPU")
        for name, uri in dead():
            _, wall, done = command("list", uri=uri)
            assert done.returncode == 4, done.stderr
            tell(f"a server that {name}, reported", wall, SECONDS, "s")
            click.echo(f"    {done.stderr.strip()}")
        mlflow.set_tracking_uri(database)
        for name, line in LINES.items():
            found = eval(line, {"mlflow_rnnmod": mlflow_rnnmod, "data": data})
            click.echo(f"{name}: 1 line\n    {line}\n    {found}")
    sys.exit(missed)


def dead() -> list[tuple[str, str]]:
    """Servers that do not answer, each in its way."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        refusing = free.getsockname()[1]
    silent = socket.socket()
    silent.bind(("127.0.0.1", 0))
    silent.listen()
    return [
        ("refuses connections", f"http://127.0.0.1:{refusing}"),
        ("says nothing", f"http://127.0.0.1:{silent.getsockname()[1]}"),
        ("has no address", "http://nowhere.invalid:5000"),
    ]


if __name__ == "__main__":
    main()
