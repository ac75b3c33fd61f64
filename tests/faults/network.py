"""Faults on the way to a real ``mlflow server``: see :mod:`tests.faults.proxy`."""

from __future__ import annotations

import functools
import os
import random
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import mlflow
from mlflow import MlflowClient

from benchmarks.logging import server
from tests.faults.attempts import Served, Trials
from tests.faults.proxy import KINDS, Proxy, proxy

IMPATIENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "2",
}
"""What a client is told, so that trials are short."""


class NetworkTrials(Trials):
    """Attempts through a proxy; what is there is asked of the server directly."""

    def __init__(self, uri: str, seed: int, way: Proxy) -> None:
        super().__init__(uri, seed)
        self.way = way

    def one(self, kind: str, at: int) -> bool:
        """One fault at the proxy; whether the attempt got that far."""
        if self.runs % 6 == 0:
            self.run_id = MlflowClient(self.uri).create_run("0").info.run_id
        self.runs += 1
        # Without the client's own retries every fault is one.
        os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = str(self.random.choice([0, 0, 1]))
        self.way.arm(kind, at)
        succeeded = False
        mlflow.set_tracking_uri(self.way.uri)
        try:
            self.log(self.run_id, self.way.uri)
            succeeded = True
        except Exception:
            pass
        reached = self.way.requests >= at
        self.way.arm(None)
        mlflow.set_tracking_uri(self.uri)
        os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "3"
        os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = "60"
        self.counts[f"{kind}: {'succeeded' if succeeded else 'undone'}"] += 1
        self.check(f"{kind} at {at}")
        os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = "2"
        return reached

    def succeeds(self, what: str) -> None:
        """As :meth:`Trials.succeeds`, with time enough."""
        os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = "60"
        super().succeeds(what)
        os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = "2"


def over_network(faults: int, seed: int, served: Served | None = None) -> dict[str, Any]:
    """So many faults between a client and a server that this starts."""
    served = served or functools.partial(server, workers=1)
    random_ = random.Random(seed)
    done = 0
    with (
        patch.dict(os.environ, {**IMPATIENT, "RNNMOD_CACHE": ""}),
        tempfile.TemporaryDirectory(prefix="faults-") as folder,
        served(Path(folder)) as uri,
        proxy(uri) as way,
    ):
        mlflow.set_tracking_uri(uri)
        trials = NetworkTrials(uri, seed, way)
        while done < faults:
            kind = KINDS[done % len(KINDS)]
            done += 1
            trials.one(kind, random_.randrange(1, 115))
            if done % 20 == 0:
                trials.succeeds(f"after fault {done}")
        trials.succeeds("at last")
    return {"faults": done, "counts": dict(trials.counts), "bad": trials.bad}
