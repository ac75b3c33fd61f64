"""``predict``: inputs from arguments or, as they come, from the standard input."""

from __future__ import annotations

import json
import queue
import sys
import threading
from collections.abc import Iterator
from typing import Any

import click

from mlflow_rnnmod.cli.base import reading

_BATCH = 256


@click.command()
@click.argument("uri")
@click.argument("inputs", nargs=-1)
@click.option("--scores", is_flag=True, help="Each label's score too, as JSON lines.")
@click.option("--reject-below", type=float, help="Answer 'none of these' below this score.")
@click.option("--language", metavar="LABEL", help="Translate into this language only.")
@reading
def predict(
    uri: str,
    inputs: tuple[str, ...],
    scores: bool,
    reject_below: float | None,
    language: str | None,
) -> None:
    """Ask the model under URI; without INPUTS, each line of the standard input, as it comes.

    Models that read tokens or features take each input as JSON. Answers that are lists of labels
    are JSON, too.
    """
    from mlflow_rnnmod.inputs import input_of
    from mlflow_rnnmod.tracking import fetch, flavor
    from mlflow_rnnmod.tracking.pyfunc import RnnmodModel

    thing = fetch.load(uri)
    model, reads = RnnmodModel(thing), input_of(flavor.input_kind(thing))
    params = {"scores": scores, "reject_below": reject_below, "target": language}
    for batch in [list(inputs)] if inputs else _batches():
        _answer(model, [reads.parsed(line) for line in batch], params)


def _answer(model: Any, given: list[Any], params: dict[str, Any]) -> None:
    from mlflow_rnnmod.tracking.pyfunc import PREDICTION

    found = model.predict(given, params)
    if hasattr(found, "columns"):
        lists = list(found.columns) == [PREDICTION]
        rows = found[PREDICTION] if lists else found.to_dict(orient="records")
        for row in rows:
            click.echo(json.dumps(row, ensure_ascii=False))
    else:
        for label in found:
            click.echo(label if isinstance(label, str) else json.dumps(label))
    sys.stdout.flush()


def _batches() -> Iterator[list[str]]:
    """Lines of the standard input: those that are there at once; nobody waits for more."""
    lines: queue.Queue[str | None | Exception] = queue.Queue(4 * _BATCH)
    source = sys.stdin

    def read() -> None:
        try:
            for line in source:
                lines.put(line.rstrip("\r\n"))
            lines.put(None)
        except Exception as error:  # bytes that are no text, for one
            lines.put(error)

    threading.Thread(target=read, daemon=True).start()
    ended = False
    while not ended:
        batch: list[str] = []
        item = lines.get()
        while True:
            if isinstance(item, Exception):
                raise item
            if item is None:
                ended = True
                break
            batch.append(item)
            if len(batch) == _BATCH:
                break
            try:
                item = lines.get_nowait()
            except queue.Empty:
                break
        if batch:
            yield batch
